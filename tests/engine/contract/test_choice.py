"""Which potential a refinement returns, of those that it judged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from aiida_difftre.engine.contract import policy
from aiida_difftre.engine.contract.agreement import Points
from aiida_difftre.engine.contract.loop_state import Action
from aiida_difftre.engine.contract.loop_verdicts import Agreement, Sampled, Verdict
from aiida_difftre.engine.contract.policy import decide
from aiida_difftre.engine.contract.reasons import Reason
from tests.fixtures.loop import MOVED, follow, iteration, settings


def truly_missed(seed: int, off: Callable[[int, NDArray], Any], noise: float, number: int = 7) -> NDArray:
    """By how many errors the potential that is returned is off in truth, the one that leads, and the last: (3, points).

    Args:
        seed: Of the noise.
        off: A function (iteration, what trajectories before were off by noise) -> by how many errors of each of the two
            targets the potential is off.
        noise: Of the trajectories, in errors of the targets.
        number: Of iterations.
    """
    chosen, draw = settings(chi2_stop=0.0, max_iterations=number - 1, patience=99), np.random.default_rng(seed)
    state, drawn, truth = policy.start(chosen, 100.0), draw.normal(scale=noise, size=(number, 2)), []
    for index in range(number):
        truth.append(off(index, drawn[:index]) * np.ones(2))
        found = Points(truth[-1] + drawn[index], np.ones(2), np.full(2, noise))
        for event in (Sampled(), Agreement(float(np.mean(found.squares())), None, found, 0.0), MOVED):
            state = decide(state, event, chosen) if state.action is not Action.END else state
    assert state.reason is Reason.MAX_ITERATIONS
    selected = state.selected()
    return np.array([truth[selected.iteration], truth[selected.leader], truth[-1]])


@pytest.mark.parametrize(("pool", "at_most"), [(5, 0.9), (1, 1.1)])
def test_later_potentials_are_returned_where_they_know_more(pool: int, at_most: float) -> None:
    """Each update removes what the trajectories of its pool seem to miss, and with it puts in their noise."""

    def off(index: int, noise: NDArray) -> Any:
        return -noise[max(1, index - pool) :].mean(0) if index > 1 else 100.0

    found = np.array([truly_missed(seed, off, noise=10.0) for seed in range(300)])
    returned, leading, last = np.sqrt(np.mean(np.square(found), (0, 2)))
    assert returned < at_most * leading
    assert returned < 1.1 * last, "nor does the noise of its own trajectory lead astray"


@pytest.mark.parametrize("noise", [0.1, 1.0])
def test_where_chi2_rises_the_potential_before_is_returned(noise: float) -> None:
    """From agreement up to eight errors: nothing is returned that more than the noise can tell from the lowest."""
    rising = [6.0, 3.0, 0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0]
    found = [truly_missed(seed, lambda index, _: rising[index], noise, len(rising))[:, 0] for seed in range(100)]
    returned, leading, _ = np.transpose(found)
    assert returned.max() <= (0.5 if noise < 1 else 4.0)
    assert np.mean(returned <= 2.0) > 0.95
    assert np.mean(returned) < np.mean(leading) + noise / 3


def test_the_latest_within_the_noise_says_what_it_was_chosen_over() -> None:
    def noisy(deviation: float) -> list[Verdict]:
        near = Points(np.array([deviation]), np.array([0.6]), np.array([0.8]))
        return [Sampled(), Agreement(deviation**2, None, near, 0.64), MOVED]

    state = follow(*noisy(4.0), *noisy(1.0), *noisy(1.4), *noisy(4.0), chi2_stop=0.0)
    assert state.reference.is_best is False
    assert state.selected().sentence() == (
        "iteration 2, by training targets, the latest within the noise of iteration 1: training chi² 1.96, lowest 1 at "
        "iteration 1"
    )
    assert state.since_best == 2, "what is returned is no improvement, for which the loop would wait longer"


def test_what_was_given_up_for_the_selection() -> None:
    state = follow(*iteration(5.0, 8.0), *iteration(3.43, 4.06), *iteration(0.84, 5.0), *iteration(2.0, 6.0))
    selected = state.selected()
    assert selected.sentence() == "iteration 1, by selection targets: training chi² 3.43, lowest 0.84 at iteration 2"
    alone = follow(*iteration(5.0), *iteration(0.84), *iteration(2.0)).selected()
    assert alone.sentence() == "iteration 1, by training targets: training chi² 0.84, the lowest"


def test_longer_trajectories_begin_anew_unless_they_show_that_the_potential_is_worse() -> None:
    """Eight errors off on trajectories twice as long, after one: the earlier potential is what is returned."""

    def judged(off: float, noise: float) -> list[Verdict]:
        points = Points(np.full(4, off), np.ones(4), np.full(4, noise))
        return [Sampled(), Agreement(float(np.mean(points.squares())), None, points, 0.0), MOVED]

    growth = {"factor": 2.0, "thresholds": [3.0]}
    worse = follow(*judged(1.5, 0.2), *judged(8.0, 0.1), chi2_stop=0.1, growth=growth)
    assert (worse.production_fs, worse.best.iteration, worse.leader.iteration, worse.since_best) == (200.0, 0, 0, 1)
    back = follow(*judged(1.5, 0.2), *judged(8.0, 0.1), *judged(1.6, 0.1), chi2_stop=0.1, growth=growth)
    assert (back.best.iteration, back.leader.production_fs) == (2, 200.0)
    # Short trajectories that tell little: what they called better may have been their noise.
    noisy = follow(*judged(1.5, 4.0), *judged(4.0, 2.8), chi2_stop=0.1, growth=growth)
    assert (noisy.best.iteration, noisy.leader.iteration) == (1, 1)
    # What agrees is worse than something, and good enough.
    agreeing = follow(*judged(0.2, 0.01), *judged(0.9, 0.01)[:2], chi2_stop=1.0, growth=growth)
    assert (agreeing.best.iteration, agreeing.reason) == (1, Reason.CONVERGED)
