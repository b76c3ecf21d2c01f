"""Optimizer steps on fixed reference trajectories, until too few effective samples remain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jaxtyping import Array, Float

from aiida_difftre.engine import optimizers
from aiida_difftre.engine.contract import agreement, optimizer_options
from aiida_difftre.engine.contract.jobs import UpdateSettings
from aiida_difftre.engine.contract.predictions import Prediction
from aiida_difftre.engine.contract.reasons import Reason
from aiida_difftre.engine.contract.results import StatePointStep, UpdateStep
from aiida_difftre.engine.errors import EngineError, ExitStatus
from aiida_difftre.engine.potentials.potential import Potential
from aiida_difftre.engine.potentials.term import Parameters
from aiida_difftre.engine.refinement import gauss_newton, losses
from aiida_difftre.engine.refinement.objective import (
    Objective,
    Point,
    PreparedStatePoint,
    effective_fraction,
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
class OptimizerMemory:
    """What an update takes over from those before it.

    Args:
        state: State of the optimizer, structured by :func:`aiida_difftre.engine.optimizers.of_update`; None for none.
        learning_rate_scale: factor on every step.
    """

    state: Any = None
    learning_rate_scale: float = 1.0


FRESH = OptimizerMemory()
"""Of a first update."""


@dataclass(frozen=True)
class Outcome:
    """What an update returns.

    Args:
        parameters: Parameters after the last accepted step.
        optimizer_state: State of the optimizer after it.
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
    objective: Objective,
    potential: Potential,
    memory: OptimizerMemory = FRESH,
    *,
    seed: int,
    progress: Reporter,
    stop: Stop | None = None,
) -> Outcome:
    """Optimizer steps until the gate closes, the targets are met, or ``max_steps``.

    A step that would lose more than ``max_step_loss`` of the effective samples, or raise the loss, is halved
    (backtracking) at most ``max_halvings`` times. On a fixed trajectory the loss is deterministic, so that it falls
    monotonically. State points without a target in the loss bound no step: their trajectories need not stay valid.

    Args:
        objective: the loss, with at least one state point that has a target in it, and the parameters to start from.
        potential: the potential.
        memory: What the optimizer remembers.
        seed: Seed of the bootstrap.
        progress: takes reports.
        stop: asked between steps; from the first one on, the update then ends with what it has: after the walltime with
            its results, after a signal as interrupted.

    Raises:
        EngineError: NOT_FINITE for a gradient that is not; TOO_FEW_EFFECTIVE_SAMPLES when not even the first step can
            be made small enough; WALLTIME or INTERRUPTED where the job has to stop before the first step.
    """
    objective = replace(objective, data=[prepared for prepared in objective.data if prepared.is_in_loss])
    settings = objective.settings
    descent = _Descent(objective, potential.trainable(objective.anchor), memory)
    reason: Reason | None = None
    while reason is None:
        entry = descent.record(progress)
        reason = _ended(entry, objective, descent.history[0].n_eff_fraction)
        if reason is None and stop is not None:
            reason = _stopped(entry, stop)
        if reason is None:
            reason = descent.step(entry)
    parameters = descent.point.parameters
    after = (
        {}
        if reason is Reason.INTERRUPTED
        else {
            prepared.label: reweighted_predictions(
                prepared.reference, parameters, replicates=settings.bootstrap, seed=seed
            )[0]
            for prepared in objective.data
        }
    )
    return Outcome(parameters, descent.state, descent.history, reason, after)


class _Trial(NamedTuple):
    """A step that was tried.

    Args:
        point: where it leads; None where it was refused at every length.
        factor: that its length was multiplied with; of a refused one 0, where it was always the effective samples that
            failed.
        state: State of the optimizer after it.
    """

    point: Point | None
    factor: float
    state: Any


@dataclass
class _Descent:
    """How far an update is.

    Args:
        objective: the loss.
        free: booleans; which parameters may move.
        memory: What the optimizer remembers of earlier updates.
    """

    objective: Objective
    free: Parameters
    memory: OptimizerMemory
    history: list[UpdateStep] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.optimizer = optimizers.of_update(self.objective.settings.optimizer)
        self.is_fresh = self.memory.state is None
        self.state = self.optimizer.init(self.objective.anchor) if self.is_fresh else self.memory.state
        self.scale = self.memory.learning_rate_scale
        self.point = self.objective(self.objective.anchor)

    @cached_property
    def held(self) -> Float[np.ndarray, "rows parameters"] | None:
        """Curvature of the labels and of the distance, for the first step that there is; None where nothing is held."""
        if self.objective.settings.optimizer.name != optimizer_options.GAUSS_NEWTON or not self.objective.is_held:
            return None
        return self.objective.held_rows([bool(moves) for moves in jax.tree.leaves(self.free)])

    def record(self, progress: Reporter) -> UpdateStep:
        """Record and report the loss as it is now."""
        step, most = len(self.history), self.objective.settings.max_steps
        entry = _entry(step, self.objective.data, self.point)
        self.history.append(entry)
        progress.report("update", step, most, loss=entry.loss, chi2=entry.chi2, n_eff_fraction=entry.n_eff_fraction)
        return entry

    def step(self, entry: UpdateStep) -> Reason | None:
        """Do a step, and record its length; why the update ends before it, else None."""
        slopes, entry.gradient_norm, is_bounded = _direction(self.objective, self.point, self.free, self.held)
        if not np.isfinite(entry.gradient_norm):
            message = f"the gradient at step {entry.step} of the update is not finite"
            raise EngineError(ExitStatus.NOT_FINITE, message, entry.content())
        found = self._try(slopes)
        if found.point is None:
            if entry.step == 0 and found.factor == 0:
                raise _too_few_samples(entry, self.objective.settings)
            return Reason.NO_DESCENT
        entry.step_scale = found.factor
        if entry.step > 0 and not is_bounded and self.point.loss - found.point.loss < LEAST_GAIN * self.point.loss:
            # What the best of all steps hardly gains here, the next trajectory tells better.
            return Reason.MINIMUM
        self.point, self.state, self.is_fresh = found.point, found.state, False
        # A step that had to be halved is tried at twice its length next time, not at full length.
        self.scale = min(self.memory.learning_rate_scale, 2 * found.factor)
        return None

    def _try(self, slopes: Parameters) -> _Trial:
        """A step with what the optimizer remembers, and without where that leads nowhere."""
        parameters, whole = self.point.parameters, self.memory.learning_rate_scale
        found = self._try_with(self.state, self.scale, slopes)
        if found.point is not None or (self.is_fresh and self.scale == whole):
            return found
        # The memory of an optimizer may point uphill; then it starts afresh, whose first direction never does.
        return self._try_with(self.optimizer.init(parameters), whole, slopes)

    def _try_with(self, state: Any, length: float, slopes: Parameters) -> _Trial:
        direction, state = self.optimizer.update(slopes, state, self.point.parameters)
        point, factor = _line_search(self.objective, self.point, _masked(direction, self.free), length)
        return _Trial(point, factor, state)


