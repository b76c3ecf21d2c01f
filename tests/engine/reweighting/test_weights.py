"""Weights and effective sample sizes."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import constants

from aiida_difftre.engine import units
from aiida_difftre.engine.contract.trajectories import Trajectory
from aiida_difftre.engine.reweighting.weights import boltzmann_weights, effective_size, state_shift


def test_weights_are_invariant_under_an_offset_and_safe_for_large_differences() -> None:
    rng = np.random.default_rng(0)
    a, b = jnp.asarray(rng.normal(size=50)), jnp.asarray(rng.normal(size=50))
    plain = boltzmann_weights(a, b, 300.0)
    np.testing.assert_allclose(boltzmann_weights(a + 123.0, b - 45.0, 300.0), plain, rtol=1e-9)
    expected = np.exp(-np.asarray(a - b) / (units.BOLTZMANN * 300))
    np.testing.assert_allclose(plain, expected / expected.sum(), rtol=1e-10)
    extreme = boltzmann_weights(a * 1e6, b, 1.0)
    assert np.isfinite(extreme).all()
    assert float(extreme.sum()) == pytest.approx(1)


@pytest.mark.parametrize(("sampled", "asked"), [(0.5, 2.0), (0.5, None), (None, None)])
def test_weights_of_another_potential_at_another_state_point(sampled: float | None, asked: float | None) -> None:
    """Ratios of Boltzmann factors of the enthalpies, in SI; without both pressures the volumes do not count."""
    rng, count = np.random.default_rng(3), 20
    scales = np.ones(count) if sampled is None else rng.uniform(0.99, 1.01, count)
    arrays = {
        "positions": np.zeros((count, 1, 3), np.float32), "cell": 4.0 * np.eye(3), "scales": scales,
        "walkers": np.zeros(count, np.int32), "times": 50.0 * np.arange(count), "temperatures": np.full(count, 100.0),
        "last_positions": np.zeros((1, 1, 3)), "last_velocities": np.zeros((1, 1, 3)),
        "energies": rng.normal(0, 0.02, count),
    }  # fmt: skip
    trajectory = Trajectory.from_arrays(arrays, species=("Ar",), temperature=100.0, pressure=sampled)
    there = rng.normal(0, 0.02, count)
    shift = state_shift(trajectory.energies, trajectory, 130.0, asked)
    found = boltzmann_weights(jnp.asarray(there), jnp.asarray(trajectory.energies), 130.0, jnp.asarray(shift))
    before, after = (0.0, 0.0) if asked is None or sampled is None else (sampled * 1e9, asked * 1e9)
    volumes = 64e-30 * scales**3
    exponent = (trajectory.energies * constants.e + before * volumes) / (constants.k * 100.0)
    exponent -= (there * constants.e + after * volumes) / (constants.k * 130.0)
    np.testing.assert_allclose(found, np.exp(exponent) / np.exp(exponent).sum(), rtol=1e-6)


def test_effective_sizes_lie_between_one_and_all() -> None:
    for seed in range(20):
        weight = np.random.default_rng(seed).dirichlet(np.full(30, 10.0 ** (seed / 5 - 2)))
        size = effective_size(weight)
        assert 1 <= size.kish <= size.entropy <= 30
        assert size.smallest == size.kish
    single = effective_size(np.eye(30)[3])
    assert single == (1.0, 1.0)
