"""Weights and effective sample sizes."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from aiida_difftre.engine import units
from aiida_difftre.engine.reweighting.weights import boltzmann_weights, effective_size


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


def test_effective_sizes_lie_between_one_and_all() -> None:
    for seed in range(20):
        weight = np.random.default_rng(seed).dirichlet(np.full(30, 10.0 ** (seed / 5 - 2)))
        size = effective_size(weight)
        assert 1 <= size.kish <= size.entropy <= 30
        assert size.smallest == size.kish
    single = effective_size(np.eye(30)[3])
    assert single == (1.0, 1.0)
