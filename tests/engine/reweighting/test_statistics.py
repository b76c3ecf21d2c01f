"""Statistical inefficiency and block bootstrap against series of known variance."""

from __future__ import annotations

import os
import warnings

import numpy as np
import pytest

from aiida_difftre.engine.reweighting.statistics import (
    block_bootstrap_counts,
    blocks,
    mean_variance,
    statistical_inefficiency,
)

RHO = 0.8
INEFFICIENCY = (1 + RHO) / (1 - RHO)


def autoregressive(rng: np.random.Generator, walkers: int, length: int, rho: float = RHO) -> np.ndarray:
    """AR(1) series of unit variance, started from its stationary distribution: (walkers, length)."""
    series = np.empty((walkers, length))
    series[:, 0] = rng.normal(size=walkers)
    for step in range(1, length):
        series[:, step] = rho * series[:, step - 1] + np.sqrt(1 - rho**2) * rng.normal(size=walkers)
    return series


def repeats(rng: np.random.Generator, walkers: int, length: int, rho: float, count: int) -> np.ndarray:
    """Data sets of walkers as columns: (walkers * length, count)."""
    return np.moveaxis(autoregressive(rng, walkers * count, length, rho).reshape(walkers, count, length), 1, 2).reshape(
        walkers * length, count
    )


def test_inefficiency_of_autoregressive_series() -> None:
    series = autoregressive(np.random.default_rng(0), 8, 4000)
    walkers = np.repeat(np.arange(8), 4000)
    assert statistical_inefficiency(series.ravel(), walkers) == pytest.approx(INEFFICIENCY, rel=0.1)


def test_inefficiency_agrees_with_pymbar() -> None:
    """On series so long that what the windows leave out does not count."""
    os.environ["PYMBAR_DISABLE_JAX"] = "TRUE"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pymbar import timeseries
    series = autoregressive(np.random.default_rng(1), 5, 4000)
    mine = statistical_inefficiency(series.ravel(), np.repeat(np.arange(5), 4000))
    assert mine == pytest.approx(timeseries.statistical_inefficiency_multiple(list(series)), rel=0.1)


@pytest.mark.parametrize("walkers", [1, 2, 4, 16])
@pytest.mark.parametrize("times", [5, 10, 20, 50, 200])
def test_errors_of_the_mean_are_those_of_its_scatter(walkers: int, times: int) -> None:
    """Whatever the length of the walkers, in autocorrelation times; a single one of five cannot tell quite so well."""
    tau, count = 4, 200 if times == 200 else 1500
    rho = np.exp(-1 / tau)
    values = repeats(np.random.default_rng(times), walkers, times * tau, rho, count)
    lags = np.arange(1, times * tau)
    known = (1 + 2 * np.sum((1 - lags / (times * tau)) * rho**lags)) / len(values)
    found = mean_variance(values, np.repeat(np.arange(walkers), times * tau))
    stated = np.sqrt(found.variance)
    # The formula is that of the scatter.
    assert np.std(values.mean(0)) == pytest.approx(np.sqrt(known), rel=0.15 if times == 200 else 0.06)
    assert 0.85 < np.sqrt(np.mean(stated**2) / known) < 1.15
    assert (0.7 if walkers == 1 and times == 5 else 0.85) < np.mean(stated) / np.sqrt(known) < 1.1


def test_small_slow_changes_below_large_fast_ones() -> None:
    """As of a bin of a distribution: a tenth of its variance is slow, and decides the error."""
    tau, length, count, part = 8, 160, 1000, 0.1
    rng, rho = np.random.default_rng(8), np.exp(-1 / tau)
    slow = repeats(rng, 4, length, rho, count)
    values = np.sqrt(part) * slow + np.sqrt(1 - part) * rng.normal(size=slow.shape)
    walkers = np.repeat(np.arange(4), length)
    lags = np.arange(1, length)
    known = (1 + 2 * part * np.sum((1 - lags / length) * rho**lags)) / len(values)
    alone, beside = (
        np.sqrt(np.mean(mean_variance(values, walkers, slowest).variance) / known)
        for slowest in (1.0, float(statistical_inefficiency(slow[:, 0], walkers)))
    )
    assert alone < 0.85
    assert 0.92 < beside < 1.08


def test_walkers_that_differ_for_good() -> None:
    """Each in a state of its own: the error is that of as many numbers as there are walkers."""
    rng = np.random.default_rng(5)
    levels = rng.normal(size=(6, 1))
    series = levels + 0.1 * rng.normal(size=(6, 50))
    found = mean_variance(series.ravel(), np.repeat(np.arange(6), 50))
    assert found.variance == pytest.approx(np.var(series.mean(1), ddof=1) / 6, rel=0.15)
    assert found.inefficiency == pytest.approx(50, rel=0.2)