def _too_few_samples(entry: UpdateStep, settings: UpdateSettings) -> EngineError:
    return EngineError(
        ExitStatus.TOO_FEW_EFFECTIVE_SAMPLES,
        f"the first step loses more than {settings.max_step_loss:.0%} of the effective samples even when "
        f"halved {settings.max_halvings} times; lower the learning rate "
        f"({settings.optimizer.learning_rate:g}) or raise max_halvings",
        entry.content(),
    )


def _stopped(entry: UpdateStep, stop: Stop) -> Reason | None:
    """Why an update has to stop now; None where it goes on."""
    stopped = stop.requested()
    if stopped is None:
        return None
    if entry.step == 0:
        raise EngineError(stopped.status, f"{stopped.message} before the first step of the update")
    return Reason.INTERRUPTED if stopped.status == ExitStatus.INTERRUPTED else Reason.WALLTIME


def _direction(
    objective: Objective, point: Point, free: Parameters, held: Float[np.ndarray, "rows parameters"] | None
) -> tuple[Parameters, float, bool]:
    """What the optimizer scales, the norm of the gradient, and whether a longer step might gain more."""
    settings = objective.settings
    if settings.optimizer.name == optimizer_options.GAUSS_NEWTON:
        region = gauss_newton.TrustRegion(
            radius=float(np.sqrt(-np.log1p(-settings.max_step_loss))),
            damping=optimizer_options.damping(settings.optimizer.options),
            noise=sum(losses.noise(data.terms, settings.loss.kind) for data in objective.data),
        )
        return gauss_newton.step(
            objective.data, point, free, region, start=objective.anchor, prior=objective.prior, held=held
        )
    slopes = _masked(objective.gradient(point), free)
    return slopes, float(optax.tree.norm(slopes)), True


def _masked(tree: Parameters, free: Parameters) -> Parameters:
    masked: Parameters = jax.tree.map(
        lambda leaf, movable: leaf if movable else np.zeros(leaf.shape, leaf.dtype), tree, free
    )
    return masked


def _ended(entry: UpdateStep, objective: Objective, first: float) -> Reason | None:
    """Why an update ends at this point; None where it goes on.

    Before the first step the potential has converged where the loop calls it so: by the trajectory that it sampled
    itself, whatever a pool says. The gate counts from the effective fraction of the first point: 1, but on a trajectory
    that something else sampled. Targets that are met end no update that holds on to labels, or to its start, as well.
    """
    settings = objective.settings
    has_converged = entry.step == 0 and _own_chi2(objective.data) <= settings.chi2_converged
    if has_converged or (entry.chi2 <= settings.chi2_stop and not objective.is_held):
        return Reason.CHI2
    if entry.n_eff_fraction < settings.gate * first:
        return Reason.GATE
    if entry.step == settings.max_steps:
        return Reason.MAX_STEPS
    return None


@jax.jit
def _moved(parameters: Parameters, direction: Parameters, factor: float | Float[Array, ""]) -> Parameters:
    moved: Parameters = jax.tree.map(lambda p, u: (p + factor * u).astype(p.dtype), parameters, direction)
    return moved


def _line_search(
    objective: Objective, point: Point, direction: Parameters, length: float
) -> tuple[Point | None, float]:
    """Halve a step until it keeps enough effective samples and does not raise the loss.

    Returns:
        The new point and the factor of the step; or None, and 0 where it was always the effective samples that failed.
    """
    settings = objective.settings
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


def _own_chi2(data: Sequence[PreparedStatePoint]) -> float:
    """Reduced chi² of the training targets of the potential that sampled, by its own trajectories."""
    return _known(agreement.reduced_chi2([item for point in data for item in point.agreement], "training"))


def _known(chi2: float | None) -> float:
    if chi2 is None:
        raise EngineError(ExitStatus.INVALID_INPUT, "no training target to judge the update by")
    return chi2


def _entry(step: int, data: Sequence[PreparedStatePoint], current: Point) -> UpdateStep:
    evaluation = current.evaluation
    chi2 = _known(reduced_chi2(data, evaluation.predictions, "training"))
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
