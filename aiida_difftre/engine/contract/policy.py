"""How a refinement goes on and ends: the one decision loop of ``difftre refine`` and of the work chain.

A pure function, :func:`decide`, takes the state of a refinement and the verdict of its last job to the next state,
which says what to do. Whoever runs the jobs keeps the state, plain JSON, and what it speaks of: the *reference* (the
potential that sampled last without becoming unstable, its trajectories, and the optimizer's state before the update),
the *candidate* (the potential that the last update made), and the best potential. An update always starts from the
reference, so that a potential is rolled back by not being used. Free of JAX and AiiDA.

A refinement has *converged* where, on trajectories that the best potential sampled itself,

    mean (prediction - experiment)²/(σ_exp² + σ_sim²) <= chi2_stop, over the points of all training targets, and
    mean σ_sim²/(σ_exp² + σ_sim²) <= max_noise, over the points of each of them.

The first alone is met by chance as well: chi² tends to one, whatever the potential, as the error σ_sim of the
trajectories outgrows that of the targets. Where the second fails trajectories grow, and the same potential is sampled
again; where they may not grow any more, the refinement ends for the reason ``noise``.

The *best* potential, which a refinement returns, is the latest one whose chi² is above the lowest by no more than the
standard error of their difference (:func:`~aiida_difftre.engine.contract.agreement.is_worse`). Among those that agree
alike within the noise of their trajectories the lowest is luck, while later ones were moved on more of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
from pydantic import Field

from aiida_difftre.engine.contract.agreement import Criterion, Points, is_better, is_worse
from aiida_difftre.engine.contract.base import Strict
from aiida_difftre.engine.contract.loop_settings import LoopSettings
from aiida_difftre.engine.contract.reasons import Reason


class Action(StrEnum):
    """What to do next."""

    SAMPLE = "sample"
    """Sample trajectories with the candidate, which become the reference if the dynamics is stable."""
    JUDGE = "judge"
    """Compare the reference's trajectories with the targets; there is no update after it."""
    UPDATE = "update"
    """Judge the reference where that was not done yet, and move its parameters."""
    END = "end"
    """Nothing: the refinement is over."""


class Reference(Strict):
    """What is known of the last trajectories that were stable.

    Args:
        production_fs: Sampled time of each walker, fs.
        is_judged: True once they were compared with the targets.
        is_updated: True once an update has started from them.
        is_best: True if the potential that sampled them is the best so far.
        has_fresh_optimizer: True if the next update starts without the optimizer's memory.
        held: Labels of the state points that the potential did not sample: what earlier ones sampled stands for it.
    """

    production_fs: float
    is_judged: bool = False
    is_updated: bool = False
    is_best: bool = False
    has_fresh_optimizer: bool = False
    held: list[str] = Field(default_factory=list)


class Judged(Strict):
    """An iteration whose trajectories were compared with the targets.

    Args:
        iteration: Number of the iteration, from 0.
        training: Reduced chi² of the training targets.
    """

    iteration: int
    training: float


class Leader(Judged):
    """The iteration with the lowest chi² of the targets that decide, with which others are compared.

    Args:
        points: Columns of :class:`~aiida_difftre.engine.contract.agreement.Points`, for the targets that decide.
        production_fs: Sampled time of each walker of its trajectories, fs.
    """

    points: tuple[list[float], list[float], list[float]]
    production_fs: float


class Selected(Strict):
    """Which iteration was chosen, by what, and what was given up for it.

    Args:
        criterion: Role of the targets that decided.
        iteration: Number of the chosen iteration.
        training: Reduced chi² of the training targets in the chosen iteration.
        lowest: The iteration with the lowest such chi², on trajectories of the same length.
        leader: The iteration with the lowest chi² of the targets that decided, from which noise does not tell the
            chosen one; None where an earlier version chose that one.
    """

    criterion: Criterion
    iteration: int
    training: float
    lowest: Judged
    leader: int | None = None

    def sentence(self) -> str:
        """The choice in words.

        Returns:
            One line for a log or a report.
        """
        other = f"lowest {self.lowest.training:.3g} at iteration {self.lowest.iteration}"
        lowest = "the lowest" if self.lowest.iteration == self.iteration else other
        by = f"by {self.criterion} targets"
        if self.leader not in {None, self.iteration}:
            by += f", the latest within the noise of iteration {self.leader}"
        return f"iteration {self.iteration}, {by}: training chi² {self.training:.3g}, {lowest}"


