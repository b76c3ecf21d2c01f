"""A submitted refinement outlives its daemon: stopped while a job runs, started again, the same provenance."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from aiida import orm
from aiida.engine import submit
from aiida.engine.daemon.client import DaemonClient

from aiida_difftre.engine.contract.jobs import RESULTS
from aiida_difftre.workchains.from_input import read_builder
from aiida_difftre.workchains.refine import RefineWorkChain
from tests.fixtures.chains import explain
from tests.fixtures.daemon import running_job, stop, wait_until

pytestmark = [pytest.mark.daemon, pytest.mark.slow]


def shape(run: orm.ProcessNode) -> Counter[tuple[str, ...]]:
    """The provenance below a run but for what differs from run to run: nodes by kind, links by kind and label."""
    found: Counter[tuple[str, ...]] = Counter()
    data: dict[str, orm.Node] = {}
    for process in [run, *run.called_descendants]:
        found["process", process.process_label, str(process.exit_status)] += 1
        for link in (*process.base.links.get_incoming().all(), *process.base.links.get_outgoing().all()):
            if isinstance(link.node, orm.Data):
                data[link.node.uuid] = link.node
        for link in process.base.links.get_outgoing().all():
            other = getattr(link.node, "process_label", type(link.node).__name__)
            found["output", process.process_label, link.link_type.value, link.link_label, other] += 1
        for link in process.base.links.get_incoming().all():
            if isinstance(link.node, orm.Data):
                found["input", process.process_label, link.link_type.value, link.link_label] += 1
    for node in data.values():
        found["data", type(node).__name__] += 1
    return found


def test_a_run_outlives_its_daemon(refined: orm.WorkChainNode, argon_input: Any, daemon: DaemonClient) -> None:
    run = submit(read_builder(argon_input(), RefineWorkChain))
    sampling = wait_until(lambda: running_job(run, "SampleCalculation"), "sampling", run)
    stop(daemon)
    assert not daemon.is_daemon_running
    # The job does not need the daemon: it ends while there is none.
    results = Path(str(sampling.get_remote_workdir())) / RESULTS
    wait_until(results.is_file, "results of the job", run)
    assert not run.is_terminated
    daemon.start_daemon()

    wait_until(lambda: running_job(run, "UpdateCalculation"), "update", run)
    stop(daemon)
    assert not run.is_terminated
    daemon.start_daemon()

    wait_until(lambda: run.is_terminated, "the end", run)
    assert run.is_finished_ok, explain(run)
    assert shape(run) == shape(refined)
    # Nothing was done twice, and the same seeds gave the same numbers.
    assert run.outputs.history["outcome"] == refined.outputs.history["outcome"]
    first = [node.outputs.history["iterations"][0]["state_points"]["solid"] for node in (run, refined)]
    assert first[0]["pressure"]["values"] == pytest.approx(first[1]["pressure"]["values"], rel=1e-3, abs=1e-4)
