"""What `status` says of a run that failed or stands still, and by which names a run is found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from aiida import orm
from aiida.common import LinkType
from aiida.manage import get_manager
from click.testing import CliRunner, Result
from plumpy import ProcessState

from aiida_difftre.cli import cli, demo, doer, live, report, snapshots
from aiida_difftre.data.target import TargetData
from tests.cli.test_live import snapshot, validation
from tests.fixtures.nodes import target_content


def invoke(*arguments: Any) -> Result:
    return CliRunner().invoke(cli, ["-p", get_manager().get_profile().name, *map(str, arguments)])


@pytest.fixture
def run() -> Callable[..., orm.WorkChainNode]:
    """A function (state, label) -> the node of a refinement that has no state points yet."""

    def make(state: ProcessState, label: str = "", exit_status: int | None = None) -> orm.WorkChainNode:
        node = orm.WorkChainNode(label=label)
        node.set_process_label("RefineWorkChain")
        node.set_process_state(state)
        if exit_status is not None:
            node.set_exit_status(exit_status)
            node.set_exit_message("the update failed")
        node.base.links.add_incoming(orm.Float(85.0).store(), LinkType.INPUT_WORK, "state_points__solid__temperature")
        structure = orm.StructureData(cell=[[5, 0, 0], [0, 5, 0], [0, 0, 5]])
        structure.append_atom(position=(0, 0, 0), symbols="Ar")
        node.base.links.add_incoming(structure.store(), LinkType.INPUT_WORK, "state_points__solid__structure")
        target = TargetData(target_content()).store()
        node.base.links.add_incoming(target, LinkType.INPUT_WORK, "state_points__solid__targets__pressure")
        return node.store()

    return make


@pytest.fixture(autouse=True)
def without_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "_iterations", lambda node: [])


def test_a_run_that_failed_is_not_called_finished(run: Any) -> None:
    result = invoke("status", run(ProcessState.FINISHED, exit_status=503).pk, "--once")
    assert "failed (503)" in result.output, result.output
    assert "finished" not in result.output
    assert "the update failed" in result.output


def test_why_a_run_waits(run: Any) -> None:
    chain = run(ProcessState.WAITING)
    job = orm.CalcJobNode()
    job.set_process_label("SampleCalculation")
    job.set_process_state(ProcessState.WAITING)
    job.set_process_status("Pausing after failed transport task: upload_calculation failed 5 times consecutively")
    job.base.links.add_incoming(chain, LinkType.CALL_CALC, "job")
    job.store()
    job.pause()
    job.logger.error("iteration 5 of do_upload excepted\nTraceback\nOSError: Authentication failed")
    result = invoke("status", chain.pk, "--once")
    assert result.exit_code == 0, result.output
    text = " ".join(result.output.replace("│", " ").split())
    assert "paused" in text
    assert f"SampleCalculation <{job.pk}> is paused: Pausing after failed transport task" in text
    assert "Authentication failed" in text
    profile = get_manager().get_profile().name
    assert f"verdi -p {profile} process play {job.pk}" in text
    assert f"verdi -p {profile} daemon start" in text


def test_runs_are_found_by_pk_uuid_and_label(run: Any) -> None:
    label = f"argon {uuid4()}"
    chain = run(ProcessState.WAITING, label)
    orm.Int(1, label=label).store()
    for name in (chain.pk, chain.uuid, chain.uuid[:13], label):
        result = invoke("status", name, "--once")
        assert f"<{chain.pk}>" in result.output, result.output
    other = run(ProcessState.WAITING, label)
    result = invoke("status", label, "--once")
    assert result.exit_code == 1
    assert f"2 runs: {chain.pk}, {other.pk}; give the PK" in result.output
    assert len(result.output.splitlines()) == 1


def test_the_newest_runs_are_listed(run: Any) -> None:
    """By what somebody needs who has closed the shell of a run; what a run called is none."""
    failed, waiting = run(ProcessState.FINISHED, "solid", exit_status=503), run(ProcessState.WAITING, "liquid")
    called = orm.WorkChainNode()
    called.set_process_label("ValidateWorkChain")
    called.base.links.add_incoming(waiting, LinkType.CALL_WORK, "validate")
    called.store()
    lines = [line.split() for line in invoke("status").output.splitlines()]
    assert lines[0] == ["run", "label", "began", "state"]
    assert [(words[0], words[1], words[4:]) for words in lines[1:3]] == [
        (str(waiting.pk), "liquid", ["running"]),
        (str(failed.pk), "solid", ["failed", "(503)"]),
    ]


def test_status_ends_where_nobody_does_a_run(run: Any) -> None:
    chain = run(ProcessState.WAITING)
    doer.sign(chain)
    signed = chain.base.extras.get(doer.EXTRA)
    chain.base.extras.set(doer.EXTRA, {**signed, "began": signed["began"] - 1.0})
    result = invoke("status", chain.pk)
    assert "nobody does this run" in result.output
    assert f"gone; aiida-difftre resume {chain.pk}" in invoke("status").output


@pytest.mark.parametrize("command", ["report", "plot"])
def test_what_is_not_there_yet_is_said_in_a_line(run: Any, command: str) -> None:
    chain = run(ProcessState.WAITING)
    result = invoke(command, chain.uuid)
    assert result.exit_code == 1
    assert (
        command != "report" or f"it is running; `aiida-difftre status {chain.pk}` shows how far it is" in result.output
    )
    assert result.output.startswith("Error: run")
    assert len(result.output.splitlines()) == 1


def commands(**changes: Any) -> list[str]:
    return [line.split()[3] for line in report.next_steps(snapshot(**changes), "difftre")]


def test_only_commands_that_work_are_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report.shutil, "which", lambda program: None)
    assert commands(iterations=[]) == ["process", "process"]
    assert commands(has_potential=True, report=validation(0.5, 0.9)) == [
        "process", "process", "lineage", "potential", "report", "report", "plot",
    ]  # fmt: skip
    monkeypatch.setattr(report.shutil, "which", lambda program: "/usr/bin/dot")
    assert commands(iterations=[]) == ["process", "process", "node"]


def test_before_comes_before_after() -> None:
    stored = {
        "chi2": {"after": {"training": 1.0}, "before": {"training": 9.0}},
        "state_points": {"solid": {"p": {"after": {"values": [1]}, "before": {"values": [2]}}}},
        "static": {"after": {}},
    }
    found = snapshots.in_time(stored)
    assert found == stored
    assert list(found["chi2"]) == list(found["state_points"]["solid"]["p"]) == ["before", "after"]
    assert list(found["static"]) == ["after"]


def test_outcomes_in_words() -> None:
    assert snapshot(state="finished", exit_status=0).outcome == "finished"
    assert snapshot(state="finished", exit_status=401).outcome == "failed (401)"
    assert snapshot(state="killed").outcome == "killed"
    assert snapshot(paused={3: "it is paused"}).outcome == "paused"
    assert "it is paused" in live.lines(snapshot(paused={3: "it is paused"}))


def test_a_daemon_that_does_not_run_is_said() -> None:
    (line,) = demo.waiting(snapshot(), get_manager().get_profile().name)
    assert "daemon start" in line
