"""The loss over reference trajectories as a function of the parameters, and its gradient."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import NDArray

from aiida_difftre.engine.contract.agreement import Compared, Role
from aiida_difftre.engine.contract.jobs import Machine, UpdateSettings
from aiida_difftre.engine.contract.predictions import Prediction
from aiida_difftre.engine.contract.results import PooledTrajectory
from aiida_difftre.engine.contract.state_points import StatePoint
from aiida_difftre.engine.contract.targets import Target
from aiida_difftre.engine.contract.trajectories import Trajectory
from aiida_difftre.engine.potentials.potential import Potential
from aiida_difftre.engine.potentials.term import Parameters
from aiida_difftre.engine.refinement import losses
from aiida_difftre.engine.refinement.curvature import CurvaturePrior
from aiida_difftre.engine.refinement.losses import TargetTerm
from aiida_difftre.engine.reweighting.mixture import newest_alone, prepare_pooled
from aiida_difftre.engine.reweighting.pool import EarlierTrajectory, pool
from aiida_difftre.engine.reweighting.predictions import predictions_from, reweighted_predictions
from aiida_difftre.engine.reweighting.reference import Reference, check_sampled_at
from aiida_difftre.engine.reweighting.weights import EffectiveSize, effective_size

HELD_RANK = 512
"""Directions in which the second derivatives of the DFT and anchor terms are known to a step."""

ROUNDING = 1e-6
"""Curvatures below this part of the largest one are none: derivatives are of single precision."""

Quantities = dict[str, NDArray[np.float64]]


class ExtraLoss(Protocol):
    """A further term of the loss, whose value no constant of the energy changes: the DFT term."""

    def __call__(self, parameters: Parameters) -> tuple[float, Parameters]:
        """Compute value and gradient."""

    def offset(self, parameters: Parameters) -> float:
        """Compute the constant by which the energy of each atom is too high for it, eV."""

    def curvature(
        self, parameters: Parameters, movable: Sequence[bool], ways: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Multiply the matrix of Gauss and Newton, half of its second derivative, with ways of what may move."""


@dataclass(frozen=True)
class PreparedStatePoint:
    """One state point of an update: a reference, and the targets of its observables in the same order.

    Args:
        label: Label of the state point.
        reference: trajectory.
        terms: targets with the errors of predictions by all snapshots, which the loss is made of.
        inefficiency: statistical inefficiency g of the reference.
        newest_inefficiency: That of the newest trajectory.
        before: predictions of the potential that the update starts from, on the newest trajectory alone where that is
            its own.
        judged: targets with the errors of ``before``.
        pool: What became of earlier trajectories.
        gradient: quantities -> ((loss, (averages, weights)), dL/d quantities); compiled.
        jacobian: quantities -> (residuals, d residuals/d quantities); compiled where it is used.
    """

    label: str
    reference: Reference
    terms: tuple[TargetTerm, ...]
    inefficiency: float
    newest_inefficiency: float
    before: tuple[Prediction, ...]
    gradient: Callable[..., Any]
    jacobian: Callable[..., Any]
    judged: tuple[TargetTerm, ...]
    pool: tuple[PooledTrajectory, ...] = ()

    @property
    def agreement(self) -> list[Compared]:
        """How well the potential that sampled agrees with the targets, by its own trajectory.

        It is what the loop judges. A pool has smaller errors, but it was fitted before: only snapshots that no update
        has seen confirm that a potential is right.
        """
        return [
            losses.compared(np.asarray(prediction.values), term, prediction.effective_samples)
            for prediction, term in zip(self.before, self.judged, strict=True)
        ]

    @property
    def newest_size(self) -> int:
        """Number of snapshots of the newest trajectory."""
        pooled = self.reference.pooled
        return len(self.reference.energies) if pooled is None else int(np.sum(pooled.origins == 0))

    @property
    def is_in_loss(self) -> bool:
        """Whether an update moves the parameters for its sake; else it only tells how good they were."""
        return any(term.target.is_in_loss for term in self.terms)


