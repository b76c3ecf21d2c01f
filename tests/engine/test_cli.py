"""The console script: every kind of job in a folder, failures with their exit status, signals, accelerators."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import ase.io
import jax
import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator

from aiida_difftre.engine import cli
from aiida_difftre.engine.calculators.difftre import DiffTReCalculator
from aiida_difftre.engine.contract.base import derived_seed
from aiida_difftre.engine.contract.files import read_potential
from aiida_difftre.engine.contract.jobs import (
    CHECKPOINT,
    DATASET,
    ERROR,
    OPTIMIZER_OUT,
    POTENTIAL_IN,
    POTENTIAL_OUT,
    PREDICTIONS,
    PROGRESS,
    RESULTS,
    STRUCTURE,
    TRAJECTORY,
)
from aiida_difftre.engine.contract.kinds import RESULTS_OF
from aiida_difftre.engine.contract.records import ErrorReport, ProgressLine
from aiida_difftre.engine.contract.trajectories import read_trajectory
from aiida_difftre.engine.errors import ExitStatus
from aiida_difftre.engine.jobs import refine, refine_trajectories
from aiida_difftre.engine.potentials import potential as potentials
from tests.fixtures.engine import argon, lennard_jones, target

MACHINE = {"precision": "float64", "threads": 1, "compilation_cache": jax.config.jax_compilation_cache_dir}
SAMPLING = {
    "walkers": 2, "timestep_fs": 4.0, "equilibration_fs": 40.0, "production_fs": 160.0, "stride_fs": 8.0,
    "thermostat": {"name": "langevin", "friction_per_ps": 5.0},
}  # fmt: skip
PRESSURE = target("pressure", [0.1], error=0.02).model_dump()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    # The engine sets these for its process; here they must not outlive the test.
    monkeypatch.setenv("XLA_FLAGS", os.environ.get("XLA_FLAGS", ""))
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    potential, parameters = lennard_jones()
    potentials.save(tmp_path / POTENTIAL_IN, potential, parameters)
    ase.io.write(tmp_path / STRUCTURE, argon())
    return tmp_path


def write(folder: Path, **content: Any) -> Path:
    content.setdefault("machine", MACHINE)
    path = folder / "job.json"
    path.write_text(json.dumps(content))
    return path


def run(folder: Path, kind: str, **content: Any) -> dict[str, Any]:
    assert cli.cli([kind, str(write(folder, **content))]) == 0
    assert not (folder / ERROR).exists()
    results = json.loads((folder / RESULTS).read_text())
    assert results["kind"] == kind
    assert results["engine"]["precision"] == "float64"
    assert results["engine"]["jax"] == jax.__version__
    assert results["timings"]["total_s"] > 0
    assert RESULTS_OF[kind].model_validate(results).content() == results
    for line in (folder / PROGRESS).read_text().splitlines() if (folder / PROGRESS).exists() else []:
        assert ProgressLine.model_validate_json(line).content() == json.loads(line)
    newest = max(path.stat().st_mtime_ns for path in folder.iterdir() if path.name != RESULTS)
    assert (folder / RESULTS).stat().st_mtime_ns >= newest
    return results


def fail(folder: Path, kind: str, **content: Any) -> dict[str, Any]:
    (folder / RESULTS).write_text("of an earlier run")
    assert cli.cli([kind, str(write(folder, **content))]) == 1
    assert not (folder / RESULTS).exists()
    error = json.loads((folder / ERROR).read_text())
    assert error["kind"] == kind
    assert ErrorReport.model_validate(error).content() == error
    assert error["status"] == ExitStatus(error["exit_status"]).name
    return error


def sample_job(**changes: Any) -> dict[str, Any]:
    rdf = {"observable": "rdf", "grid": [0.45 + 0.9 * k for k in range(6)]}
    wanted = [{"observable": name} for name in ("potential_energy", "pressure", "stress", "stiffness")]
    return {"temperature": 60.0, "sampling": SAMPLING, "observables": [*wanted, rdf], **changes}


def test_sample_update_predict(folder: Path) -> None:
    """One folder, as the work chains do it in three."""
    sampled = run(folder, "sample", **sample_job())
    assert sampled["snapshots"] == 40
    assert sampled["walkers"] == 2
    assert sampled["statistical_inefficiency"] >= 1
    assert set(sampled["stationarity"]["drift"]) == set(sampled["stationarity"]["r_hat"]) == {"energy"}
    assert all(1 <= p["effective_samples"] <= 40 for p in sampled["predictions"])
    assert [p["label"] for p in sampled["predictions"]] == [
        "potential_energy", "pressure", "stress", "stiffness", "rdf",
    ]  # fmt: skip
    assert all(e > 0 for e in sampled["predictions"][1]["errors"])
    assert not (folder / CHECKPOINT).exists()
    trajectory = read_trajectory(folder / TRAJECTORY)
    assert sampled["mean_energy"] == pytest.approx(trajectory.energies.mean())
    phases = [json.loads(line)["phase"] for line in (folder / PROGRESS).read_text().splitlines()]
    assert phases[-1] == "production"

    point = {"label": "cold", "temperature": 60.0, "targets": [PRESSURE]}
    optimizer = {"name": "adam", "learning_rate": 1e-4}
    updated = run(
        folder, "update", state_points=[point],
        update={"max_steps": 2, "gate": 0.5, "bootstrap": 20, "optimizer": optimizer},
    )  # fmt: skip
    assert updated["reason"] in {"max_steps", "gate"}
    assert updated["chi2_after"] < updated["chi2_before"]
    assert updated["state_points"]["cold"]["before"][0]["values"] == pytest.approx(
        sampled["predictions"][1]["values"], rel=1e-9
    )
    before, after = (read_potential(folder / name)[1] for name in (POTENTIAL_IN, POTENTIAL_OUT))
    assert list(before) == list(after)
    assert any(not np.array_equal(before[key], after[key]) for key in before)
    assert (folder / OPTIMIZER_OUT).exists()
    again = run(
        folder, "update", state_points=[point], optimizer_state=OPTIMIZER_OUT,
        update={"max_steps": 1, "gate": 0.5, "bootstrap": 20, "optimizer": optimizer},
    )  # fmt: skip
    assert again["steps"] == 1

    predicted = run(
        folder, "predict", structures=STRUCTURE, trajectory=TRAJECTORY, temperature=60.0,
        observables=[{"observable": "pressure"}],
    )  # fmt: skip
    assert predicted["structures"] == 1
    assert predicted["predictions"][0]["values"] == pytest.approx(sampled["predictions"][1]["values"], rel=1e-9)
    with np.load(folder / PREDICTIONS) as arrays:
        assert arrays["forces"].shape == (32, 3)


def test_continue_from_a_trajectory(folder: Path) -> None:
    run(folder, "sample", **sample_job(observables=[]))
    first = read_trajectory(folder / TRAJECTORY)
    (folder / TRAJECTORY).rename(folder / "before.npz")
    run(folder, "sample", **sample_job(observables=[], start_trajectory="before.npz", seed=3))
    second = read_trajectory(folder / TRAJECTORY)
    moved = (second.positions[0] - first.last_positions[0]) @ first.cell
    # 48 fs later; from the crystal it would be half the thermal amplitude and more.
    assert np.abs(moved).max() < 0.3


@pytest.mark.parametrize("name", [RESULTS, ERROR])
def test_a_folder_where_a_file_belongs(folder: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "job.json").write_text(json.dumps(sample_job(temperature=-1.0)))
    (folder / name).mkdir()
    assert cli.cli(["sample", str(folder / "job.json")]) == 1
    assert f"INVALID_INPUT: {name}: Is a directory; the folder of a job has to be writable" in capsys.readouterr().err


def test_a_job_file_that_leads_to_itself(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "job.json").symlink_to("job.json")
    assert cli.cli(["sample", str(folder / "job.json")]) == 1
    assert "INVALID_INPUT: " in capsys.readouterr().err


def test_pretrain_and_refine(folder: Path) -> None:
    truth = DiffTReCalculator(*lennard_jones())
    frames = []
    for seed in range(4):
        atoms = argon(1)
        atoms.rattle(0.15, seed=seed)
        truth.calculate(atoms)
        labels = {name: truth.results[name] for name in ("energy", "forces", "stress")}
        atoms.calc = SinglePointCalculator(atoms, **labels)
        frames.append(atoms)
    ase.io.write(folder / DATASET, frames)
    spec = {"species": ["Ar"], "terms": [{"architecture": "lennard_jones", "cutoff": 5.0,
            "hyperparameters": {"epsilon": 0.009, "sigma": 3.45}}]}  # fmt: skip
    trained = run(
        folder, "pretrain", potential=spec, atomic_energies={"Ar": 0.0}, steps=60, evaluate_every=20,
        validation_fraction=0.25, optimizer={"learning_rate": 3e-3},
    )  # fmt: skip
    assert trained["errors"]["validation"]["force_rmse"] < 20
    point = {"label": "cold", "temperature": 60.0, "targets": [PRESSURE]}
    elsewhere = {"label": "warm", "temperature": 80.0, "targets": [{**PRESSURE, "role": "test"}]}
    refined = run(
        folder, "refine", potential=POTENTIAL_OUT, state_points=[elsewhere, point], sampling=SAMPLING, max_iterations=1,
        validation=SAMPLING, chi2_stop=0.0,
        update={"max_steps": 1, "gate": 0.5, "bootstrap": 20, "optimizer": {"learning_rate": 1e-4}},
    )  # fmt: skip
    assert refined["reason"] == "max_iterations"
    assert len(refined["iterations"]) == 2
    assert refined["best_iteration"] in {0, 1}
    assert refined["selected"]["criterion"] == "training"
    assert refined["selected"]["sentence"].startswith(f"iteration {refined['best_iteration']}, by training targets")
    assert refined["validation"]["cold"][0]["label"] == "pressure"
    # What only serves to check has no part in the refinement.
    assert all(set(item["predictions"]) == {"cold"} for item in refined["iterations"])
    assert refined["validation"]["warm"][0]["values"][0] > refined["validation"]["cold"][0]["values"][0]


REFINEMENT: dict[str, Any] = {
    "state_points": [
        {"label": "warm", "temperature": 80.0, "targets": [{**PRESSURE, "role": "test"}]},
        {"label": "cold", "temperature": 60.0, "targets": [PRESSURE]},
    ],
    "sampling": SAMPLING,
    "max_iterations": 1,
    "chi2_stop": 0.0,
    "update": {"max_steps": 1, "gate": 0.5, "bootstrap": 20, "optimizer": {"learning_rate": 1e-4}},
}


def wrong(observable: str, values: list[float], **options: Any) -> dict[str, Any]:
    """A target of what no argon has, with an error bar that forgives nothing."""
    return {
        **target(observable, values, error=1e-3, **options).model_dump(),
        "role": "test",
        "label": f"no_{observable}",
    }


def test_a_wrong_test_target_changes_no_bit(folder: Path) -> None:
    """Of the same observable, of one that costs the snapshots more, and of a curve; at its own state point as well."""
    curve = wrong("structure_factor", [9.0, 3.0, 2.0, 1.1], grid=[2.0, 3.0, 4.0, 5.0])
    every = [wrong("pressure", [1e3]), wrong("stress", [1e3] * 6), curve]
    found = []
    for tests in ([], every):
        points = [{"label": "cold", "temperature": 60.0, "targets": [PRESSURE, *tests]}]
        points += [{"label": "warm", "temperature": 80.0, "targets": tests}] if tests else []
        results = run(folder, "refine", **{**REFINEMENT, "state_points": points, "max_iterations": 2})
        results.pop("timings"), results.pop("engine")
        found.append((results, (folder / POTENTIAL_OUT).read_bytes()))
    assert found[0] == found[1]
    assert len(found[0][0]["iterations"]) == 3

    # And a single update.
    run(folder, "sample", **sample_job(observables=[]))
    moved = []
    for tests in ([], every):
        point = {"label": "cold", "temperature": 60.0, "targets": [*tests, PRESSURE]}
        results = run(folder, "update", state_points=[point], update=REFINEMENT["update"])
        moved.append((results["history"], (folder / POTENTIAL_OUT).read_bytes()))
    assert moved[0] == moved[1]


def test_a_selection_target_chooses_and_moves_nothing(folder: Path) -> None:
    """At a state point of its own, which is sampled for it and bounds no step."""
    run(folder, "sample", **sample_job(observables=[]))
    (folder / TRAJECTORY).rename(folder / "warm.npz")
    run(folder, "sample", **sample_job(observables=[], seed=5))
    cold = {"label": "cold", "temperature": 60.0, "targets": [PRESSURE]}
    chooser = {**PRESSURE, "role": "selection", "values": [1e3]}
    other = {"label": "other", "temperature": 60.0, "trajectory": "warm.npz", "targets": [chooser]}
    alone = run(folder, "update", state_points=[cold], update=REFINEMENT["update"])
    bytes_alone = (folder / POTENTIAL_OUT).read_bytes()
    together = run(folder, "update", state_points=[other, cold], update=REFINEMENT["update"])
    assert (folder / POTENTIAL_OUT).read_bytes() == bytes_alone
    assert together["history"] == alone["history"]
    assert together["chi2_before_selection"] > 1e6 > together["chi2_before"]
    assert "after" not in together["state_points"]["other"]
    assert (
        together["state_points"]["other"]["before"][0]["values"]
        != together["state_points"]["cold"]["before"][0]["values"]
    )


def fail_with_results(folder: Path, **changes: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    assert cli.cli(["refine", str(write(folder, **{**REFINEMENT, "validation": SAMPLING, **changes}))]) == 1
    results, error = (json.loads((folder / name).read_text()) for name in (RESULTS, ERROR))
    assert results["chi2"] > 0
    read_potential(folder / POTENTIAL_OUT)
    assert f"{RESULTS} and {POTENTIAL_OUT} hold the best" in error["message"]
    return results, error


def test_a_validation_that_fails_leaves_the_refinement(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = refine_trajectories.protocol.sample

    def unstable(*arguments: Any, **keywords: Any) -> Any:
        *_, point, _, _ = arguments
        if point.temperature == 80.0:  # which only the validation samples
            raise cli.EngineError(ExitStatus.NOT_FINITE, "it exploded", {"last": np.inf})
        return sample(*arguments, **keywords)

    monkeypatch.setattr(refine_trajectories.protocol, "sample", unstable)
    results, error = fail_with_results(folder)
    assert (results["reason"], len(results["iterations"])) == ("max_iterations", 2)
    described = {"status": "NOT_FINITE", "message": "it exploded", "diagnostics": {"last": "inf"}}
    assert results["validation"]["warm"] == {"error": described}
    assert results["validation"]["cold"][0]["label"] == "pressure"
    assert error["exit_status"] == ExitStatus.NOT_FINITE
    assert "the validation of the refinement failed: it exploded" in error["message"]


@pytest.mark.parametrize("part", ["sampling", "update"])
def test_the_last_roll_back_leaves_the_refinement(folder: Path, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    sample = refine_trajectories.protocol.sample
    first = derived_seed(0, "sample", 0, "cold")

    def explode(*arguments: Any, **_: Any) -> Any:
        if part == "sampling" and arguments[-1].seed == first:
            return sample(*arguments)
        raise cli.EngineError(ExitStatus.NOT_FINITE, "it exploded")

    monkeypatch.setattr(
        *((refine_trajectories.protocol, "sample") if part == "sampling" else (refine, "minimise")), explode
    )
    results, error = fail_with_results(folder, max_roll_backs=0, max_iterations=2)
    assert (results["reason"], results["best_iteration"], results["validation"]) == ("too_many_roll_backs", 0, None)
    assert results["error"]["message"] == "it exploded"
    assert results["iterations"][0]["chi2"] == results["chi2"]
    assert error["exit_status"] == ExitStatus.NOT_FINITE
    assert f"iteration {1 if part == 'sampling' else 0} of the refinement failed: it exploded" in error["message"]


def test_a_first_trajectory_that_fails_leaves_no_results(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*_: Any, **__: Any) -> Any:
        raise cli.EngineError(ExitStatus.NOT_FINITE, "it exploded")

    monkeypatch.setattr(refine_trajectories.protocol, "sample", explode)
    assert fail(folder, "refine", **REFINEMENT)["message"] == "it exploded"


NAN = json.loads("NaN")


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("sample", {"temprature": 60.0}, "temprature"),
        ("sample", {"temperature": 0.0}, "temperature"),
        ("sample", {"observables": [{"observable": "viscosity"}]}, "unknown observable 'viscosity'"),
        ("sample", {"potential": "../potential.safetensors"}, "not a plain file name"),
        ("sample", {"start_trajectory": "/etc/passwd"}, "not a plain file name"),
        ("sample", {"sampling": {**SAMPLING, "stride_fs": 1.0}}, "shorter than timestep_fs"),
        ("sample", {"observables": [{"observable": "rdf", "grid": [1.0, 0.5]}]}, "must increase strictly"),
        ("sample", {"observables": [{"observable": "rdf", "grid": [5.0, 6.0]}]}, "beyond half of the smallest height"),
        ("sample", {"schema_version": 2}, "schema_version"),
        ("sample", {"seed": -1}, r"seed: .*at least 0 .*\(got -1\)"),
        ("sample", {"seed": 2**62}, f"seed: .*below {2**62}"),
        ("update", {"values": [NAN]}, r"values\[0\] is nan"),
        ("update", {"errors": [-0.1]}, r"errors\[0\] of target 'pressure' is -0.1"),
        ("update", {"unit": "bar"}, "comes in 'GPa'"),
        ("pretrain", {"cutoff": -1.0}, "cutoff"),
        ("pretrain", {"cutoff": 50.0}, "50"),
        ("pretrain", {"architecture": "mace"}, "unknown architecture 'mace'"),
    ],
)
def test_invalid_input_is_named(folder: Path, kind: str, changes: dict[str, Any], message: str) -> None:
    if kind == "sample":
        content = sample_job(**changes)
    elif kind == "update":
        content = {"state_points": [{"label": "a", "temperature": 60.0, "targets": [{**PRESSURE, **changes}]}]}
    else:
        term = {"architecture": "lennard_jones", "cutoff": 5.0, **changes}
        content = {"potential": {"species": ["Ar"], "terms": [term]}}
        ase.io.write(folder / DATASET, [argon(1)])
    error = fail(folder, kind, **content)
    assert error["exit_status"] == ExitStatus.INVALID_INPUT
    assert re.search(message, error["message"]), error["message"]


def test_files_that_are_refused(folder: Path) -> None:
    krypton = argon(1)
    krypton.symbols[0] = "Kr"
    ase.io.write(folder / STRUCTURE, krypton)
    error = fail(folder, "sample", **sample_job())
    assert error["exit_status"] == ExitStatus.INVALID_INPUT
    assert "contains Kr" in error["message"]
    (folder / STRUCTURE).unlink()
    assert "structure.extxyz" in fail(folder, "sample", **sample_job())["message"]
    content = (folder / POTENTIAL_IN).read_bytes()
    for broken in (content[: len(content) // 2], b"", b"nonsense" * 100):
        (folder / POTENTIAL_IN).write_bytes(broken)
        error = fail(folder, "sample", **sample_job())
        assert error["exit_status"] == ExitStatus.CORRUPT_FILE
        assert POTENTIAL_IN in error["message"]
    (folder / "job.json").write_text("{")
    assert cli.cli(["sample", str(folder / "job.json")]) == 1
    assert json.loads((folder / ERROR).read_text())["exit_status"] == ExitStatus.INVALID_INPUT


def test_trajectory_that_is_corrupt(folder: Path) -> None:
    (folder / TRAJECTORY).write_bytes(b"PK nonsense")
    point = {"label": "a", "temperature": 60.0, "targets": [PRESSURE]}
    assert fail(folder, "update", state_points=[point])["exit_status"] == ExitStatus.CORRUPT_FILE


@pytest.mark.skipif(jax.default_backend() == "gpu", reason="there is a GPU")
def test_gpu_asked_for_without_one(folder: Path) -> None:
    error = fail(folder, "sample", **sample_job(machine={**MACHINE, "platform": "gpu"}))
    assert error["exit_status"] == ExitStatus.NO_ACCELERATOR
    assert "'cpu'" in error["message"]


def test_a_cache_that_cannot_be_made(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A job without one takes longer; a job that names one is told that it cannot be."""
    (folder / "file").touch()
    cache = str(folder / "file" / "cache")
    machine = {**MACHINE, "compilation_cache": None}
    monkeypatch.setenv("DIFFTRE_CACHE", cache)
    run(folder, "predict", structures=STRUCTURE, machine=machine)
    warning = capsys.readouterr().err
    assert cache in warning
    assert "DIFFTRE_CACHE" in warning
    error = fail(folder, "predict", structures=STRUCTURE, machine={**machine, "compilation_cache": cache})
    assert error["exit_status"] == ExitStatus.INVALID_INPUT
    assert f"machine.compilation_cache is '{cache}'" in error["message"]

    monkeypatch.delenv("DIFFTRE_CACHE")
    monkeypatch.setattr(Path, "home", _no_home)
    run(folder, "predict", structures=STRUCTURE, machine=machine)
    assert "~/.cache/difftre" in capsys.readouterr().err
    run(folder, "predict", structures=STRUCTURE, machine=MACHINE)
    assert not capsys.readouterr().err


