"""The benchmarks of overhead and of long runs run at a tiny size; what they measure there means nothing."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent


def tiny(script: str, folder: Path, *arguments: str) -> dict[str, Any]:
    output = folder / "results.json"
    command = [sys.executable, str(HERE / f"{script}.py"), "--tiny", "--output", str(output), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(output.read_text())


@pytest.fixture(autouse=True)
def _scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(HERE))


def test_each_second_is_booked_once() -> None:
    import engine_parts

    parts = (("here", ("test_overhead",)),)
    began = time.process_time()
    with engine_parts.Clock(parts) as clock:
        while time.process_time() - began < 0.2:
            sum(range(1000))
    spent = time.process_time() - began
    assert sum(clock.seconds.values()) == pytest.approx(spent, abs=0.02)
    assert clock.seconds["here"] > 0.8 * spent


def test_slopes_of_a_straight_line() -> None:
    import long_run

    records = [
        {
            "iteration": n, "wall_s": 20.0 * n, "worker_cpu_s": 3.0 * n + 0.05 * n**2, "programs_cpu_s": 0.0,
            "worker_rss_mib": 180.0 + 0.25 * n,
        }
        for n in range(1, 21)
    ]  # fmt: skip
    found = long_run.slopes(records)
    assert found["worker_rss_mib"]["per_iteration"] == pytest.approx(0.25)
    assert found["worker_rss_mib"]["error"] == pytest.approx(0, abs=1e-9)
    assert found["wall_s_per_iteration"]["mean"] == pytest.approx(20.0)
    assert found["wall_s_per_iteration"]["per_iteration"] == pytest.approx(0, abs=1e-9)
    assert found["worker_cpu_s_per_iteration"]["per_iteration"] == pytest.approx(0.1)


@pytest.mark.slow
def test_overhead(tmp_path: Path) -> None:
    found = tiny("overhead", tmp_path)
    assert found["aiida_cpu_s_per_job"]["total"] > 0
    for parts in found["jobs_cpu_s"].values():
        assert parts["imports"] > 0
        booked = sum(seconds for name, seconds in parts.items() if name != "total")
        assert booked == pytest.approx(parts["total"], rel=0.1)


@pytest.mark.slow
@pytest.mark.daemon
def test_long_run(tmp_path: Path) -> None:
    figure = tmp_path / "long_run.svg"
    found = tiny("long_run", tmp_path, "--figure", str(figure))
    assert found["iterations_run"] == 2
    assert found["records"][-1]["worker_rss_mib"] > 50
    assert found["records"][-1]["repository_mib"] > found["records"][0]["repository_mib"]
    assert figure.stat().st_size > 1000
