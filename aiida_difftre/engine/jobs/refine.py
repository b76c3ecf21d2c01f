"""The whole loop in one process: sample, update, until it is over; then a long independent run. No AiiDA.

What to do next is decided in :mod:`aiida_difftre.engine.contract.policy`, as it is for the work chain.
"""

from __future__ import annotations

import time
from pathlib import Path

from aiida_difftre.engine.bases.loading import of_potential
from aiida_difftre.engine.contract import loop_verdicts as verdicts
from aiida_difftre.engine.contract import policy
from aiida_difftre.engine.contract.agreement import decisive_points, noise, reduced_chi2
from aiida_difftre.engine.contract.base import derived_seed
from aiida_difftre.engine.contract.jobs import POTENTIAL_OUT, RESULTS, RefineJob
from aiida_difftre.engine.contract.loop_state import Action
from aiida_difftre.engine.contract.reasons import RETRIED_WITH_SMALLER_STEPS, UNSTABLE, Reason
from aiida_difftre.engine.contract.records import Timings
from aiida_difftre.engine.contract.results import RefineIteration, RefineResults, Selection, Stationarity
from aiida_difftre.engine.contract.state_points import StatePoint
from aiida_difftre.engine.errors import EngineError, ExitStatus
from aiida_difftre.engine.jobs import update
from aiida_difftre.engine.jobs.refine_course import Candidate, Course, Setup
from aiida_difftre.engine.jobs.refine_trajectories import described, long_runs, simulated, taken
from aiida_difftre.engine.matching.base_labels import subtracting
from aiida_difftre.engine.matching.dataset_loss import dataset_loss
from aiida_difftre.engine.potentials.potential import check_temperature, load, save, species_of
from aiida_difftre.engine.refinement import objective
from aiida_difftre.engine.refinement.curvature import curvature_prior
from aiida_difftre.engine.refinement.minimise import OptimizerMemory, minimise
from aiida_difftre.engine.refinement.objective import Objective, PreparedStatePoint, SampledStatePoint
from aiida_difftre.engine.reweighting import stationarity
from aiida_difftre.engine.reweighting.pool import neighbours
from aiida_difftre.engine.runtime.progress import Reporter
from aiida_difftre.engine.runtime.stop import Stop
from aiida_difftre.engine.sampling.starts import read_structure


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
    extra = dataset_loss(
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
            validation, failure = long_runs(setup, course.best)
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
        results.error = described(failure)
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
                taken(setup, point, course.candidate.parameters)
                if point.trajectory is not None and course.reference is None
                else simulated(setup, point, course.candidate.parameters, previous, settings=settings, seed=seed)
            )
        except EngineError as error:
            is_unstable = error.status in UNSTABLE
            course.fail(error, verdicts.Unstable(point.label, error.message) if is_unstable else None, job)
            return
    course.take(trajectories, job.pool_iterations)
    course.decide(verdicts.Sampled(), job)


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
        course.fail(error, verdicts.UpdateFailed(error.message) if is_curable else None, job)
        return
    if outcome.reason is Reason.INTERRUPTED and (stopped := setup.stop.requested()) is not None:
        course.fail(stopped, None, job)
        return
    summary = update.summary(course.data, outcome, setup.extra)
    course.iterations[-1].learning_rate_scale, course.iterations[-1].update = state.learning_rate_scale, summary
    course.candidate = Candidate(outcome.parameters, outcome.optimizer_state)
    course.decide(verdicts.Updated(summary.has_moved, summary.reason, summary.held), job)


def _reference(course: Course) -> Candidate:
    if course.reference is None:
        raise ValueError("there is no trajectory to judge or to update on")
    return course.reference


def _agreement(data: list[PreparedStatePoint]) -> verdicts.Agreement:
    """Without reweighting: of the training and the selection targets."""
    compared = [item for point in data for item in point.agreement]
    training = reduced_chi2(compared, "training")
    if training is None:
        raise EngineError(ExitStatus.INVALID_INPUT, "no training target to judge the refinement by")
    return verdicts.Agreement(training, reduced_chi2(compared, "selection"), decisive_points(compared), noise(compared))


def _record(course: Course, agreement: verdicts.Agreement) -> RefineIteration:
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