@dataclass(frozen=True)
class Evaluation:
    """The loss of all state points at one set of parameters.

    Args:
        loss: sum over state points.
        predictions: Predicted values by state point, in the order of its targets.
        effective: effective sample sizes by state point.
        cotangents: dL/d quantity for each quantity of each snapshot, by state point.
        quantities: Quantities of each snapshot, by state point.
    """

    loss: float
    predictions: dict[str, list[NDArray[np.float64]]]
    effective: dict[str, EffectiveSize]
    cotangents: dict[str, Quantities]
    quantities: dict[str, Quantities]


@dataclass(frozen=True)
class SampledStatePoint:
    """A state point with its trajectory, and what was measured there.

    Args:
        label: Label of the state point.
        trajectory: the snapshots.
        targets: Targets of its observables.
        point: temperature and pressure; without a pressure, that of the trajectory.
        earlier: Trajectories of earlier potentials there, the latest first.
        sampled_by: The potential that sampled the trajectory, after its parameters; None for that of the update.
    """

    label: str
    trajectory: Trajectory
    targets: Sequence[Target]
    point: StatePoint
    earlier: Sequence[EarlierTrajectory] = ()
    sampled_by: tuple[Parameters, Potential] | None = None


def prepare(
    potential: Potential,
    parameters: Parameters,
    sampled: SampledStatePoint,
    settings: UpdateSettings,
    machine: Machine,
    *,
    seed: int,
) -> PreparedStatePoint:
    """A state point ready for an update: its observables at the reference parameters, with errors.

    Where earlier trajectories overlap, the loss is over the snapshots of all; the potential is judged by its own alone,
    or by all where it sampled none.

    Args:
        potential: the potential.
        parameters: those of the update, which sampled the trajectory unless it says otherwise.
        sampled: the state point, with its trajectory.
        settings: Settings of the update.
        machine: precision and batches.
        seed: Seed of the bootstrap.

    Returns:
        The state point.

    Raises:
        EngineError: with status INVALID_INPUT, for a trajectory of another state point or potential.
    """
    targets = sampled.targets
    check_sampled_at(sampled.trajectory, sampled.point)
    requests = [target.request() for target in targets]
    by = sampled.sampled_by or (parameters, potential)
    newest = EarlierTrajectory("newest", sampled.trajectory, *by)
    found = pool(potential, parameters, newest, sampled.earlier, settings.pool, machine)
    ref = prepare_pooled(potential, parameters, found, requests, machine, sampled.point)
    known, values = reweighted_predictions(ref, parameters, replicates=settings.bootstrap, seed=seed)
    before = known
    if found.is_pooled and sampled.sampled_by is None:
        before = predictions_from(*newest_alone(ref, values), replicates=settings.bootstrap, seed=seed)
    terms, judged = (
        tuple(TargetTerm(t, np.asarray(p.errors)) for t, p in zip(targets, predictions, strict=True))
        for predictions in (known, before)
    )

    def loss(arrays: dict[str, Any]) -> tuple[Any, Any]:
        weight = ref.weights(arrays["energy"])
        averages = ref.averages(arrays, weight)
        return losses.target_loss(averages, terms, settings.loss.kind), (averages, weight)

    def residuals(arrays: dict[str, Any]) -> tuple[Any, Any]:
        weight = ref.weights(arrays["energy"])
        found = losses.residuals(ref.averages(arrays, weight), terms, settings.loss.kind)
        return found, found

    gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))
    jacobian = jax.jit(jax.jacrev(residuals, has_aux=True))
    return PreparedStatePoint(
        sampled.label,
        ref,
        terms,
        ref.inefficiency(values),
        float(ref.inefficiencies(values)[0]),
        tuple(before),
        gradient,
        jacobian,
        judged,
        found.records,
    )


