"""``aiida-difftre demo`` from nothing to the final table: few labels, one iteration, a short validation."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from aiida_difftre.workchains.inputs import example

pytestmark = [pytest.mark.daemon, pytest.mark.dft, pytest.mark.slow]

PROGRAMS = Path(sys.executable).parent
TIMEOUT_S = 1500
CELLS = 1 + 1 + 2
"""At rest, dilated, rattled; the strained ones for the static elastic constants come on top."""


def shortened() -> dict[str, Any]:
    """The input of the demonstration with few of everything; the physics is that of the quick preset."""
    content = yaml.safe_load(example("diamond/quick.yaml").read_text())
    content["dft"]["generation"] = {
        "isotropic": [0.02], "rattles": [{"standard_deviation": 0.05, "count": 2}], "strains": []
    }  # fmt: skip
    content["pretraining"] = {"steps": 300, "evaluate_every": 100, "batch_configurations": 4}
    content["state_points"]["ambient"]["repeat"] = [1, 1, 1]
    short = {"walkers": 4, "equilibration_fs": 50.0, "production_fs": 200.0, "stride_fs": 20.0}
    content["sampling"] = short
    content["refinement"] = {
        "settings": {"max_iterations": 1, "growth": {"thresholds": []}},
        "update": {"max_steps": 3, "bootstrap": 20},
    }
    content["validation"]["sampling"] = short
    return content


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a user without any profile; its daemon is stopped in any case."""
    folder = tmp_path / "aiida"
    folder.mkdir()
    found = {**os.environ, "AIIDA_PATH": str(folder)}
    yield found
    if list(folder.rglob("*.pid")):
        call("verdi", "-p", "difftre", "daemon", "stop", environment=found)


def call(program: str, *arguments: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [str(PROGRAMS / program), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)


def test_demo(environment: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "short.yaml"
    path.write_text(yaml.safe_dump(shortened()))
    plots = tmp_path / "plots"
    done = call("aiida-difftre", "demo", "--input", str(path), "-o", str(plots), environment=environment)
    said = done.stdout
    assert done.returncode == 0, said[-6000:] + done.stderr[-3000:]

    # What set-up made, what the live log told.
    assert "made profile 'difftre'" in said
    assert "made code 'difftre@localhost'" in said
    labels = re.findall(r"DFT labels: (\d+)/(\d+)", said)[-1]
    assert labels[0] == labels[1]
    assert int(labels[0]) > CELLS
    assert "pretraining: " in said
    assert "iteration 0: chi²" in said
    assert "iteration 1: chi²" in said

    # The table: experiment, DFT, before, after with its error.
    for heading in ("experiment", "DFT as labelled", "before", "after"):
        assert heading in said
    for quantity, experiment in (("P / GPa", "0"), ("C11 / GPa", "1079"), ("C12 / GPa", "124"), ("C44 / GPa", "578")):
        row = next(line for line in said.splitlines() if quantity in line and "±" in line)
        cells = [cell.strip() for cell in re.split(r"[│|┃]", row) if cell.strip()]
        assert len(cells) == 5, row
        assert cells[:2] == [quantity, experiment]
        assert float(cells[2]) < float(experiment)  # LDA at the experimental density: stretched, and soft
        assert all("±" in cell for cell in cells[3:])

    # A phonon that nothing trained, of the refined potential at rest.
    raman = re.search(r"Raman line of ambient / 1/cm: (\d+)", said)
    assert raman is not None, said[-3000:]
    assert 500 < float(raman[1]) < 2500  # so little training makes no better one

    # Plots, and the commands with which to look further.
    pictures = sorted(plots.glob("*.png"))
    assert len(pictures) >= 2
    for picture in pictures:
        assert picture.stat().st_size > 5000
        assert f"plot: {picture}" in said
    command = re.search(r"verdi -p difftre process report (\d+)", said)
    assert command is not None
    pk = command[1]
    for further in (f"verdi -p difftre node graph generate {pk}", f"aiida-difftre -p difftre lineage {pk}"):
        assert further in said

    # The commands do what they promise, in a session of their own; the daemon that demo started is gone.
    shown = call("aiida-difftre", "-p", "difftre", "lineage", pk, environment=environment)
    assert shown.returncode == 0, shown.stderr
    for part in ("UpdateCalculation", "McSkimin", "PretrainCalculation", "PwCalculation"):
        assert part in shown.stdout
    report = call("aiida-difftre", "-p", "difftre", "report", pk, environment=environment)
    assert "C44 / GPa" in report.stdout
    status = call("verdi", "-p", "difftre", "daemon", "status", environment=environment)
    assert "not running" in status.stdout + status.stderr
