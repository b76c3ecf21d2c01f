"""The update: optimizer steps on fixed reference trajectories, until too few effective samples remain."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from numpy.typing import NDArray

from aiida_difftre.engine import optimizers
from aiida_difftre.engine.contract import files, optimizer_options
from aiida_difftre.engine.contract.jobs import OPTIMIZER_OUT, POTENTIAL_OUT, Prediction, UpdateJob, UpdateSettings
from aiida_difftre.engine.contract.policy import Reason
from aiida_difftre.engine.contract.records import Timings
from aiida_difftre.engine.contract.results import (
    SnapshotCache,
    StatePointStep,
    StatePointUpdate,
    UpdateResults,
    UpdateStep,
    UpdateSummary,
)
from aiida_difftre.engine.contract.targets import Target
from aiida_difftre.engine.errors import EngineError, ExitStatus
from aiida_difftre.engine.matching.matching import matching_loss
from aiida_difftre.engine.potentials import potential as potentials
from aiida_difftre.engine.potentials.potential import Potential
from aiida_difftre.engine.potentials.term import Parameters
from aiida_difftre.engine.refinement import gauss_newton, losses
from aiida_difftre.engine.refinement.objective import (
    Data,
    ExtraLoss,
    Objective,
    Point,
    effective_fraction,
    prepare,
    reduced_chi2,
)
from aiida_difftre.engine.reweighting.predictions import reweighted_predictions
from aiida_difftre.engine.runtime.progress import Reporter
from aiida_difftre.engine.runtime.stop import Stop

LEAST_GAIN = 0.01
"""Of a Gauss-Newton step, relative to the loss; the update ends before a smaller one."""

LONGEST_SHOWN = 36
"""Values of an observable that the history repeats at every step: a stiffness, but no curve."""


@dataclass(frozen=True)
class Outcome:
    """What an update returns.

    Args:
        parameters: after the last accepted step.
        optimizer_state: after it.
        history: one entry per evaluated set of parameters.
        reason: why the update ended.
        after: predictions with errors at the end, by state point with a target in the loss; none of an update that was
            interrupted.
    """

    parameters: Parameters
    optimizer_state: Any
    history: list[UpdateStep]
    reason: Reason
    after: dict[str, list[Prediction]]


def minimise(
    potential: Potential,
    parameters: Parameters,
    data: Sequence[Data],
    settings: UpdateSettings,
    *,
    seed: int,
    progress: Reporter,
    optimizer_state: Any = None,
    learning_rate_scale: float = 1.0,
    extra: ExtraLoss | None = None,
    stop: Stop | None = None,
) -> Outcome:
    """Optimizer steps until the gate closes, the targets are met, or ``max_steps``.

    A step that would lose more than ``max_step_loss`` of the effective samples, or raise the loss, is halved
    (backtracking) at most ``max_halvings`` times. On a fixed trajectory the loss is deterministic, so that it falls
    monotonically. State points without a target in the loss bound no step: their trajectories need not stay valid.

    Args:
        potential: the potential.
        parameters: those that sampled the references.
        data: state points, at least one of them with a target in the loss.
        settings: of the update.
        seed: of the bootstrap.
        progress: takes reports.
        optimizer_state: of an earlier update, as :func:`optimizer` structures it.
        learning_rate_scale: factor on every step.
        extra: a further term of the loss.
        stop: asked between steps; from the first one on, the update then ends with what it has: after the walltime with
            its results, after a signal as interrupted.

    Raises:
        EngineError: NOT_FINITE for a gradient that is not; TOO_FEW_EFFECTIVE_SAMPLES when not even the first step can
            be made small enough; WALLTIME or INTERRUPTED where the job has to stop before the first step.
    """
    data = [point for point in data if point.is_in_loss]
    optimizer = optimizers.of_update(settings.optimizer)
    is_fresh = optimizer_state is None
    state = optimizer.init(parameters) if is_fresh else optimizer_state
    free = potential.trainable(parameters)
    objective = Objective(data, settings, parameters, extra)
    history: list[UpdateStep] = []
    reason, scale, point = Reason.MAX_STEPS, learning_rate_scale, objective(parameters)
    for step in range(settings.max_steps + 1):
        entry = _entry(step, data, point)
        history.append(entry)
        progress.report(
            "update", step, settings.max_steps, loss=entry.loss, chi2=entry.chi2, n_eff_fraction=entry.n_eff_fraction
        )
        ended, stopped = _ended(entry, step, settings), stop.requested() if stop is not None else None
        if ended is not None:
            reason = ended
            break
        if stopped is not None:
            if step == 0:
                raise EngineError(stopped.status, f"{stopped.message} before the first step of the update")
            if stopped.status == ExitStatus.INTERRUPTED:
                return Outcome(point.parameters, state, history, Reason.INTERRUPTED, {})
            reason = Reason.WALLTIME
            break
        slopes, entry.gradient_norm, is_bounded = _direction(objective, point, free, settings)
        if not np.isfinite(entry.gradient_norm):
            message = f"the gradient at step {step} of the update is not finite"
            raise EngineError(ExitStatus.NOT_FINITE, message, entry.content())
        # The memory of an optimizer may point uphill; then it starts afresh, whose first direction never does.
        trials = [(state, scale)]
        if not (is_fresh and scale == learning_rate_scale):
            trials.append((optimizer.init(point.parameters), learning_rate_scale))
        for memory, length in trials:
            direction, next_state = optimizer.update(slopes, memory, point.parameters)
            found, factor = _line_search(objective, point, _masked(direction, free), length, settings)
            if found is not None:
                break
        if found is None:
            if step == 0 and factor == 0:
                raise EngineError(
                    ExitStatus.TOO_FEW_EFFECTIVE_SAMPLES,
                    f"the first step loses more than {settings.max_step_loss:.0%} of the effective samples even when "
                    f"halved {settings.max_halvings} times; lower the learning rate "
                    f"({settings.optimizer.learning_rate:g}) or raise max_halvings",
                    entry.content(),
                )
            reason = Reason.NO_DESCENT
            break
        entry.step_scale = factor
        if step > 0 and not is_bounded and point.loss - found.loss < LEAST_GAIN * point.loss:
            # What the best of all steps hardly gains here, the next trajectory tells better.
            reason = Reason.MINIMUM
            break
        point = found
        state, is_fresh = next_state, False
        # A step that had to be halved is tried at twice its length next time, not at full length.
        scale = min(learning_rate_scale, 2 * factor)
    parameters = point.parameters
    after = {
        p.label: reweighted_predictions(p.reference, parameters, replicates=settings.bootstrap, seed=seed)[0]
        for p in data
    }
    return Outcome(parameters, state, history, reason, after)


def _direction(
    objective: Objective, point: Point, free: Parameters, settings: UpdateSettings
) -> tuple[Parameters, float, bool]:
    """What the optimizer scales, the norm of the gradient, and whether a longer step might gain more."""
    if settings.optimizer.name == optimizer_options.GAUSS_NEWTON:
        return gauss_newton.step(
            objective.data,
            point.parameters,
            point.evaluation.quantities,
            free,
            damping=optimizer_options.damping(settings.optimizer.options),
            radius=float(np.sqrt(-np.log1p(-settings.max_step_loss))),
            noise=sum(losses.noise(data.terms, settings.loss.kind) for data in objective.data),
            start=objective.anchor,
            extra=point.extra_slope,
        )
    slopes = _masked(objective.gradient(point), free)
    return slopes, float(optax.tree.norm(slopes)), True


def _masked(tree: Parameters, free: Parameters) -> Parameters:
    masked: Parameters = jax.tree.map(
        lambda leaf, movable: leaf if movable else np.zeros(leaf.shape, leaf.dtype), tree, free
    )
    return masked


def _ended(entry: UpdateStep, step: int, settings: UpdateSettings) -> Reason | None:
    """Why an update ends at this point; None where it goes on."""
    if entry.chi2 <= (max(settings.chi2_stop, settings.chi2_converged) if step == 0 else settings.chi2_stop):
        return Reason.CHI2
    if entry.n_eff_fraction < settings.gate:
        return Reason.GATE
    if step == settings.max_steps:
        return Reason.MAX_STEPS
    return None


@jax.jit
def _moved(parameters: Parameters, direction: Parameters, factor: float) -> Parameters:
    moved: Parameters = jax.tree.map(lambda p, u: (p + factor * u).astype(p.dtype), parameters, direction)
    return moved


def _line_search(
    objective: Objective, point: Point, direction: Parameters, length: float, settings: UpdateSettings
) -> tuple[Point | None, float]:
    """Halve a step until it keeps enough effective samples and does not raise the loss.

    Returns:
        The new point and the factor of the step; or None, and 0 where it was always the effective samples that failed.
    """
    least = (1 - settings.max_step_loss) * point.fraction
    tried = 0.0
    for halvings in range(settings.max_halvings + 1):
        factor = length * 0.5**halvings
        candidate = _moved(point.parameters, direction, factor)
        # Energies alone cost a fraction of the whole loss, and most steps that fail do so here.
        if effective_fraction(objective.data, candidate) < least:
            continue
        tried = factor
        # Before the evaluation: the DFT term sees the offset.
        found = objective(objective.with_offset(candidate, point.parameters))
        if found.loss <= point.loss:
            return found, factor
    return None, tried


def _entry(step: int, data: Sequence[Data], current: Point) -> UpdateStep:
    evaluation = current.evaluation
    chi2 = reduced_chi2(data, evaluation.predictions, "training")
    if chi2 is None:
        raise EngineError(ExitStatus.INVALID_INPUT, "no training target to judge the update by")
    points = {}
    for point in data:
        size = evaluation.effective[point.label]
        points[point.label] = StatePointStep(
            n_eff_entropy=size.entropy,
            n_eff_kish=size.kish,
            n_eff_independent=size.smallest / point.inefficiency,
            predictions={
                term.target.name: values.tolist()
                for term, values in zip(point.terms, evaluation.predictions[point.label], strict=True)
                if len(values) <= LONGEST_SHOWN
            },
        )
    return UpdateStep(
        step=step,
        loss=current.loss,
        loss_targets=evaluation.loss,
        loss_extra=current.extra_loss,
        chi2=chi2,
        n_eff_fraction=current.fraction,
        state_points=points,
    )


def run(job: UpdateJob, folder: Path, progress: Reporter) -> UpdateResults:
    """Do an update job in a folder."""
    potential, parameters = potentials.load(folder / job.potential)
    settings = job.update
    state = None
    if job.optimizer_state is not None:
        optimizer = optimizers.of_update(settings.optimizer)
        state = optimizers.read_state(folder / job.optimizer_state, jax.eval_shape(optimizer.init, parameters))
    began, stop = time.monotonic(), Stop(job.machine.walltime_s)
    looked_at = [(point, targets) for point in job.state_points if (targets := without_tests(point.targets))]
    trajectories = [files.read_trajectory(folder / point.trajectory) for point, _ in looked_at]
    data = [
        prepare(
            point.label,
            potential,
            parameters,
            trajectory,
            targets,
            temperature=point.temperature,
            pressure=point.pressure,
            settings=settings,
            machine=job.machine,
            seed=job.seed,
            among=len(looked_at),
        )
        for (point, targets), trajectory in zip(looked_at, trajectories, strict=True)
    ]
    extra = matching_loss(
        potential, folder / job.dataset if job.dataset else None, settings.loss, job.machine, job.keys
    )
    prepared = time.monotonic()
    with stop:
        outcome = minimise(
            potential,
            parameters,
            data,
            settings,
            seed=job.seed,
            progress=progress,
            optimizer_state=state,
            learning_rate_scale=job.learning_rate_scale,
            extra=extra,
            stop=stop,
        )
        potentials.save(folder / POTENTIAL_OUT, potential, outcome.parameters)
        optimizers.write_state(folder / OPTIMIZER_OUT, outcome.optimizer_state)
    if outcome.reason is Reason.INTERRUPTED:
        raise EngineError(
            ExitStatus.INTERRUPTED,
            f"a signal ended the update after {len(outcome.history) - 1} steps; {POTENTIAL_OUT} holds the potential "
            "after them, which the whole update may leave behind",
        )
    timings = Timings(prepare_s=prepared - began, update_s=time.monotonic() - prepared)
    return UpdateResults(**dict(summary(data, outcome)), timings=timings)


def without_tests(targets: Sequence[Target]) -> list[Target]:
    """The targets that an update may look at: a test target shares neither its errors nor its memory."""
    return [target for target in targets if target.role != "test"]


def summary(data: Sequence[Data], outcome: Outcome) -> UpdateSummary:
    """What results record of an update; what follows it, of the state points with a target in the loss alone."""
    points = {
        point.label: StatePointUpdate(
            snapshots=len(point.reference.energies),
            statistical_inefficiency=point.inefficiency,
            before=list(point.before),
            chi2_before=_chi2(point, point.before),
        )
        for point in data
    }
    moved = [point for point in data if point.is_in_loss]
    for point in moved:
        record, sizes = points[point.label], outcome.history[-1].state_points[point.label]
        record.n_eff_entropy, record.n_eff_kish = sizes.n_eff_entropy, sizes.n_eff_kish
        record.after = outcome.after[point.label]
        record.chi2_after = _chi2(point, record.after)
    values_before = {point.label: _values(point.before) for point in data}
    values_after = {label: _values(predictions) for label, predictions in outcome.after.items()}
    return UpdateSummary(
        steps=len(outcome.history) - 1,
        reason=outcome.reason,
        chi2_before=reduced_chi2(data, values_before, "training"),
        chi2_after=reduced_chi2(moved, values_after, "training"),
        chi2_before_selection=reduced_chi2(data, values_before, "selection"),
        history=outcome.history,
        state_points=points,
        snapshot_cache=SnapshotCache(
            kept_mib=_mib(point.reference.snapshots.nbytes for point in data),
            wanted_mib=_mib(point.reference.snapshots.wanted for point in data),
        ),
    )


def _mib(sizes: Iterable[int]) -> float:
    return round(sum(sizes) / (1 << 20), 3)


def _chi2(point: Data, predictions: Sequence[Prediction]) -> dict[str, float | None]:
    values = _values(predictions)
    return {role: losses.reduced_chi2(values, point.terms, role) for role in ("training", "selection")}


def _values(predictions: Sequence[Prediction]) -> list[NDArray[np.float64]]:
    return [np.asarray(prediction.values) for prediction in predictions]
