"""Failures: each becomes one exit code with a message, and what was produced stays."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiida import orm
from aiida.plugins import ParserFactory

from aiida_difftre.engine.contract.trajectories import write_trajectory
from aiida_difftre.engine.errors import ExitStatus
from tests.fixtures.nodes import make_trajectory

Make = Callable[..., orm.CalcJobNode]


def parse(node: orm.CalcJobNode, kind: str, folder: Path) -> tuple[dict, orm.CalcFunctionNode]:
    return ParserFactory(f"difftre.{kind}").parse_from_node(
        node, store_provenance=False, retrieved_temporary_folder=str(folder)
    )


def error_json(status: int, message: str = "why") -> dict[str, str]:
    return {"error.json": json.dumps({"exit_status": status, "message": message, "diagnostics": {"x": 1.0}})}


@pytest.mark.parametrize("status", list(ExitStatus))
@pytest.mark.parametrize("kind", ["sample", "update"])
def test_every_status_of_the_engine(finished_job: Make, tmp_path: Path, kind: str, status: ExitStatus) -> None:
    outputs, result = parse(finished_job(kind, error_json(status)), kind, tmp_path)
    assert result.exit_status == status
    assert result.exit_message.endswith(": why")
    assert outputs["output_parameters"]["error"]["diagnostics"] == {"x": 1.0}


def test_unknown_status(finished_job: Make, tmp_path: Path) -> None:
    _, result = parse(finished_job("sample", error_json(999)), "sample", tmp_path)
    assert (result.exit_status, "why" in result.exit_message) == (303, True)


@pytest.mark.parametrize(
    ("stderr", "status"),
    [
        ("", 303),
        ("Traceback\nImportError: no module named jax", 303),
        ("XlaRuntimeError: RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes", 352),
        ("line 7: 1234 Killed   difftre sample job.json", 303),
        ("slurmstepd: error: *** JOB 3 CANCELLED AT 2026-01-01 DUE TO TIME LIMIT ***", 340),
        ("slurmstepd: error: Detected 1 oom-kill event(s) in StepId=3.batch", 352),
        ("slurmstepd: error: Exceeded job memory limit at some point.", 352),
        ("MemoryError: Unable to allocate 3.6 GiB", 352),
        ("=>> PBS: job killed: mem 2097160kb exceeded limit 2097152kb", 352),
        ("Killed", 303),
        ("_aiidasubmit.sh: line 9:  1234 Killed                  difftre sample job.json > out", 303),
        ("srun: error: node7: task 0: Killed", 303),
        ("slurmstepd: error: *** JOB 3 ON node7 CANCELLED AT 2026-01-01T10:00:00 ***", 345),
        ("slurmstepd: error: *** JOB 3 ON n7 CANCELLED AT 2026-01-01T10:00:00 DUE TO SIGNAL Terminated ***", 345),
        ("slurmstepd: error: *** JOB 3 ON n7 CANCELLED AT 2026-01-01T10:00:00 DUE TO NODE FAILURE, SEE LOG ***", 342),
        ("slurmstepd: error: *** JOB 3 ON n7 CANCELLED AT 2026-01-01T10:00:00 DUE TO PREEMPTION ***", 343),
        ("slurmstepd: error: *** JOB 3 ON n7 CANCELLED AT 2026-01-01T10:00:00 DUE TO TASK FAILURE ***", 303),
        ("JOB 3 CANCELLED AT 1:00 DUE TO PREEMPTION\nJOB 3 CANCELLED AT 2:00 DUE TO TIME LIMIT", 340),
        ("srun: error: Node failure on node7", 342),
        ("=>> PBS: job killed: node 1 (n2) requested job terminate, 'EOF' (code 1099)", 342),
        ("job deleted at request of root@pbs", 345),
        ("TERM_OWNER: job killed by owner.", 344),
        ("TERM_ADMIN: job killed by root or LSF administrator.", 345),
        ("TERM_PREEMPT: job killed after preemption", 343),
        ("jobs on this queue may be preempted", 303),
        ("Connection to node7 was killed", 303),
        ("difftre sample: DISK_FULL: trajectory.npz cannot be written: no space left on device", 353),
        ("bash: line 9: echo: write error: No space left on device", 353),
        ("OSError: [Errno 122] Disk quota exceeded", 353),
        ("=>> PBS: job killed: walltime 3610 exceeded limit 3600", 340),
    ],
)
def test_nothing_but_standard_error(finished_job: Make, tmp_path: Path, stderr: str, status: int) -> None:
    node = finished_job("sample", {"_scheduler-stderr.txt": stderr})
    _, result = parse(node, "sample", tmp_path)
    assert result.exit_status == status
    if stderr:
        assert stderr.splitlines()[-1] in result.exit_message


@pytest.mark.parametrize(
    ("events", "status"), [("oom_kill 2\noom_kill 3\n", 352), ("oom_kill 2\noom_kill 2\n", 303), ("", 303)]
)
def test_a_kill_is_one_for_memory_where_the_kernel_counted_it(
    finished_job: Make, tmp_path: Path, events: str, status: int
) -> None:
    node = finished_job("sample", {"_scheduler-stderr.txt": "line 7: 12 Killed", "memory_events.txt": events})
    _, result = parse(node, "sample", tmp_path)
    assert result.exit_status == status
    assert "line 7: 12 Killed" in result.exit_message


@pytest.mark.parametrize(
    ("stderr", "status"),
    [
        ("", 341),
        ("slurmstepd: error: *** JOB 3 ON node7 CANCELLED AT 2026-01-01T10:00:00 ***", 345),
        ("slurmstepd: error: *** JOB 3 ON node7 CANCELLED AT 2026-01-01T10:00:00 DUE TO PREEMPTION ***", 343),
        ("slurmstepd: error: *** JOB 3 ON node7 CANCELLED AT 2026-01-01T10:00:00 DUE TO TIME LIMIT ***", 340),
    ],
)
def test_the_scheduler_says_why_there_was_a_signal(
    finished_job: Make, tmp_path: Path, stderr: str, status: int
) -> None:
    node = finished_job("update", {**error_json(341), "_scheduler-stderr.txt": stderr})
    _, result = parse(node, "update", tmp_path)
    assert (result.exit_status, stderr in result.exit_message) == (status, True)


@pytest.mark.parametrize(
    ("state", "status", "message"),
    [
        ("NODE_FAIL", 342, "the accounting says NODE_FAIL"),
        ("PREEMPTED", 343, "the accounting says PREEMPTED"),
        ("TIMEOUT", 340, "the accounting says TIMEOUT"),
        ("CANCELLED by 1000", 344, "CANCELLED by 1000, its owner"),
        ("CANCELLED by 0", 341, "CANCELLED by 0, who is not its owner (1000)"),
        ("CANCELLED", 345, "the accounting says CANCELLED"),
        ("FAILED", 303, "nothing on standard error"),
    ],
)
def test_the_accounting_knows_who_cancelled(
    finished_job: Make, tmp_path: Path, state: str, status: int, message: str
) -> None:
    node = finished_job("sample")
    rows = f"JobID|State|UID|\n3|{state}|1000|\n3.batch|CANCELLED||\n"
    node.set_detailed_job_info({"retval": 0, "stdout": rows, "stderr": ""})
    _, result = parse(node, "sample", tmp_path)
    assert (result.exit_status, message in result.exit_message) == (status, True), result.exit_message


def test_the_schedulers_own_code_is_kept(finished_job: Make, tmp_path: Path) -> None:
    node = finished_job("sample")
    node.set_exit_status(110)
    node.set_exit_message("The job ran out of memory.")
    _, result = parse(node, "sample", tmp_path)
    assert result.exit_status == 110


def test_results_that_are_cut_off(finished_job: Make, tmp_path: Path) -> None:
    _, result = parse(finished_job("sample", {"results.json": '{"snapshots": '}), "sample", tmp_path)
    assert (result.exit_status, "results.json" in result.exit_message) == (312, True)


def test_good_snapshots_of_a_run_that_went_bad_are_kept(finished_job: Make, tmp_path: Path) -> None:
    write_trajectory(tmp_path / "trajectory.npz", make_trajectory())
    progress = '{"phase": "production", "step": 3, "total": 9}\n{"phase": "prod'
    node = finished_job("sample", {**error_json(412), "progress.jsonl": progress})
    outputs, result = parse(node, "sample", tmp_path)
    assert result.exit_status == 412
    assert outputs["trajectory"].number_of_snapshots == 6
    assert outputs["output_parameters"]["progress"] == {"phase": "production", "step": 3, "total": 9}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"message": "why"}, "error.json: exit_status: missing"),
        ({"exit_status": 412}, "error.json: message: missing"),
        ({"exit_status": "hot", "message": "why"}, "error.json: exit_status: "),
        ({"exit_status": 412, "message": "why", "diagnostics": {"t": float("nan")}}, "not finite: diagnostics.t"),
        ([412], "error.json: must be a mapping"),
    ],
)
def test_a_reason_that_breaks_the_contract(finished_job: Make, tmp_path: Path, content: Any, message: str) -> None:
    _, result = parse(finished_job("sample", {"error.json": json.dumps(content)}), "sample", tmp_path)
    assert (result.exit_status, message in result.exit_message) == (312, True), result.exit_message
