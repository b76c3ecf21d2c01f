"""The whole loop in one process: sample, update, until it converges; then a long independent run. No AiiDA."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from aiida_difftre.engine.contract import files
from aiida_difftre.engine.contract.agreement import Points, decisive_points, is_better, reduced_chi2
from aiida_difftre.engine.contract.jobs import POTENTIAL_OUT, RESULTS, RefineJob, RefineStatePoint, SamplingSettings
from aiida_difftre.engine.errors import EngineError, ExitStatus
from aiida_difftre.engine.jobs import sample, update
from aiida_difftre.engine.matching.matching import matching_loss
from aiida_difftre.engine.potentials import potential as potentials
from aiida_difftre.engine.potentials.potential import Potential
from aiida_difftre.engine.potentials.term import Parameters, species_index
from aiida_difftre.engine.refinement import losses, objective
from aiida_difftre.engine.reweighting import reference as reweighting
from aiida_difftre.engine.reweighting import stationarity
from aiida_difftre.engine.runtime.progress import Reporter
from aiida_difftre.engine.runtime.stop import Stop

PHYSICS = {
    ExitStatus.NOT_FINITE,
    ExitStatus.ATOMS_TOO_CLOSE,
    ExitStatus.TEMPERATURE_OUT_OF_BOUNDS,
    ExitStatus.VOLUME_OUT_OF_BOUNDS,
}
RETRIED_WITH_SMALLER_STEPS = {ExitStatus.TOO_FEW_EFFECTIVE_SAMPLES, ExitStatus.NOT_FINITE}
STOPPED = {ExitStatus.WALLTIME, ExitStatus.INTERRUPTED}
MAX_ROLLBACKS = 4


@dataclass
class Best:
    """The best parameters so far, judged on trajectories that they sampled themselves."""

    parameters: Parameters
    chi2: float = float("inf")
    iteration: int = -1
    points: Points | None = None


def run(job: RefineJob, folder: Path, progress: Reporter) -> dict[str, Any]:
    """Do a refinement job in a folder; returns what goes into ``results.json``."""
    potential, parameters = potentials.load(folder / job.potential)
    structures = {point.label: sample.read_structure(folder / point.structure) for point in job.state_points}
    for structure in structures.values():
        species_index(structure.symbols, potential.spec.species)
    extra = matching_loss(
        potential, folder / job.dataset if job.dataset else None, job.update.loss, job.machine, job.keys
    )
    began = time.monotonic()
    best = Best(parameters)
    good = parameters
    # The others are validated alone.
    sampled = [point for point in job.state_points if any(target.is_decisive for target in point.targets)]
    trajectories: dict[str, files.Trajectory] = {}
    state: Any = None
    scale, rollbacks, worse = 1.0, 0, 0
    iterations: list[dict[str, Any]] = []
    reason = "max_iterations"
    failure: EngineError | None = None
    with Stop(job.machine.walltime_s) as stop:
        for iteration in range(job.max_iterations + 1):
            # What was kept of the last trajectories makes room for the next ones.
            data: list[objective.Data] = []
            try:
                trajectories = {
                    point.label: _sample(
                        job, point, potential, parameters, structures[point.label], trajectories.get(point.label),
                        job.sampling, job.seed + 1000 * iteration + number, progress, stop,
                    )
                    for number, point in enumerate(sampled)
                }  # fmt: skip
            except EngineError as error:
                if error.status in STOPPED and iteration > 0:
                    reason, failure = _stopped(error)
                    break
                if best.points is None:
                    raise
                if error.status not in PHYSICS or rollbacks == MAX_ROLLBACKS:
                    reason, failure = "failed", error
                    break
                # The last update left the region where the potential is physical: back, and more carefully.
                parameters, state, scale, rollbacks = good, None, scale / 2, rollbacks + 1
                iterations.append({"iteration": iteration, "rollback": error.message, "learning_rate_scale": scale})
                continue
            good = parameters
            data = [
                objective.prepare(
                    point.label, potential, parameters, trajectories[point.label],
                    update.without_tests(point.targets),
                    temperature=point.temperature, pressure=trajectories[point.label].pressure,
                    settings=job.update, machine=job.machine, seed=job.seed + iteration, among=len(sampled),
                )
                for point in sampled
            ]  # fmt: skip
            training, fresh, points = _judge(data)
            is_best = best.points is None or is_better(points, best.points)
            worse = 0 if is_best else worse + 1
            if is_best:
                best = Best(parameters, fresh, iteration, points)
                # Now, and not at the end alone: a failure of a later iteration leaves it.
                potentials.save(folder / POTENTIAL_OUT, potential, parameters)
            record: dict[str, Any] = {
                "iteration": iteration,
                "chi2": fresh,
                "predictions": {point.label: [p.model_dump() for p in point.before] for point in data},
                "stationarity": {label: stationarity.of_trajectory(found) for label, found in trajectories.items()},
            }
            iterations.append(record)
            progress.report("refine", iteration, job.max_iterations, chi2=fresh)
            if is_best and training <= max(job.update.chi2_stop, job.update.chi2_converged):
                reason = "chi2"
                break
            if worse >= job.patience:
                reason = "patience"
                break
            if iteration == job.max_iterations:
                break
            stopped = stop.requested()
            if stopped is not None:
                reason, failure = _stopped(stopped)
                break
            try:
                outcome = update.minimise(
                    potential, parameters, data, job.update, seed=job.seed + iteration, progress=progress,
                    optimizer_state=state, learning_rate_scale=scale, extra=extra, stop=stop,
                )  # fmt: skip
            except EngineError as error:
                if error.status in STOPPED:
                    reason, failure = _stopped(error)
                    break
                if error.status not in RETRIED_WITH_SMALLER_STEPS or rollbacks == MAX_ROLLBACKS:
                    reason, failure = "failed", error
                    break
                state, scale, rollbacks = None, scale / 2, rollbacks + 1
                record.update(rollback=error.message, learning_rate_scale=scale)
                continue
            if outcome.reason == update.INTERRUPTED:
                reason, failure = "interrupted", stop.requested()
                break
            parameters, state = outcome.parameters, outcome.optimizer_state
            record["update"] = update.summary(data, outcome)
        potentials.save(folder / POTENTIAL_OUT, potential, best.parameters)
        validation = None
        if reason not in {"interrupted", "walltime", "failed"}:
            validation, failure = _validate(job, potential, best.parameters, structures, progress, stop)
    results: dict[str, Any] = {
        "reason": reason,
        "best_iteration": best.iteration,
        "chi2": best.chi2,
        "iterations": iterations,
        "validation": validation,
        "timings": {"refine_s": time.monotonic() - began},
    }
    if failure is not None:
        # What the iterations found took hours, and holds: the job ends as failed, and with its results.
        during = f"iteration {iteration}" if reason in {"interrupted", "failed"} else "the validation"
        ended = "was interrupted" if failure.status == ExitStatus.INTERRUPTED else "failed"
        if reason == "failed":
            results["error"] = _described(failure)
        raise EngineError(
            failure.status,
            f"{during} of the refinement {ended}: {failure.message}; {RESULTS} and {POTENTIAL_OUT} hold the best "
            f"potential so far, of iteration {best.iteration}",
            failure.diagnostics,
            results,
        ) from failure
    return results


def _sample(
    job: RefineJob,
    point: RefineStatePoint,
    potential: Potential,
    parameters: Parameters,
    structure: sample.Start,
    previous: files.Trajectory | None,
    settings: SamplingSettings,
    seed: int,
    progress: Reporter,
    stop: Stop | None,
) -> files.Trajectory:
    start, settings = sample.start_on_device(settings, structure, previous)
    return sample.simulate(
        potential, parameters, start, temperature=point.temperature, pressure=point.pressure, settings=settings,
        machine=job.machine, seed=seed, progress=progress, stop=stop,
    )  # fmt: skip


def _judge(data: list[objective.Data]) -> tuple[float, float, Points]:
    """Reduced chi² without reweighting: of the training targets, and of those that decide; with their points."""
    compared = [
        losses.compared(np.asarray(prediction.values), term)
        for point in data
        for prediction, term in zip(point.before, point.terms, strict=True)
    ]
    training, selection = reduced_chi2(compared, "training"), reduced_chi2(compared, "selection")
    if training is None:
        raise EngineError(ExitStatus.INVALID_INPUT, "no training target to judge the refinement by")
    return training, training if selection is None else selection, decisive_points(compared)


def _validate(
    job: RefineJob,
    potential: Potential,
    parameters: Parameters,
    structures: dict[str, sample.Start],
    progress: Reporter,
    stop: Stop,
) -> tuple[dict[str, Any] | None, EngineError | None]:
    """A long run that shares nothing with the training trajectories: other seeds, equilibrated from the structure.

    Returns:
        By state point, the predictions or the ``error``, and the first failure. None where no validation is asked for,
        and where the job has to stop before the run is over.
    """
    if job.validation is None:
        return None, None
    report: dict[str, Any] = {}
    failure: EngineError | None = None
    for number, point in enumerate(job.state_points):
        try:
            trajectory = _sample(
                job, point, potential, parameters, structures[point.label], None, job.validation,
                job.seed + 1_000_000 + number, progress, stop,
            )  # fmt: skip
            predictions = reweighting.predict_trajectory(
                potential, parameters, trajectory, [target.request() for target in point.targets],
                machine=job.machine, seed=job.seed,
            )  # fmt: skip
        except EngineError as error:
            if error.status in STOPPED:
                return None, error if error.status == ExitStatus.INTERRUPTED else failure
            failure = failure or error
            report[point.label] = {"error": _described(error)}
        else:
            report[point.label] = [prediction.model_dump() for prediction in predictions]
    return report, failure


def _stopped(error: EngineError) -> tuple[str, EngineError | None]:
    """Why the refinement ends, and its failure: it expects the walltime, a signal interrupts it."""
    return ("interrupted", error) if error.status == ExitStatus.INTERRUPTED else ("walltime", None)


def _described(error: EngineError) -> dict[str, Any]:
    return {"status": error.status.name, "message": error.message, "diagnostics": error.diagnostics}