def evaluate(data: Sequence[PreparedStatePoint], parameters: Parameters) -> Evaluation:
    """Loss, predictions, weights and the cotangents of all quantities.

    The softmax, the averages and the combinations are differentiated here for all snapshots at once; the chain rule
    to the parameters is one vector-Jacobian product
    (:meth:`~aiida_difftre.engine.snapshots.snapshots.Snapshots.pullback`).
    Written out, dL/dU_i = -w_i/kT Σ_j dL/dA_j (a_j(x_i) - A_j) and dL/da_j(x_i) = w_i dL/dA_j.
    """
    total, predictions, effective, cotangents, quantities = 0.0, {}, {}, {}, {}
    for point in data:
        values = quantities[point.label] = point.reference.snapshots.evaluate(parameters)
        (loss, (averages, weight)), slopes = point.gradient({k: jnp.asarray(v) for k, v in values.items()})
        total += float(loss)
        predictions[point.label] = [np.asarray(average) for average in averages]
        effective[point.label] = effective_size(np.asarray(weight), point.reference.shares)
        cotangents[point.label] = {key: np.asarray(slope) for key, slope in slopes.items()}
    return Evaluation(total, predictions, effective, cotangents, quantities)


def reduced_chi2(
    data: Sequence[PreparedStatePoint], values: Mapping[str, Sequence[NDArray[np.float64]]], role: Role
) -> float | None:
    """chi² per point over the targets of all state points, as the work chains count it.

    Args:
        data: state points.
        values: predictions by state point, in the order of its targets.
        role: Role of the targets.
    """
    terms = [term for point in data for term in point.terms]
    return losses.reduced_chi2([array for point in data for array in values[point.label]], terms, role)


def gradient(data: Sequence[PreparedStatePoint], parameters: Parameters, evaluation: Evaluation) -> Parameters:
    """dL/dθ: one batched vector-Jacobian product per state point."""
    parts = [p.reference.snapshots.pullback(parameters, evaluation.cotangents[p.label]) for p in data]
    summed: Parameters = jax.tree.map(lambda *x: sum(x[1:], start=x[0]), *parts)
    return summed


def effective_fraction(data: Sequence[PreparedStatePoint], parameters: Parameters) -> float:
    """The smallest effective fraction of snapshots over the state points, from energies alone."""
    fractions = []
    for point in data:
        ref = point.reference
        energies = ref.snapshots.energies(parameters)
        if not np.isfinite(energies).all():
            return 0.0
        weight = ref.weights(jnp.asarray(energies))
        fractions.append(effective_size(np.asarray(weight), ref.shares).smallest / len(energies))
    return min(fractions)


def fix_offset(data: Sequence[PreparedStatePoint], parameters: Parameters, before: Parameters) -> Parameters:
    """Keep the mean energy of the reference where it was: U -> U + c is a direction that no observable holds.

    The mean change of the energy per atom over the snapshots is taken off the atomic reference energies.
    """
    shifts = [
        np.mean(p.reference.snapshots.energies(parameters) - p.reference.snapshots.energies(before))
        / p.reference.point.atoms
        for p in data
    ]
    kept = before["atomic_energies"] - float(np.mean(shifts))
    return {**parameters, "atomic_energies": kept}


class Point(NamedTuple):
    """The whole loss at one set of parameters.

    Args:
        parameters: The set of parameters.
        evaluation: Evaluation of the targets.
        extra_loss: Sum of the DFT and anchor terms, and of the prior of smooth splines.
        extra_slope: Gradient of the DFT and anchor terms; None where there are none.
        loss: Sum of all terms.
        fraction: Smallest effective fraction of snapshots over the state points.
    """

    parameters: Parameters
    evaluation: Evaluation
    extra_loss: float
    extra_slope: Parameters | None
    loss: float
    fraction: float


