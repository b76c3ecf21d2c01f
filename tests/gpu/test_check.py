"""The script for GPUs runs on the CPU at a tiny size: its answers are right, and it notices wrong ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PARTS = ("reference", "float32", "distribution", "update-float32", "walkers-lj-32")


@pytest.mark.slow
def test_the_script_on_the_cpu(tmp_path: Path) -> None:
    output = tmp_path / "found.json"
    command = [str(HERE / "check.sh"), str(output), "--platform", "cpu", "--small", "--budget", "3000"]
    environment = {**os.environ, "PYTHON": sys.executable, "LIMIT": "3000"}
    done = subprocess.run(
        [*command, "--patience", "20", "--only", *PARTS],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    found = json.loads(output.read_text())
    assert set(found["parts"]) == set(PARTS)
    assert found["wrong"] == found["failed"] == found["left_out"] == []
    compared = found["differences"]["float32"]["lj"]
    assert 0 < compared["forces"] < 1e-4
    assert 0 < compared["energy"] < 1e-6
    assert [one["walkers"] for one in found["parts"]["walkers-lj-32"]["walkers"]] == [1, 2]
    assert found["parts"]["update-float32"]["update_s"] > 0
    assert found["parts"]["float32"]["device"]


def test_wrong_answers_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(HERE))
    import check

    right = {"answers": {"lj": {"energy": [-1.0, -2.0], "weights": [0.5, 1.5]}}}
    off = {"answers": {"lj": {"energy": [-1.0, -2.0001], "weights": [float("nan"), 1.5]}}}
    compared = check.differences(off, right)
    assert compared["lj"]["energy"] == pytest.approx(5e-5)
    assert [one.split(":")[0] for one in check.wrong(compared, "float32")] == [
        "lj energy in float32",
        "lj weights in float32",
    ]
    assert check.wrong(check.differences(right, right), "float64") == []


def test_what_matters_most_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(HERE))
    import check

    names = [name for name, _, _ in check.parts(small=False, platform="gpu")]
    assert names[:4] == ["reference", "float64", "float32", "distribution"]
    assert len(set(names)) == len(names) == 8 + sum(map(len, check.SYSTEMS.values()))
    assert check.BUDGET_S <= 360
