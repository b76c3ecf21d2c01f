"""Which targets decide, and which of two potentials is better, with errors of the simulation that differ."""

from __future__ import annotations

import numpy as np
import pytest

from aiida_difftre.engine.contract.agreement import (
    Compared,
    Points,
    criterion,
    decisive_points,
    is_better,
    is_worse,
    noise,
    reduced_chi2,
)

GOOD = Points(np.array([3.0, -2.0]), np.array([1.0, 1.0]), np.array([0.5, 0.5]))


def test_a_large_error_is_no_agreement() -> None:
    """A crystal about to melt: chi² of its own is lower, but only because its observables do not converge."""
    unstable = Points(np.array([100.0, 80.0]), GOOD.experiment_errors, np.array([300.0, 200.0]))
    own = [
        float(np.mean(p.deviations**2 / (p.experiment_errors**2 + p.simulation_errors**2))) for p in (GOOD, unstable)
    ]
    assert own[1] < own[0]
    assert not is_better(unstable, GOOD)
    assert is_better(GOOD, unstable)


def test_with_a_margin() -> None:
    closer = GOOD._replace(deviations=0.95 * GOOD.deviations)
    assert is_better(closer, GOOD)
    assert is_better(closer, GOOD, 0.09)
    assert not is_better(closer, GOOD, 0.1)
    assert not is_better(GOOD, GOOD)


def one(deviation: float, size: int = 1) -> Points:
    return Points(np.full(size, deviation), np.full(size, 3.0), np.full(size, 4.0))


TRAINING, UNWEIGHTED = Compared("training", 0.5, one(10.0)), Compared("training", 0.0, one(1e6))
SELECTION = [Compared("selection", 0.0, one(5.0, 3)), Compared("selection", 1.0, one(15.0))]
WRONG = Compared("test", 1.0, one(1e9))


def test_selection_targets_decide_whatever_their_weight() -> None:
    everything = [TRAINING, SELECTION[0], WRONG, UNWEIGHTED, SELECTION[1]]
    assert criterion(everything) == "selection"
    found = decisive_points(everything)
    np.testing.assert_array_equal(found.deviations, [5.0, 5.0, 5.0, 15.0])
    np.testing.assert_array_equal(found.experiment_errors, [3.0] * 4)
    np.testing.assert_array_equal(found.simulation_errors, [4.0] * 4)


def test_weighted_training_targets_decide_without_selection_targets() -> None:
    assert criterion([UNWEIGHTED, WRONG, TRAINING]) == "training"
    np.testing.assert_array_equal(decisive_points([UNWEIGHTED, WRONG, TRAINING]).deviations, [10.0])
    with pytest.raises(ValueError, match="no target decides"):
        decisive_points([UNWEIGHTED, WRONG])


def test_chi2_counts_points_and_not_targets() -> None:
    everything = [TRAINING, UNWEIGHTED, *SELECTION, WRONG]
    assert reduced_chi2(everything, "selection") == pytest.approx((3 * 1 + 9) / 4)
    assert reduced_chi2(everything, "training") == pytest.approx(4.0)
    assert reduced_chi2([UNWEIGHTED], "training") is None


@pytest.mark.parametrize(
    ("candidate", "incumbent", "experiment", "errors", "expected"),
    [
        # A deviation counts in units of the error of its point.
        ([1.0, 3.0], [2.0, 2.0], [1.0, 10.0], ([0.0, 0.0], [0.0, 0.0]), True),
        # At each point the smaller one of the errors of the simulation.
        ([1.0, 3.0], [2.0, 2.0], [1.0, 1.0], ([0.0, 30.0], [5.0, 0.0]), False),
        # Variances of experiment and simulation add up.
        ([1.0, 2.0], [0.1, 2.5], [1.0, 1.0], ([0.9, 0.0], [0.9, 0.0]), True),
    ],
)
def test_two_potentials_in_units_of_the_same_errors(
    candidate: list[float], incumbent: list[float], experiment: list[float], errors: tuple, expected: bool
) -> None:
    first, second = (
        Points(np.array(deviations), np.array(experiment), np.array(simulation))
        for deviations, simulation in zip((candidate, incumbent), errors, strict=True)
    )
    assert is_better(first, second) is expected
    assert is_better(second, first) is not expected


@pytest.mark.parametrize("shares", [(1.0, 1.0), (0.5, 0.5), (0.99, 0.1), (0.05, 0.05)])
@pytest.mark.parametrize("missed", [0.0, 3.0])
def test_equally_good_ones_seem_worse_one_time_in_six(shares: tuple[float, float], missed: float) -> None:
    """Whatever the share of the simulation in the errors of ten points, and whatever both miss in truth."""
    draw, simulation = np.random.default_rng(0), np.sqrt(np.repeat(shares, 5))
    experiment = np.sqrt(1 - simulation**2)
    first, second = (
        [Points(one, experiment, simulation) for one in draw.normal(missed, simulation, (2000, 10))] for _ in range(2)
    )
    worse = np.mean([is_worse(one, other) for one, other in zip(first, second, strict=True)])
    # 0.16 of a normal distribution; less where the square of what is missed is cut at zero.
    assert 0.09 < worse < 0.18
    # Off by one error more, which trajectories with a share below a half tell.
    if max(shares) <= 0.5:
        farther = [one._replace(deviations=one.deviations + 1.5) for one in first]
        assert np.mean([is_worse(one, other) for one, other in zip(farther, second, strict=True)]) > 0.9


def test_a_large_error_of_its_own_does_not_excuse_a_potential() -> None:
    vague = Points(np.array([100.0, 80.0]), GOOD.experiment_errors, np.array([300.0, 200.0]))
    assert is_worse(vague, GOOD)
    assert not is_worse(GOOD, vague)


def test_a_few_snapshots_tell_nothing_of_their_error() -> None:
    """That of a single one is zero: a share of nothing, and agreement by chance."""
    alone = Points(np.array([0.3]), np.array([1.0]), np.array([0.0]))
    for number, share in ((1.0, 1.0), (4.9, 1.0), (5.0, 0.0), (None, 0.0)):
        assert noise([Compared("training", 1.0, alone, number)]) == share
        assert noise([Compared("training", 0.0, alone, number), Compared("test", 1.0, alone, number)]) == 0.0
