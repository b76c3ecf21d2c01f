"""The whole loop in one process: sample, update, until it is over; then a long independent run. No AiiDA.

What to do next is decided in :mod:`aiida_difftre.engine.contract.policy`, as it is for the work chain.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from aiida_difftre.engine.bases.base_pass import arrays_of
from aiida_difftre.engine.bases.loading import of_potential
from aiida_difftre.engine.bases.protocol import BasePotential
from aiida_difftre.engine.contract import policy
from aiida_difftre.engine.contract.agreement import decisive_points, noise, reduced_chi2
from aiida_difftre.engine.contract.base import derived_seed
from aiida_difftre.engine.contract.jobs import POTENTIAL_OUT, RESULTS, RefineJob, RefineStatePoint, SamplingSettings
from aiida_difftre.engine.contract.policy import Action
from aiida_difftre.engine.contract.predictions import Prediction
from aiida_difftre.engine.contract.reasons import RETRIED_WITH_SMALLER_STEPS, STOPPED, UNSTABLE, Reason
from aiida_difftre.engine.contract.records import Timings
from aiida_difftre.engine.contract.results import (
    FailedValidation,
    Failure,
    RefineIteration,
    RefineResults,
    Selection,
    Stationarity,
)
from aiida_difftre.engine.contract.state_points import StatePoint
from aiida_difftre.engine.contract.trajectories import Trajectory, read_trajectory
from aiida_difftre.engine.errors import EngineError, ExitStatus
from aiida_difftre.engine.jobs import update
from aiida_difftre.engine.jobs.given import given_reference, held_at
from aiida_difftre.engine.matching.base_labels import subtracting
from aiida_difftre.engine.matching.matching import matching_loss
from aiida_difftre.engine.potentials.potential import Potential, check_temperature, load, save, species_of
from aiida_difftre.engine.potentials.term import Parameters
from aiida_difftre.engine.refinement import objective
from aiida_difftre.engine.refinement.curvature import CurvaturePrior, curvature_prior
from aiida_difftre.engine.refinement.minimise import OptimizerMemory, minimise
from aiida_difftre.engine.refinement.objective import ExtraLoss, Objective, PreparedStatePoint, SampledStatePoint
from aiida_difftre.engine.reweighting import stationarity
from aiida_difftre.engine.reweighting.pool import EarlierTrajectory, neighbours
from aiida_difftre.engine.reweighting.predictions import predict_trajectory
from aiida_difftre.engine.reweighting.reference import born_stride
from aiida_difftre.engine.runtime.progress import Reporter
from aiida_difftre.engine.runtime.stop import Stop
from aiida_difftre.engine.sampling import protocol
from aiida_difftre.engine.sampling.starts import Start, read_structure, start_on_device

Validation = dict[str, list[Prediction] | FailedValidation]
"""Of long runs: predictions, or why there are none, by state point."""


@dataclass(frozen=True)
class Candidate:
    """A potential, and the state in which its update left the optimizer; None for none.

    Args:
        parameters: Parameters of the potential.
        optimizer_state: State of the optimizer for the update that starts from these parameters.
    """

    parameters: Parameters
    optimizer_state: Any = None


@dataclass(frozen=True)
class Setup:
    """What does not change during a refinement.

    Args:
        job: The job, as it was read and checked.
        folder: Folder with the files of the job.
        potential: The potential to refine.
        base: Its base; None for none.
        structures: Start of the first trajectories, by state point.
        earlier: Trajectories of earlier potentials that the job gives, by state point.
        extra: The DFT term of the loss; None for none.
        prior: That of smooth splines; None for none.
        progress: Takes reports of all jobs.
        stop: Tells between jobs whether the walltime has passed or a signal came.
    """

    job: RefineJob
    folder: Path
    potential: Potential
    base: BasePotential | None
    structures: dict[str, Start]
    earlier: dict[str, list[EarlierTrajectory]]
    extra: ExtraLoss | None
    prior: CurvaturePrior | None
    progress: Reporter
    stop: Stop

    @property
    def sampled(self) -> list[RefineStatePoint]:
        """The state points that every iteration samples; the others are validated alone."""
        return [point for point in self.job.state_points if any(target.is_decisive for target in point.targets)]


@dataclass
class Course:
    """How far a refinement is: the state of the policy, and the potentials and trajectories that it speaks of.

    Args:
        state: State of the policy.
        candidate: The potential to be sampled next.
        best: Parameters of the best potential.
        reference: The last potential that sampled well; None before the first trajectories.
        pools: Trajectories by state point with what sampled them, the latest first: the reference, or for a state point
            that it did not sample the last one before it that did.
        data: The same, prepared for an update; empty until they are.
        iterations: Records for ``results.json``.
        failure: The last failure; None where nothing failed.
    """

    state: policy.State
    candidate: Candidate
    best: Parameters
    reference: Candidate | None = None
    pools: dict[str, list[EarlierTrajectory]] = field(default_factory=dict)
    data: list[PreparedStatePoint] = field(default_factory=list)
    iterations: list[RefineIteration] = field(default_factory=list)
    failure: EngineError | None = None

    def decide(self, verdict: policy.Verdict, job: RefineJob) -> None:
        """Go on to what follows from a verdict.

        Args:
            verdict: Verdict on the last thing that was done.
            job: The job, with the settings of the loop.
        """
        self.state = policy.decide(self.state, verdict, job)
        if self.state.message and self.iterations:
            self.iterations[-1].decisions.append(self.state.message)

    def take(self, trajectories: Mapping[str, Trajectory], most: int) -> None:
        """Take what the candidate sampled: it becomes the reference.

        Args:
            trajectories: Its trajectories, by state point.
            most: Number of earlier trajectories to keep for the pools of updates.
        """
        self.reference = self.candidate
        label = f"sampling{self.state.samplings:03d}"
        for point, trajectory in trajectories.items():
            latest = EarlierTrajectory(label, trajectory, self.reference.parameters)
            self.pools[point] = [latest, *self.pools.get(point, [])][: 1 + most]

    def fail(self, error: EngineError, verdict: policy.Verdict | None, job: RefineJob) -> None:
        """Go on after a failure.

        Args:
            error: The failure.
            verdict: Verdict on a failure that smaller steps may cure; None for one that they do not.
            job: The job, with the settings of the loop.
        """
        self.failure = error
        stopped = policy.Stopped(STOPPED.get(error.status, Reason.FAILED), error.message)
        self.decide(stopped if verdict is None else verdict, job)


def run(job: RefineJob, folder: Path, progress: Reporter) -> RefineResults:
    """Refine a potential: sample and update until the policy ends it, then validate the best potential.

    Args:
        job: The job, as it was read and checked.
        folder: Folder with the files of the job; the best potential is written there.
        progress: Takes reports of sampling and updates.

    Returns:
        The content of ``results.json``.

    Raises:
        EngineError: The failure of a part of it; with results, where a potential was judged before.
    """
    potential, parameters = load(folder / job.potential)
    prior = curvature_prior(potential, job.update.loss.curvature_width)
    structures = {point.label: read_structure(folder / point.structure) for point in job.state_points}
    for point in job.state_points:
        check_temperature(potential, point.temperature)
    for structure in structures.values():
        species_of(potential, structure.symbols)
    earlier = {
        point.label: [update.earlier_trajectory(one, potential.spec, folder) for one in point.earlier]
        for point in job.state_points
    }
    base = of_potential(potential.spec, folder, job.base_files)
    extra = matching_loss(
        potential,
        folder / job.dataset if job.dataset else None,
        job.update.loss,
        job.machine,
        job.keys,
        None if potential.spec.base is None else subtracting(base, potential.spec.base.digest),
    )
    began = time.monotonic()
    course = Course(policy.start(job, job.sampling.production_fs), Candidate(parameters), parameters)
    steps = {Action.SAMPLE: _sample, Action.JUDGE: _judge, Action.UPDATE: _update}
    with Stop(job.machine.walltime_s) as stop:
        setup = Setup(job, folder, potential, base, structures, earlier, extra, prior, progress, stop)
        while course.state.action is not Action.END:
            steps[course.state.action](setup, course)
        if course.state.best is None and course.failure is not None:
            raise course.failure
        reason, validation = course.state.reason or Reason.FAILED, None
        # It expects the walltime; a signal interrupts it.
        failure = None if reason is Reason.WALLTIME else course.failure
        if reason.is_complete:
            validation, failure = _validate(setup, course.best)
            if failure is None and (stopped := stop.requested()) is not None:
                failure = stopped if stopped.status == ExitStatus.INTERRUPTED else None
        results = _results(course)
        results.validation, results.timings = validation, Timings(refine_s=time.monotonic() - began)
        if failure is not None:
            # Before the context ends, which obeys a signal at once and would leave no results.
            during = "the end" if job.validation is None else "the validation"
            if not reason.is_complete:
                during = f"iteration {course.state.iteration}"
            raise _with_results(failure, reason, results, during) from failure
    return results


def _with_results(failure: EngineError, reason: Reason, results: RefineResults, during: str) -> EngineError:
    """What the iterations found took hours, and holds: the job ends as failed, and with its results."""
    ended = "was interrupted" if failure.status == ExitStatus.INTERRUPTED else "failed"
    if not reason.is_complete and reason is not Reason.INTERRUPTED:
        results.error = _described(failure)
    return EngineError(
        failure.status,
        f"{during} of the refinement {ended}: {failure.message}; {RESULTS} and {POTENTIAL_OUT} hold the best "
        f"potential so far, of iteration {results.best_iteration}",
        failure.diagnostics,
        results,
    )


def _sample(setup: Setup, course: Course) -> None:
    """Sample with the candidate at every state point that needs it; it becomes the reference where all goes well."""
    job, state = setup.job, course.state
    # What was kept of the last trajectories makes room for the next ones.
    course.data = []
    trajectories = {}
    for point in setup.sampled:
        if point.label in state.held:
            continue
        previous = course.pools[point.label][0].trajectory if point.label in course.pools else None
        changes = {"production_fs": state.production_fs}
        if previous is not None and job.continued_equilibration_fs is not None:
            changes["equilibration_fs"] = job.continued_equilibration_fs
        settings = job.sampling.model_copy(update=changes)
        # As the work chain has it.
        seed = derived_seed(job.seed, "sample", state.samplings, point.label)
        try:
            trajectories[point.label] = (
                _given(setup, point, course.candidate.parameters)
                if point.trajectory is not None and course.reference is None
                else _simulate(setup, point, course.candidate.parameters, previous, settings=settings, seed=seed)
            )
        except EngineError as error:
            is_unstable = error.status in UNSTABLE
            course.fail(error, policy.Unstable(point.label, error.message) if is_unstable else None, job)
            return
    course.take(trajectories, job.pool_iterations)
    course.decide(policy.Sampled(), job)


def _judge(setup: Setup, course: Course) -> None:
    """Compare the reference's trajectories with the targets, and keep its potential where it is the best."""
    job, number = setup.job, course.state.iteration
    reference = _reference(course)
    try:
        course.data = course.data or _prepared(setup, course, reference)
    except EngineError as error:
        course.fail(error, None, job)
        return
    agreement = _agreement(course.data)
    if len(course.iterations) == number:
        course.iterations.append(_record(course, agreement))
    course.decide(agreement, job)
    if course.state.reference is not None and course.state.reference.is_best:
        course.best = reference.parameters
        # Now, and not at the end alone: a failure of a later iteration leaves it.
        save(setup.folder / POTENTIAL_OUT, setup.potential, course.best)
    setup.progress.report("refine", number, job.max_iterations, chi2=course.iterations[-1].chi2)


