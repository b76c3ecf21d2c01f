"""Vibrational density of states: against exact modes, against the diffusion of a liquid, and what is refused."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from aiida_difftre.engine import units
from aiida_difftre.engine.contract.jobs import POTENTIAL_IN, STRUCTURE, SampleJob
from aiida_difftre.engine.contract.observables import ObservableRequest
from aiida_difftre.engine.contract.targets import Target
from aiida_difftre.engine.contract.trajectories import Trajectory
from aiida_difftre.engine.contract.validation import validate
from aiida_difftre.engine.errors import EngineError
from aiida_difftre.engine.observables.vibrations import AMU_A2_PER_PS2
from aiida_difftre.engine.reweighting.predictions import of_dynamics
from aiida_difftre.engine.tables.units import factor
from tests.engine.observables.test_diffusion import rahman

GRID = [0.25 + 0.5 * index for index in range(8)]
MASS, TEMPERATURE, SPRING = 40.0, 10.0, 0.3
"""amu, K, eV/Å² of each spring between neighbours."""


def request(grid: list[float] = GRID, **options: Any) -> ObservableRequest:
    return ObservableRequest(observable="vdos", grid=grid, options=options)


def chain_modes(atoms: int) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies (THz) and vectors of a ring of atoms on springs, without the motion of all together."""
    springs = 2 * np.eye(atoms) - np.roll(np.eye(atoms), 1, 0) - np.roll(np.eye(atoms), -1, 0)
    squares, vectors = np.linalg.eigh(springs * SPRING * AMU_A2_PER_PS2 / MASS)
    return np.sqrt(squares[1:]) / (2 * np.pi), vectors[:, 1:]


def vibrating(stride: float = 40.0, atoms: int = 32, walkers: int = 6, snapshots: int = 500) -> Trajectory:
    """Each mode of the ring in each direction with the energy kT and a random phase, snapshots ``stride`` fs apart."""
    frequencies, vectors = chain_modes(atoms)
    phases = np.random.default_rng(0).uniform(0, 2 * np.pi, (walkers, 1, len(frequencies), 3))
    angles = 2 * np.pi * frequencies[:, None] * (np.arange(snapshots) * stride / 1000.0)[:, None, None] + phases
    speed = np.sqrt(2 * units.BOLTZMANN * TEMPERATURE * AMU_A2_PER_PS2 / MASS)
    amplitudes = speed / (2 * np.pi * frequencies)
    moved = np.einsum("am,wtmc->wtac", vectors * amplitudes, np.sin(angles))
    cell = 3.0 * atoms * np.eye(3)
    paths = ((moved + 3.0 * np.arange(atoms)[:, None]) / cell[0, 0]).reshape(-1, atoms, 3)
    count = walkers * snapshots
    return Trajectory(
        positions=paths.astype(np.float32), cell=cell, species=("Ar",) * atoms, energies=np.zeros(count),
        walkers=np.repeat(np.arange(walkers, dtype=np.int32), snapshots),
        times=np.tile(np.arange(snapshots) * stride, walkers), temperatures=np.full(count, TEMPERATURE),
        last_positions=paths[-walkers:], last_velocities=np.zeros((walkers, atoms, 3)), temperature=TEMPERATURE,
        scales=np.ones(count), last_scales=np.ones(walkers), masses=np.full(atoms, MASS),
    )  # fmt: skip


def test_modes_of_a_crystal_are_counted() -> None:
    frequencies, _ = chain_modes(32)
    assert frequencies.max() == pytest.approx(2.7078, abs=1e-4), "√(4K/m) / 2π"
    found = of_dynamics(vibrating(), request(segment_fs=10000.0))
    counted = np.histogram(frequencies, np.arange(9) * 0.5)[0] / len(frequencies) / 0.5
    # A line is spread over some 0.15 THz, so that a part of each bin is in its neighbours.
    np.testing.assert_allclose(found.values, counted, atol=0.08)
    np.testing.assert_allclose(np.cumsum(found.values) * 0.5, np.cumsum(counted) * 0.5, atol=0.04)
    assert sum(found.values) * 0.5 == pytest.approx(1, abs=1e-3)
    assert max(found.values[6:]) < 1e-3
    assert found.fitted["kinetic energy of the paths"] == pytest.approx(1, abs=0.01)
    mean_square = np.sum(np.square(GRID) * found.values) * 0.5
    assert mean_square == pytest.approx(np.mean(frequencies**2), rel=0.03), "the mean curvature over the mass"