class State(Strict):
    """Everything on which the decisions depend; of bounded size but for the iterations that were discarded.

    Args:
        action: The next thing to do.
        production_fs: Sampled time of each walker in the next sampling, fs.
        thresholds: Thresholds of growth that chi² has not yet passed.
        grown_against_noise: Number of times that the trajectories grew because their own error was too large.
        learning_rate_scale: Factor on the learning rate of the next update.
        iteration: Number of the present iteration, from 0; an iteration ends with its update.
        discarded: Numbers of the iterations whose update was done again.
        settings_from: First iteration, production_fs and learning_rate_scale, each time that these changed.
        held: Labels of the state points that the next sampling leaves out.
        samplings: Number of samplings so far.
        roll_backs: Number of roll-backs so far.
        since_best: Number of iterations since chi² has last improved.
        is_stalled: True if the last update found no step.
        reference: Trajectories of the present iteration; None before the first ones.
        criterion: Role of the targets that decide; None before the first judgement.
        leader: The iteration with the lowest chi² of the targets that decide, on the longest trajectories so far; None
            before the first judgement.
        best: The best iteration, which is the leader or later; None before the first judgement.
        lowest: The iteration with the lowest chi² of the training targets alone, on trajectories as long as those of
            the leader.
        reason: Reason for the end; None while the refinement goes on.
        failure: Message of what ended it; empty where nothing failed.
        message: The last decision in words, for a log.
    """

    action: Action = Action.SAMPLE
    production_fs: float
    thresholds: list[float] = Field(default_factory=list)
    grown_against_noise: int = 0
    learning_rate_scale: float = 1.0
    iteration: int = 0
    discarded: list[int] = Field(default_factory=list)
    settings_from: list[tuple[int, float, float]] = Field(default_factory=list)
    held: list[str] = Field(default_factory=list)
    samplings: int = 0
    roll_backs: int = 0
    since_best: int = 0
    is_stalled: bool = False
    reference: Reference | None = None
    criterion: Criterion | None = None
    leader: Leader | None = None
    best: Judged | None = None
    lowest: Judged | None = None
    reason: Reason | None = None
    failure: str = ""
    message: str = ""

    def is_last(self, settings: LoopSettings) -> bool:
        """Whether the next trajectories are only judged, since there were as many updates as there may be.

        Args:
            settings: Settings of the loop.

        Returns:
            True once ``max_iterations`` updates were made and not discarded.
        """
        return self.iteration - len(self.discarded) >= settings.max_iterations

    def selected(self) -> Selected | None:
        """The iteration that is kept, and the targets that decided.

        Returns:
            The choice; None before the first judgement.
        """
        if self.best is None or self.leader is None or self.lowest is None or self.criterion is None:
            return None
        return Selected(
            criterion=self.criterion,
            iteration=self.best.iteration,
            training=self.best.training,
            lowest=self.lowest,
            leader=self.leader.iteration,
        )


@dataclass(frozen=True)
class Sampled:
    """Verdict of sampling: the trajectories of all state points are stable."""


@dataclass(frozen=True)
class Unstable:
    """Verdict of sampling: the dynamics became unstable.

    Args:
        label: Label of a state point where it did.
        reason: Message of the job that failed.
    """

    label: str
    reason: str


@dataclass(frozen=True)
class Agreement:
    """Verdict on the reference: how well its trajectories agree with the targets.

    Args:
        training: Reduced chi² of the training targets.
        selection: Reduced chi² of the selection targets; None where there are none.
        points: Data points of the targets that decide.
        noise: Share of the simulation in the errors of the noisiest training target.
    """

    training: float
    selection: float | None
    points: Points
    noise: float


@dataclass(frozen=True)
class Updated:
    """Verdict of an update that ended well.

    Args:
        has_moved: True if it made a step, or had no reason to make one.
        reason: Why it ended.
        held: For each state point that is sampled, the effective independent snapshots that its trajectories have for
            the new potential, over those of its newest trajectory.
    """

    has_moved: bool
    reason: Reason | None = None
    held: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class UpdateFailed:
    """Verdict of an update: it failed in a way that smaller steps may cure.

    Args:
        reason: Message of the job that failed.
    """

    reason: str


@dataclass(frozen=True)
class Stopped:
    """The refinement cannot go on, whatever the steps.

    Args:
        reason: Reason for the end: a failure, a walltime or a signal.
        message: Message of the job that stopped.
    """

    reason: Reason
    message: str


Verdict = Sampled | Unstable | Agreement | Updated | UpdateFailed | Stopped


