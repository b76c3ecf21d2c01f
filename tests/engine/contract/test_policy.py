"""Every transition of the loop of a refinement, without a job."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from aiida_difftre.engine.contract import policy
from aiida_difftre.engine.contract.agreement import Compared, Points, decisive_points, reduced_chi2
from aiida_difftre.engine.contract.agreement import noise as noise_of
from aiida_difftre.engine.contract.loop_settings import LoopSettings
from aiida_difftre.engine.contract.loop_state import Action, State
from aiida_difftre.engine.contract.loop_verdicts import Agreement, Sampled, Stopped, Updated, Verdict
from aiida_difftre.engine.contract.policy import decide
from aiida_difftre.engine.contract.reasons import Reason
from tests.fixtures.loop import HOT, LOST, MOVED, STUCK, agreement, follow, iteration, settings


def test_an_iteration_samples_then_updates() -> None:
    assert follow().action is Action.SAMPLE
    assert follow(Sampled()).action is Action.UPDATE
    judged = follow(Sampled(), agreement(9.0))
    assert (judged.action, judged.iteration) == (Action.UPDATE, 0)
    assert judged.message == "iteration 0: reduced chi² 9 on fresh trajectories of 100 fs"
    after = follow(*iteration(9.0))
    assert (after.action, after.iteration, after.samplings) == (Action.SAMPLE, 1, 1)
    assert after.settings_from == [(0, 100.0, 1.0)]
    selected = follow(Sampled(), agreement(9.0, 4.0))
    assert selected.message.endswith("of 100 fs, selection targets 4")


def test_converges_where_the_best_agrees() -> None:
    over = follow(*iteration(9.0), Sampled(), agreement(0.5))
    assert (over.action, over.reason, over.iteration) == (Action.END, Reason.CONVERGED, 2)
    # Agreement that is not the best does not count: selection targets have the last word.
    assert follow(*iteration(9.0, 2.0), Sampled(), agreement(0.4, 3.0)).action is Action.UPDATE


def test_without_a_setting_it_converges_at_deviations_of_one_error() -> None:
    start = policy.start(LoopSettings(), 100.0)
    ended, going_on = (
        decide(decide(start, Sampled(), LoopSettings()), agreement(chi2), LoopSettings()) for chi2 in (1.0, 1.01)
    )
    assert (ended.reason, going_on.reason) == (Reason.CONVERGED, None)


def test_patience_counts_iterations_without_a_better_one() -> None:
    worse = [*iteration(4.0), *iteration(9.0)]
    assert follow(*worse, patience=2).since_best == 1
    over = follow(*worse, Sampled(), agreement(8.0), patience=2)
    assert (over.reason, over.best.iteration, over.iteration) == (Reason.PATIENCE, 0, 3)
    # Better by less than the margin is noise, but better.
    barely = follow(*iteration(4.0), *iteration(3.99), patience=2, min_improvement=0.02)
    assert (barely.since_best, barely.best.iteration) == (1, 1)


def test_the_last_trajectories_are_only_judged() -> None:
    last = follow(*iteration(9.0), Sampled(), max_iterations=1)
    assert last.action is Action.JUDGE
    over = follow(*iteration(9.0), Sampled(), agreement(8.0), max_iterations=1)
    assert (over.reason, over.best.iteration, over.iteration) == (Reason.MAX_ITERATIONS, 1, 2)
    assert follow(*iteration(9.0), Sampled(), agreement(0.1), max_iterations=1).reason is Reason.CONVERGED


def test_an_unstable_potential_is_rolled_back() -> None:
    back = follow(*iteration(9.0), HOT)
    assert (back.action, back.roll_backs, back.learning_rate_scale, back.samplings) == (Action.UPDATE, 1, 0.5, 2)
    assert "sampling at state point warm: too hot; rolled back" in back.message
    # The same trajectories again: they are not judged twice, and the iteration before is discarded.
    again = follow(*iteration(9.0), HOT, agreement(1.0), MOVED)
    assert (again.discarded, again.iteration, again.best.training) == ([0], 2, 9.0)
    assert again.settings_from == [(0, 100.0, 1.0), (1, 100.0, 0.5)]
    assert again.iteration - len(again.discarded) == 1, "a discarded iteration is no update"


def test_gives_up_after_too_many_roll_backs() -> None:
    over = follow(*iteration(9.0), HOT, agreement(9.0), MOVED, HOT, max_roll_backs=1)
    assert (over.reason, over.failure, over.roll_backs) == (
        Reason.TOO_MANY_ROLL_BACKS, "sampling at state point warm: too hot", 1,
    )  # fmt: skip
    over = follow(Sampled(), LOST, max_roll_backs=0)
    assert (over.reason, over.failure) == (Reason.TOO_MANY_ROLL_BACKS, "the update: too few effective samples")


def test_an_unstable_start_or_end() -> None:
    over = follow(HOT)
    assert (over.reason, over.failure, over.selected()) == (Reason.UNSTABLE_START, "too hot", None)
    over = follow(*iteration(9.0), HOT, max_iterations=1)
    assert (over.reason, over.best.iteration) == (Reason.LAST_UPDATE_DISCARDED, 0)


@pytest.mark.parametrize("judged", [[], [agreement(9.0)]])
def test_a_failed_update_is_done_again_with_smaller_steps(judged: list[Verdict]) -> None:
    """Whether the trajectories were judged before the update or with it."""
    back = follow(Sampled(), *judged, LOST)
    assert (back.action, back.roll_backs, back.learning_rate_scale, back.iteration) == (Action.UPDATE, 1, 0.5, 0)
    after = follow(Sampled(), *judged, LOST, agreement(9.0), MOVED)
    assert (after.discarded, after.iteration, after.settings_from) == ([], 1, [(0, 100.0, 0.5)])


def test_no_step_restarts_the_optimizer_once() -> None:
    restart = follow(Sampled(), agreement(9.0), STUCK)
    assert (restart.action, restart.learning_rate_scale, restart.is_stalled) == (Action.UPDATE, 0.5, True)
    assert restart.reference.has_fresh_optimizer
    over = follow(Sampled(), agreement(9.0), STUCK, agreement(9.0), STUCK)
    assert (over.reason, over.discarded, over.iteration) == (Reason.STALLED, [0], 2)
    moved = follow(Sampled(), agreement(9.0), STUCK, agreement(9.0), MOVED, Sampled())
    assert not moved.is_stalled
    assert not moved.reference.has_fresh_optimizer, "of these trajectories"


def test_trajectories_grow_before_agreement_counts() -> None:
    growth = {"factor": 2.0, "thresholds": [10.0, 2.0]}
    grown = follow(*iteration(0.4), growth=growth)
    assert (grown.production_fs, grown.thresholds, grown.reason) == (400.0, [], None)
    assert grown.settings_from == [(0, 100.0, 1.0)], "the time that was sampled, not the next one"
    # On longer trajectories a worse number is the better one.
    longer = follow(*iteration(0.4), Sampled(), agreement(0.45), growth=growth)
    assert (longer.best.iteration, longer.lowest.iteration, longer.reason) == (1, 1, Reason.CONVERGED)


def test_agreement_of_noise_is_not_convergence() -> None:
    growth = {"factor": 3.0, "against_noise": 1}
    grown = follow(Sampled(), agreement(0.4, noise=0.83), growth=growth)
    assert (grown.action, grown.production_fs, grown.reason) == (Action.UPDATE, 300.0, None)
    assert grown.message == (
        "iteration 0: reduced chi² 0.4 on fresh trajectories of 100 fs, which may be chance: 83% of the squared error "
        "of a target is that of the trajectories; the next are 3 times as long"
    )
    noisy = iteration(0.4, noise=0.83)
    met = follow(*noisy, Sampled(), agreement(0.45, noise=0.5), growth=growth)
    assert (met.reason, met.best.iteration) == (Reason.CONVERGED, 1)
    missed = follow(*noisy, *iteration(6.0, noise=0.5), growth=growth)
    assert (missed.action, missed.production_fs) == (Action.SAMPLE, 300.0), "goes on as it would have from 6"
    over = follow(*noisy, Sampled(), agreement(0.45, noise=0.6), growth=growth)
    assert (over.reason, over.reason.is_complete, over.best.iteration) == (Reason.NOISE, True, 1)
    assert over.message.endswith("60% of the squared error of a target is that of the trajectories, more than 50% "
                                 "(max_noise), and they grow no further (growth.against_noise)")  # fmt: skip
    assert follow(*noisy, Sampled(), agreement(0.4, noise=0.6), growth=growth, max_iterations=1).reason is Reason.NOISE
    last = follow(*iteration(6.0), Sampled(), agreement(0.4, noise=0.6), growth=growth, max_iterations=1)
    assert (last.reason, last.grown_against_noise) == (Reason.MAX_ITERATIONS, 0)
    assert last.message.endswith("there are no longer ones to come (max_iterations)")
    assert follow(Sampled(), agreement(0.4, noise=0.83), max_noise=1.0).reason is Reason.CONVERGED


def follow_noisy(seed: int, off: float, error: float, **changes: Any) -> State:
    """A refinement whose potential stays ``off`` by as many errors of its targets, sampled with an error of its own.

    There are two targets, one of six points that is sampled well, and one of three that is not, in the same units.
    """
    chosen, draw = settings(chi2_stop=1.0, **changes), np.random.default_rng(seed)
    state = policy.start(chosen, 100.0)
    while state.action is not Action.END:
        noise = error * (100.0 / state.production_fs) ** 0.5
        targets = [
            Compared("training", 1.0, Points(draw.normal(mean, width, size), np.ones(size), np.full(size, width)))
            for mean, width, size in ((0.0, noise / 100, 6), (off, noise, 3))
        ]
        chi2 = reduced_chi2(targets, "training")
        verdict = Agreement(chi2, None, decisive_points(targets), noise_of(targets))
        for event in (Sampled(), verdict, MOVED):
            state = decide(state, event, chosen) if state.action is not Action.END else state
    return state


def test_a_potential_that_noise_alone_makes_agree_has_not_converged() -> None:
    """Six errors off, sampled with an error of twenty: what chi² below 1 alone calls converged, nearly always."""
    loop = {"max_iterations": 4, "patience": 3}
    fooled = [follow_noisy(seed, off=6.0, error=20.0, max_noise=1.0, **loop).reason for seed in range(40)]
    assert fooled.count(Reason.CONVERGED) > 35
    ended = [follow_noisy(seed, off=6.0, error=20.0, **loop).reason for seed in range(40)]
    assert Reason.CONVERGED not in ended
    assert Reason.NOISE in ended
    # The same where longer trajectories can tell, and where there is nothing to find: one that is right is found right.
    longer = {"growth": {"factor": 100.0, "against_noise": 2}}
    ended = [follow_noisy(seed, off=6.0, error=20.0, **loop, **longer).reason for seed in range(40)]
    assert set(ended) <= {Reason.MAX_ITERATIONS, Reason.PATIENCE}
    ended = [follow_noisy(seed, off=0.0, error=20.0, **loop, **longer).reason for seed in range(40)]
    assert ended.count(Reason.CONVERGED) > 35


def moved(reason: Reason = Reason.GATE, **held: float) -> Updated:
    return Updated(has_moved=True, reason=reason, held=held)


def test_state_points_whose_trajectories_still_serve_are_not_sampled() -> None:
    asked = {"resample_below": 0.8, "chi2_stop": 1.0}
    first = [Sampled(), agreement(9.0)]
    assert follow(*first, moved(cold=0.9, hot=0.9)).held == []
    assert follow(*first, moved(cold=0.9, hot=0.5), **asked).held == ["cold"]
    assert follow(*first, moved(cold=0.9, hot=0.8), **asked).held == ["cold", "hot"]
    # What went as far as the trajectories lead, what meets its targets, and what is last needs new ones.
    assert follow(*first, moved(Reason.MINIMUM, cold=0.9, hot=0.5), **asked).held == ["cold"]
    assert follow(*first, moved(Reason.MINIMUM, cold=0.9, hot=0.8), **asked).held == []
    assert follow(*first, moved(Reason.CHI2, cold=0.9, hot=0.5), **asked).held == []
    assert follow(*first, moved(cold=0.9, hot=0.5), max_iterations=1, **asked).held == []
    # So do trajectories that are to be longer.
    assert follow(*first, moved(cold=0.9, hot=0.5), growth={"thresholds": [10.0]}, **asked).held == []


def test_what_was_not_sampled_is_no_agreement() -> None:
    """It neither ends the refinement nor is the best, nor does it count against patience; afterwards all is sampled."""
    asked = {"resample_below": 0.8, "chi2_stop": 1.0, "patience": 1}
    verdicts: list[Verdict] = [Sampled(), agreement(9.0), moved(cold=0.9, hot=0.5), Sampled(), agreement(0.1)]
    judged = follow(*verdicts, **asked)
    assert (judged.action, judged.best.iteration, judged.since_best) == (Action.UPDATE, 0, 0)
    assert judged.message == "iteration 1: reduced chi² 0.1 by earlier trajectories at cold"
    verdicts += [moved(Reason.CHI2, cold=0.9, hot=1.0), Sampled(), agreement(0.2)]
    over = follow(*verdicts, **asked)
    assert (over.reason, over.best.iteration, over.reference.held) == (Reason.CONVERGED, 2, [])
    # Where the potential does not sample well, the last reference goes on with what it had.
    back = follow(*verdicts[:3], HOT, **asked)
    assert (back.action, back.reference.held) == (Action.UPDATE, [])


@pytest.mark.parametrize("reason", [Reason.WALLTIME, Reason.INTERRUPTED, Reason.FAILED])
def test_stops_at_once(reason: Reason) -> None:
    for before in ([], [Sampled()], iteration(9.0)):
        over = follow(*before, Stopped(reason, "because"))
        assert (over.action, over.reason, over.failure) == (Action.END, reason, "because")
        assert not over.reason.is_complete


def test_a_verdict_without_trajectories_is_refused() -> None:
    with pytest.raises(ValueError, match="sample first"):
        follow(agreement(1.0))


def test_updates_stop_where_the_loop_does() -> None:
    assert settings(chi2_stop=0.7).of_updates() == {"chi2_stop": 0.7, "chi2_converged": 0.7}