def test_snapshots_that_are_too_far_apart_are_refused() -> None:
    with pytest.raises(EngineError, match=r"the paths carry \d+% of the kinetic energy .* shorter stride_fs"):
        of_dynamics(vibrating(stride=250.0), request(GRID[:4]))
    with pytest.raises(EngineError, match="6 walkers of 500 snapshots do not tell segments of 1e"):
        of_dynamics(vibrating(), request(segment_fs=1e6))


def without(trajectory: Trajectory, left_out: np.ndarray) -> Trajectory:
    """A trajectory without some of its snapshots."""
    names = ("positions", "energies", "walkers", "times", "temperatures", "scales")
    return replace(trajectory, **{name: getattr(trajectory, name)[~left_out] for name in names})


def test_walkers_that_were_not_followed_alike_are_refused() -> None:
    whole = vibrating()
    second = whole.walkers == 1
    lost = (whole.times > 2400, whole.times == 4000, whole.times % 80 == 0, whole.times >= 0)
    for left_out in lost:
        with pytest.raises(EngineError, match="sample at least 2 walkers, for longer than that, at equal times"):
            of_dynamics(without(whole, second & left_out), request())
    with pytest.raises(EngineError, match=r"snapshots 40 fs apart see up to 12\.5 THz and not up to 15 THz"):
        of_dynamics(whole, request([2.5, 7.5, 12.5]))


def test_an_atom_that_is_cold_by_chance_is_no_coarse_path() -> None:
    """Each mode of a crystal has its own energy of the canonical ensemble, and keeps it."""
    atoms, snapshots, stride = 8, 400, 40.0
    frequencies, vectors = chain_modes(atoms)
    speed = np.sqrt(2 * units.BOLTZMANN * TEMPERATURE * AMU_A2_PER_PS2 / MASS)
    made = vibrating(stride, atoms, walkers=3, snapshots=snapshots)
    told = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        energies = rng.exponential(size=(3, 1, len(frequencies), 3))
        phases = rng.uniform(0, 2 * np.pi, energies.shape)
        angles = 2 * np.pi * frequencies[:, None] * (np.arange(snapshots) * stride / 1000.0)[:, None, None] + phases
        amplitudes = speed * np.sqrt(energies) / (2 * np.pi * frequencies[:, None])
        moved = np.einsum("am,wtmc->wtac", vectors, amplitudes * np.sin(angles))
        one = replace(
            made,
            positions=np.float32((moved + 3.0 * np.arange(atoms)[:, None]) / made.cell[0, 0]).reshape(-1, atoms, 3),
            species=("Kr", *("Ar",) * (atoms - 1)),
        )
        with contextlib.suppress(EngineError):  # one of twenty is below by two standard errors
            told.append(
                of_dynamics(one, request(segment_fs=4000.0, species="Kr")).fitted["kinetic energy of the paths"]
            )
    assert len(told) >= 15
    assert sum(energy < 0.9 for energy in told) >= 2