def _prepared(setup: Setup, course: Course, reference: Candidate) -> list[PreparedStatePoint]:
    job, machine = setup.job, setup.job.machine.share_of(len(setup.sampled))
    prepared = []
    for point in setup.sampled:
        newest, *earlier = course.pools[point.label]
        if job.pool_neighbours:
            earlier += neighbours(course.pools, point.label)
        earlier += setup.earlier.get(point.label, [])
        state, targets = StatePoint(point.temperature, newest.trajectory.pressure), update.without_tests(point.targets)
        by = None if newest.parameters is reference.parameters else (newest.parameters, setup.potential)
        sampled = SampledStatePoint(point.label, newest.trajectory, targets, state, earlier, by)
        seed = derived_seed(job.seed, "update", course.state.iteration)
        prepared.append(
            objective.prepare(setup.potential, reference.parameters, sampled, job.update, machine, seed=seed)
        )
    return prepared


def _update(setup: Setup, course: Course) -> None:
    """Judge the reference, which may end the refinement, and move its parameters."""
    _judge(setup, course)
    if course.state.action is Action.END:
        return
    job, state, reference = setup.job, course.state, _reference(course)
    stopped = setup.stop.requested()
    if stopped is not None:
        course.fail(stopped, None, job)
        return
    given = job.update.model_fields_set
    settings = job.update.model_copy(update={k: v for k, v in job.of_updates().items() if k not in given})
    is_fresh = state.reference is not None and state.reference.has_fresh_optimizer
    memory = OptimizerMemory(None if is_fresh else reference.optimizer_state, state.learning_rate_scale)
    try:
        outcome = minimise(
            Objective(course.data, settings, reference.parameters, setup.extra, setup.prior), setup.potential, memory,
            seed=derived_seed(job.seed, "update", state.iteration), progress=setup.progress, stop=setup.stop,
        )  # fmt: skip
    except EngineError as error:
        is_curable = error.status in RETRIED_WITH_SMALLER_STEPS
        course.fail(error, policy.UpdateFailed(error.message) if is_curable else None, job)
        return
    if outcome.reason is Reason.INTERRUPTED and (stopped := setup.stop.requested()) is not None:
        course.fail(stopped, None, job)
        return
    summary = update.summary(course.data, outcome)
    course.iterations[-1].learning_rate_scale, course.iterations[-1].update = state.learning_rate_scale, summary
    course.candidate = Candidate(outcome.parameters, outcome.optimizer_state)
    course.decide(policy.Updated(summary.has_moved, summary.reason, summary.held), job)


