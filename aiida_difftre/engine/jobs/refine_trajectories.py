"""The trajectories of a refinement in one process: sampled, given, and the long ones of its validation."""

from __future__ import annotations

from dataclasses import replace

from aiida_difftre.engine.bases.base_pass import arrays_of
from aiida_difftre.engine.contract.base import derived_seed
from aiida_difftre.engine.contract.jobs import RefineStatePoint, SamplingSettings
from aiida_difftre.engine.contract.predictions import Prediction
from aiida_difftre.engine.contract.reasons import STOPPED
from aiida_difftre.engine.contract.results import FailedValidation, Failure
from aiida_difftre.engine.contract.state_points import StatePoint
from aiida_difftre.engine.contract.trajectories import Trajectory, read_trajectory
from aiida_difftre.engine.errors import EngineError, ExitStatus
from aiida_difftre.engine.jobs.given import given_reference, held_at
from aiida_difftre.engine.jobs.refine_course import Setup
from aiida_difftre.engine.potentials.term import Parameters
from aiida_difftre.engine.reweighting.predictions import predict_trajectory
from aiida_difftre.engine.reweighting.reference import born_stride
from aiida_difftre.engine.sampling import protocol
from aiida_difftre.engine.sampling.starts import Start, start_on_device

Validation = dict[str, list[Prediction] | FailedValidation]
"""Of long runs: predictions, or why there are none, by state point."""


def simulated(
    setup: Setup,
    point: RefineStatePoint,
    parameters: Parameters,
    previous: Trajectory | None,
    *,
    settings: SamplingSettings,
    seed: int,
) -> Trajectory:
    """Sample a trajectory at a state point, from its structure or from the last snapshots of the previous one.

    Args:
        setup: What does not change during the refinement.
        point: The state point.
        parameters: Parameters of the potential that samples.
        previous: The previous trajectory there; None for none.
        settings: Settings of molecular dynamics.
        seed: Seed of the random numbers.

    Returns:
        The trajectory.
    """
    start, settings = start_on_device(settings, setup.structures[point.label], previous)
    run = protocol.Run(setup.job.machine, seed, setup.progress, setup.stop, base=setup.base)
    state = StatePoint(point.temperature, point.pressure)
    stride = _born_stride(point, start)
    return protocol.sample(setup.potential, parameters, start, state, settings, run, born_stride=stride)


def taken(setup: Setup, point: RefineStatePoint, parameters: Parameters) -> Trajectory:
    """Take the trajectory that a state point brings with it, as the first reference.

    Args:
        setup: What does not change during the refinement.
        point: The state point.
        parameters: Parameters of the potential that is said to have sampled it.

    Returns:
        The trajectory, with its energies.
    """
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


def long_runs(setup: Setup, parameters: Parameters) -> tuple[Validation | None, EngineError | None]:
    """Sample long runs that share nothing with the training: other seeds, equilibrated from the structure.

    Args:
        setup: What does not change during the refinement.
        parameters: Parameters of the potential to validate.

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
            trajectory = simulated(setup, point, parameters, None, settings=job.validation, seed=seed)
            predictions = predict_trajectory(
                setup.potential, parameters, trajectory, [target.request() for target in point.targets],
                machine=job.machine, seed=job.seed,
            )  # fmt: skip
        except EngineError as error:
            if error.status in STOPPED:
                return None, error if error.status == ExitStatus.INTERRUPTED else failure
            failure = failure or error
            report[point.label] = FailedValidation(error=described(error))
        else:
            report[point.label] = predictions
    return report, failure


def described(error: EngineError) -> Failure:
    """Put a failure into words of a result.

    Args:
        error: The failure.

    Returns:
        What results tell of it.
    """
    return Failure(status=error.status.name, message=error.message, diagnostics=error.diagnostics)
