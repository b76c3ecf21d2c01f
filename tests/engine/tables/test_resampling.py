"""Averages over bins against exact integrals, Monte Carlo errors, and the aliasing that they avoid."""

import numpy as np
import pytest

from aiida_difftre.engine.tables.resampling import Curve, equal_bins, resample


@pytest.mark.parametrize("shells", [False, True])
@pytest.mark.parametrize("bins", [7, 900])
def test_average_of_a_polynomial_is_exact(shells: bool, bins: int) -> None:
    x = np.sort(np.random.default_rng(1).uniform(0, 5, 60))
    x[0], x[-1] = 0, 5
    curve = np.polynomial.Polynomial([1.0, -2.0, 0.7, 0.3])
    edges = equal_bins(0, 5, bins)
    weight = np.polynomial.Polynomial([0, 0, 1.0] if shells else [1.0])
    exact = np.diff((curve * weight).integ()(edges)) / np.diff(weight.integ()(edges))
    found = resample(Curve(x, curve(x)), edges, shells=shells, interpolation="cubic")
    np.testing.assert_allclose(found.values, exact, rtol=1e-9)


def test_coarse_bins_do_not_alias() -> None:
    x = np.linspace(0, 10, 2001)
    y = 1 + np.sin(2 * np.pi * x / 0.0999)
    found = resample(Curve(x, y), equal_bins(0, 10, 50))
    assert np.abs(found.values - 1).max() < 0.02
    centres = np.linspace(0.1, 9.9, 50)
    assert np.abs(np.interp(centres, x, y) - 1).max() > 0.2, "points of this curve would alias"
    assert found.points_per_bin == pytest.approx(40)
    assert found.narrow == 0


@pytest.mark.parametrize("shells", [False, True])
def test_errors_by_monte_carlo(shells: bool) -> None:
    rng = np.random.default_rng(2)
    x = np.linspace(0.5, 6, 221)
    errors = 0.1 + 0.05 * np.sin(x)
    edges = equal_bins(0.5, 6, 20)
    samples = [
        resample(Curve(x, errors * rng.normal(size=x.size)), edges, shells=shells, interpolation="cubic").values
        for _ in range(800)
    ]
    found = resample(Curve(x, 0 * x, errors), edges, shells=shells).errors
    np.testing.assert_allclose(found, np.std(samples, axis=0), rtol=0.12)


def test_errors_common_to_neighbours_do_not_average_out() -> None:
    x = np.linspace(0, 6, 601)
    edges = equal_bins(0, 6, 20)
    common = resample(Curve(x, 0 * x, np.full(601, 0.1)), edges, correlated=True).errors
    np.testing.assert_allclose(common, 0.1)
    assert resample(Curve(x, 0 * x, np.full(601, 0.1)), edges).errors.max() < 0.1 / np.sqrt(25)


@pytest.mark.parametrize("length", [0.3, 2.0])
def test_errors_that_are_correlated_over_a_distance_by_monte_carlo(length: float) -> None:
    """Noise of an exponential correlation, from its covariance; it averages out the less, the longer it is."""
    rng = np.random.default_rng(3)
    x = np.linspace(0, 6, 121)
    errors = 0.1 + 0.05 * np.sin(x)
    covariance = np.outer(errors, errors) * np.exp(-np.abs(x[:, None] - x) / length)
    edges = equal_bins(0, 6, 20)
    noise = rng.normal(size=(800, len(x))) @ np.linalg.cholesky(covariance).T
    samples = [resample(Curve(x, row), edges, interpolation="cubic").values for row in noise]
    found = resample(Curve(x, 0 * x, errors), edges, length=length).errors
    np.testing.assert_allclose(found, np.std(samples, axis=0), rtol=0.1)
    independent, common = (resample(Curve(x, 0 * x, errors), edges, correlated=one).errors for one in (False, True))
    assert np.all(found > 1.3 * independent)
    assert np.all(found < common)


def test_interpolation_between_points_adds_no_information() -> None:
    x = np.linspace(0, 6, 13)
    found = resample(Curve(x, x, np.full(13, 0.1)), equal_bins(0, 6, 240))
    np.testing.assert_allclose(found.errors, 0.1)
    np.testing.assert_allclose(found.values, np.arange(0.0125, 6, 0.025))
    assert found.narrow == 240


def test_monotone_interpolation_does_not_overshoot() -> None:
    x = np.arange(10.0)
    y = np.where(x < 5, 0.0, 1.0)
    steep = {
        kind: resample(Curve(x, y), equal_bins(0, 9, 90), interpolation=kind).values for kind in ("monotone", "cubic")
    }
    assert steep["monotone"].min() >= 0
    assert steep["monotone"].max() <= 1
    assert steep["cubic"].min() < -0.05


def test_a_distribution_is_zero_below_its_first_zero() -> None:
    x = np.arange(1.0, 6.0)
    y = np.array([0.0, 0.0, 1.0, 1.0, 1.0])
    assert resample(Curve(x, y), equal_bins(0, 5, 10), zero_below=True).values[:3].tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="bins from 0 to 5 reach beyond the data, which go from 1 to 5"):
        resample(Curve(x, y), equal_bins(0, 5, 10))
    with pytest.raises(ValueError, match="reach beyond the data"):
        resample(Curve(x, y + 1), equal_bins(0, 5, 10), zero_below=True)


@pytest.mark.parametrize(
    ("x", "errors", "edges", "message"),
    [
        ([1, 2, 2, 3], None, (1, 3, 4), "index 2: grid 2 repeats 2 before it"),
        ([1, 3, 2, 4], None, (1, 3, 4), "index 2: grid 2 is below 3 before it"),
        ([1, 2, 3], None, (1, 3, 4), "the table has 3 points; at least 4 are needed"),
        ([1, 2, 3, 4], [1, 1, -1, 1], (1, 3, 4), "error -1 at index 2 is negative"),
        ([1, 2, 3, 4], None, (1, 4.6, 4), "bins from 1 to 4.6 reach beyond the data, which go from 1 to 4"),
        ([1, 2, 3, 4], None, (3, 3, 4), "a grid from 3 to 3 has no room"),
        ([1, 2, 3, 4], None, (-1, 3, 4), "a grid from -1 to 3 has no room"),
        ([1, 2, 3, 4], None, (1, 3, 1), "a grid of 1 bins is none"),
    ],
)
def test_refused(x: list[float], errors: list[float] | None, edges: tuple[float, float, int], message: str) -> None:
    curve = Curve(np.array(x, float), np.ones(len(x)), None if errors is None else np.array(errors, float))
    with pytest.raises(ValueError, match=message):
        resample(curve, equal_bins(*edges))