@dataclass(frozen=True)
class Objective:
    """The loss of an update: targets, the DFT and anchor terms, and the prior of smooth splines.

    Args:
        data: state points.
        settings: Settings of the loss.
        anchor: parameters at which the update starts.
        extra: the DFT term.
        prior: that of smooth splines; None for none.
    """

    data: Sequence[PreparedStatePoint]
    settings: UpdateSettings
    anchor: Parameters
    extra: ExtraLoss | None
    prior: CurvaturePrior | None = None

    def __call__(self, parameters: Parameters) -> Point:
        """Evaluate the loss."""
        evaluation = evaluate(self.data, parameters)
        value, slope = self.extra(parameters) if self.extra is not None else (0.0, None)
        weight = self.settings.loss.anchor_weight
        if weight > 0:
            # The offset is no distance: it follows from the other parameters.
            held = {**self.anchor, "atomic_energies": parameters["atomic_energies"]}
            difference = jax.tree.map(jnp.subtract, parameters, held)
            value += weight * float(optax.tree.norm(difference)) ** 2
            pull = jax.tree.map(lambda d: 2 * weight * d, difference)
            slope = pull if slope is None else jax.tree.map(jnp.add, slope, pull)
        if self.prior is not None:
            value += self.prior.penalty(parameters)
        fraction = min(evaluation.effective[p.label].smallest / len(p.reference.energies) for p in self.data)
        return Point(parameters, evaluation, value, slope, evaluation.loss + value, fraction)

    def with_offset(self, parameters: Parameters, before: Parameters) -> Parameters:
        """Parameters with the offset of the DFT term, else of :func:`fix_offset`, else as they are.

        Where no labels gave reference energies there is none: energies from nothing would stand in the file of a
        potential of pairs, whose energy is zero far apart.
        """
        if self.extra is not None:
            return {**parameters, "atomic_energies": parameters["atomic_energies"] - self.extra.offset(parameters)}
        return fix_offset(self.data, parameters, before) if np.any(self.anchor["atomic_energies"]) else parameters

    @property
    def is_held(self) -> bool:
        """Whether something besides the targets and the prior of splines is in the loss."""
        return self.extra is not None or self.settings.loss.anchor_weight > 0

    def held_rows(self, movable: Sequence[bool]) -> NDArray[np.float64]:
        r"""Rows X with Xᵀ X half of the second derivative of the DFT and anchor terms, where the update starts.

        Of more than :data:`HELD_RANK` parameters X is the Nyström approximation G Ω (Ωᵀ G Ω)⁻¹ Ωᵀ G of the matrix G of
        Gauss and Newton with random orthonormal Ω, and without the anchor, all of whose directions are alike.

        Args:
            movable: Whether each leaf of the parameters may move.

        Returns:
            Rows, (rows, parameters).

        References:
            J. A. Tropp, A. Yurtsever, M. Udell and V. Cevher, Adv. Neural Inf. Process. Syst. 30 (2017), algorithm 3.
        """
        leaves = jax.tree.leaves(self.anchor)
        size = sum(leaf.size for leaf, moves in zip(leaves, movable, strict=True) if moves)
        is_whole = size <= HELD_RANK
        ways = np.eye(size)
        if not is_whole:
            ways = np.linalg.qr(np.random.default_rng(0).normal(size=(size, HELD_RANK)))[0]
        products = np.zeros_like(ways) if self.extra is None else self.extra.curvature(self.anchor, movable, ways)
        if is_whole:
            products = products + self.settings.loss.anchor_weight * ways
        if not np.isfinite(products).all() or not products.any():
            return np.zeros((0, size))
        values, vectors = np.linalg.eigh((ways.T @ products + products.T @ ways) / 2)
        kept = values > ROUNDING * values.max()
        return np.asarray((products @ (vectors[:, kept] / np.sqrt(values[kept]))).T)

    def gradient(self, point: Point) -> Parameters:
        """Its gradient."""
        slopes = gradient(self.data, point.parameters, point.evaluation)
        for further in (point.extra_slope, None if self.prior is None else self.prior.slope(point.parameters)):
            slopes = slopes if further is None else jax.tree.map(jnp.add, slopes, further)
        return slopes
