"""Ends of equilibration, drifts and R-hat of series that are made to have them."""

from __future__ import annotations

import os
import warnings

import numpy as np
import pytest

from aiida_difftre.engine.reweighting import stationarity

RHO = 0.8
LENGTH, WALKERS = 300, 6
INDEX = np.repeat(np.arange(WALKERS), LENGTH)
TIME = np.arange(LENGTH) / LENGTH


def noise(seed: int, walkers: int = WALKERS, length: int = LENGTH) -> np.ndarray:
    """AR(1) series of unit variance with g = 9: (walkers, length)."""
    rng = np.random.default_rng(seed)
    series = np.empty((walkers, length))
    series[:, 0] = rng.normal(size=walkers)
    for step in range(1, length):
        series[:, step] = RHO * series[:, step - 1] + np.sqrt(1 - RHO**2) * rng.normal(size=walkers)
    return series


def record_of(series: np.ndarray) -> dict:
    return stationarity.record({"energy": series.ravel()}, np.repeat(np.arange(len(series)), series.shape[1]))


@pytest.mark.parametrize("shape", [(6, 300), (2, 100), (1, 400)])
def test_stationary_walkers_raise_no_alarm(shape: tuple[int, int]) -> None:
    found = [record_of(noise(seed, *shape)) for seed in range(60)]
    assert sum(not one["stationary"] for one in found) <= 3
    assert all((one["warning"] is None) == one["stationary"] for one in found)


def test_what_a_stationary_trajectory_says() -> None:
    found = [record_of(noise(seed)) for seed in range(20)]
    assert np.mean([one["equilibration"] for one in found]) < 0.1
    assert np.std([one["drift"]["energy"] for one in found]) == pytest.approx(1, rel=0.4)
    assert all(0.99 < one["r_hat"]["energy"] < 1.15 for one in found)
    assert np.mean([one["independent_samples"] for one in found]) == pytest.approx(WALKERS * LENGTH / 9, rel=0.15)


def test_relaxation_ends() -> None:
    """After a third of each walker the rest is worth more alone."""
    for seed in range(5):
        series = noise(seed) + 8 * np.clip(1 - 3 * TIME, 0, None)
        part = stationarity.equilibration(series.ravel(), INDEX)
        assert 0.2 <= part <= 0.45
        # Walkers are known by their index, in whatever order they are stored.
        assert stationarity.equilibration(series.T.ravel(), np.tile(np.arange(WALKERS), LENGTH)) == part


def test_the_shortest_walker_keeps_some_snapshots() -> None:
    """Although the long one relaxes for half of its time: four of six are what is left at least."""
    relaxing = noise(4, 1)[0] + 8 * (TIME < 0.5)
    values, walkers = np.concatenate([relaxing, np.zeros(6)]), np.repeat([0, 1], [LENGTH, 6])
    assert stationarity.equilibration(relaxing, np.zeros(LENGTH, int)) >= 0.45
    assert stationarity.equilibration(values, walkers) <= 1 / 3


def test_end_of_equilibration_agrees_with_pymbar() -> None:
    os.environ["PYMBAR_DISABLE_JAX"] = "TRUE"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pymbar import timeseries
    for seed in range(3):
        series = noise(seed, 1, 1000)[0] + 10 * np.exp(-np.arange(1000) / 60)
        theirs = timeseries.detect_equilibration(series, nskip=10)[0] / 1000
        assert stationarity.equilibration(series, np.zeros(1000, int)) == pytest.approx(theirs, abs=0.15)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_drift_is_told(sign: int) -> None:
    """By 2.5 standard deviations from end to end."""
    found = [record_of(noise(seed) + 2.5 * sign * TIME) for seed in range(20)]
    assert sum(not one["stationary"] for one in found) >= 18
    assert all(np.sign(one["drift"]["energy"]) == sign for one in found)
    warning = next(one["warning"] for one in found if one["warning"])
    assert warning.startswith("the trajectory is not stationary: the mean energy of its second half differs by ")
    assert "\n" not in warning


def test_drift_in_standard_errors() -> None:
    """Of independent samples: the difference of the halves over the square root of both variances."""
    values = np.random.default_rng(1).normal(size=400) + np.repeat([0.0, 0.5], 200)
    found = stationarity.drift(values, np.zeros(400, int))
    first, second = values[:200], values[200:]
    error = np.sqrt(np.var(first, ddof=1) / 200 + np.var(second, ddof=1) / 200)
    assert found == pytest.approx((second.mean() - first.mean()) / error, rel=0.2)


def test_half_of_a_trajectory_that_relaxes() -> None:
    series = noise(3) + 4 * np.clip(1 - TIME / 0.6, 0, None)
    found = record_of(series)
    assert found["equilibration"] >= 0.5
    assert not found["stationary"]
    assert f"{found['equilibration']:.0%} of it still relaxes" in found["warning"]


def test_the_slowest_quantity_counts() -> None:
    drifting = noise(1) + 3 * TIME
    found = stationarity.record({"energy": noise(2).ravel(), "volume": drifting.ravel()}, INDEX)
    assert not found["stationary"]
    assert "mean volume" in found["warning"]
    assert set(found["drift"]) == set(found["r_hat"]) == {"energy", "volume"}


def test_r_hat() -> None:
    """As Gelman and Rubin wrote it, of halves of walkers."""
    apart = noise(0) + np.arange(WALKERS)[:, None]
    halves = apart.reshape(2 * WALKERS, LENGTH // 2)
    within, between = halves.var(1, ddof=1).mean(), halves.mean(1).var(ddof=1)
    expected = np.sqrt((LENGTH / 2 - 1) / (LENGTH / 2) + between / within)
    found = stationarity.r_hat(apart.ravel(), INDEX)
    assert found == pytest.approx(expected)
    assert found > 1.5


def test_short_and_constant() -> None:
    assert stationarity.r_hat(np.arange(3.0), np.zeros(3, int)) is None
    assert stationarity.r_hat(np.arange(4.0), np.zeros(4, int)) is not None
    for count in (1, 2, 3):
        found = stationarity.record({"energy": np.arange(float(count))}, np.zeros(count, int))
        assert found["equilibration"] == 0
    still = stationarity.record({"energy": np.full(40, -3.3)}, np.repeat([0, 1], 20))
    assert still["stationary"]
    assert still["drift"]["energy"] == 0
    assert still["r_hat"]["energy"] == 1
    assert still["independent_samples"] == 40
