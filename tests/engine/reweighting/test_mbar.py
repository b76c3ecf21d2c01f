"""Weights of pooled references against the softmax, pymbar, and harmonic oscillators that are known exactly."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aiida_difftre.engine import units
from aiida_difftre.engine.reweighting import mbar
from aiida_difftre.engine.reweighting.weights import boltzmann_weights

COUNTS = np.array([400, 300, 500])
SPRINGS = np.array([1.0, 2.0, 0.7])


def oscillators() -> tuple[np.ndarray, np.ndarray]:
    """Samples of exp(-k x²/2), pooled, and their reduced energies in each state, with large offsets."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=n) / np.sqrt(k) for n, k in zip(COUNTS, SPRINGS, strict=True)])
    return x, SPRINGS[:, None] * x**2 / 2 + np.array([0.0, 1000.0, -500.0])[:, None]


def test_one_reference_is_the_softmax() -> None:
    rng = np.random.default_rng(1)
    reference, energy = -4000 + rng.normal(size=80), -4000.3 + rng.normal(size=80)
    kT = units.BOLTZMANN * 300
    free = mbar.free_energies(reference[None] / kT, np.array([80]))
    mixture = mbar.log_mixture(reference[None] / kT, np.array([80]), free)
    found = mbar.weights(jnp.asarray(energy / kT), jnp.asarray(reference / kT), jnp.asarray(mixture))
    expected = boltzmann_weights(jnp.asarray(energy), jnp.asarray(reference), 300.0)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    # The exponents are of the order of 1e5: what is left of their digits decides. At the reference nothing is lost.
    uniform = mbar.weights(jnp.asarray(reference / kT), jnp.asarray(reference / kT), jnp.asarray(mixture))
    assert np.all(np.asarray(uniform) == 1 / 80)


def test_free_energies_and_averages_of_oscillators() -> None:
    x, reduced = oscillators()
    free = mbar.free_energies(reduced, COUNTS)
    expected = np.log(SPRINGS / SPRINGS[0]) / 2 + [0.0, 1000.0, -500.0]
    np.testing.assert_allclose(free, expected, atol=0.1)
    weight = np.asarray(
        mbar.weights(
            jnp.asarray(1.4 * x**2 / 2), jnp.asarray(reduced[0]), jnp.asarray(mbar.log_mixture(reduced, COUNTS, free))
        )
    )
    assert weight.sum() == pytest.approx(1, rel=1e-12)
    assert weight @ x**2 == pytest.approx(1 / 1.4, abs=0.08)


def test_weights_are_those_of_pymbar() -> None:
    x, reduced = oscillators()
    free = mbar.free_energies(reduced, COUNTS)
    from pymbar import MBAR

    target = 1.4 * x**2 / 2
    solved = MBAR(np.vstack([reduced, target]), np.append(COUNTS, 0), solver_protocol="robust")
    mixture = jnp.asarray(mbar.log_mixture(reduced, COUNTS, free))
    found = mbar.weights(jnp.asarray(target), jnp.asarray(reduced[0]), mixture)
    np.testing.assert_allclose(found, solved.W_nk[:, 3], rtol=1e-6)
    assert jax.config.jax_enable_x64


def test_counts_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"3 references with \[400, 300, 499\] snapshots do not fit"):
        mbar.free_energies(oscillators()[1], COUNTS - [0, 0, 1])
