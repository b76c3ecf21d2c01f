"""Real signals to real processes, in every phase of every kind of job: a reason is left, and what is finished is kept.

A job that was interrupted while it sampled or fitted, and run again, ends with the same bits as an undisturbed one.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase.io
import jax
import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator

from aiida_difftre.engine.calculators.difftre import DiffTReCalculator
from aiida_difftre.engine.contract import files
from aiida_difftre.engine.contract.jobs import (
    CHECKPOINT,
    DATASET,
    ERROR,
    OPTIMIZER_OUT,
    POTENTIAL_IN,
    POTENTIAL_OUT,
    PROGRESS,
    RESULTS,
    STRUCTURE,
    TRAJECTORY,
    RefineJob,
)
from aiida_difftre.engine.contract.results import RefineResults
from aiida_difftre.engine.contract.validation import validate
from aiida_difftre.engine.errors import EngineError, ExitStatus
from aiida_difftre.engine.jobs import refine
from aiida_difftre.engine.potentials import potential as potentials
from tests.fixtures.engine import argon, lennard_jones, target

STANDARD_ERROR = "stderr"
MACHINE = {"precision": "float64", "threads": 1, "compilation_cache": jax.config.jax_compilation_cache_dir}
SAMPLING: dict[str, Any] = {
    "walkers": 1, "timestep_fs": 4.0, "equilibration_fs": 40.0, "production_fs": 160.0, "stride_fs": 8.0,
    "thermostat": {"name": "langevin", "friction_per_ps": 5.0},
}  # fmt: skip
LONG = {**SAMPLING, "production_fs": 4e6}
POINT = {
    "label": "cold", "temperature": 60.0, "targets": [target("pressure", [0.1], error=0.02).model_dump()],
}  # fmt: skip
SMALL_STEPS = {"max_steps": 100_000, "gate": 0.01, "bootstrap": 20, "optimizer": {"learning_rate": 1e-9}}
LENNARD_JONES = {"architecture": "lennard_jones", "cutoff": 5.0, "hyperparameters": {"epsilon": 0.009, "sigma": 3.45}}
JOBS: dict[str, dict[str, Any]] = {
    "sample": {"temperature": 60.0, "sampling": LONG, "observables": [{"observable": "pressure"}]},
    "update": {"state_points": [POINT], "update": SMALL_STEPS},
    "pretrain": {
        "potential": {"species": ["Ar"], "terms": [LENNARD_JONES]}, "atomic_energies": {"Ar": 0.0},
        "steps": 100_000, "evaluate_every": 20, "patience": 100_000, "validation_fraction": 0.25,
    },
    "predict": {"structures": STRUCTURE, "static_stiffness": True},
    "refine": {
        "state_points": [POINT], "sampling": SAMPLING, "max_iterations": 10_000, "patience": 10_000, "chi2_stop": 0.0,
        "update": {**SMALL_STEPS, "max_steps": 1},
    },
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    potential, parameters = lennard_jones()
    potentials.save(tmp_path / POTENTIAL_IN, potential, parameters)
    ase.io.write(tmp_path / STRUCTURE, argon())
    return tmp_path


def start(folder: Path, kind: str, largest_kib: int | None = None) -> subprocess.Popen[bytes]:
    """Start a job, with a limit of the size of its files."""
    command = [sys.executable, "-m", "aiida_difftre.engine.cli", kind, str(folder / "job.json")]
    if largest_kib is not None:
        command = ["bash", "-c", f'ulimit -f {largest_kib} && exec "$@"', "bash", *command]
    # Through a file: nobody reads while the job runs, and a pipe that XLA's warnings have filled would stop it.
    with (folder / STANDARD_ERROR).open("w") as stream:
        return subprocess.Popen(command, stderr=subprocess.PIPE if largest_kib == 0 else stream)


def ended(process: subprocess.Popen[bytes], folder: Path, within: float = 300.0) -> str:
    """What a job has said when it has ended."""
    process.wait(within)
    return (folder / STANDARD_ERROR).read_text()


def run(folder: Path, kind: str, **changes: Any) -> dict[str, Any]:
    (folder / "job.json").write_text(json.dumps({**JOBS[kind], "machine": MACHINE, **changes}))
    with start(folder, kind) as process:
        message = ended(process, folder)
    assert process.returncode == 0, message
    return json.loads((folder / RESULTS).read_text())


def interrupt(
    folder: Path,
    kind: str,
    when: Callable[[subprocess.Popen[bytes]], bool],
    *,
    number: int = signal.SIGTERM,
    **changes: Any,
) -> dict[str, Any]:
    """Start a job, send a signal as soon as something is so; returns the reason that the job leaves."""
    (folder / "job.json").write_text(json.dumps({**JOBS[kind], "machine": MACHINE, **changes}))
    with start(folder, kind) as process:
        try:
            deadline = time.monotonic() + 240
            while not when(process) and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.002)
            process.send_signal(number)
            message = ended(process, folder, 60.0)
        finally:
            process.kill()
    assert process.returncode == 1, message
    assert "Traceback" not in message
    error = json.loads((folder / ERROR).read_text())
    assert error["exit_status"] == ExitStatus.INTERRUPTED
    assert signal.Signals(number).name in error["message"] or "a signal" in error["message"]
    return error


def listens(process: subprocess.Popen[bytes]) -> bool:
    """Whether the process has begun to catch SIGTERM: before JAX is loaded."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    found = re.search(r"SigCgt:\s+([0-9a-f]+)", status)
    return found is not None and bool(int(found[1], 16) >> (signal.SIGTERM - 1) & 1)


