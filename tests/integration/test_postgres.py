"""The data nodes and the jobs on PostgreSQL, in a session of pytest of their own; whole runs are in the stacks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
ON_POSTGRES = (
    "tests/data",
    "tests/calculations",
    "tests/parsers",
    "tests/cli/test_lineage.py",
)


def has_server() -> bool:
    pgtest = pytest.importorskip("pgtest.pgtest", reason="pgtest is not installed: it is in the extra `tests`")
    try:
        pgtest.which("pg_ctl")
    except FileNotFoundError:
        return False
    return True


def test_on_postgresql(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--db") == "postgresql":
        pytest.skip("this session is on PostgreSQL itself")
    if not has_server():
        pytest.skip("there are no PostgreSQL programs (pg_ctl, initdb) on this machine")
    environment = {name: value for name, value in os.environ.items() if name != "AIIDA_PATH"}
    done = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-q", "-rs", "-n", "0", "-p", "no:cacheprovider", "-m", "not long",
            "--db", "postgresql", *ON_POSTGRES,
        ],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "passed" in done.stdout
    skipped = [line for line in done.stdout.splitlines() if line.startswith("SKIPPED")]
    assert not [line for line in skipped if "feff6l" not in line], skipped
