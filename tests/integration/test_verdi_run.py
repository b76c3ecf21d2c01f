"""``verdi run workchains/CHAIN.py INPUT.yaml`` as a user types it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiida import orm
from aiida.manage import get_manager

from tests.fixtures.chains import explain

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.fixture
def verdi_run() -> Callable[..., subprocess.CompletedProcess[str]]:
    """A function (chain, arguments) -> what ``verdi run`` printed."""

    def run(chain: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        profile = get_manager().get_profile()
        assert profile is not None
        verdi = Path(sys.executable).parent / "verdi"
        command = [str(verdi), "-p", profile.name, "run", f"workchains/{chain}.py", *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)

    return run


def shorten(content: dict[str, Any]) -> None:
    content["refinement"]["settings"]["max_iterations"] = 1


def newest(label: str) -> orm.WorkChainNode:
    query = orm.QueryBuilder().append(orm.WorkChainNode, filters={"attributes.process_label": label}, tag="run")
    return query.order_by({"run": {"id": "desc"}}).first(flat=True)


@pytest.mark.parametrize(
    ("chain", "label", "outputs"),
    [
        ("refine", "RefineWorkChain", {"potential", "history"}),
        ("train", "TrainWorkChain", {"potential", "history", "report"}),
    ],
)
def test_chain_from_an_input_file(verdi_run: Any, argon_input: Any, chain: str, label: str, outputs: set[str]) -> None:
    done = verdi_run(chain, str(argon_input(shorten)))
    assert done.returncode == 0, done.stderr[-3000:]
    run = newest(label)
    assert run.is_finished_ok, explain(run)
    assert f"{label}<{run.pk}> ended with exit status 0" in done.stdout
    assert outputs <= set(run.outputs)


def test_restart_chain_from_nodes(verdi_run: Any, refined: orm.WorkChainNode) -> None:
    job = next(job for job in refined.called_descendants if job.process_label == "UpdateCalculation")
    done = verdi_run(
        "update", "--code", job.inputs.code.full_label, "--potential", job.inputs.potential.uuid,
        "--trajectory", job.inputs.state_points.solid.trajectory.uuid,
        "--target", str(job.inputs.state_points.solid.targets.pressure.pk),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "ended with exit status 0" in done.stdout
    assert "potential: PotentialData" in done.stdout


def test_wrong_input_is_a_message(verdi_run: Any, argon_input: Any) -> None:
    before = orm.QueryBuilder().append(orm.ProcessNode).count()
    path = argon_input(lambda content: content["state_points"]["solid"].update(temperature=-4.0))
    done = verdi_run("refine", str(path))
    assert done.returncode != 0
    assert "-4.0" in done.stderr
    assert "Traceback" not in done.stderr
    assert orm.QueryBuilder().append(orm.ProcessNode).count() == before
