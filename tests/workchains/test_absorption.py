"""Targets of X-ray absorption in the chains: refused without a table; with FEFF in the chain they get one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from aiida import orm
from aiida.engine import run_get_node
from ase.build import bulk

from aiida_difftre.cli import lineage
from aiida_difftre.data.potential import PotentialData
from aiida_difftre.data.target import TargetData
from aiida_difftre.engine.potentials import potential as potentials
from aiida_difftre.workchains.feff import MAX_JOBS, FeffBaseWorkChain
from aiida_difftre.workchains.refine import RefineWorkChain
from aiida_difftre.workchains.train import TrainWorkChain
from tests.fixtures.chains import SHORT_SAMPLING, explain
from tests.fixtures.engine import build
from tests.fixtures.exafs import table, target_fields

GRID = np.arange(3.0, 12.0, 0.1)
MACHINE = {"threads": 1}


def state_points(paths: dict[str, Any] | None = None) -> dict[str, Any]:
    fields = target_fields(np.sin(5 * GRID) / GRID**2, GRID, error=0.05, paths=paths)
    return {
        "foil": {
            "structure": orm.StructureData(ase=bulk("Cu", "fcc", a=3.615, cubic=True).repeat(2)),
            "temperature": orm.Float(300.0),
            "targets": {"exafs": TargetData(fields)},
        }
    }


def copper_potential(folder: Any) -> PotentialData:
    potential = build("lennard_jones", ["Cu"], 5.5, epsilon=0.415, sigma=2.277)
    potentials.save(folder / "copper.safetensors", potential, potential.init(jax.random.key(0)))
    return PotentialData.from_file(folder / "copper.safetensors")


def test_a_target_without_a_table_is_refused(code: orm.InstalledCode, tmp_path: Any) -> None:
    potential = copper_potential(tmp_path)
    common = {"state_points": state_points(), "potential": potential}
    refine = RefineWorkChain.get_builder_from_protocol(update_code=code, sample_code=code, **common)
    train = TrainWorkChain.get_builder_from_protocol(
        codes=dict.fromkeys(("sample", "update", "predict"), code), **common
    )
    for builder, remedy in ((refine, "make one with difftre.feff"), (train, "or give the inputs of FEFF")):
        with pytest.raises(
            ValueError, match="'exafs' of state point 'foil' has no table of scattering paths"
        ) as caught:
            run_get_node(builder)
        assert remedy in str(caught.value)


def test_a_table_that_is_there_is_taken() -> None:
    from aiida_difftre.workchains.absorption import check_paths, without_paths

    assert check_paths(state_points(table())) is None
    assert without_paths(state_points()) == {"feff_foil_exafs": ("foil", "exafs")}
    point, (target,) = state_points()["foil"], state_points()["foil"]["targets"].values()
    alike = {"cu": {**point, "targets": {"cold_k": target}}, "cu_cold": {**point, "targets": {"k": target}}}
    assert sorted(without_paths(alike).values()) == [("cu", "cold_k"), ("cu_cold", "k")]


@pytest.mark.feff
@pytest.mark.parametrize("kills", [1, MAX_JOBS])
def test_feff_that_is_killed_runs_again(feff6l: Path, feff_code: orm.InstalledCode, tmp_path: Path, kills: int) -> None:
    """As often as its chain allows; then the chain ends as its last job did."""
    program = tmp_path / "feff"
    program.write_text(
        f"""#!/bin/sh
        left=$(cat '{tmp_path}/left')
        if [ "$left" -gt 0 ]; then echo $((left - 1)) > '{tmp_path}/left'; kill -9 $$; fi
        exec '{feff6l}'
        """
    )
    program.chmod(0o755)
    (tmp_path / "left").write_text(str(kills))
    code = orm.InstalledCode(
        label="killed",
        computer=feff_code.computer,
        filepath_executable=str(program),
        default_calc_job_plugin="difftre.feff",
    ).store()
    inputs = {
        "code": code, "structure": orm.StructureData(ase=bulk("Cu", "fcc", a=3.615)), "absorber": "Cu", "radius": 4.0
    }  # fmt: skip
    outputs, node = run_get_node(FeffBaseWorkChain, calc=inputs)
    assert len(node.called) == min(kills + 1, MAX_JOBS)
    assert node.exit_status == (0 if kills == 1 else node.called[-1].exit_status), explain(node)
    assert ("paths" in outputs) == node.is_finished_ok
    assert kills == 1 or "FEFF did not finish" in node.exit_message


@pytest.mark.feff
@pytest.mark.slow
def test_feff_in_the_chain(
    engine: orm.InstalledCode, feff_code: orm.InstalledCode, tmp_path: Any, job_options: Any
) -> None:
    jobs = ("sample", "update", "predict")
    sample = {"calc": {"parameters": {"sampling": {**SHORT_SAMPLING, "timestep_fs": 2.0}, "machine": MACHINE}}}
    update = {"calc": {"parameters": {"update": {"max_steps": 1, "gate": 0.2, "bootstrap": 10}, "machine": MACHINE}}}
    builder = TrainWorkChain.get_builder_from_protocol(
        codes={**dict.fromkeys(jobs, engine), "feff": feff_code},
        state_points=state_points(),
        potential=copper_potential(tmp_path),
        overrides={
            "feff": {"radius": 5.0},
            "refine": {
                "settings": {"max_iterations": 1, "growth": {"thresholds": []}}, "sample": sample, "update": update
            },
            "validate": {"settings": {"static_stiffness": False, "verdict": False}, "sample": sample},
        },
        options=dict.fromkeys(jobs, job_options),
    )  # fmt: skip
    node = run_get_node(builder)[1]
    assert node.is_finished_ok, explain(node)
    feff = next(child for child in node.called_descendants if child.process_label == "FeffCalculation")
    assert feff.inputs.radius.value == 5.0
    refine = next(child for child in node.called if child.process_label == "RefineWorkChain")
    target = refine.inputs.state_points.foil.targets.exafs
    assert target.creator.inputs.paths.creator.uuid == feff.uuid
    assert len(target.target.options["paths"]["shells"]) == 3
    update = next(child for child in node.called_descendants if child.process_label == "UpdateCalculation")
    before = update.outputs.output_parameters["state_points"]["foil"]["before"][0]
    assert set(before["fitted"]) == {"s02", "e0_shift"}
    assert "paths" not in before["options"]
    assert f"made by FeffCalculation<{feff.pk}>" in next(lineage.paths_of(target))
