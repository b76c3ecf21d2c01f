"""The update job: prepare the trajectories of all state points, take optimizer steps, report them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import jax
import numpy as np
from numpy.typing import NDArray

from aiida_difftre.engine import optimizers
from aiida_difftre.engine.bases.loading import of_potential
from aiida_difftre.engine.contract import agreement
from aiida_difftre.engine.contract.agreement import Role
from aiida_difftre.engine.contract.jobs import OPTIMIZER_OUT, POTENTIAL_OUT, Earlier, UpdateJob
from aiida_difftre.engine.contract.labels import Labelled
from aiida_difftre.engine.contract.neighbours import is_same_model
from aiida_difftre.engine.contract.predictions import Prediction
from aiida_difftre.engine.contract.reasons import Reason
from aiida_difftre.engine.contract.records import Timings
from aiida_difftre.engine.contract.results import (
    SnapshotCache,
    StatePointUpdate,
    UpdateResults,
    UpdateSummary,
)
from aiida_difftre.engine.contract.settings import PotentialSpec
from aiida_difftre.engine.contract.state_points import StatePoint
from aiida_difftre.engine.contract.targets import Target
from aiida_difftre.engine.contract.trajectories import read_trajectory
from aiida_difftre.engine.errors import EngineError, ExitStatus
from aiida_difftre.engine.matching import base_labels
from aiida_difftre.engine.matching.dataset_loss import DatasetLoss, dataset_loss
from aiida_difftre.engine.potentials.potential import Potential, load, save
from aiida_difftre.engine.potentials.term import Parameters
from aiida_difftre.engine.refinement import losses
from aiida_difftre.engine.refinement.curvature import curvature_prior
from aiida_difftre.engine.refinement.minimise import OptimizerMemory, Outcome, minimise
from aiida_difftre.engine.refinement.objective import (
    Objective,
    PreparedStatePoint,
    SampledStatePoint,
    prepare,
    reduced_chi2,
)
from aiida_difftre.engine.reweighting import extrapolation
from aiida_difftre.engine.reweighting.pool import EarlierTrajectory
from aiida_difftre.engine.runtime.progress import Reporter
from aiida_difftre.engine.runtime.stop import Stop

DECISIVE: tuple[Role, ...] = ("training", "selection")
"""Roles of the targets that an update looks at."""


def run(job: UpdateJob, folder: Path, progress: Reporter) -> UpdateResults:
    """Update a potential: reweight the trajectories of all state points and step towards the targets.

    Args:
        job: The job, as it was read and checked.
        folder: Folder with the files of the job; the updated potential and the optimizer's state are written there.
        progress: Takes a report of each step.

    Returns:
        The content of ``results.json``.

    Raises:
        EngineError: For input that does not fit, too few effective samples, or a signal, after which the potential of
            the last step is written.
    """
    potential, parameters = load(folder / job.potential)
    settings = job.update
    prior = curvature_prior(potential, settings.loss.curvature_width)
    state = None
    if job.optimizer_state is not None:
        optimizer = optimizers.of_update(settings.optimizer)
        state = optimizers.read_state(folder / job.optimizer_state, jax.eval_shape(optimizer.init, parameters))
    began, stop = time.monotonic(), Stop(job.machine.walltime_s)
    looked_at = [(point, targets) for point in job.state_points if (targets := without_tests(point.targets))]
    sampled = [
        SampledStatePoint(
            point.label,
            read_trajectory(folder / point.trajectory),
            targets,
            StatePoint(point.temperature, point.pressure),
            [earlier_trajectory(one, potential.spec, folder) for one in point.earlier],
            None if point.potential is None else _sampled_by(point.potential, "newest", potential.spec, folder),
        )
        for point, targets in looked_at
    ]
    machine = job.machine.share_of(len(sampled))
    data = [prepare(potential, parameters, point, settings, machine, seed=job.seed) for point in sampled]
    extra = dataset_loss(
        potential,
        folder / job.dataset if job.dataset else None,
        settings.loss,
        job.machine,
        job.keys,
        without_base(job, potential.spec, folder),
    )
    prepared = time.monotonic()
    memory = OptimizerMemory(state, job.learning_rate_scale)
    with stop:
        objective = Objective(data, settings, parameters, extra, prior)
        outcome = minimise(objective, potential, memory, seed=job.seed, progress=progress, stop=stop)
        save(folder / POTENTIAL_OUT, potential, outcome.parameters)
        optimizers.write_state(folder / OPTIMIZER_OUT, outcome.optimizer_state)
        if outcome.reason is Reason.INTERRUPTED:
            raise EngineError(
                ExitStatus.INTERRUPTED,
                f"a signal ended the update after {len(outcome.history) - 1} steps; {POTENTIAL_OUT} holds the "
                "potential after them, which the whole update may leave behind",
            )
    timings = Timings(prepare_s=prepared - began, update_s=time.monotonic() - prepared)
    return UpdateResults(**dict(summary(data, outcome, extra)), timings=timings)


def earlier_trajectory(one: Earlier, spec: PotentialSpec, folder: Path) -> EarlierTrajectory:
    """An earlier trajectory with the potential that sampled it; refuse one of other species or another base."""
    return EarlierTrajectory(
        one.label, read_trajectory(folder / one.trajectory), *_sampled_by(one.potential, one.label, spec, folder)
    )


def _sampled_by(name: str, label: str, spec: PotentialSpec, folder: Path) -> tuple[Parameters, Potential]:
    """Another potential, of the same species and base, and its parameters."""
    other, parameters = load(folder / name)
    if not is_same_model(other.spec, spec):
        raise EngineError(
            ExitStatus.INVALID_INPUT,
            f"the earlier trajectory {label!r} was sampled with a potential of other species or another base ({name}); "
            "give those of one system and base",
        )
    return parameters, other


def without_base(job: UpdateJob, spec: PotentialSpec, folder: Path) -> Callable[[Labelled], Labelled] | None:
    """What takes the base's part off the labels of the dataset, without evaluating a base that is called.

    Args:
        job: The job.
        spec: The potential.
        folder: Folder with the files of the job.

    Returns:
        The function; None for a potential without a base, and where no dataset is matched.

    Raises:
        EngineError: With status INVALID_INPUT, where ``base_labels`` are missing, or are not of this base or dataset.
    """
    base = spec.base
    if base is None or job.dataset is None or job.update.loss.dataset_weight == 0:
        return None
    if job.base_labels is not None:
        path = folder / job.base_labels
        return lambda found: base_labels.subtracted(found, base_labels.read(path, base, found))
    if base.engine != "jax":
        raise EngineError(
            ExitStatus.INVALID_INPUT,
            f"the dataset is matched by terms on top of the base {base.label!r}, which an update does not evaluate; "
            "predict the dataset with this potential, and give its predictions.npz as base_labels",
        )
    return base_labels.subtracting(of_potential(spec, folder, job.base_files), base.digest)


def without_tests(targets: Sequence[Target]) -> list[Target]:
    """The targets that an update may look at: a test target shares neither its errors nor its memory.

    Args:
        targets: Targets of a state point.

    Returns:
        Those whose role is not ``test``.
    """
    return [target for target in targets if target.role != "test"]


def summary(data: Sequence[PreparedStatePoint], outcome: Outcome, labels: DatasetLoss | None = None) -> UpdateSummary:
    """Sum up an update for ``results.json``.

    Args:
        data: State points with their references and targets.
        outcome: Parameters, history and predictions that the steps left.
        labels: Loss of the labels that were held on to; None for none.

    Returns:
        The summary; predictions after the last step for the state points with a target in the loss alone.
    """
    points = {
        point.label: StatePointUpdate(
            snapshots=len(point.reference.energies),
            statistical_inefficiency=point.inefficiency,
            pool=list(point.pool),
            before=list(point.before),
            chi2_before={role: agreement.reduced_chi2(point.agreement, role) for role in DECISIVE},
        )
        for point in data
    }
    moved = [point for point in data if point.is_in_loss]
    for point in moved:
        record, sizes = points[point.label], outcome.history[-1].state_points[point.label]
        record.n_eff_entropy, record.n_eff_kish = sizes.n_eff_entropy, sizes.n_eff_kish
        record.after = outcome.after[point.label]
        record.held = _held(point, record.after)
        record.chi2_after = _chi2(point, record.after)
    before = [compared for point in data for compared in point.agreement]
    values_after = {label: _values(predictions) for label, predictions in outcome.after.items()}
    return UpdateSummary(
        steps=len(outcome.history) - 1,
        reason=outcome.reason,
        chi2_before=agreement.reduced_chi2(before, "training"),
        chi2_after=reduced_chi2(moved, values_after, "training"),
        chi2_before_selection=agreement.reduced_chi2(before, "selection"),
        history=outcome.history,
        state_points=points,
        snapshot_cache=SnapshotCache(
            kept_mib=_mib(point.reference.snapshots.nbytes for point in data),
            wanted_mib=_mib(point.reference.snapshots.wanted for point in data),
        ),
        label_weights={} if labels is None else labels.weights,
    )


def _held(point: PreparedStatePoint, after: Sequence[Prediction]) -> float:
    """What is left of a new trajectory: effective independent snapshots over the independent ones of the newest."""
    independent = point.newest_size / point.newest_inefficiency
    left = min((prediction.effective_samples or 0.0 for prediction in after), default=0.0)
    needed = extrapolation.least(point.newest_size, point.newest_inefficiency)
    return left / independent if left >= needed else 0.0


def _mib(sizes: Iterable[int]) -> float:
    return round(sum(sizes) / (1 << 20), 3)


def _chi2(point: PreparedStatePoint, predictions: Sequence[Prediction]) -> dict[str, float | None]:
    values = _values(predictions)
    return {role: losses.reduced_chi2(values, point.terms, role) for role in DECISIVE}


def _values(predictions: Sequence[Prediction]) -> list[NDArray[np.float64]]:
    return [np.asarray(prediction.values) for prediction in predictions]
