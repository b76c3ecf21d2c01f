"""Trajectories of earlier runs: which of them are found for a refinement, and why others are not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiida import orm
from aiida.common.links import LinkType
from plumpy.process_states import ProcessState

from aiida_difftre.data.potential import PotentialData
from aiida_difftre.data.target import TargetData
from aiida_difftre.data.trajectory import TrajectoryEnsembleData
from aiida_difftre.engine.contract.sampling_settings import SamplingSettings
from aiida_difftre.engine.contract.settings import PotentialSpec
from aiida_difftre.workchains.earlier_runs import run_of, with_earlier_runs
from aiida_difftre.workchains.refine import RefineWorkChain
from tests.fixtures.nodes import argon, make_trajectory, potential_file, target_content

NVT = SamplingSettings()


def points(repeats: int = 1, temperature: float = 85.0) -> dict[str, dict[str, Any]]:
    structure = orm.StructureData(ase=argon(repeats))
    targets = {"pressure": TargetData(target_content())}
    return {"solid": {"structure": structure, "temperature": orm.Float(temperature), "targets": targets}}


@pytest.fixture
def run(finished_job: Callable[..., orm.CalcJobNode], tmp_path: Path) -> orm.WorkChainNode:
    """A run with one sampling that ended well and one that did not."""
    made = orm.WorkChainNode().store()
    potential = PotentialData.from_file(potential_file(tmp_path / "earlier.safetensors", epsilon=0.012)).store()
    for status in (0, 420):
        job = finished_job("sample", inputs={"potential": potential}, caller=made)
        job.set_process_state(ProcessState.FINISHED)
        job.set_exit_status(status)
        found = TrajectoryEnsembleData.from_trajectory(make_trajectory())
        found.base.links.add_incoming(job, link_type=LinkType.CREATE, link_label="trajectory")
        found.store()
    return made


def test_trajectories_of_the_same_state_point_and_model(
    run: orm.WorkChainNode, tmp_path: Path, code: Any, potential: PotentialData
) -> None:
    """Of a potential that started elsewhere, too; the refinement takes them as inputs, and updates by their names."""
    found = with_earlier_runs(points(), [run_of(str(run.pk))], potential.spec, NVT)["solid"]
    (name,) = found["earlier"]
    assert name == f"run{run.pk}_0000"
    assert found["earlier"][name]["potential"].spec != potential.spec
    assert name < "sampling000"  # which is the order of a pool, from the last one on
    twice = with_earlier_runs(
        points(), [run, *(job for job in run.called_descendants if job.is_finished_ok), run], potential.spec, NVT
    )["solid"]
    assert list(twice["earlier"]) == [name], "a run and a part of it are one"
    builder = RefineWorkChain.get_builder_from_protocol(
        state_points={"solid": found}, potential=potential, sample_code=code
    )
    assert RefineWorkChain.spec().inputs["state_points"].validate(dict(builder.state_points)) is None


def test_what_is_of_another_refinement_is_told(run: orm.WorkChainNode, potential: PotentialData) -> None:
    def refused(spec: PotentialSpec = potential.spec, sampling: SamplingSettings = NVT, **changes: Any) -> str:
        with pytest.raises(ValueError, match=f"run {run.pk}: none of its trajectories is of this refinement") as error:
            with_earlier_runs(points(**changes), [run], spec, sampling)
        return str(error.value)

    assert "(1 of another state point)" in refused(temperature=86.0)
    assert "(1 of other atoms)" in refused(repeats=2)
    term = potential.spec.terms[0].model_copy(update={"architecture": "repulsion"})
    assert "(1 of another kind of potential)" in refused(potential.spec.model_copy(update={"terms": [term]}))
    assert "it has none" in refused_run(orm.WorkChainNode().store(), potential)
    with pytest.raises(ValueError, match="'nothing' is no run"):
        run_of("nothing")
    with pytest.raises(ValueError, match="is a PotentialData; give the run"):
        run_of(str(potential.store().pk))


def refused_run(run: orm.WorkChainNode, potential: PotentialData) -> str:
    with pytest.raises(ValueError, match=f"run {run.pk}") as error:
        with_earlier_runs(points(), [run], potential.spec, NVT)
    return str(error.value)
