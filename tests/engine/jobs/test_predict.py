"""Predictions for structures, and the stiffness of Stillinger-Weber silicon at rest."""

from __future__ import annotations

import os
from pathlib import Path

import ase.io
import jax
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator

from aiida_difftre.engine.calculators.difftre import DiffTReCalculator
from aiida_difftre.engine.contract.jobs import (
    POTENTIAL_IN,
    PREDICTIONS,
    TRAJECTORY,
    PotentialSpec,
    PredictJob,
    TermSpec,
)
from aiida_difftre.engine.contract.trajectories import write_trajectory
from aiida_difftre.engine.errors import EngineError, ExitStatus
from aiida_difftre.engine.jobs.predict import run
from aiida_difftre.engine.potentials import potential as potentials
from aiida_difftre.engine.runtime import device
from aiida_difftre.engine.runtime.progress import Silent
from tests.fixtures.engine import rattled


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    term = TermSpec(architecture="stillinger_weber", cutoff=1.8 * 2.0951)
    potential = potentials.build(PotentialSpec(species=["Si"], terms=[term]))
    potentials.save(tmp_path / POTENTIAL_IN, potential, potential.init(jax.random.key(0)))
    return tmp_path


def silicon(rattle: float = 0.0) -> Atoms:
    atoms = bulk("Si", "diamond", a=5.43095, cubic=True)
    atoms.rattle(rattle, seed=1)
    return atoms


def test_structures_of_different_sizes_and_errors(folder: Path) -> None:
    frames = [silicon(0.05), bulk("Si", "diamond", a=5.5), Atoms("Si2", positions=[[0, 0, 0], [0, 0, 2.3]])]
    calculator = DiffTReCalculator(folder / POTENTIAL_IN)
    expected = []
    for number, frame in enumerate(frames):
        calculator.calculate(frame)
        found = calculator.results
        expected.append(found)
        labels = {"energy": found["energy"] + 0.01 * len(frame), "forces": found["forces"] + 0.1}
        if number == 0:
            labels["stress"] = found["stress"]
        frame.calc = SinglePointCalculator(frame, **labels)
    ase.io.write(folder / "frames.extxyz", frames)
    job = PredictJob(structures="frames.extxyz", machine={"precision": "float64"})
    results = run(job, folder, Silent())
    assert results.structures == 3
    assert results.errors.energy_rmse == pytest.approx(10, rel=1e-4)
    assert results.errors.energy_shifted_rmse == pytest.approx(0, abs=1e-3)
    assert results.errors.force_mae == pytest.approx(100, rel=1e-4)
    assert results.errors.stress_rmse == pytest.approx(0, abs=1e-3)
    with np.load(folder / PREDICTIONS) as arrays:
        np.testing.assert_array_equal(arrays["atoms"], [8, 2, 2])
        np.testing.assert_allclose(arrays["energies"], [found["energy"] for found in expected], rtol=1e-6)
        np.testing.assert_allclose(arrays["forces"][:8], expected[0]["forces"], atol=1e-6)
        assert arrays["forces"].shape == (12, 3)
        assert np.isnan(arrays["stresses"][2]).all()


def test_an_interrupted_write_leaves_the_predictions_of_before(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError("No space left on device")

    ase.io.write(folder / "frames.extxyz", silicon(0.02))
    (folder / PREDICTIONS).write_text("before")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        run(PredictJob(structures="frames.extxyz"), folder, Silent())
    assert (folder / PREDICTIONS).read_text() == "before"


def test_static_stiffness_of_silicon(folder: Path) -> None:
    """Literature: 151.4, 76.4 and 56.4 GPa, the last with internal relaxation (117.2 without)."""
    ase.io.write(folder / "frames.extxyz", silicon(0.02))
    results = run(PredictJob(structures="frames.extxyz", static_stiffness=True), folder, Silent()).static
    assert results.stiffness["C11"] == pytest.approx(151.4, abs=0.3)
    assert results.stiffness["C12"] == pytest.approx(76.4, abs=0.3)
    assert results.stiffness["C44"] == pytest.approx(56.4, abs=0.3)
    np.testing.assert_allclose(results.stress, 0, atol=0.05)
    tensor = np.array(results.tensor)
    np.testing.assert_allclose(tensor, tensor.T, atol=0.1)
    assert results.energy == pytest.approx(-4.3366, abs=1e-3)
    assert results.density == pytest.approx(2329, rel=1e-2)


def test_refused(folder: Path) -> None:
    ase.io.write(folder / "frames.extxyz", Atoms("Si2", positions=[[0, 0, 0], [0, 0, 2.3]]))
    with pytest.raises(EngineError, match="periodic in all directions"):
        run(PredictJob(structures="frames.extxyz", static_stiffness=True), folder, Silent())
    ase.io.write(folder / "frames.extxyz", bulk("C"))
    with pytest.raises(EngineError, match="contains C, but the potential is for Si only") as caught:
        run(PredictJob(structures="frames.extxyz"), folder, Silent())
    assert caught.value.status == ExitStatus.INVALID_INPUT


def test_compiler_is_checked_before_a_trajectory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    potential, parameters = potentials.load(folder / POTENTIAL_IN)
    snapshots = rattled(potential, parameters, silicon(), snapshots=4, amplitude=0.02, temperature=300.0)
    write_trajectory(folder / TRAJECTORY, snapshots)
    request = {"observable": "pressure", "label": "pressure"}
    job = PredictJob(trajectory=TRAJECTORY, temperature=300.0, observables=[request])
    assert run(job, folder, Silent()).predictions[0].label == "pressure"
    monkeypatch.setitem(device.SELF_CHECK_TOLERANCE, "float64", -1.0)  # which no difference meets
    with pytest.raises(EngineError, match="miscompiles") as caught:
        run(job, folder, Silent())
    assert caught.value.status == ExitStatus.SELF_CHECK_FAILED