def reports(folder: Path, phase: str, step: int = 0) -> Callable[[subprocess.Popen[bytes]], bool]:
    """Whether a phase has come to a step, by the progress."""

    def reported(_: subprocess.Popen[bytes]) -> bool:
        path = folder / PROGRESS
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return any(line["phase"] == phase and line["step"] >= step for line in lines)

    return reported


def labelled(folder: Path) -> None:
    truth, frames = DiffTReCalculator(*lennard_jones()), []
    for seed in range(4):
        atoms = argon(1)
        atoms.rattle(0.15, seed=seed)
        truth.calculate(atoms)
        atoms.calc = SinglePointCalculator(
            atoms, **{name: truth.results[name] for name in ("energy", "forces", "stress")}
        )
        frames.append(atoms)
    ase.io.write(folder / DATASET, frames)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks /proc which signals a process catches")
@pytest.mark.parametrize("delay", [0.0, 1.3])
@pytest.mark.parametrize("kind", ["sample", "predict"])
def test_at_any_moment_a_reason_is_left(folder: Path, kind: str, delay: float) -> None:
    """While modules are loaded, files read and programs compiled, in which Python hears of nothing."""
    moments: list[float] = []

    def later(process: subprocess.Popen[bytes]) -> bool:
        if not moments and listens(process):
            moments.append(time.monotonic())
        return bool(moments) and time.monotonic() >= moments[0] + delay

    atoms = argon(3)
    atoms.rattle(0.05, seed=0)
    ase.io.write(folder / STRUCTURE, atoms)  # which keeps the prediction busy
    interrupt(folder, kind, later)
    assert not (folder / RESULTS).exists()


