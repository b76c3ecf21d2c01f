"""The sampling job: equilibrate and run walkers under guards, with checkpoints; write the trajectory."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from aiida_difftre.engine import units
from aiida_difftre.engine.contract import files
from aiida_difftre.engine.contract.jobs import CHECKPOINT, TRAJECTORY, Machine, SampleJob, SamplingSettings
from aiida_difftre.engine.errors import EngineError, ExitStatus
from aiida_difftre.engine.geometry import neighbor_list as space
from aiida_difftre.engine.observables import protocol as observables
from aiida_difftre.engine.potentials import potential as potentials
from aiida_difftre.engine.potentials.potential import Potential
from aiida_difftre.engine.potentials.term import Parameters, species_index
from aiida_difftre.engine.reweighting import stationarity, statistics
from aiida_difftre.engine.reweighting.predictions import predict_trajectory
from aiida_difftre.engine.runtime.progress import Reporter
from aiida_difftre.engine.runtime.stop import Stop
from aiida_difftre.engine.sampling import checkpoints, guards
from aiida_difftre.engine.sampling import dynamics as sampling
from aiida_difftre.engine.sampling.starts import Start, read_structure, start_on_device, start_walkers
from aiida_difftre.engine.snapshots import snapshots as quantities

# Whoever simulates says where from: one import serves both.
__all__ = [
    "Start",
    "list_capacity",
    "read_structure",
    "run",
    "simulate",
    "start_lists",
    "start_on_device",
    "start_walkers",
]


def simulate(
    potential: Potential,
    parameters: Parameters,
    start: Start,
    *,
    temperature: float,
    settings: SamplingSettings,
    machine: Machine,
    seed: int,
    progress: Reporter,
    pressure: float | None = None,
    stop: Stop | None = None,
    folder: Path | None = None,
) -> files.Trajectory:
    """Equilibrate, then sample.

    Args:
        potential: the potential.
        parameters: its parameters.
        start: walkers.
        temperature: K.
        settings: molecular dynamics.
        machine: precision and size of batches.
        seed: of velocities and thermostat.
        progress: takes reports.
        pressure: GPa; held where the settings have a barostat.
        stop: asked between calls.
        folder: of checkpoints; None for none. A checkpoint found there is continued; the last one holds the whole run.

    Returns:
        The trajectory, with energies of the stored positions.

    Raises:
        EngineError: when the run goes bad (the good snapshots are written before, as ``trajectory.npz``), or must stop
            (a checkpoint is written before).
    """
    system = sampling.System(
        potential, start.symbols, start.cell, temperature, settings, machine.precision, pressure, masses=start.masses
    )
    scales = np.ones(len(start.positions))
    if system.barostat is not None and start.scales is not None:
        scales = start.scales
    start = replace(start, scales=scales)
    lists = start_lists(system, start)
    guards.check_start(system, start, parameters, lists)
    devices = jax.device_count()
    walkers = len(start.positions)
    padded = -(-walkers // devices) * devices
    chosen = np.arange(padded) % walkers
    momenta = None
    if start.velocities is not None:
        momenta = (start.velocities * units.TIME_UNIT_IN_FS * system.mass[:, None])[chosen]
    dynamics = sampling.dynamics(system, list_capacity(lists))
    listed = jax.tree.map(lambda array: np.asarray(array)[chosen], lists)
    state = dynamics.init(seed, start.positions[chosen], scales[chosen], momenta, parameters, listed)
    recording, identity = checkpoints.Recording(), checkpoints.identity_of(system, parameters, start, seed)
    if folder is not None and (folder / CHECKPOINT).exists():
        system, dynamics, state, recording = checkpoints.restore(folder / CHECKPOINT, identity, system, dynamics, state)

    per_call = system.snapshots_per_call
    equilibration = system.snapshots(settings.equilibration_fs)
    total = equilibration + max(1, system.snapshots(settings.production_fs))
    last_checkpoint, repeated = time.monotonic(), -1  # repeated: the block that was judged again with a wider skin
    while recording.done < total:
        after, snapshot = dynamics.apply(state, parameters)
        if dynamics.capacity.exceeded(after.needed):
            # Overflow: what was computed is void; the block is repeated from the state before it.
            dynamics, state = _enlarge(system, dynamics.capacity.enlarged(after.needed), state)
            continue
        temperatures = np.asarray(snapshot.temperature, np.float64)[:, :walkers]
        failure = guards.failure(system, snapshot, walkers, recording.done)
        farthest = float(np.max(np.asarray(after.farthest)))
        has_outrun = system.potential.has_neighbors and farthest > system.skin / 2
        if has_outrun and (failure is None or repeated < recording.done):
            # An atom outran its list: the block is void too, and what is wrong with it may come from that.
            repeated = recording.done
            try:
                wider = _widened(system, farthest)
            except EngineError as error:
                failure = failure or error
            else:
                capacity = dynamics.capacity.scaled((wider.list_cutoff / system.list_cutoff) ** 3)
                system = wider
                dynamics, state = _enlarge(system, capacity, state)
                continue
        if failure is not None:
            if folder is not None and recording.positions:
                good = _trajectory(system, parameters, state, recording, walkers, machine.batch_size)
                files.write_trajectory(folder / TRAJECTORY, good)
            raise failure
        state = after
        recording.done += per_call
        if recording.done > equilibration:
            recording.positions.append(np.asarray(snapshot.positions, np.float32)[:, :walkers])
            recording.temperatures.append(temperatures)
            recording.scales.append(np.asarray(snapshot.scale, np.float64)[:, :walkers])
        phase = "equilibration" if recording.done <= equilibration else "production"
        progress.report(phase, recording.done, total, temperature=float(temperatures.mean()))
        reason = stop.requested() if stop is not None else None
        is_over = recording.done >= total  # a signal after this finds all that was sampled in the checkpoint
        due = time.monotonic() - last_checkpoint > settings.checkpoint_interval_s
        if folder is not None and (due or is_over or reason is not None):
            checkpoints.write(folder / CHECKPOINT, identity, system, dynamics, state, recording)
            last_checkpoint = time.monotonic()
        if reason is not None and not (is_over and reason.status == ExitStatus.WALLTIME):
            raise reason
    return _trajectory(system, parameters, state, recording, walkers, machine.batch_size)


def start_lists(system: sampling.System, start: Start) -> space.NeighborList:
    """Neighbour lists of all walkers, as the dynamics begins with."""
    scales = np.ones(len(start.positions)) if start.scales is None else start.scales
    positions = jax.device_put(np.asarray(start.positions, np.float64))
    return space.build_batch(positions, start.cell, system.list_cutoff / scales)


def list_capacity(lists: space.NeighborList) -> space.Capacity:
    """What lists should hold: what those of the start do and some more, rounded up to share a compiled program."""
    needed, occupancy = np.max(np.asarray(space.requirements(lists)), 0).tolist()
    # The number of atoms in a bin fluctuates by its square root, also where the start is a crystal.
    room = occupancy + math.ceil(2 * occupancy**0.5)
    return space.Capacity(space.rounded(max(4, int(1.15 * needed))), space.rounded(room))


def _enlarge(
    system: sampling.System, capacity: space.Capacity, state: sampling.Walkers
) -> tuple[sampling.Dynamics, sampling.Walkers]:
    """Dynamics with another capacity or skin, and the lists of a state anew; larger still where they overflow."""
    while True:
        dynamics = sampling.dynamics(system, capacity)
        state = dynamics.relist(state)
        if not capacity.exceeded(state.needed):
            return dynamics, state
        capacity = capacity.enlarged(state.needed)


def _widened(system: sampling.System, farthest: float) -> sampling.System:
    """With a skin that is wide enough for what was seen, half as wide again or more; refused beyond a limit."""
    widest = max(2 * system.potential.cutoff, 4 * (system.settings.skin or 0.0))
    if 2 * farthest >= widest:
        raise EngineError(
            ExitStatus.TEMPERATURE_OUT_OF_BOUNDS,
            f"an atom moves {farthest:.2f} Å within few steps of {system.settings.timestep_fs} fs, too fast for any "
            "neighbour list; use a shorter time step (sampling.timestep_fs)",
        )
    skin = min(widest, max(1.5 * system.skin, min(3 * system.skin, 2.5 * farthest)))
    return replace(system, widened=system.widened * skin / system.skin)


def _trajectory(
    system: sampling.System,
    parameters: Parameters,
    state: sampling.Walkers,
    recording: checkpoints.Recording,
    walkers: int,
    batch_size: int,
) -> files.Trajectory:
    """Walker by walker, each in the order of time."""
    positions = np.concatenate(recording.positions)
    snapshots = len(positions)
    flat = np.ascontiguousarray(positions.swapaxes(0, 1).reshape(-1, *positions.shape[2:]))
    momentum, mass = np.asarray(state.md.momentum, np.float64), np.asarray(state.md.mass, np.float64)
    scales = np.concatenate(recording.scales).T.reshape(-1)
    return files.Trajectory(
        positions=flat,
        cell=np.asarray(system.cell, np.float64),
        species=system.symbols,
        energies=quantities.energies(
            system.potential, parameters, flat, system.cell, system.symbols, batch_size, scales=scales
        ),
        walkers=np.repeat(np.arange(walkers, dtype=np.int32), snapshots),
        times=np.tile((np.arange(snapshots) + 1) * system.stride_fs, walkers),
        temperatures=np.concatenate(recording.temperatures).T.reshape(-1),
        last_positions=np.asarray(state.md.position, np.float64)[:walkers],
        last_velocities=(momentum / mass)[:walkers] / units.TIME_UNIT_IN_FS,
        temperature=system.temperature,
        scales=scales,
        last_scales=np.asarray(sampling.scale_of(state.md), np.float64)[:walkers],
        pressure=None if system.barostat is None else system.pressure,
        masses=system.masses,
    )


def run(job: SampleJob, folder: Path, progress: Reporter) -> dict[str, Any]:
    """Do a sampling job in a folder; returns what goes into ``results.json``."""
    potential, parameters = potentials.load(folder / job.potential)
    structure = read_structure(folder / job.structure)
    species_index(structure.symbols, potential.spec.species)
    for request in job.observables:
        observables.make(request, structure.symbols, structure.cell, masses=structure.masses)
    previous = files.read_trajectory(folder / job.start_trajectory) if job.start_trajectory else None
    start, settings = start_on_device(job.sampling, structure, previous)
    began = time.monotonic()
    with Stop(job.machine.walltime_s) as stop:
        trajectory = simulate(
            potential,
            parameters,
            start,
            temperature=job.temperature,
            pressure=job.pressure,
            settings=settings,
            machine=job.machine,
            seed=job.seed,
            progress=progress,
            stop=stop,
            folder=folder,
        )
        files.write_trajectory(folder / TRAJECTORY, trajectory)
    sampled = time.monotonic()
    predictions = predict_trajectory(
        potential, parameters, trajectory, job.observables, machine=job.machine, seed=job.seed
    )
    g = np.max(statistics.statistical_inefficiency(stationarity.thermal_columns(trajectory), trajectory.walkers))
    return {
        "snapshots": len(trajectory.energies),
        "walkers": len(start.positions),
        "mean_temperature": float(trajectory.temperatures.mean()),
        "mean_energy": float(trajectory.energies.mean()),
        "ensemble": trajectory.ensemble,
        "mean_volume": float(trajectory.volumes.mean()),
        "statistical_inefficiency": float(g),
        "stationarity": stationarity.of_trajectory(trajectory),
        "predictions": [prediction.model_dump() for prediction in predictions],
        "timings": {"sampling_s": sampled - began, "observables_s": time.monotonic() - sampled},
    }