def _reference(course: Course) -> Candidate:
    if course.reference is None:
        raise ValueError("there is no trajectory to judge or to update on")
    return course.reference


def _agreement(data: list[PreparedStatePoint]) -> policy.Agreement:
    """Without reweighting: of the training and the selection targets."""
    compared = [item for point in data for item in point.agreement]
    training = reduced_chi2(compared, "training")
    if training is None:
        raise EngineError(ExitStatus.INVALID_INPUT, "no training target to judge the refinement by")
    return policy.Agreement(training, reduced_chi2(compared, "selection"), decisive_points(compared), noise(compared))


def _record(course: Course, agreement: policy.Agreement) -> RefineIteration:
    """What results tell of an iteration; of one on the trajectories of the one before, the same predictions."""
    state = course.state
    held = [] if state.reference is None else state.reference.held
    return RefineIteration(
        iteration=state.iteration,
        production_fs=state.reference.production_fs if state.reference is not None else state.production_fs,
        learning_rate_scale=state.learning_rate_scale,
        discarded=False,
        chi2=agreement.training if agreement.selection is None else agreement.selection,
        chi2_training=agreement.training,
        predictions={point.label: list(point.before) for point in course.data},
        held=held,
        stationarity={
            label: Stationarity(**stationarity.of_trajectory(pool[0].trajectory))
            for label, pool in course.pools.items()
            if label not in held
        },
        decisions=[],
    )


