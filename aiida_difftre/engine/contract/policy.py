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

Which potential is the *best*, which is returned, is told in :mod:`~aiida_difftre.engine.contract.choice`.
"""

from __future__ import annotations

from typing import Any

from aiida_difftre.engine.contract.choice import Judged, Leader, standing
from aiida_difftre.engine.contract.loop_settings import LoopSettings
from aiida_difftre.engine.contract.loop_state import Action, Reference, State
from aiida_difftre.engine.contract.loop_verdicts import (
    Agreement,
    Sampled,
    Stopped,
    Unstable,
    Updated,
    UpdateFailed,
    Verdict,
)
from aiida_difftre.engine.contract.reasons import Reason


def start(settings: LoopSettings, production_fs: float) -> State:
    """The state before the first job.

    Args:
        settings: Settings of the loop.
        production_fs: Sampled time of each walker of the first trajectories, fs.

    Returns:
        A state whose action is to sample.

    Example:
        >>> from aiida_difftre.engine.contract.loop_settings import LoopSettings
        >>> from aiida_difftre.engine.contract.loop_verdicts import Sampled
        >>> from aiida_difftre.engine.contract.policy import decide, start
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
    if reference.held:
        # What was fitted to these trajectories neither confirms a potential nor makes it the best.
        told = _told(state, verdict, f"by earlier trajectories at {', '.join(reference.held)}")
        judged = reference.model_copy(update={"is_judged": True})
        return _changed(state, message=told, reference=judged, action=Action.UPDATE)
    state = _with_best(state, reference, verdict, settings)
    told = _told(state, verdict, f"on fresh trajectories of {reference.production_fs:g} fs")
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


def _told(state: State, verdict: Agreement, by: str) -> str:
    told = f"iteration {state.iteration}: reduced chi² {verdict.training:.3g} {by}"
    return told if verdict.selection is None else f"{told}, selection targets {verdict.selection:.3g}"


def _agreed(state: State, verdict: Agreement, settings: LoopSettings) -> tuple[State, Reason | None]:
    """Converged, unless the error of the trajectories is too large to tell: then they grow, where they still may."""
    if verdict.noise <= settings.max_noise:
        return state, Reason.CONVERGED
    share = f"{verdict.noise:.0%} of the squared error of a target is that of the trajectories"
    if state.grown_against_noise >= settings.growth.against_noise:
        told = f"{state.message}, which may be chance: {share}, more than {settings.max_noise:.0%} (max_noise), and "
        return _changed(state, message=f"{told}they grow no further (growth.against_noise)"), Reason.NOISE
    if state.action is Action.JUDGE:
        told = f"{state.message}, which may be chance: {share}; there are no longer ones to come (max_iterations)"
        return _changed(state, message=told), None
    state = _changed(
        state,
        grown_against_noise=state.grown_against_noise + 1,
        production_fs=state.production_fs * settings.growth.factor,
        message=f"{state.message}, which may be chance: {share}; the next are {settings.growth.factor:g} times as long",
    )
    return state, None


def _with_best(state: State, reference: Reference, verdict: Agreement, settings: LoopSettings) -> State:
    """Keep the potential where it is the best."""
    agrees = verdict.training <= settings.chi2_stop
    found = standing(verdict.points, reference.production_fs, state.leader, settings.min_improvement, agrees=agrees)
    this = Judged(iteration=state.iteration, training=verdict.training)
    is_lowest = found.is_first or state.lowest is None or this.training < state.lowest.training
    leader = state.leader
    if found.leads:
        columns = tuple(column.tolist() for column in verdict.points)
        leader = Leader(**dict(this), points=columns, production_fs=reference.production_fs)
    return _changed(
        state,
        since_best=0 if found.is_improved else state.since_best + 1,
        reference=reference.model_copy(update={"is_judged": True, "is_best": found.is_best}),
        leader=leader,
        best=this if found.is_best else state.best,
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
