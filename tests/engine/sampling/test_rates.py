"""How fast velocities, temperatures and volumes relax: at the stated rates, which averages in equilibrium do not show.

Free particles have exact answers. A rate that is wrong by a factor of two, either way, is far outside each tolerance.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
from ase import Atoms
from numpy.typing import NDArray

from aiida_difftre.engine import units
from aiida_difftre.engine.contract.jobs import SamplingSettings
from aiida_difftre.engine.contract.trajectories import Trajectory
from tests.fixtures.engine import build, simulate, start

TEMPERATURE = 300.0
MASS = 39.948
"""Of argon, amu."""


def simulate_free(
    atoms: int, spacing: float, walkers: int, pressure: float | None = None, **changes: Any
) -> Trajectory:
    """Particles that hardly ever meet: of 1e-12 eV and 0.002 Å."""
    potential = build("lennard_jones", ["Ar"], 0.5, epsilon=1e-12, sigma=2e-3)
    settings = SamplingSettings(walkers=walkers, equilibration_fs=0.0, min_distance=1e-6, skin=0.4, **changes)
    edge = spacing * atoms ** (1 / 3)
    box = Atoms(f"Ar{atoms}", cell=[edge] * 3, pbc=True)
    box.set_scaled_positions(np.random.default_rng(0).uniform(size=(atoms, 3)))
    return simulate(
        potential, potential.init(jax.random.key(0)), start(box, walkers), temperature=TEMPERATURE, settings=settings,
        pressure=pressure,
    )  # fmt: skip


def autocorrelation(series: NDArray[np.float64], lag: int) -> float:
    """<x(0) x(t)> over <x²>, of columns whose mean is known to be zero, or was taken off."""
    return float(np.mean(series[: len(series) - lag] * series[lag:]) / np.mean(series**2))


@pytest.mark.parametrize("friction", [5.0, 20.0])
def test_velocities_decorrelate_at_the_rate_of_the_friction(friction: float) -> None:
    r"""The Ornstein-Uhlenbeck process: <v(0) v(t)> = (kT/m) exp(-γt)."""
    time = 1e3 / friction
    step = time / 20
    path = simulate_free(
        64, 10.0, 1, timestep_fs=step, stride_fs=step, production_fs=60 * time,
        thermostat={"name": "langevin", "friction_per_ps": friction},
    )  # fmt: skip
    velocities = np.diff(path.positions.astype(float), axis=0).reshape(-1, 192) * path.cell[0, 0] / step
    variance = units.BOLTZMANN * TEMPERATURE / MASS / units.TIME_UNIT_IN_FS**2
    assert np.mean(velocities**2) == pytest.approx(variance, rel=0.06)
    for lag in (10, 20, 30):
        rate = -np.log(autocorrelation(velocities, lag)) / (lag * step) * 1e3
        assert rate == pytest.approx(friction, rel=0.15)


@pytest.mark.parametrize("time", [50.0, 200.0])
def test_the_temperature_swings_with_the_period_of_the_nose_hoover_chain(time: float) -> None:
    r"""One thermostat of mass N_f kT τ² around K = N_f kT/2: small swings have the frequency sqrt(2)/τ."""
    path = simulate_free(
        64, 10.0, 1, timestep_fs=time / 40, stride_fs=time / 20, production_fs=60 * time,
        thermostat={"name": "nose_hoover", "time_constant_fs": time, "chain_length": 1},
    )  # fmt: skip
    swings = path.temperatures - path.temperatures.mean()
    assert swings.std() > 1.0
    up = np.flatnonzero((swings[:-1] < 0) & (swings[1:] >= 0))
    period = (up[-1] - up[0]) / (len(up) - 1) * time / 20
    assert period == pytest.approx(2 * np.pi * time / np.sqrt(2), rel=0.05)


def test_the_volume_relaxes_within_the_stated_time() -> None:
    r"""An ideal gas under a piston of mass 3(N+1)kTτ² and friction 2/τ: ε'' = -(2/τ)ε' - (3/τ²)ε + noise, so that
    <ε(0) ε(t)> = <ε²> exp(-t/τ) [cos(√2 t/τ) + sin(√2 t/τ)/√2].
    """
    time, atoms, spacing = 200.0, 64, 10.0
    pressure = units.BOLTZMANN * TEMPERATURE / spacing**3 * units.EV_PER_A3_IN_GPA
    path = simulate_free(
        atoms, spacing, 8, pressure, timestep_fs=10.0, stride_fs=20.0, production_fs=150 * time,
        # The atoms follow at once, so that the gas is isothermal.
        thermostat={"name": "langevin", "friction_per_ps": 500.0},
        barostat={"relaxation_time_fs": time, "max_volume_ratio": 10.0},
    )  # fmt: skip
    strains = np.log(path.scales).reshape(8, -1).T
    strains = strains - strains.mean()
    for lag in (5, 10):
        t = lag * 20.0 / time
        expected = np.exp(-t) * (np.cos(np.sqrt(2) * t) + np.sin(np.sqrt(2) * t) / np.sqrt(2))
        assert autocorrelation(strains, lag) == pytest.approx(expected, abs=0.08)
