"""The restart chains with the real engine on this computer: Lennard-Jones argon, sampled and refined for a moment."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiida import orm
from aiida.engine import run_get_node

from aiida_difftre.data.dataset import DatasetData
from aiida_difftre.data.potential import PotentialData
from aiida_difftre.data.target import TargetData
from aiida_difftre.engine.contract.memory_events import MEMORY_EVENTS
from aiida_difftre.workchains.engine import UNSTABLE
from aiida_difftre.workchains.predict import PredictBaseWorkChain
from aiida_difftre.workchains.pretrain import PretrainBaseWorkChain
from aiida_difftre.workchains.sample import SampleBaseWorkChain
from aiida_difftre.workchains.update import UpdateBaseWorkChain
from tests.fixtures.chains import explain
from tests.fixtures.nodes import potential_file, target_content

SAMPLING = {"walkers": 2, "timestep_fs": 4.0, "equilibration_fs": 0.0, "production_fs": 800.0, "stride_fs": 40.0}
MACHINE = {"threads": 1}


@pytest.fixture
def sample(
    engine: orm.InstalledCode, potential: PotentialData, structure: orm.StructureData, job_options: dict[str, Any]
) -> Callable[..., tuple[dict[str, Any], orm.WorkChainNode]]:
    """A function (changes of the parameters) -> outputs and node of a sampling chain."""

    def run(
        changes: dict[str, Any] | None = None, machine: dict[str, Any] | None = None, **nodes: Any
    ) -> tuple[dict[str, Any], orm.WorkChainNode]:
        parameters = {"sampling": {**SAMPLING, **(changes or {})}, "machine": {**MACHINE, **(machine or {})}}
        builder = SampleBaseWorkChain.get_builder_from_protocol(
            code=engine,
            potential=nodes.get("potential", potential),
            structure=structure,
            temperature=85.0,
            observables=[{"observable": "pressure"}, {"observable": "potential_energy"}],
            overrides={"calc": {"parameters": parameters}},
            options=job_options,
        )
        return run_get_node(builder)

    return run


@pytest.mark.slow
def test_sample_then_update(sample: Any, engine: orm.InstalledCode, potential: PotentialData, job_options: Any) -> None:
    # A walltime that has passed at once stops each job after a block; the last one has nothing left to do.
    sampled, node = sample(machine={"walltime_s": 1e-3})
    assert node.is_finished_ok, explain(node)
    *stopped, last = sorted(node.called, key=lambda job: job.pk)
    assert {job.exit_status for job in stopped} == {340}
    assert last.exit_status == 0
    trajectory = sampled["trajectory"]
    assert (trajectory.number_of_snapshots, trajectory.species) == (40, ["Ar"])
    assert sorted(sampled["predictions"].get_arraynames()) == [
        "potential_energy_errors", "potential_energy_values", "pressure_errors", "pressure_values"
    ]  # fmt: skip
    # The arrays are stored once: not in the retrieved files, not among the inputs of the job.
    retrieved = set(last.outputs.retrieved.base.repository.list_object_names()) - {MEMORY_EVENTS}  # where it is counted
    assert retrieved == {"_scheduler-stderr.txt", "_scheduler-stdout.txt", "progress.jsonl", "results.json"}

    pressure = float(sampled["predictions"].get_array("pressure_values")[0])
    target = TargetData(target_content(values=[pressure - 0.02], errors=[0.01]))
    point = {"trajectory": trajectory, "remote": sampled["remote_folder"], "targets": {"pressure": target}}
    builder = UpdateBaseWorkChain.get_builder_from_protocol(
        code=engine,
        potential=potential,
        state_points={"t85": point},
        overrides={"calc": {"parameters": {"update": {"max_steps": 2}, "machine": MACHINE}}},
        options=job_options,
    )
    updated, node = run_get_node(builder)
    assert node.is_finished_ok, explain(node)
    assert updated["potential"].digest != potential.digest
    assert updated["potential"].spec == potential.spec
    before = updated["output_parameters"]["state_points"]["t85"]["before"][0]
    assert before["values"] == pytest.approx([pressure], rel=1e-3, abs=1e-5)
    assert np.isfinite(updated["predictions"]["t85"].get_array("pressure_values")).all()
    assert updated["optimizer_state"].filename == "optimizer_out.safetensors"
    assert sorted(node.called[0].base.repository.list_object_names()) == [".aiida", "_aiidasubmit.sh", "job.json"]


@pytest.mark.slow
def test_pretrain_then_predict(engine: orm.InstalledCode, dataset: DatasetData, job_options: dict[str, Any]) -> None:
    term = {"architecture": "moment_network", "cutoff": 5.0}
    builder = PretrainBaseWorkChain.get_builder_from_protocol(
        code=engine,
        dataset=dataset,
        spec={"species": ["Ar"], "terms": [term]},
        overrides={"calc": {"parameters": {"steps": 20, "batch_configurations": 2, "machine": MACHINE}}},
        options=job_options,
    )
    trained, node = run_get_node(builder)
    assert node.is_finished_ok, explain(node)
    assert trained["potential"].species == ["Ar"]
    assert "training" in trained["output_parameters"]["errors"]
    builder = PredictBaseWorkChain.get_builder_from_protocol(
        code=engine,
        potential=trained["potential"],
        structures=dataset,
        overrides={"calc": {"parameters": {"machine": MACHINE}}},
        options=job_options,
    )
    predicted, node = run_get_node(builder)
    assert node.is_finished_ok, explain(node)
    assert predicted["predictions"].get_array("energies").shape == (3,)
    assert set(predicted["output_parameters"]["errors"])


@pytest.mark.slow
def test_dynamics_that_explode(sample: Any, tmp_path: Path) -> None:
    # Wells of 100 eV make argon vibrate faster than 10 fs resolve, and 5 fs.
    stiff = PotentialData.from_file(potential_file(tmp_path / "stiff.safetensors", epsilon=100.0))
    _, node = sample({"timestep_fs": 10.0, "stride_fs": 10.0}, potential=stiff)
    assert node.exit_status in UNSTABLE, explain(node)
    assert [job.inputs.parameters["sampling"]["timestep_fs"] for job in node.called] == [10.0, 5.0]
    assert node.exit_message == node.called[1].exit_message
