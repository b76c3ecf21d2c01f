"""When a run will be over, what it has cost, and how a notebook shows it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from aiida import orm
from aiida.common.links import LinkType
from plumpy import ProcessState

from aiida_difftre.cli import live, notebook
from aiida_difftre.cli.costs import Process, costs, processes, total_line
from aiida_difftre.cli.expectation import expected
from tests.cli.test_live import snapshot, validation

NOON = datetime(2026, 1, 5, 12, 0).astimezone()


def process(pk: int, kind: str, began: float, changed: float, **more: Any) -> Process:
    """A process that began and changed so many minutes after noon."""
    times = {"began": NOON + timedelta(minutes=began), "changed": NOON + timedelta(minutes=changed)}
    content = {
        "stage": "", "is_over": True, "exit_status": 0, "is_cached": False, "is_job": False, "is_paused": False,
        "cores": 1,
    }  # fmt: skip
    return Process(pk=pk, kind=kind, **times, **{**content, **more})


@pytest.fixture
def refinement() -> orm.WorkChainNode:
    """A refinement of at most five iterations."""
    node = orm.WorkChainNode()
    node.set_process_label("RefineWorkChain")
    node.base.links.add_incoming(orm.Dict({"max_iterations": 5}).store(), LinkType.INPUT_WORK, "settings")
    return node.store()


def test_end_of_a_refinement(refinement: orm.WorkChainNode) -> None:
    found = [
        process(1, "SampleBaseWorkChain", 0, 4), process(2, "UpdateBaseWorkChain", 4, 10),
        process(3, "SampleBaseWorkChain", 10, 14), process(4, "UpdateBaseWorkChain", 14, 20),
    ]  # fmt: skip
    said = expected(refinement, found, None, [], NOON + timedelta(minutes=25))
    # Three iterations of 10 min after minute 20, and 4 min to sample the last potential.
    assert said == "expected end: 12:54 at the latest (refinement until 12:54, if it needs all 5 iterations)"
    assert expected(refinement, found[:1], None, [], NOON) == ""


def test_end_of_the_labels_and_of_a_validation() -> None:
    train, validate = orm.WorkChainNode(), orm.WorkChainNode()
    train.set_process_label("TrainWorkChain")
    validate.set_process_label("ValidateWorkChain")
    chain = process(1, "DftDatasetWorkChain", 0, 0, stage="dataset", is_over=False)
    jobs = [process(pk, "PwBaseWorkChain", 0, 3 * (pk - 1), stage="dataset") for pk in (2, 3, 4)]
    said = expected(train.store(), [chain, *jobs], (3, 0, 13), [], NOON + timedelta(minutes=9))
    assert said == "labels until about 12:39; what follows is not known yet"
    assert expected(validate.store(), [], None, [600.0, 60.0], NOON) == "expected end: 12:10"
    assert expected(validate, [], None, [600.0, None], NOON) == ""
    late = expected(validate, [], None, [86_400.0], NOON)
    assert late.startswith("expected end: Tue 06"), "another day is named"


def test_cost_of_the_jobs_below_a_run(aiida_localhost: orm.Computer, refinement: orm.WorkChainNode) -> None:
    for kind, seconds in (("SampleCalculation", 30.0), ("UpdateCalculation", 12.0)):
        job = orm.CalcJobNode(computer=aiida_localhost)
        job.set_process_label(kind)
        job.set_process_state(ProcessState.FINISHED)
        job.set_exit_status(0)
        job.base.links.add_incoming(refinement, LinkType.CALL_CALC, kind)
        job.store()
        told = orm.Dict({"timings": {"total_s": seconds, "cpu_s": 2 * seconds}})
        told.base.links.add_incoming(job, LinkType.CREATE, "output_parameters")
        told.store()
    found = list(processes(refinement))
    assert {(one.kind, one.stage) for one in found} == {
        (kind, kind) for kind in ("SampleCalculation", "UpdateCalculation")
    }
    made = {cost.stage: cost for cost in costs(refinement, found)}
    assert (made["sampling"].jobs, made["sampling"].wall_s, made["sampling"].cpu_s) == (1, 30.0, 60.0)
    assert total_line(list(made.values())) == "84 s of one core in 2 jobs"


def test_sparklines_are_logarithmic() -> None:
    assert live.sparkline([1000.0, 100.0, 10.0, 1.0]) == "█▆▃▁"
    assert live.sparkline([3.0, 3.0]) == "▁▁"
    (line,) = live.chi2_lines(snapshot().iterations)
    assert line == "chi² of training targets: 2 ▁▁ 2", "what was rolled back is left out"


def test_outlook_in_status() -> None:
    shown = snapshot(cost="3 h of one core in 7 jobs", expected="expected end: 14:05")
    assert live.lines(shown)[-2:] == ["cost so far: 3 h of one core in 7 jobs", "expected end: 14:05"]
    assert "cost: 3 h" in live.lines(snapshot(cost="3 h", state="finished"))[-1]
    assert not any("cost" in line for line in live.lines(shown, is_log=True))


def test_a_notebook_shows_a_run() -> None:
    html = notebook.html(
        snapshot(title="<script>alert(1)</script>", report=validation(0.5, 0.9), paused={9: "why & how"})
    )
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    for shown in ("13/50", "production 3/50", "C₁₁ / GPa", "(1079)", "why &amp; how", "width:84px"):
        assert shown in html, shown


def test_nodes_show_themselves(potential: Any, dataset: Any, trajectory: Any, target: Any) -> None:
    target.label = "<b>pressure</b>"
    for node, words in (
        (potential, ("lennard_jones", "8 Å", "Ar")), (dataset, ("3", "3 rattled", "energies, forces, stresses")),
        (trajectory, ("85 K", "NVT", "2")), (target, ("P = 0 ± 0.1", "Yarnell", "85 K", "&lt;b&gt;")),
    ):  # fmt: skip
        html = node._repr_html_()
        assert html.startswith("<table")
        assert "<b>" not in html
        for word in words:
            assert word in html, word


def test_a_curve_shows_itself_as_a_picture() -> None:
    from aiida_difftre.data.target import TargetData

    content = {
        "observable": "rdf", "grid": [3.0, 3.2, 3.4], "values": [0.0, 1.0, 2.0], "errors": [0.1] * 3, "unit": "1",
        "conditions": {"temperature": 85.0}, "citation": "a paper", "doi": "10.1103/x'y",
    }  # fmt: skip
    html = TargetData(content)._repr_html_()
    assert "points='0.0,54.0 110.0,28.0 220.0,2.0'" in html
    assert "x&#x27;y" in html