def start(settings: LoopSettings, production_fs: float) -> State:
    """The state before the first job.

    Args:
        settings: Settings of the loop.
        production_fs: Sampled time of each walker of the first trajectories, fs.

    Returns:
        A state whose action is to sample.

    Example:
        >>> from aiida_difftre.engine.contract.loop_settings import LoopSettings
        >>> from aiida_difftre.engine.contract.policy import Sampled, decide, start
        >>> settings = LoopSettings()
        >>> state = start(settings, production_fs=5000.0)
        >>> state.action.value, decide(state, Sampled(), settings).action.value
        ('sample', 'update')
    """
    return State(production_fs=production_fs, thresholds=list(settings.growth.thresholds))


def decide(state: State, verdict: Verdict, settings: LoopSettings) -> State:
    """What follows from the verdict of a job.

    After an update that ended well there are two verdicts: its :class:`Agreement`, which also may come before the
    update, and :class:`Updated`, unless the agreement has ended the refinement.

    Args:
        state: The state when the job began.
        verdict: Verdict of the job.
        settings: Settings of the loop.

    Returns:
        The next state, with the action to take and a message for a log.
    """
    state = _changed(state, message="")
    match verdict:
        case Sampled():
            return _sampled(state, settings)
        case Unstable():
            return _unstable(state, verdict, settings)
        case Agreement():
            return _judged(state, verdict, settings)
        case Updated():
            return _updated(state, verdict, settings)
        case UpdateFailed():
            return _rolled_back(state, f"the update: {verdict.reason}", settings)
        case Stopped():
            return _ended(state, verdict.reason, failure=verdict.message)


def _changed(state: State, **changes: Any) -> State:
    return state.model_copy(update=changes)


def _ended(state: State, reason: Reason, **changes: Any) -> State:
    return _changed(state, action=Action.END, reason=reason, **changes)


def _reference(state: State) -> Reference:
    if state.reference is None:
        raise ValueError("a verdict on trajectories came before there were any: sample first")
    return state.reference


def _sampled(state: State, settings: LoopSettings) -> State:
    return _changed(
        state,
        samplings=state.samplings + 1,
        reference=Reference(production_fs=state.production_fs, held=state.held),
        action=Action.JUDGE if state.is_last(settings) else Action.UPDATE,
    )


def _unstable(state: State, verdict: Unstable, settings: LoopSettings) -> State:
    state = _changed(state, samplings=state.samplings + 1)
    if state.reference is None:
        return _ended(state, Reason.UNSTABLE_START, failure=verdict.reason)
    return _rolled_back(state, f"sampling at state point {verdict.label}: {verdict.reason}", settings)


def _rolled_back(state: State, reason: str, settings: LoopSettings) -> State:
    """Return to the reference, with half the learning rate; give up after too many times."""
    if state.is_last(settings):
        message = f"{reason}; the last update is discarded"
        return _ended(state, Reason.LAST_UPDATE_DISCARDED, message=message)
    if state.roll_backs >= settings.max_roll_backs:
        return _ended(state, Reason.TOO_MANY_ROLL_BACKS, failure=reason)
    scale = state.learning_rate_scale / 2
    return _changed(
        state,
        action=Action.UPDATE,
        roll_backs=state.roll_backs + 1,
        learning_rate_scale=scale,
        message=f"{reason}; rolled back to the last potential that sampled well, learning rate scaled by {scale:g}",
    )


def _judged(state: State, verdict: Agreement, settings: LoopSettings) -> State:
    """Keep the potential where it is the best, then lengthen the trajectories, go on or stop."""
    reference = _reference(state)
    if reference.is_judged:
        return _changed(state, action=Action.UPDATE)
    number = state.iteration
    told = f"iteration {number}: reduced chi² {verdict.training:.3g} "
    if reference.held:
        told += f"by earlier trajectories at {', '.join(reference.held)}"
    else:
        told += f"on fresh trajectories of {reference.production_fs:g} fs"
    if verdict.selection is not None:
        told += f", selection targets {verdict.selection:.3g}"
    if reference.held:
        # What was fitted to these trajectories neither confirms a potential nor makes it the best.
        judged = reference.model_copy(update={"is_judged": True})
        return _changed(state, message=told, reference=judged, action=Action.UPDATE)
    state = _with_best(state, reference, verdict, settings)
    state = _changed(state, message=told, criterion="training" if verdict.selection is None else "selection")
    reason = None
    passed = [threshold for threshold in state.thresholds if verdict.training < threshold]
    if passed:
        # What short trajectories call agreement has to hold on longer ones.
        state = _changed(
            state,
            thresholds=[threshold for threshold in state.thresholds if threshold not in passed],
            production_fs=state.production_fs * settings.growth.factor ** len(passed),
        )
    elif verdict.training <= settings.chi2_stop and _reference(state).is_best:
        state, reason = _agreed(state, verdict, settings)
    elif state.since_best >= settings.patience:
        reason = Reason.PATIENCE
    if reason is None and state.action is Action.JUDGE:
        reason = Reason.MAX_ITERATIONS
    return _changed(state, action=Action.UPDATE) if reason is None else _ended(_closed(state), reason)