def _no_home() -> Path:
    raise RuntimeError("Could not determine home directory.")


def test_diagnostics_that_are_not_finite_are_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*_: Any) -> None:
        raise cli.EngineError(ExitStatus.NOT_FINITE, "not finite", {"loss": float("nan"), "all": [1.0, -np.inf]})

    monkeypatch.setattr(cli, "run_job", explode)
    assert fail(folder, "sample", **sample_job())["diagnostics"] == {"loss": "nan", "all": [1.0, "-inf"]}


def test_memory_that_runs_out_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*_: Any) -> None:
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate")

    monkeypatch.setattr(cli, "run_job", explode)
    assert fail(folder, "sample", **sample_job())["exit_status"] == ExitStatus.OUT_OF_MEMORY


def test_unexpected_errors_are_shown(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def explode(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(cli, "run_job", explode)
    assert cli.cli(["sample", str(write(folder, **sample_job()))]) == 2
    assert "ZeroDivisionError" in capsys.readouterr().err
    assert not (folder / ERROR).exists()


def start_process(folder: Path) -> subprocess.Popen[bytes]:
    # With two devices and three walkers, one walker fills up a device.
    return subprocess.Popen(
        [sys.executable, "-m", "aiida_difftre.engine.cli", "sample", str(folder / "job.json")], stderr=subprocess.PIPE
    )


def test_sigterm_leaves_a_checkpoint_from_which_a_rerun_finishes(folder: Path) -> None:
    sampling = {**SAMPLING, "walkers": 3, "production_fs": 40000.0, "equilibration_fs": 80.0}
    job = sample_job(observables=[{"observable": "pressure"}], machine={**MACHINE, "threads": 2})
    write(folder, **{**job, "sampling": sampling})
    process = start_process(folder)
    deadline = time.monotonic() + 240
    while not (folder / PROGRESS).exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, message = process.communicate(timeout=120)
    assert process.returncode == 1, message.decode()
    assert b"INTERRUPTED" in message
    assert json.loads((folder / ERROR).read_text())["exit_status"] == ExitStatus.INTERRUPTED
    assert (folder / CHECKPOINT).exists()
    assert not (folder / RESULTS).exists()
    done = json.loads((folder / PROGRESS).read_text().splitlines()[-1])["step"]
    rerun = start_process(folder)
    _, message = rerun.communicate(timeout=300)
    assert rerun.returncode == 0, message.decode()
    assert not (folder / ERROR).exists()
    assert not (folder / CHECKPOINT).exists()
    results = json.loads((folder / RESULTS).read_text())
    assert results["snapshots"] == 3 * 5000
    assert results["engine"]["devices"] == 2
    assert done > 0
    trajectory = read_trajectory(folder / TRAJECTORY)
    assert trajectory.positions.shape == (15000, 32, 3)
    assert np.isfinite(trajectory.energies).all()
    assert np.abs(np.diff(trajectory.positions.reshape(3, 5000, 32, 3), axis=1)).max() < 0.02


def test_version_and_unknown_kind(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.cli(["--version"])
    assert caught.value.code == 0
    with pytest.raises(SystemExit) as caught:
        cli.cli(["train"])
    assert caught.value.code == 2
    assert "pretrain" in capsys.readouterr().err


def test_a_file_that_changed_since_the_job_was_made(folder: Path) -> None:
    error = fail(folder, "sample", temperature=85.0, sampling=SAMPLING, digests={POTENTIAL_IN: "0" * 64})
    assert error["exit_status"] == ExitStatus.CORRUPT_FILE
    assert re.search(r"potential\.safetensors has changed since the job was made", error["message"])