def test_independent_and_alternating_series() -> None:
    values = np.random.default_rng(6).normal(size=(4000, 3))
    walkers = np.repeat(np.arange(2), 2000)
    found = mean_variance(values, walkers)
    np.testing.assert_allclose(found.variance, np.var(values, axis=0, ddof=1) / 4000, rtol=0.2)
    assert np.all(found.inefficiency < 1.2)
    alternating = mean_variance(np.tile([1.0, -1.0], 50), np.zeros(100, int))
    assert alternating.inefficiency == 1
    assert alternating.variance == pytest.approx(1 / 99, rel=1e-9)


def test_shapes_and_what_does_not_vary() -> None:
    found = mean_variance(np.full(10, 3.7), np.zeros(10, int))
    assert found.variance.shape == found.inefficiency.shape == ()
    assert (found.variance, found.inefficiency) == (0, 1)
    single = mean_variance(np.array([[1.0, 2.0]]), np.zeros(1, int))
    np.testing.assert_array_equal(single.variance, [0, 0])
    np.testing.assert_array_equal(single.inefficiency, [1, 1])
    pair = mean_variance(np.array([1.0, 3.0]), np.arange(2))
    assert pair.variance == pytest.approx(1.0)  # s²/N = 2/2


def test_inefficiency_of_several_columns_interleaved_walkers_and_constants() -> None:
    series = autoregressive(np.random.default_rng(2), 3, 200)
    walkers = np.repeat(np.arange(3), 200)
    columns = np.stack([series.ravel(), np.full(600, 7.3), -2 * series.ravel() + 5], axis=1)
    g = statistical_inefficiency(columns, walkers)
    assert g.shape == (3,)
    assert g[1] == 1
    assert g[0] == pytest.approx(g[2])
    interleaved = statistical_inefficiency(series.T.ravel(), np.tile(np.arange(3), 200))
    assert interleaved == pytest.approx(g[0])


@pytest.mark.parametrize("length", [1, 2, 3])
def test_shortest_series(length: int) -> None:
    assert statistical_inefficiency(np.arange(length, dtype=float), np.zeros(length, int)) >= 1


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="3 values for 2"):
        statistical_inefficiency(np.zeros(3), np.zeros(2, int))


def test_blocks_partition_the_snapshots_within_walkers() -> None:
    walkers = np.repeat([4, 2, 9], [100, 57, 3])
    parts = blocks(walkers, 2.5)
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(160))
    assert all(len(set(walkers[part])) == 1 for part in parts)
    assert all(len(part) >= 7 for part in parts if walkers[part[0]] != 9)


def test_few_blocks_are_shortened() -> None:
    assert len(blocks(np.zeros(40, int), 30.0)) == 8
    assert len(blocks(np.zeros(3, int), 30.0)) == 3


def test_bootstrap_error_of_an_autoregressive_mean() -> None:
    """The mean over many data sets of the bootstrap variance is the known variance of the mean, within its bias."""
    rng = np.random.default_rng(3)
    walkers = np.repeat(np.arange(8), 200)
    known = INEFFICIENCY / walkers.size
    variances = []
    for seed in range(40):
        values = autoregressive(rng, 8, 200).ravel()
        counts = block_bootstrap_counts(walkers, INEFFICIENCY, 200, seed)
        variances.append(np.var(counts @ values / counts.sum(axis=1)))
    # Blocks of finite length lose part of the correlation: 1 - 2ρ/((1 - ρ²)L), here 16 %.
    assert 0.7 * known < np.mean(variances) < 1.1 * known


def test_bootstrap_of_independent_samples_with_weights() -> None:
    rng = np.random.default_rng(4)
    values, walkers = rng.normal(size=2000), np.zeros(2000, int)
    weights = rng.uniform(size=2000)
    weights /= weights.sum()
    counts = block_bootstrap_counts(walkers, 1.0, 500, 0)
    replicates = counts * weights
    means = replicates @ values / replicates.sum(axis=1)
    assert np.std(means) == pytest.approx(np.sqrt(np.sum(weights**2)), rel=0.15)


def test_bootstrap_of_few_blocks_is_unbiased() -> None:
    """The variance over replicates is s²/n with n = 8, not 7/8 of it."""
    values = np.random.default_rng(8).normal(size=8)
    counts = block_bootstrap_counts(np.arange(8), 1.0, 40_000, 0)
    found = np.var(counts @ values / counts.sum(axis=1))
    assert found == pytest.approx(np.var(values, ddof=1) / 8, rel=0.05)


def test_bootstrap_is_reproducible_and_copes_with_one_snapshot() -> None:
    walkers = np.repeat([0, 1], 30)
    assert np.array_equal(block_bootstrap_counts(walkers, 2.0, 10, 5), block_bootstrap_counts(walkers, 2.0, 10, 5))
    assert np.array_equal(block_bootstrap_counts(np.zeros(1, int), 1.0, 3, 0), np.ones((3, 1)))


@pytest.mark.parametrize("g", [0.5, float("nan"), float("inf")])
def test_invalid_inefficiency(g: float) -> None:
    with pytest.raises(ValueError, match="statistical inefficiency"):
        block_bootstrap_counts(np.zeros(10, int), g, 5, 0)
