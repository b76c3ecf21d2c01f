"""Self-diffusion: against an exact result, a published one, another program, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import ase.io
import jax
import numpy as np
import pytest
from ase.md.analysis import DiffusionCoefficient

from aiida_difftre.engine import units
from aiida_difftre.engine.contract.jobs import POTENTIAL_IN, STRUCTURE, SampleJob, SamplingSettings
from aiida_difftre.engine.contract.observables import ObservableRequest
from aiida_difftre.engine.contract.targets import Target
from aiida_difftre.engine.contract.trajectories import Trajectory, read_trajectory
from aiida_difftre.engine.contract.validation import validate
from aiida_difftre.engine.errors import EngineError
from aiida_difftre.engine.jobs import sample
from aiida_difftre.engine.observables.diffusion import size_correction
from aiida_difftre.engine.potentials import potential as potentials
from aiida_difftre.engine.potentials.potential import Potential
from aiida_difftre.engine.reweighting.predictions import of_dynamics, predict_trajectory
from aiida_difftre.engine.runtime.progress import Silent
from tests.fixtures.engine import DOUBLE, argon, build, lennard_jones, simulate, start

NOSE_HOOVER = {"name": "nose_hoover", "time_constant_fs": 400.0}


def request(**options: Any) -> ObservableRequest:
    return ObservableRequest(observable="diffusion", options=options)


def sampling(**changes: Any) -> dict[str, Any]:
    return {"walkers": 8, "timestep_fs": 8.0, "stride_fs": 80.0, "thermostat": NOSE_HOOVER, **changes}


def still() -> tuple[Potential, Any]:
    """No forces at all."""
    potential = build("external_polynomial", ["Ar"], 1.0, coefficients=[0.0])
    return potential, potential.init(jax.random.key(0))


def test_free_particles_diffuse_as_their_friction_says() -> None:
    """D = kT/(mγ), of which the motion of the centre of mass is a part in N."""
    friction = {"name": "langevin", "friction_per_ps": 10.0}
    settings = sampling(thermostat=friction, equilibration_fs=400.0, production_fs=16000.0, min_distance=1e-6)
    gas = start(argon(), 8)
    found = simulate(*still(), gas, temperature=85.0, settings=SamplingSettings(**settings))
    (value,), (error,) = (lambda p: (p.values, p.errors))(of_dynamics(found, request(begin_fs=1000.0, end_fs=3000.0)))
    speed = units.BOLTZMANN * units.ELEMENTARY_CHARGE * 85.0 / (39.948 * 1.66053907e-27)
    exact = speed / 10e12 * 1e9 * (1 - 1 / len(gas.symbols))
    assert exact == pytest.approx(1.71, abs=0.01)
    assert error < 0.06
    assert abs(value - exact) < 3 * error


def walked(symbols: list[str], speeds: np.ndarray, snapshots: int = 400, walkers: int = 16) -> Trajectory:
    """A random walk without dynamics: atoms of the coefficients ``speeds`` (Å²/fs), every 10 fs, in a slanted cell."""
    cell = np.array([[9.0, 0.0, 0.0], [2.0, 10.0, 0.0], [0.0, -3.0, 11.0]])
    steps = np.random.default_rng(0).normal(size=(walkers, snapshots, len(symbols), 3))
    steps *= np.sqrt(2 * speeds * 10.0)[:, None]
    paths = (np.cumsum(steps, axis=1) @ np.linalg.inv(cell)).reshape(-1, len(symbols), 3)
    count = walkers * snapshots
    return Trajectory(
        positions=paths.astype(np.float32), cell=cell, species=tuple(symbols), energies=np.zeros(count),
        walkers=np.repeat(np.arange(walkers, dtype=np.int32), snapshots),
        times=np.tile(np.arange(snapshots) * 10.0, walkers), temperatures=np.full(count, 300.0),
        last_positions=paths[-walkers:], last_velocities=np.zeros((walkers, len(symbols), 3)), temperature=300.0,
        scales=np.ones(count), last_scales=np.ones(walkers),
    )  # fmt: skip


def test_species_of_a_random_walk_diffuse_as_they_were_told() -> None:
    """Relative to the centre of mass, in which the heavy ones count for more: exactly known for independent steps."""
    symbols = ["H"] * 6 + ["Xe"] * 2
    speeds = np.where(np.array(symbols) == "H", 3e-4, 1e-4)
    masses = np.where(np.array(symbols) == "H", 1.008, 131.293)
    found, share = walked(symbols, speeds), masses / masses.sum()
    of_centre = np.sum(share**2 * speeds)
    window = {"begin_fs": 20.0, "end_fs": 400.0}
    for wanted in ("H", "Xe", None):
        chosen = np.array([wanted in (None, symbol) for symbol in symbols])
        exact = 1e4 * np.mean((speeds * (1 - 2 * share) + of_centre)[chosen])
        told = of_dynamics(found, request(species=wanted, **window))
        assert told.errors[0] < 0.05 * exact
        assert told.values[0] == pytest.approx(exact, abs=3 * told.errors[0])
    # The heavy pair moves against itself alone: half of what each walks.
    assert of_dynamics(found, request(species="Xe", **window)).values[0] == pytest.approx(0.5, abs=0.1)
    with pytest.raises(EngineError, match="16 walkers of 1 snapshots do not tell a slope"):
        of_dynamics(walked(symbols, speeds, snapshots=1), request(**window))


@cache
def rahman() -> Trajectory:
    """Liquid argon at 94.4 K and 1.374 g/cm³: ε/k = 120 K, σ = 3.4 Å, cut at 2.25 σ."""
    epsilon = 120 * units.BOLTZMANN
    potential = build("lennard_jones", ["Ar"], 2.25 * 3.4, epsilon=epsilon, sigma=3.4)
    crystal = argon(3, (4 * 39.948 * 1.66053907 / 1.374) ** (1 / 3))
    crystal.rattle(0.3, seed=3)
    settings = SamplingSettings(**sampling(walkers=4, equilibration_fs=3200.0, production_fs=12000.0, min_distance=1.5))
    machine = DOUBLE.model_copy(update={"precision": "float32"})
    return simulate(
        potential,
        potential.init(jax.random.key(0)),
        start(crystal, 4),
        temperature=94.4,
        settings=settings,
        machine=machine,
    )


def test_argon_diffuses_as_in_the_first_simulation_of_a_liquid() -> None:
    """A. Rahman, Phys. Rev. 136, A405 (1964): 2.43e-9 m²/s with 864 atoms, in a cell twice as large."""
    options = {"begin_fs": 1500.0, "end_fs": 6000.0}
    plain = of_dynamics(rahman(), request(**options))
    edge = float(rahman().cell[0, 0])
    larger = size_correction(94.4, 0.231, edge) - size_correction(94.4, 0.231, 2 * edge)
    assert larger == pytest.approx(0.24, abs=0.02)
    assert plain.errors[0] < 0.2
    assert plain.values[0] + larger == pytest.approx(2.43, abs=0.1 + 2 * plain.errors[0])
    assert plain.labels == ["D of this cell"]
    viscosity = {"viscosity_mPa_s": 0.231, "viscosity_citation": "Lemmon and Jacobsen (2004)"}
    corrected = of_dynamics(rahman(), request(**options, **viscosity))
    assert corrected.labels == ["D"]
    assert corrected.values[0] - plain.values[0] == pytest.approx(2 * larger)
    assert corrected.fitted["D of this cell"] == plain.values[0]


def test_another_program_finds_the_same() -> None:
    """ase takes one origin for each walker, and a line through all times; so the window begins at once."""
    trajectory = rahman()
    found = of_dynamics(trajectory, request(begin_fs=80.0, end_fs=6000.0))
    slopes = []
    for walker in range(4):
        paths = trajectory.positions[trajectory.walkers == walker].astype(float) @ trajectory.cell
        images = [ase.Atoms("Ar108", positions=path, cell=trajectory.cell) for path in paths]
        # In units of ase, Å² over its time.
        coefficient = DiffusionCoefficient(images, timestep=80.0 * ase.units.fs)
        coefficient.calculate(ignore_n_images=1, number_of_segments=2)
        (slope,), _ = coefficient.get_diffusion_coefficients()
        slopes.append(slope * ase.units.fs * 1e4)
    spread = np.std(slopes, ddof=1) / np.sqrt(4)
    assert np.mean(slopes) == pytest.approx(found.values[0], abs=3 * float(np.hypot(spread, found.errors[0])))
    assert spread < 0.3


def test_a_job_that_samples_predicts_it_beside_averages(tmp_path: Path) -> None:
    """In the order in which they were asked for; and what does not tell a slope is refused before or after."""
    potential, parameters = lennard_jones()
    potentials.save(tmp_path / POTENTIAL_IN, potential, parameters)
    ase.io.write(tmp_path / STRUCTURE, argon())
    window = {"observable": "diffusion", "options": {"begin_fs": 80.0, "end_fs": 400.0}}
    wanted = {"observables": [window, {"observable": "potential_energy"}], "temperature": 40.0}
    short = sampling(walkers=2, equilibration_fs=80.0, production_fs=800.0)
    job = validate(SampleJob, {**wanted, "sampling": short})
    first, second = sample.run(job, tmp_path, Silent()).predictions
    assert (first.observable, second.observable) == ("diffusion", "potential_energy")
    assert abs(first.values[0]) < 1.0, "of a crystal"
    trajectory = read_trajectory(tmp_path / "trajectory.npz")
    with pytest.raises(EngineError, match="2 walkers of 10 snapshots do not tell a slope from 80 to 8000 fs"):
        of_dynamics(trajectory, request(begin_fs=80.0))
    slanted = trajectory.cell.copy()
    slanted[0, 1] = 1.0
    moved = replace(trajectory, cell=slanted)
    viscous = request(begin_fs=80.0, end_fs=400.0, viscosity_mPa_s=0.2, viscosity_citation="a table")
    with pytest.raises(EngineError, match=r"known for cubic cells.*leave out viscosity_mPa_s"):
        predict_trajectory(potential, parameters, moved, [viscous], machine=DOUBLE, seed=0)


MEASURED = {
    "observable": "diffusion", "values": [1.53], "errors": [0.1], "unit": "1e-9 m2/s",
    "conditions": {"temperature": 85.0}, "citation": "a test",
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {},
            "has the role training, but diffusion is a property of the dynamics.*reweighting cannot train it.*role: t",
        ),
        ({"role": "selection"}, "has the role selection"),
        ({"role": "test", "options": {"viscosity_mPa_s": 0.3}}, "viscosity_citation None; give both, or neither"),
        ({"role": "test", "options": {"begin_fs": 9000.0}}, "9000, which is not before end_fs = 8000"),
        ({"role": "test", "options": {"viscosity_mPa_s": -1.0}}, "is -1.0; give one above 0"),
    ],
)
def test_a_target_is_a_test(changes: dict[str, Any], message: str) -> None:
    assert validate(Target, {**MEASURED, "role": "test"}).component_labels() == ["D of this cell"]
    with pytest.raises(ValueError, match=message):
        validate(Target, {**MEASURED, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"thermostat": {"name": "langevin"}}, "friction_per_ps = 10 slows down; give this sampling thermostat"),
        ({"walkers": None}, "give their number, such as walkers: 8"),
        ({"walkers": 1}, "walkers is 1; sample at least 2"),
        ({"production_fs": 9000.0}, "followed for 16000 fs, and production_fs is 9000"),
        ({"stride_fs": 4000.0}, "fewer than 4 points; give a shorter stride_fs"),
        ({"barostat": {}}, "needs an NVT trajectory, not NPT"),
    ],
)
def test_a_run_whose_dynamics_does_not_tell_is_refused(changes: dict[str, Any], message: str) -> None:
    asked = {"temperature": 85.0, "pressure": 0.0, "observables": [{"observable": "diffusion"}]}
    long = sampling(production_fs=16000.0)
    assert validate(SampleJob, {**asked, "sampling": long})
    weak = {"thermostat": {"name": "langevin", "friction_per_ps": 0.05}}
    assert validate(SampleJob, {**asked, "sampling": {**long, **weak}})
    with pytest.raises(ValueError, match=message):
        validate(SampleJob, {**asked, "sampling": {**long, **changes}})
