"""Runs whose database, worker or daemon is disturbed end as if nothing had happened."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from aiida import orm
from aiida.engine import submit
from aiida.engine.daemon.client import DaemonClient

from tests.faults.conftest import Fingerprint, fingerprint
from tests.fixtures.chains import explain
from tests.fixtures.daemon import running_job, wait_until, workers

pytestmark = [pytest.mark.daemon, pytest.mark.slow]

READ = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1])
connection.execute("BEGIN")
connection.execute("SELECT count(*) FROM db_dbnode").fetchall()
time.sleep(float(sys.argv[2]))
"""
READ_S = 12.0
"""More than twice of what Python's module waits for a lock by itself."""


def jobs(run: orm.ProcessNode) -> list[tuple[str, int | None]]:
    """The jobs of a run with their exit statuses, in order."""
    found = sorted((job for job in run.called_descendants if isinstance(job, orm.CalcJobNode)), key=lambda job: job.pk)
    return [(job.process_label, job.exit_status) for job in found]


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
    assert fingerprint(run) == undisturbed
    assert "which is locked by process" in Path(daemon.daemon_log_file).read_text()


def test_kills(undisturbed: Fingerprint, refinement: Any, daemon: DaemonClient) -> None:
    run = submit(refinement())
    wait_until(lambda: running_job(run, "SampleCalculation"), "sampling", run)
    (worker,) = workers(daemon)
    worker.kill()
    wait_until(lambda: run.is_terminated, "the end", run)
    assert run.is_finished_ok, explain(run)
    assert fingerprint(run) == undisturbed