def test_a_liquid_at_low_frequencies_tells_its_diffusion() -> None:
    """g(0) = 4mD/kT, of which the mean squared displacement knows nothing."""
    found = of_dynamics(rahman(), request([0.15 + 0.3 * index for index in range(12)], segment_fs=6720.0))
    diffusion = of_dynamics(
        rahman(), ObservableRequest(observable="diffusion", options={"begin_fs": 1500.0, "end_fs": 6000.0})
    )
    thermal = units.BOLTZMANN * 94.4 * AMU_A2_PER_PS2
    expected = 4 * 39.948 * diffusion.values[0] * 0.1 / thermal  # 1e-9 m²/s are 0.1 Å²/ps
    assert expected == pytest.approx(0.45, abs=0.04)
    assert found.values[0] == pytest.approx(expected, abs=0.08)
    assert found.fitted["kinetic energy of the paths"] == pytest.approx(1, abs=0.02)
    assert max(found.errors) < 0.05


def test_a_spectrum_in_other_units_is_converted() -> None:
    assert factor("meV", "THz") == pytest.approx(1e-3 * units.ELEMENTARY_CHARGE / 6.62607015e-34 * 1e-12, rel=1e-8)
    assert factor("cm^-1", "THz") == pytest.approx(0.0299792458)
    assert factor("1/meV", "1/THz") * factor("meV", "THz") == pytest.approx(1)


@pytest.mark.parametrize(
    ("values", "unit", "role", "message"),
    [
        ([0.5, 0.5, 0.5, 0.5], "1/THz", "training", "vdos is a property of the dynamics"),
        ([2.0, 2.0, 2.0, 2.0], "1/THz", "test", "the values have the integral 4 over the frequency"),
        ([-0.6, 0.5, 0.5, 0.5], "1/THz", "test", "is -0.6, and a density is not negative"),
        ([0.5, 0.5, 0.5, 0.5], "1/meV", "test", "1/THz"),
    ],
)
def test_a_target_that_is_none_is_refused(values: list[float], unit: str, role: str, message: str) -> None:
    fields = {
        "observable": "vdos", "grid": GRID[:4], "values": values, "errors": [0.02] * 4, "unit": unit, "role": role,
        "error_source": "assumed", "conditions": {"temperature": 85.0}, "citation": "made for a test",
    }  # fmt: skip
    validate(Target, {**fields, "values": [0.5] * 4, "unit": "1/THz", "role": "test"})
    with pytest.raises(ValueError, match=message):
        validate(Target, fields)


GRID_TO_35 = [0.5 + index for index in range(35)]

SAMPLING = {
    "walkers": 4, "timestep_fs": 4.0, "stride_fs": 40.0, "production_fs": 8000.0,
    "thermostat": {"name": "nose_hoover", "time_constant_fs": 200.0},
}  # fmt: skip


@pytest.mark.parametrize(
    ("options", "grid", "sampling", "message"),
    [
        ({"segment_fs": -1.0}, GRID, {}, "option 'segment_fs' of vdos is -1.0; give a time in fs"),
        ({"species": ["Ar"]}, GRID, {}, "give one chemical symbol"),
        ({}, [0.0, 0.5, 1.0], {}, "the first, 0 THz, must be at least 0.25 THz"),
        ({}, [0.1, 0.3, 0.5], {}, "steps of 0.2 THz, and segment_fs = 4000 resolves 0.5 THz"),
        ({}, [5.0, 10.0, 15.0], {}, "vdos reaches 17.5 THz, .* give a stride_fs of at most 28.57"),
        ({}, GRID_TO_35, {"stride_fs": 14.0}, "stride_fs = 16 .whole time steps. sees frequencies up to 31.25 THz"),
        ({}, GRID, {"production_fs": 2000.0}, "production_fs is 2000; sample longer"),
        ({}, GRID, {"walkers": 1}, "vdos takes its error from independent walkers, and walkers is 1"),
        ({}, GRID, {"thermostat": {"name": "langevin", "friction_per_ps": 5.0}}, "a Langevin thermostat"),
    ],
)
def test_what_cannot_give_it_is_refused(
    options: dict[str, Any], grid: list[float], sampling: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        SampleJob(
            potential=POTENTIAL_IN,
            structure=STRUCTURE,
            temperature=85.0,
            sampling={**SAMPLING, **sampling},
            observables=[{"observable": "vdos", "grid": grid, "options": options}],
        )