def _agreed(state: State, verdict: Agreement, settings: LoopSettings) -> tuple[State, Reason | None]:
    """Converged, unless the error of the trajectories is too large to tell: then they grow, where they still may."""
    if verdict.noise <= settings.max_noise:
        return state, Reason.CONVERGED
    share = f"{verdict.noise:.0%} of the squared error of a target is that of the trajectories"
    if state.grown_against_noise >= settings.growth.against_noise:
        told = f"{state.message}, which may be chance: {share}, more than {settings.max_noise:.0%} (max_noise), and "
        return _changed(state, message=f"{told}they grow no further (growth.against_noise)"), Reason.NOISE
    state = _changed(
        state,
        grown_against_noise=state.grown_against_noise + 1,
        production_fs=state.production_fs * settings.growth.factor,
        message=f"{state.message}, which may be chance: {share}; the next are {settings.growth.factor:g} times as long",
    )
    return state, None


def _with_best(state: State, reference: Reference, verdict: Agreement, settings: LoopSettings) -> State:
    """Only trajectories of equal length compare: a short one hides differences behind its own error."""
    leader, incumbent = state.leader, None
    if leader is not None and reference.production_fs <= leader.production_fs:
        incumbent = Points(*(np.array(column) for column in leader.points))
    is_improved = incumbent is None or is_better(verdict.points, incumbent, settings.min_improvement)
    leads = incumbent is None or is_better(verdict.points, incumbent)
    is_best = incumbent is None or leads or not is_worse(verdict.points, incumbent)
    this = Judged(iteration=state.iteration, training=verdict.training)
    is_lowest = incumbent is None or state.lowest is None or this.training < state.lowest.training
    if leads:
        columns = tuple(column.tolist() for column in verdict.points)
        leader = Leader(**dict(this), points=columns, production_fs=reference.production_fs)
    return _changed(
        state,
        since_best=0 if is_improved else state.since_best + 1,
        reference=reference.model_copy(update={"is_judged": True, "is_best": is_best}),
        leader=leader,
        best=this if is_best else state.best,
        lowest=this if is_lowest else state.lowest,
    )


def _closed(state: State) -> State:
    """The present iteration is over; where its trajectories have served one before, that one is discarded."""
    reference, number = _reference(state), state.iteration
    settings = (reference.production_fs, state.learning_rate_scale)
    changed = not state.settings_from or tuple(state.settings_from[-1][1:]) != settings
    return _changed(
        state,
        iteration=number + 1,
        discarded=[*state.discarded, number - 1] if reference.is_updated else state.discarded,
        settings_from=[*state.settings_from, (number, *settings)] if changed else state.settings_from,
        reference=reference.model_copy(update={"is_updated": True}),
    )


def _held(state: State, verdict: Updated, settings: LoopSettings) -> list[str]:
    """State points that need not be sampled with a new potential.

    Where an update got as far as its trajectories lead, or as its targets want, new ones have to confirm it.
    """
    least = settings.resample_below
    is_longer = state.production_fs > _reference(state).production_fs
    if least is None or is_longer or state.is_last(settings) or verdict.reason is Reason.CHI2:
        return []
    held = [label for label, share in verdict.held.items() if share >= least]
    could_go_on = verdict.reason in {Reason.GATE, Reason.MAX_STEPS}
    return held if could_go_on or len(held) < len(verdict.held) else []


def _updated(state: State, verdict: Updated, settings: LoopSettings) -> State:
    """Sample with what the update made; where it found no step, try once more without the optimizer's memory."""
    state = _closed(state)
    if verdict.has_moved:
        return _changed(state, action=Action.SAMPLE, is_stalled=False, held=_held(state, verdict, settings))
    if state.is_stalled:
        return _ended(state, Reason.STALLED)
    scale = state.learning_rate_scale / 2
    return _changed(
        state,
        action=Action.UPDATE,
        is_stalled=True,
        learning_rate_scale=scale,
        reference=_reference(state).model_copy(update={"has_fresh_optimizer": True}),
        message=f"no step was found; a fresh optimizer, learning rate scaled by {scale:g}",
    )
