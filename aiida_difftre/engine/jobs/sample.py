"""The sampling job: a trajectory, and the observables of it."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from aiida_difftre.engine.bases.base_pass import arrays_of
from aiida_difftre.engine.bases.loading import of_potential
from aiida_difftre.engine.bases.protocol import BasePotential
from aiida_difftre.engine.contract.files import digest
from aiida_difftre.engine.contract.jobs import TRAJECTORY, TRAJECTORY_PART, SampleJob
from aiida_difftre.engine.contract.parts import part_of
from aiida_difftre.engine.contract.records import Timings
from aiida_difftre.engine.contract.results import GivenReference, KeptPart, SampleResults, Stationarity
from aiida_difftre.engine.contract.state_points import StatePoint
from aiida_difftre.engine.contract.trajectories import Trajectory, read_trajectory, write_trajectory
from aiida_difftre.engine.errors import EngineError
from aiida_difftre.engine.jobs.given import given_reference, held_at
from aiida_difftre.engine.jobs.hot import hot_runs
from aiida_difftre.engine.observables.protocol import make
from aiida_difftre.engine.potentials.potential import Potential, check_temperature, load, species_of
from aiida_difftre.engine.potentials.term import Parameters
from aiida_difftre.engine.reweighting import stationarity, statistics
from aiida_difftre.engine.reweighting.arrangement import arrangement
from aiida_difftre.engine.reweighting.predictions import predict_trajectory
from aiida_difftre.engine.reweighting.reference import born_stride
from aiida_difftre.engine.runtime.progress import Reporter
from aiida_difftre.engine.runtime.stop import Stop
from aiida_difftre.engine.sampling import protocol
from aiida_difftre.engine.sampling.starts import Start, read_structure, start_on_device


class Moving(NamedTuple):
    """What is sampled.

    Args:
        potential: The potential.
        parameters: Its parameters.
        structure: Structure at the start.
        base: Base of the potential; None for none.
    """

    potential: Potential
    parameters: Parameters
    structure: Start
    base: BasePotential | None


def run(job: SampleJob, folder: Path, progress: Reporter) -> SampleResults:
    """Sample a trajectory, and predict the observables of the job on it.

    Args:
        job: The job, as it was read and checked.
        folder: Folder with the files of the job; the trajectory and checkpoints are written there.
        progress: Takes a report of each block of snapshots.

    Returns:
        The content of ``results.json``.

    Raises:
        EngineError: When the dynamics goes bad (its good snapshots are written before), or the run must stop (a
            checkpoint is written before).
    """
    potential, parameters = load(folder / job.potential)
    structure = read_structure(folder / job.structure)
    species_of(potential, structure.symbols)
    check_temperature(potential, job.temperature)
    for request in job.observables:
        make(request, structure.symbols, structure.cell, masses=structure.masses)
    base = of_potential(potential.spec, folder, job.base_files)
    began = time.monotonic()
    moving = Moving(potential, parameters, structure, base)
    with Stop(job.machine.walltime_s) as stop:
        try:
            trajectory, given = _trajectory(job, folder, moving, progress, stop)
        except EngineError:
            if job.keep_every > 1 and (folder / TRAJECTORY).is_file():  # the good snapshots of a run that went bad
                _keep(job, folder, read_trajectory(folder / TRAJECTORY))
            raise
        write_trajectory(folder / TRAJECTORY, trajectory)
        kept = _keep(job, folder, trajectory)
        sampled = time.monotonic()
        model = (potential, parameters, base)
        hot = None if job.hot is None else hot_runs(job, job.hot, model, trajectory, folder, progress, stop)
    heated = time.monotonic()
    predictions = predict_trajectory(
        potential, parameters, trajectory, job.observables, machine=job.machine, seed=job.seed
    )
    g = np.max(statistics.statistical_inefficiency(stationarity.thermal_columns(trajectory), trajectory.walkers))
    return SampleResults(
        snapshots=len(trajectory.energies),
        walkers=len(trajectory.last_positions),
        mean_temperature=float(trajectory.temperatures.mean()),
        mean_energy=float(trajectory.energies.mean()),
        ensemble=trajectory.ensemble,
        mean_volume=float(trajectory.volumes.mean()),
        statistical_inefficiency=float(g),
        stationarity=Stationarity(**stationarity.of_trajectory(trajectory)),
        given=given,
        arrangement=arrangement(trajectory, structure.positions[0]),
        hot=hot,
        kept=kept,
        predictions=predictions,
        timings=Timings(
            sampling_s=sampled - began,
            observables_s=time.monotonic() - heated,
            **({} if hot is None else {"hot_s": heated - sampled}),
        ),
    )


def _keep(job: SampleJob, folder: Path, trajectory: Trajectory) -> KeptPart | None:
    """Write the part of a trajectory that is kept elsewhere, beside the file of the whole."""
    if job.keep_every == 1:
        return None
    whole = digest(folder / TRAJECTORY)
    part = part_of(trajectory, job.keep_every, whole)
    write_trajectory(folder / TRAJECTORY_PART, part)
    return KeptPart(every=job.keep_every, snapshots=len(part.energies), digest=whole)


def _trajectory(
    job: SampleJob, folder: Path, moving: Moving, progress: Reporter, stop: Stop
) -> tuple[Trajectory, GivenReference | None]:
    """The trajectory that is given, or a new one."""
    point = StatePoint(job.temperature, job.pressure)
    structure = moving.structure
    needed = born_stride(structure.symbols, structure.cell, job.observables, structure.masses)
    stride = math.gcd(job.base_born_stride, needed)
    if job.trajectory is not None:
        exists = read_trajectory(folder / job.trajectory, may_lack_energies=True)
        of_base = None
        if moving.base is not None and (spec := moving.potential.spec.base) is not None:
            of_base = arrays_of(exists, moving.base, spec.digest, born_stride=stride, progress=progress, stop=stop)
        exists, held = replace(exists, base=of_base), held_at(point, job.sampling)
        return given_reference(*moving[:2], exists, structure, held, batch_size=job.machine.batch_size)
    previous = None if job.start_trajectory is None else _last_of(folder / job.start_trajectory)
    start, settings = start_on_device(job.sampling, moving.structure, previous)
    run = protocol.Run(job.machine, job.seed, progress, stop, folder, moving.base)
    return protocol.sample(*moving[:2], start, point, settings, run, born_stride=stride), None


def _last_of(path: Path) -> Trajectory:
    """A trajectory of which the state in which its walkers end is needed; the whole where they have no velocities."""
    trajectory = read_trajectory(path, may_be_part=True)
    return trajectory if trajectory.last_velocities.any() else read_trajectory(path)