def _results(course: Course) -> RefineResults:
    """What results tell of the iterations."""
    state, best = course.state, course.state.selected()
    for number in state.discarded:
        course.iterations[number].discarded = True
    selected = None if best is None else Selection(**dict(best), sentence=best.sentence())
    return RefineResults(
        reason=state.reason or Reason.FAILED,
        best_iteration=None if best is None else best.iteration,
        chi2=None if best is None else course.iterations[best.iteration].chi2,
        selected=selected,
        roll_backs=state.roll_backs,
        iterations=course.iterations,
    )


def _simulate(
    setup: Setup,
    point: RefineStatePoint,
    parameters: Parameters,
    previous: Trajectory | None,
    *,
    settings: SamplingSettings,
    seed: int,
) -> Trajectory:
    """A trajectory at a state point, from its structure, or from the last snapshots of the previous one."""
    start, settings = start_on_device(settings, setup.structures[point.label], previous)
    run = protocol.Run(setup.job.machine, seed, setup.progress, setup.stop, base=setup.base)
    state = StatePoint(point.temperature, point.pressure)
    stride = _born_stride(point, start)
    return protocol.sample(setup.potential, parameters, start, state, settings, run, born_stride=stride)


def _given(setup: Setup, point: RefineStatePoint, parameters: Parameters) -> Trajectory:
    """The trajectory that a state point brings with it, as the first reference."""
    exists = read_trajectory(setup.folder / (point.trajectory or ""), may_lack_energies=True)
    state, structure = StatePoint(point.temperature, point.pressure), setup.structures[point.label]
    job, spec, of_base = setup.job, setup.potential.spec.base, None
    if setup.base is not None and spec is not None:
        stride = _born_stride(point, structure)
        of_base = arrays_of(
            exists, setup.base, spec.digest, born_stride=stride, progress=setup.progress, stop=setup.stop
        )
    exists, held = replace(exists, base=of_base), held_at(state, job.sampling)
    return given_reference(setup.potential, parameters, exists, structure, held, batch_size=job.machine.batch_size)[0]


def _born_stride(point: RefineStatePoint, structure: Start) -> int:
    """The stride of Born terms of a base that the targets of a state point need."""
    requests = [target.request() for target in point.targets]
    return born_stride(structure.symbols, structure.cell, requests, structure.masses)


def _validate(setup: Setup, parameters: Parameters) -> tuple[Validation | None, EngineError | None]:
    """A long run that shares nothing with the training trajectories: other seeds, equilibrated from the structure.

    Returns:
        By state point, the predictions or the ``error``, and the first failure. None where no validation is asked for,
        and where the job has to stop before the run is over.
    """
    job = setup.job
    if job.validation is None:
        return None, None
    report: Validation = {}
    failure: EngineError | None = None
    for point in job.state_points:
        seed = derived_seed(job.seed, "validate", point.label)
        try:
            trajectory = _simulate(setup, point, parameters, None, settings=job.validation, seed=seed)
            predictions = predict_trajectory(
                setup.potential, parameters, trajectory, [target.request() for target in point.targets],
                machine=job.machine, seed=job.seed,
            )  # fmt: skip
        except EngineError as error:
            if error.status in STOPPED:
                return None, error if error.status == ExitStatus.INTERRUPTED else failure
            failure = failure or error
            report[point.label] = FailedValidation(error=_described(error))
        else:
            report[point.label] = predictions
    return report, failure


def _described(error: EngineError) -> Failure:
    return Failure(status=error.status.name, message=error.message, diagnostics=error.diagnostics)
