"""Handlers of the restart chains: what each does to the next job, and when the chain gives up."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiida import orm
from aiida.common import LinkType
from aiida.engine import ExitCode
from aiida.engine.utils import instantiate_process
from aiida.manage import get_manager
from aiida.plugins import WorkflowFactory
from plumpy import ProcessState

from aiida_difftre.calculations.scheduler import SchedulerStatus
from aiida_difftre.data.dataset import DatasetData
from aiida_difftre.data.potential import PotentialData
from aiida_difftre.data.target import TargetData
from aiida_difftre.data.trajectory import TrajectoryEnsembleData
from aiida_difftre.engine.errors import ExitStatus
from aiida_difftre.workchains.engine import EngineBaseWorkChain, lowered_for_memory
from aiida_difftre.workchains.state_points import within_memory
from tests.fixtures.nodes import make_trajectory, potential_file

SPEC = {"species": ["Ar"], "terms": [{"architecture": "moment_network", "cutoff": 4.0}]}


@pytest.fixture
def calc_inputs(
    code: orm.InstalledCode,
    potential: PotentialData,
    structure: orm.StructureData,
    dataset: DatasetData,
    trajectory: TrajectoryEnsembleData,
    target: TargetData,
) -> dict[str, dict[str, Any]]:
    point = {"trajectory": trajectory, "targets": {"pressure": target}}
    return {
        "sample": {
            "code": code,
            "potential": potential,
            "structure": structure,
            "parameters": {"temperature": 85.0, "sampling": {"walkers": 4, "production_fs": 100.0, "timestep_fs": 2.0}},
        },
        "pretrain": {"code": code, "dataset": dataset, "parameters": {"potential": SPEC, "batch_configurations": 2}},
        "update": {"code": code, "potential": potential, "state_points": {"t85": point}, "parameters": {}},
        "predict": {"code": code, "potential": potential, "structures": dataset, "parameters": {}},
    }


@pytest.fixture
def chain(calc_inputs: dict[str, dict[str, Any]]) -> Callable[..., EngineBaseWorkChain]:
    """A function (kind, changes of the chain's inputs) -> a chain that is set up, its first job not yet run."""

    def make(kind: str, calc: dict[str, Any] | None = None, **inputs: Any) -> EngineBaseWorkChain:
        cls = WorkflowFactory(f"difftre.{kind}.base")
        inputs = {"calc": {**calc_inputs[kind], **(calc or {})}, **inputs}
        process = instantiate_process(get_manager().get_runner(), cls, **inputs)
        assert isinstance(process, EngineBaseWorkChain)
        process.setup()
        return process

    return make


def fail(process: EngineBaseWorkChain, node: orm.CalcJobNode, status: int) -> ExitCode | None:
    """Let a job of the chain end with an exit status; what the chain makes of it."""
    node.set_process_state(ProcessState.FINISHED)
    node.set_exit_status(status)
    node.set_exit_message("why")
    process.ctx.iteration = process.ctx.iteration + 1
    process.ctx.children = [*process.ctx.get("children", []), node]
    return process.inspect_process()


def job(make: Any, kind: str, *, trajectory: bool = False) -> orm.CalcJobNode:
    """A job with a remote folder and, if wanted, good snapshots."""
    node = make(kind)
    remote = orm.RemoteData(computer=node.computer, remote_path="/scratch/job")
    remote.base.links.add_incoming(node, LinkType.CREATE, "remote_folder")
    remote.store()
    if trajectory:
        snapshots = TrajectoryEnsembleData.from_trajectory(make_trajectory())
        snapshots.base.links.add_incoming(node, LinkType.CREATE, "trajectory")
        snapshots.store()
    return node


def parameters(process: EngineBaseWorkChain) -> dict[str, Any]:
    return process.ctx.inputs.parameters.get_dict()


@pytest.mark.parametrize("status", [ExitStatus.WALLTIME, ExitStatus.INTERRUPTED, *SchedulerStatus, 120, 140])
def test_stopped_sampling_continues_from_its_checkpoint(chain: Any, finished_job: Any, status: int) -> None:
    process, node = chain("sample"), job(finished_job, "sample")
    result = fail(process, node, status)
    assert result is None or result.status == 0
    assert process.ctx.inputs.parent_folder.uuid == node.outputs.remote_folder.uuid
    assert not process.ctx.is_finished


@pytest.mark.parametrize("status", [ExitStatus.INTERRUPTED, *SchedulerStatus])
def test_interrupted_update_runs_again(chain: Any, finished_job: Any, status: int) -> None:
    process = chain("update")
    assert fail(process, job(finished_job, "update"), status).status == 0


@pytest.mark.parametrize(
    ("choice", "ending"),
    [
        ("resubmit", set()),
        ("end_if_own", {SchedulerStatus.CANCELLED_BY_OWNER}),
        ("end", {SchedulerStatus.CANCELLED_BY_OWNER, SchedulerStatus.CANCELLED}),
    ],
)
def test_a_cancelled_job_is_the_end_where_the_input_says_so(
    chain: Any, finished_job: Any, choice: str, ending: set[int]
) -> None:
    for status in (*SchedulerStatus, ExitStatus.INTERRUPTED):
        process = chain("sample", on_cancelled=orm.Str(choice))
        result = fail(process, job(finished_job, "sample"), status)
        assert result.status == (status if status in ending else 0)


def test_choices_of_the_restart_chains_are_checked(chain: Any) -> None:
    with pytest.raises(ValueError, match="on_cancelled = 'stop' must be one of resubmit, end_if_own, end"):
        chain("sample", on_cancelled=orm.Str("stop"))
    with pytest.raises(ValueError, match="max_lost = -1 must be at least 0"):
        chain("sample", max_lost=orm.Int(-1))


def test_update_out_of_walltime_gives_up(chain: Any, finished_job: Any) -> None:
    process = chain("update")
    result = fail(process, job(finished_job, "update"), ExitStatus.WALLTIME)
    assert (result.status, result.message) == (ExitStatus.WALLTIME, "why")


def test_a_large_cache_is_the_usual_one_where_memory_is_short(chain: Any, finished_job: Any) -> None:
    process = chain("update")
    process.change_parameters({"machine": {"batch_size": 1, "snapshot_cache_mib": 4096}})
    assert fail(process, job(finished_job, "update"), ExitStatus.OUT_OF_MEMORY).status == 0
    assert parameters(process)["machine"] == {"batch_size": 1, "snapshot_cache_mib": 512.0}
    assert fail(process, job(finished_job, "update"), ExitStatus.OUT_OF_MEMORY).status == ExitStatus.OUT_OF_MEMORY


@pytest.mark.parametrize("status", [ExitStatus.OUT_OF_MEMORY, 110])
def test_sampling_out_of_memory(chain: Any, finished_job: Any, status: int) -> None:
    process = chain("sample")
    assert fail(process, job(finished_job, "sample"), status).status == 0
    assert parameters(process)["sampling"] == {"walkers": 2, "production_fs": 200.0, "timestep_fs": 2.0}
    assert parameters(process)["machine"] == {"batch_size": 1}
    assert parameters(process)["temperature"] == 85.0


def test_paths_of_several_walkers_are_not_given_up_for_memory(chain: Any, finished_job: Any) -> None:
    """Of one walker there is no error: the job would be refused, and the chain end with an exception."""
    dynamics = {"walkers": 3, "stride_fs": 10.0, "thermostat": {"name": "nose_hoover", "time_constant_fs": 200.0}}
    diffusion = {"observable": "diffusion", "options": {"begin_fs": 10.0, "end_fs": 50.0}}
    given = {"temperature": 85.0, "sampling": {**dynamics, "production_fs": 100.0}, "observables": [diffusion]}
    process = chain("sample", {"parameters": given})
    assert fail(process, job(finished_job, "sample"), ExitStatus.OUT_OF_MEMORY).status == 0
    assert (parameters(process)["machine"]["batch_size"], parameters(process)["sampling"]["walkers"]) == (1, 3)
    assert fail(process, job(finished_job, "sample"), ExitStatus.OUT_OF_MEMORY).status == ExitStatus.OUT_OF_MEMORY


def test_walkers_that_fill_a_device_are_counted_where_memory_is_short(chain: Any, finished_job: Any) -> None:
    process = chain("sample")
    process.change_parameters({"sampling": {"walkers": None}})
    assert fail(process, job(finished_job, "sample"), ExitStatus.OUT_OF_MEMORY).status == 0
    assert parameters(process)["sampling"]["walkers"] == 4
    assert parameters(process)["sampling"]["production_fs"] == 200.0


def test_pretraining_out_of_memory_until_nothing_is_left_to_halve(chain: Any, finished_job: Any) -> None:
    process = chain("pretrain")
    assert fail(process, job(finished_job, "pretrain"), ExitStatus.OUT_OF_MEMORY).status == 0
    assert parameters(process)["batch_configurations"] == 1
    assert fail(process, job(finished_job, "pretrain"), ExitStatus.OUT_OF_MEMORY).status == ExitStatus.OUT_OF_MEMORY


@pytest.mark.parametrize("kind", ["update", "predict"])
@pytest.mark.parametrize("given", [{}, {"machine": {"batch_size": 0}}])
def test_a_batch_of_the_engines_choice_becomes_one(chain: Any, finished_job: Any, kind: str, given: dict) -> None:
    """The engine takes one snapshot of a large system at once: any fixed number might be more than it had."""
    process = chain(kind, {"parameters": given})
    assert fail(process, job(finished_job, kind), ExitStatus.OUT_OF_MEMORY).status == 0
    assert parameters(process)["machine"]["batch_size"] == 1
    assert fail(process, job(finished_job, kind), ExitStatus.OUT_OF_MEMORY).status == ExitStatus.OUT_OF_MEMORY


@pytest.mark.parametrize("kind", ["update", "predict"])
def test_batches_are_halved(chain: Any, finished_job: Any, kind: str) -> None:
    process = chain(kind, {"parameters": {"machine": {"batch_size": 4}}}, max_iterations=orm.Int(10))
    for size in (2, 1):
        assert fail(process, job(finished_job, kind), ExitStatus.OUT_OF_MEMORY).status == 0
        assert parameters(process)["machine"]["batch_size"] == size
    assert fail(process, job(finished_job, kind), ExitStatus.OUT_OF_MEMORY).status == ExitStatus.OUT_OF_MEMORY


@pytest.mark.parametrize(
    "status",
    [
        ExitStatus.NOT_FINITE,
        ExitStatus.ATOMS_TOO_CLOSE,
        ExitStatus.TEMPERATURE_OUT_OF_BOUNDS,
        ExitStatus.VOLUME_OUT_OF_BOUNDS,
    ],
)
def test_unstable_sampling_halves_its_time_step_once(chain: Any, finished_job: Any, status: ExitStatus) -> None:
    process, node = chain("sample"), job(finished_job, "sample", trajectory=True)
    assert fail(process, node, status).status == 0
    assert parameters(process)["sampling"]["timestep_fs"] == 1.0
    assert process.ctx.inputs.start_trajectory.uuid == node.outputs.trajectory.uuid
    assert process.ctx.inputs.start_folder.uuid == node.outputs.remote_folder.uuid
    result = fail(process, job(finished_job, "sample"), status)
    assert (result.status, result.message) == (status, "why")


def test_unstable_before_the_first_snapshot_starts_anew(chain: Any, finished_job: Any) -> None:
    process = chain("sample")
    assert fail(process, job(finished_job, "sample"), ExitStatus.NOT_FINITE).status == 0
    assert "start_trajectory" not in process.ctx.inputs


@pytest.mark.parametrize(
    "status",
    [
        ExitStatus.INVALID_INPUT,
        ExitStatus.CORRUPT_FILE,
        ExitStatus.NO_ACCELERATOR,
        ExitStatus.SELF_CHECK_FAILED,
        ExitStatus.NOT_FINITE,
        ExitStatus.TOO_FEW_EFFECTIVE_SAMPLES,
        ExitStatus.DISK_FULL,
    ],
)
def test_what_nothing_cures_ends_the_chain_with_the_same_status(chain: Any, finished_job: Any, status: int) -> None:
    result = fail(chain("update"), job(finished_job, "update"), status)
    assert (result.status, result.message) == (status, "why")


def test_the_user_may_ask_for_a_pause_instead(chain: Any, finished_job: Any) -> None:
    process = chain("update", on_unhandled_failure=orm.Str("restart_once"))
    assert fail(process, job(finished_job, "update"), ExitStatus.NO_ACCELERATOR) is None
    assert fail(process, job(finished_job, "update"), ExitStatus.NO_ACCELERATOR).status == 402


@pytest.mark.parametrize("status", [303, 304, 312])
@pytest.mark.parametrize("kind", ["sample", "update"])
def test_a_job_without_whole_results_is_repeated_as_it_was_a_number_of_times(
    chain: Any, finished_job: Any, kind: str, status: int
) -> None:
    process = chain(kind, max_lost=orm.Int(2))
    before = parameters(process)
    for _ in range(2):
        node = job(finished_job, kind)
        assert fail(process, node, status).status == 0
        assert parameters(process) == before
        if kind == "sample":
            assert process.ctx.inputs.parent_folder.uuid == node.outputs.remote_folder.uuid
    result = fail(process, job(finished_job, kind), status)
    assert (result.status, result.message) == (status, "why")


@pytest.mark.parametrize("status", [ExitStatus.INVALID_INPUT, ExitStatus.CORRUPT_FILE])
def test_lost_links_are_replaced_by_copies_once(chain: Any, finished_job: Any, calc_inputs: Any, status: int) -> None:
    point = calc_inputs["update"]["state_points"]["t85"]
    computer = calc_inputs["update"]["code"].computer
    point["remote"] = orm.RemoteData(computer=computer, remote_path="/gone").store()
    process = chain("update")
    assert fail(process, job(finished_job, "update"), status).status == 0
    assert set(process.ctx.inputs.state_points["t85"]) == {"trajectory", "targets"}
    assert fail(process, job(finished_job, "update"), status).status == status


def test_damaged_checkpoint_is_left_aside(chain: Any, finished_job: Any) -> None:
    process = chain("sample")
    fail(process, job(finished_job, "sample"), ExitStatus.INTERRUPTED)
    assert fail(process, job(finished_job, "sample"), ExitStatus.CORRUPT_FILE).status == 0
    assert "parent_folder" not in process.ctx.inputs


def test_too_many_iterations(chain: Any, finished_job: Any) -> None:
    process = chain("sample", max_iterations=orm.Int(1))
    assert fail(process, job(finished_job, "sample"), ExitStatus.INTERRUPTED).status == 401


def test_inputs_are_refused_before_anything_runs(chain: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"temperature: .*above 0.*got 0"):
        chain("sample", {"parameters": {"temperature": 0}})
    krypton = PotentialData.from_file(potential_file(tmp_path / "kr.safetensors", ("Kr",)))
    with pytest.raises(ValueError, match="the structure contains Ar, but the potential knows Kr only"):
        chain("sample", {"potential": krypton})


def test_disabled_computer_is_refused(chain: Any, code: orm.InstalledCode) -> None:
    authinfo = code.computer.get_authinfo(orm.User.collection.get_default())
    authinfo.enabled = False
    try:
        with pytest.raises(ValueError, match="computer 'localhost' of the code is disabled"):
            chain("sample")
    finally:
        authinfo.enabled = True


def test_what_fits_into_memory_is_told_to_the_next_chain(chain: Any, finished_job: Any) -> None:
    given = {"temperature": 85.0, "sampling": {"walkers": 4, "production_fs": 100.0}}
    process = chain("sample", {"parameters": given})
    for _ in range(2):
        node = finished_job("sample", inputs={"parameters": orm.Dict(parameters(process))}, caller=process.node)
        fail(process, node, ExitStatus.OUT_OF_MEMORY)
    last = parameters(process)
    finished_job("sample", inputs={"parameters": orm.Dict(last)}, caller=process.node)
    lowered = lowered_for_memory(process.node)
    assert lowered == {"machine": {"batch_size": 1}, "sampling": {"walkers": 1}}
    # The next trajectory may be longer; it has the snapshots that were wanted.
    longer = {**given, "sampling": {"walkers": 4, "production_fs": 200.0}}
    found = within_memory(longer, lowered)
    assert found["sampling"] == {"walkers": 1, "production_fs": 800.0}
    assert (found["machine"], found["temperature"]) == ({"batch_size": 1}, 85.0)
    assert within_memory(longer, {}) == longer


def test_nothing_to_tell_where_nothing_was_lowered(chain: Any, finished_job: Any) -> None:
    process = chain("update")
    assert lowered_for_memory(process.node) == {}
    finished_job("update", inputs={"parameters": orm.Dict(parameters(process))}, caller=process.node)
    assert lowered_for_memory(process.node) == {}
