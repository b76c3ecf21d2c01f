"""Free energies of several references against pymbar, and harmonic oscillators that are known exactly."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special

from aiida_difftre.engine.reweighting import mbar

COUNTS = np.array([400, 300, 500])
SPRINGS = np.array([1.0, 2.0, 0.7])


def oscillators() -> tuple[np.ndarray, np.ndarray]:
    """Samples of exp(-k x²/2), pooled, and their reduced energies in each state, with large offsets."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=n) / np.sqrt(k) for n, k in zip(COUNTS, SPRINGS, strict=True)])
    return x, SPRINGS[:, None] * x**2 / 2 + np.array([0.0, 1000.0, -500.0])[:, None]


def test_free_energies_and_averages_of_oscillators() -> None:
    x, reduced = oscillators()
    free = mbar.free_energies(reduced, COUNTS)
    expected = np.log(SPRINGS / SPRINGS[0]) / 2 + [0.0, 1000.0, -500.0]
    np.testing.assert_allclose(free, expected, atol=0.1)
    weight = special.softmax(-1.4 * x**2 / 2 - mbar.log_mixture(reduced, COUNTS, free))
    assert weight @ x**2 == pytest.approx(1 / 1.4, abs=0.08)


def test_free_energies_are_those_of_pymbar() -> None:
    """Where neighbours alone overlap, and one of them has a few snapshots."""
    rng = np.random.default_rng(3)
    counts, centres = np.array([150, 40, 90, 7, 60]), 1.5 * np.arange(5)
    x = np.concatenate([rng.normal(size=n) + centre for n, centre in zip(counts, centres, strict=True)])
    reduced = (x - centres[:, None]) ** 2 / 2 + rng.normal(size=(5, 1)) * 300
    from pymbar import MBAR

    expected = np.asarray(MBAR(reduced, counts, solver_protocol="robust").f_k)
    np.testing.assert_allclose(mbar.free_energies(reduced, counts), expected - expected[0], rtol=0, atol=1e-9)


def test_snapshots_that_are_repeated_count_once() -> None:
    """Each reference as often as its inefficiency says: as pymbar finds it without the copies."""
    x, reduced = oscillators()
    often = np.repeat([3, 1, 8], COUNTS)
    copies, counts = np.repeat(np.arange(len(x)), often), COUNTS * [3, 1, 8]
    inefficiencies = np.array([3.0, 1.0, 8.0])
    from pymbar import MBAR

    solved = MBAR(np.vstack([reduced, 1.4 * x**2 / 2]), np.append(COUNTS, 0), solver_protocol="robust")
    free = mbar.free_energies(reduced[:, copies], counts, inefficiencies)
    expected = np.asarray(solved.f_k)[:3]
    np.testing.assert_allclose(free, expected - expected[0], rtol=0, atol=1e-8)
    mixture = mbar.log_mixture(reduced[:, copies], counts, free, inefficiencies)
    weight = special.softmax(-1.4 * x[copies] ** 2 / 2 - mixture)
    np.testing.assert_allclose(np.bincount(copies, weight), solved.weights()[:, -1], rtol=1e-7)


def test_equal_inefficiencies_do_not_count() -> None:
    _, reduced = oscillators()
    alike = np.full(3, 7.3)
    free = mbar.free_energies(reduced, COUNTS)
    np.testing.assert_allclose(mbar.free_energies(reduced, COUNTS, alike), free, rtol=0, atol=1e-10)
    np.testing.assert_allclose(
        mbar.log_mixture(reduced, COUNTS, free, alike), mbar.log_mixture(reduced, COUNTS, free), rtol=0, atol=1e-10
    )


@pytest.mark.parametrize("wrong", [[1.0, 0.9, 2.0], [1.0, np.nan, 2.0], [1.0, 2.0]])
def test_inefficiencies_that_cannot_be(wrong: list[float]) -> None:
    with pytest.raises(ValueError, match=r"statistical inefficiencies .* of 3 references; give a number >= 1 for each"):
        mbar.free_energies(oscillators()[1], COUNTS, np.array(wrong))


def test_counts_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"3 references with \[400, 300, 499\] snapshots do not fit"):
        mbar.free_energies(oscillators()[1], COUNTS - [0, 0, 1])


def test_references_that_do_not_overlap() -> None:
    x, _ = oscillators()
    with pytest.raises(ValueError, match="they hardly overlap"):
        mbar.free_energies(np.stack([x, np.where(np.arange(len(x)) < 400, 1e6, 0.0)]), np.array([400, 800]))
