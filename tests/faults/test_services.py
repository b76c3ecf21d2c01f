"""Runs whose database, worker or daemon is disturbed end as if nothing had happened."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from aiida import orm
from aiida.engine import submit
from aiida.engine.daemon.client import DaemonClient

from tests.faults.conftest import Fingerprint, fingerprint
from tests.fixtures.chains import explain
from tests.fixtures.daemon import process_in, running_job, wait_until, workers

pytestmark = [pytest.mark.daemon, pytest.mark.long]

READ = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1])
connection.execute("BEGIN")
connection.execute("SELECT count(*) FROM db_dbnode").fetchall()
time.sleep(float(sys.argv[2]))
"""
READ_S = 12.0
"""More than twice of what Python's module waits for a lock by itself."""


UNDISTURBED = [("SampleCalculation", 0), ("UpdateCalculation", 0), ("SampleCalculation", 0)]
"""The jobs of a run to which nothing happens."""


def jobs(run: orm.ProcessNode) -> list[tuple[str, int | None]]:
    """The jobs of a run with their exit statuses, in order."""
    found = sorted((job for job in run.called_descendants if isinstance(job, orm.CalcJobNode)), key=lambda job: job.pk)
    return [(job.process_label, job.exit_status) for job in found]


def engine_of(job: orm.CalcJobNode) -> psutil.Process | None:
    """The process of the engine that works on a job."""
    return process_in(job.get_remote_workdir(), "/difftre")


def kill_with_workers(daemon: DaemonClient) -> None:
    """As a machine that goes down does; the daemon first, since it would replace its workers."""
    watcher = psutil.Process(daemon.get_daemon_pid())
    processes = [watcher, *watcher.children()]
    for process in processes:
        process.kill()
    psutil.wait_procs(processes)


def test_a_reader_of_the_database(
    undisturbed: Fingerprint, refinement: Any, daemon: DaemonClient, aiida_profile: Any
) -> None:
    if aiida_profile.storage_backend != "core.sqlite_dos":
        pytest.skip("PostgreSQL lets others read")
    run = submit(refinement())
    wait_until(lambda: running_job(run, "SampleCalculation"), "sampling", run)
    database = Path(aiida_profile.storage_config["filepath"]) / "database.sqlite"
    subprocess.run([sys.executable, "-c", READ, str(database), str(READ_S)], check=True)
    wait_until(lambda: run.is_terminated, "the end", run)
    assert run.is_finished_ok, explain(run)
    assert jobs(run) == UNDISTURBED
    assert fingerprint(run) == undisturbed
    assert "which is locked by process" in Path(daemon.daemon_log_file).read_text()


def test_kills_of_engine_worker_and_daemon(undisturbed: Fingerprint, refinement: Any, daemon: DaemonClient) -> None:
    run = submit(refinement())
    job = wait_until(lambda: running_job(run, "SampleCalculation"), "sampling", run)
    wait_until(lambda: engine_of(job), "the engine", run).kill()
    wait_until(lambda: running_job(run, "SampleCalculation") not in (None, job), "sampling once more", run)
    (worker,) = workers(daemon)
    worker.kill()
    wait_until(lambda: running_job(run, "UpdateCalculation"), "update", run)
    kill_with_workers(daemon)
    daemon.start_daemon()
    wait_until(lambda: run.is_terminated, "the end", run)
    assert run.is_finished_ok, explain(run)
    assert jobs(run) == [("SampleCalculation", 303), *UNDISTURBED]
    assert fingerprint(run) == undisturbed


DAMAGE = """
echo >> {counter}
case $(wc -l < {counter}) in
    1) truncate -s 100 results.json ;;
    4) rm results.json ;;
    7) truncate -s 1000 trajectory.npz ;;
esac
"""
"""After the engine has ended, and before its files are retrieved."""

EMPTIED = "for file in *trajectory*.npz; do if [ -L $file ]; then : > $file; fi; done"
"""Links to trajectories lead to empty files when the engine starts."""


def test_damaged_files(undisturbed: Fingerprint, refinement: Any, daemon: DaemonClient, tmp_path: Path) -> None:
    run = submit(refinement(prepend=EMPTIED, append=DAMAGE.format(counter=tmp_path / "jobs")))
    wait_until(lambda: run.is_terminated, "the end", run)
    assert run.is_finished_ok, explain(run)
    assert jobs(run) == [
        ("SampleCalculation", 312),
        ("SampleCalculation", 0),
        ("UpdateCalculation", 311),
        ("UpdateCalculation", 303),
        ("UpdateCalculation", 0),
        ("SampleCalculation", 311),
        ("SampleCalculation", 312),
        ("SampleCalculation", 0),
    ]
    assert fingerprint(run) == undisturbed