def test_sampling_that_is_over_is_kept_while_observables_are_computed(folder: Path) -> None:
    grid = [0.45 + 0.9 * k for k in range(6)]
    short = {
        "sampling": {**SAMPLING, "production_fs": 8000.0},
        "observables": [{"observable": "pressure"}, {"observable": "rdf", "grid": grid}],
    }  # fmt: skip
    undisturbed = run(folder, "sample", **short)
    whole = (folder / TRAJECTORY).read_bytes()
    (folder / TRAJECTORY).unlink()
    interrupt(folder, "sample", lambda _: (folder / TRAJECTORY).exists(), **short)
    assert (folder / TRAJECTORY).read_bytes() == whole
    assert (folder / CHECKPOINT).exists()
    # As a restart chain does it: a new folder, with the checkpoint of the old one.
    (folder / TRAJECTORY).unlink()
    (folder / PROGRESS).unlink()
    again = run(folder, "sample", **short)
    assert not (folder / PROGRESS).exists()  # not a step was repeated
    assert not (folder / CHECKPOINT).exists()
    assert (folder / TRAJECTORY).read_bytes() == whole
    assert again["predictions"] == undisturbed["predictions"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_sampling_leaves_a_checkpoint(folder: Path, number: int) -> None:
    interrupt(folder, "sample", reports(folder, "production"), number=number)
    assert (folder / CHECKPOINT).exists()
    assert not (folder / RESULTS).exists()


def test_pretraining_leaves_a_checkpoint(folder: Path) -> None:
    labelled(folder)
    interrupt(folder, "pretrain", reports(folder, "pretrain"))
    arrays, metadata = files.read_arrays(folder / CHECKPOINT)
    assert arrays
    step = json.loads(metadata["state"])["step"]
    assert step > 0
    ended = run(folder, "pretrain", steps=step)
    assert ended["steps"] == step


def test_an_update_leaves_the_steps_that_it_made_but_no_results(folder: Path) -> None:
    run(folder, "sample", sampling=SAMPLING, observables=[])
    (folder / PROGRESS).unlink()
    error = interrupt(folder, "update", reports(folder, "update", 3))
    assert re.search(r"a signal ended the update after \d+ steps", error["message"])
    assert not (folder / RESULTS).exists()
    before, after = (files.read_potential(folder / name)[1] for name in (POTENTIAL_IN, POTENTIAL_OUT))
    assert any(not np.array_equal(before[name], after[name]) for name in before)
    assert (folder / OPTIMIZER_OUT).exists()


def test_a_refinement_leaves_its_results_with_the_reason(folder: Path) -> None:
    error = interrupt(folder, "refine", reports(folder, "refine", 1))
    results = json.loads((folder / RESULTS).read_text())
    assert results["reason"] == "interrupted"
    assert len(results["iterations"]) >= 1
    assert "of the refinement was interrupted: SIGTERM received" in error["message"]
    files.read_potential(folder / POTENTIAL_OUT)


class Ending:
    """A progress report that comes with SIGTERM when the refinement has judged its last potential."""

    def report(self, phase: str, step: int, total: int, **numbers: float) -> None:
        if phase == "refine":
            signal.raise_signal(signal.SIGTERM)


def test_a_signal_when_all_is_done_takes_no_results(folder: Path) -> None:
    job = validate(
        RefineJob,
        {**JOBS["refine"], "machine": MACHINE, "chi2_stop": 1e6, "growth": {"thresholds": [], "against_noise": 0}},
    )
    with pytest.raises(EngineError, match="the end of the refinement was interrupted: SIGTERM received") as caught:
        refine.run(job, folder, Ending())
    assert caught.value.status == ExitStatus.INTERRUPTED
    assert isinstance(caught.value.results, RefineResults)
    assert caught.value.results.reason.is_complete
    assert len(caught.value.results.iterations) == 1


def test_a_full_disk_has_a_status_of_its_own(folder: Path) -> None:
    """A real limit of the size of a file, which a trajectory of 32 atoms and 1000 snapshots exceeds."""
    job = {**JOBS["sample"], "machine": MACHINE, "sampling": {**SAMPLING, "production_fs": 8000.0}}
    (folder / "job.json").write_text(json.dumps(job))
    with start(folder, "sample", largest_kib=200) as process:
        message = ended(process, folder)
    assert process.returncode == 1, message
    error = json.loads((folder / ERROR).read_text())
    assert error["exit_status"] == ExitStatus.DISK_FULL
    assert "cannot be written: file too large; make room" in error["message"]
    assert not list(folder.glob("*.part"))


def test_where_nothing_can_be_written_standard_error_tells(folder: Path) -> None:
    (folder / "job.json").write_text("{")
    with start(folder, "sample", largest_kib=0) as process:
        message = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 1
    assert "INVALID_INPUT" in message
    assert f"{ERROR} cannot be written: File too large" in message
    assert not list(folder.glob("error.json*"))
