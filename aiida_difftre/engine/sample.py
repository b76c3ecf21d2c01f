"""The sampling job: equilibrate and run walkers under guards, with checkpoints; write the trajectory."""

from __future__ import annotations

import hashlib
import json
import math
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import ase.io
import jax
import numpy as np
from numpy.typing import NDArray

from aiida_difftre.engine import (
    device,
    files,
    observables,
    potentials,
    quantities,
    reweighting,
    sampling,
    space,
    statistics,
    units,
)
from aiida_difftre.engine.errors import EngineError, ExitStatus
from aiida_difftre.engine.jobs import CHECKPOINT, TRAJECTORY, BarostatSpec, Machine, SampleJob, SamplingSettings
from aiida_difftre.engine.potentials import Parameters, Potential
from aiida_difftre.engine.progress import Reporter
from aiida_difftre.engine.stop import Stop

CAPACITY_STEP = 4
"""Capacities of neighbour lists are multiples of this."""


@dataclass(frozen=True)
class Start:
    """Where walkers start.

    Args:
        positions: (walkers, atoms, 3), fractional.
        velocities: (walkers, atoms, 3), Å/fs; None for Maxwell-Boltzmann ones.
        cell: (3, 3), Å.
        symbols: one per atom.
        scales: (walkers,), of the cells of the walkers; None for ones.
        masses: (atoms,), amu; None for the standard atomic weights.
    """

    positions: NDArray[np.float64]
    velocities: NDArray[np.float64] | None
    cell: NDArray[np.float64]
    symbols: tuple[str, ...]
    scales: NDArray[np.float64] | None = None
    masses: NDArray[np.float64] | None = None


@dataclass
class Recording:
    """Snapshots so far, and how far the run is."""

    positions: list[NDArray[np.float32]] = field(default_factory=list)
    temperatures: list[NDArray[np.float64]] = field(default_factory=list)
    scales: list[NDArray[np.float64]] = field(default_factory=list)
    done: int = 0


def read_structure(path: Path) -> Start:
    """Read one frame as the start of a single walker, with its column ``masses`` (amu) if there is one.

    Raises:
        EngineError: for a file that is no structure, one without a periodic cell, or a mass that is not positive.
    """
    try:
        atoms = ase.io.read(path, index=0, format="extxyz")
    except Exception as error:  # ase raises what its parsers happen to meet
        raise EngineError(ExitStatus.CORRUPT_FILE, f"{path.name} is not a readable structure: {error}") from None
    if not atoms.cell.rank == 3:
        raise EngineError(
            ExitStatus.INVALID_INPUT,
            f"{path.name} has no three-dimensional cell: {atoms.cell.tolist()}; give a Lattice",
        )
    positions = atoms.get_scaled_positions(wrap=False)[None]
    masses = atoms.get_masses() if atoms.has("masses") else None
    if masses is not None and not (np.isfinite(masses) & (masses > 0)).all():
        atom = int(np.argmin(np.where(np.isfinite(masses), masses, -np.inf)))
        raise EngineError(
            ExitStatus.INVALID_INPUT,
            f"the mass of atom {atom} in {path.name} is {masses[atom]} amu; give a positive one, or leave out the "
            "column for the standard atomic weights",
        )
    return Start(positions, None, np.array(atoms.cell), tuple(atoms.get_chemical_symbols()), masses=masses)


def start_walkers(walkers: int, structure: Start, previous: files.Trajectory | None) -> Start:
    """Walkers from a structure, or from the last snapshots of an earlier trajectory of the same system.

    The cell is that of the structure; at constant pressure walkers go on in the volumes that they had.

    Raises:
        EngineError: when the earlier trajectory is of another system.
    """
    if previous is None:
        return replace(structure, positions=structure.positions.repeat(walkers, 0))
    if previous.species != structure.symbols:
        raise EngineError(
            ExitStatus.INVALID_INPUT,
            f"the trajectory to start from has {len(previous.species)} atoms ({sorted(set(previous.species))}), the "
            f"structure {len(structure.symbols)} ({sorted(set(structure.symbols))}), or another order of atoms",
        )
    chosen = np.arange(walkers) % len(previous.last_positions)
    # More walkers than before: copies of one walker must part, so they draw new velocities.
    velocities = previous.last_velocities[chosen] if walkers <= len(previous.last_positions) else None
    ratio = (np.linalg.det(previous.cell) / np.linalg.det(structure.cell)) ** (1 / 3)
    scales = ratio * previous.last_scales[chosen]
    return replace(structure, positions=previous.last_positions[chosen], velocities=velocities, scales=scales)


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
        folder: of checkpoints; None for none. A checkpoint found there is continued.

    Returns:
        The trajectory, with energies of the stored positions.

    Raises:
        EngineError: when the run goes bad (the good snapshots are written before, as ``trajectory.npz``), or must
        stop (a
            checkpoint is written before).
    """
    system = sampling.System(
        potential, start.symbols, start.cell, temperature, settings, machine.precision, pressure, masses=start.masses
    )
    scales = np.ones(len(start.positions))
    if system.barostat is not None and start.scales is not None:
        scales = start.scales
    start = replace(start, scales=scales)
    check_system(system, start, parameters)
    devices = jax.device_count()
    walkers = len(start.positions)
    padded = -(-walkers // devices) * devices
    chosen = np.arange(padded) % walkers
    momenta = None
    if start.velocities is not None:
        momenta = (start.velocities * units.TIME_UNIT_IN_FS * system.mass[:, None])[chosen]
    capacity = list_capacity(system, start)
    arguments = (jax.random.key(seed), start.positions[chosen], scales[chosen], momenta, parameters)
    dynamics, state = _begin(system, capacity, arguments)
    recording, identity = Recording(), _identity(system, parameters)
    if folder is not None and (folder / CHECKPOINT).exists():
        system, dynamics, state, recording = _restore(folder / CHECKPOINT, identity, system, dynamics, state)

    per_call = system.snapshots_per_call
    equilibration = system.snapshots(settings.equilibration_fs)
    total = equilibration + max(1, system.snapshots(settings.production_fs))
    last_checkpoint = time.monotonic()
    while recording.done < total:
        after, snapshot = dynamics.apply(state, parameters)
        if dynamics.capacity.exceeded(after.needed):
            # Overflow: what was computed is void; the block is repeated from the state before it.
            dynamics, state = _enlarge(system, dynamics.capacity.enlarged(after.needed), state)
            continue
        temperatures = np.asarray(snapshot.temperature, np.float64)[:, :walkers]
        failure = _guard(system, snapshot, walkers, recording.done)
        if failure is not None:
            if folder is not None and recording.positions:
                good = _trajectory(system, parameters, state, recording, walkers, machine.batch_size)
                files.write_trajectory(folder / TRAJECTORY, good)
            raise failure
        farthest = float(np.max(np.asarray(after.farthest)))
        if system.potential.has_neighbors and farthest > system.skin / 2:
            # An atom outran its list: the block is void too.
            system = _widened(system, farthest)
            dynamics, state = _enlarge(system, dynamics.capacity, state)
            continue
        state = after
        recording.done += per_call
        if recording.done > equilibration:
            recording.positions.append(np.asarray(snapshot.positions, np.float32)[:, :walkers])
            recording.temperatures.append(temperatures)
            recording.scales.append(np.asarray(snapshot.scale, np.float64)[:, :walkers])
        phase = "equilibration" if recording.done <= equilibration else "production"
        progress.report(phase, recording.done, total, temperature=float(temperatures.mean()))
        reason = stop.requested() if stop is not None else None
        due = time.monotonic() - last_checkpoint > settings.checkpoint_interval_s
        if folder is not None and recording.done < total and (due or reason is not None):
            _checkpoint(folder / CHECKPOINT, identity, system, dynamics, state, recording)
            last_checkpoint = time.monotonic()
        if reason is not None and recording.done < total:
            raise reason
    return _trajectory(system, parameters, state, recording, walkers, machine.batch_size)


def list_capacity(system: sampling.System, start: Start) -> space.Capacity:
    """What lists should hold: what those of the start do and some more.

    Rounded up generously, so that starts of the same system share one compiled program.
    """
    scales = np.ones(len(start.positions)) if start.scales is None else start.scales
    lists = space.build_batch(np.asarray(start.positions, np.float64), start.cell, system.list_cutoff / scales)
    needed, occupancy = np.max(np.asarray(space.requirements(lists)), 0).tolist()
    # The number of atoms in a bin fluctuates by its square root, also where the start is a crystal.
    room = occupancy + math.ceil(2 * occupancy**0.5)
    return space.Capacity(max(1, -(-int(1.15 * needed) // CAPACITY_STEP)) * CAPACITY_STEP, room)


def check_system(system: sampling.System, start: Start, parameters: Parameters) -> None:
    """Refuse a start whose atoms overlap, and a JAX that miscompiles, before the run.

    Raises:
        EngineError: naming the distance, or the difference of energies.
    """
    if system.barostat is not None and system.potential.has_external:
        raise EngineError(
            ExitStatus.INVALID_INPUT,
            f"the potential has an external field, which holds the cell: it cannot be sampled at {system.pressure:g} "
            "GPa; leave out the pressure of the state point or sampling.barostat",
        )
    scale = 1.0 if start.scales is None else start.scales[0]
    environment = quantities.environment(
        system.potential, start.positions[0], scale * start.cell, start.symbols, system.precision
    )
    squared = np.where(environment.mask, np.sum(np.asarray(environment.displacements) ** 2, -1), np.inf)
    distance = float(np.sqrt(squared.min()))
    if distance < system.settings.min_distance:
        raise EngineError(
            ExitStatus.ATOMS_TOO_CLOSE,
            f"two atoms of the starting structure are {distance:.3f} Å apart; the limit (sampling.min_distance) is "
            f"{system.settings.min_distance} Å",
        )
    device.self_check(system.potential, parameters, environment, system.precision)


def _guard(system: sampling.System, snapshot: sampling.Snapshot, walkers: int, done: int) -> EngineError | None:
    finite = np.asarray(snapshot.finite)[:, :walkers]
    time_fs = done * system.stride_fs
    where = f"after {time_fs:g} fs with a time step of {system.settings.timestep_fs} fs"
    if not finite.all():
        walker = int(np.argwhere(~finite)[0, 1])
        return EngineError(ExitStatus.NOT_FINITE, f"positions or forces of walker {walker} are not finite {where}")
    distance = np.asarray(snapshot.min_distance)[:, :walkers]
    if distance.min() < system.settings.min_distance:
        return EngineError(
            ExitStatus.ATOMS_TOO_CLOSE,
            f"two atoms came as close as {distance.min():.3f} Å (limit {system.settings.min_distance} Å) {where}",
            {"min_distance": float(distance.min())},
        )
    temperature = np.asarray(snapshot.temperature)[:, :walkers]
    limit = system.temperature * hottest(system.settings.max_temperature_ratio, len(system.symbols))
    if temperature.max() > limit:
        return EngineError(
            ExitStatus.TEMPERATURE_OUT_OF_BOUNDS,
            f"the temperature of a walker reached {temperature.max():.0f} K (limit {limit:.0f} K) {where}",
            {"temperature": float(temperature.max())},
        )
    ratios = np.asarray(snapshot.scale, np.float64)[:, :walkers] ** 3
    if system.barostat is not None and not bounded(ratios, system.barostat):
        farthest = float(ratios.flat[np.argmax(abs(np.log(ratios)))])
        return EngineError(
            ExitStatus.VOLUME_OUT_OF_BOUNDS,
            f"the volume of a walker became {farthest:.3g} times that of the structure (limit "
            f"sampling.barostat.max_volume_ratio = {system.barostat.max_volume_ratio:g}, or its inverse) {where}; the "
            f"potential may hold no condensed phase at {system.pressure:g} GPa: start nearer to its equilibrium, "
            "refine at constant volume first, or allow a larger ratio",
            {"volume_ratio": farthest},
        )
    return None


def hottest(ratio: float, atoms: int) -> float:
    """The instantaneous over the target temperature that stops a run.

    The relative standard deviation of the instantaneous temperature is sqrt(2/3N): six of them are allowed on top of
    the ratio. Of a few atoms the distribution has a long tail: a chi² variable with k degrees of freedom exceeds
    k + 2 sqrt(k x) + 2 x with a probability of at most exp(-x) (Laurent & Massart, Ann. Statist. 28, 1302 (2000)).

    Args:
        ratio: that no sane run exceeds on average.
        atoms: number of atoms.
    """
    k, x = 3 * atoms, 30.0
    return float(max(ratio + 6 * np.sqrt(2 / k), 1 + 2 * np.sqrt(x / k) + 2 * x / k))


def bounded(ratios: NDArray[np.float64], barostat: BarostatSpec) -> bool:
    """Whether all volumes over that of the starting structure are within bounds."""
    return bool(np.max(abs(np.log(ratios))) <= np.log(barostat.max_volume_ratio))


def _begin(
    system: sampling.System, capacity: space.Capacity, arguments: tuple[Any, ...]
) -> tuple[sampling.Dynamics, sampling.Walkers]:
    """Initial state, from the arguments of ``Dynamics.init``; anew where the lists overflow, which voids the forces."""
    while True:
        dynamics = sampling.dynamics(system, capacity)
        state = dynamics.init(*arguments)
        if not capacity.exceeded(state.needed):
            return dynamics, state
        capacity = capacity.enlarged(state.needed)


def _hold(
    system: sampling.System, dynamics: sampling.Dynamics, state: sampling.Walkers
) -> tuple[sampling.Dynamics, sampling.Walkers]:
    if not dynamics.capacity.exceeded(state.needed):
        return dynamics, state
    return _enlarge(system, dynamics.capacity.enlarged(state.needed), state)


def _enlarge(
    system: sampling.System, capacity: space.Capacity, state: sampling.Walkers
) -> tuple[sampling.Dynamics, sampling.Walkers]:
    dynamics = sampling.dynamics(system, capacity)
    return _hold(system, dynamics, dynamics.relist(state))


def _widened(system: sampling.System, farthest: float) -> sampling.System:
    """With a skin that is half as wide again; refused where that does not help."""
    wider = replace(system, widened=1.5 * system.widened)
    if wider.skin > max(2 * system.potential.cutoff, 4 * (system.settings.skin or 0.0)):
        raise EngineError(
            ExitStatus.TEMPERATURE_OUT_OF_BOUNDS,
            f"an atom moves {farthest:.2f} Å within few steps of {system.settings.timestep_fs} fs, too fast for any "
            "neighbour list; use a shorter time step (sampling.timestep_fs)",
        )
    return wider


def _identity(system: sampling.System, parameters: Parameters) -> str:
    """What a checkpoint belongs to: potential, system, state point and dynamics, but not how long they last."""
    settings = system.settings.model_dump(
        include={"thermostat", "walkers", "timestep_fs", "equilibration_fs", "stride_fs"}
    )
    described = [system.potential.spec.model_dump(), system.symbols, system.cell.tolist(), system.temperature, settings]
    described += [system.snapshots_per_call, system.mass.tolist()]
    if system.barostat is not None:
        described += [system.pressure, system.barostat.model_dump()]
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    for leaf in jax.tree.leaves(parameters):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()


def _checkpoint(
    path: Path,
    identity: str,
    system: sampling.System,
    dynamics: sampling.Dynamics,
    state: sampling.Walkers,
    recording: Recording,
) -> None:
    arrays = {f"md/{number}": np.asarray(leaf) for number, leaf in enumerate(jax.tree.leaves(state.md))}
    arrays["built"], arrays["built_scale"] = np.asarray(state.built), np.asarray(state.built_scale)
    if recording.positions:
        arrays["positions"] = np.concatenate(recording.positions)
        arrays["temperatures"] = np.concatenate(recording.temperatures)
        arrays["scales"] = np.concatenate(recording.scales)
    metadata = {"done": str(recording.done), "capacity": json.dumps(dynamics.capacity), "identity": identity}
    metadata["widened"] = repr(system.widened)
    files.write_arrays(path, arrays, metadata)


def _restore(
    path: Path, identity: str, system: sampling.System, dynamics: sampling.Dynamics, state: sampling.Walkers
) -> tuple[sampling.System, sampling.Dynamics, sampling.Walkers, Recording]:
    arrays, metadata = files.read_arrays(path)
    leaves, structure = jax.tree.flatten(state.md)
    stored = [arrays.get(f"md/{number}") for number in range(len(leaves))]
    fits = all(array is not None and array.shape == leaf.shape for array, leaf in zip(stored, leaves, strict=True))
    if not fits or metadata.get("identity") != identity:
        raise EngineError(
            ExitStatus.CORRUPT_FILE,
            f"{path.name} is the checkpoint of another potential, system, dynamics or number of devices; remove it to "
            "start anew",
        )
    put = [jax.device_put(array, leaf.sharding) for array, leaf in zip(stored, leaves, strict=True)]
    built = jax.device_put(arrays["built"], state.built.sharding)
    built_scale = jax.device_put(arrays["built_scale"], state.built_scale.sharding)
    state = state._replace(md=jax.tree.unflatten(structure, put), built=built, built_scale=built_scale)
    recording = Recording(done=int(metadata["done"]))
    if "positions" in arrays:
        recording.positions, recording.temperatures = [arrays["positions"]], [arrays["temperatures"]]
        recording.scales = [arrays["scales"]]
    capacity = space.Capacity(*json.loads(metadata["capacity"]))
    widened = float(metadata["widened"])
    if capacity != dynamics.capacity or widened != system.widened:
        system = replace(system, widened=widened)
        dynamics = sampling.dynamics(system, capacity)
    return system, dynamics, dynamics.relist(state), recording


def _trajectory(
    system: sampling.System,
    parameters: Parameters,
    state: sampling.Walkers,
    recording: Recording,
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
    space.species_index(structure.symbols, potential.spec.species)
    for request in job.observables:
        observables.make(request, structure.symbols, structure.cell)
    previous = files.read_trajectory(folder / job.start_trajectory) if job.start_trajectory else None
    start = start_walkers(job.sampling.walkers, structure, previous)
    with Stop(job.machine.walltime_s) as stop:
        began = time.monotonic()
        trajectory = simulate(
            potential,
            parameters,
            start,
            temperature=job.temperature,
            pressure=job.pressure,
            settings=job.sampling,
            machine=job.machine,
            seed=job.seed,
            progress=progress,
            stop=stop,
            folder=folder,
        )
    files.write_trajectory(folder / TRAJECTORY, trajectory)
    sampled = time.monotonic()
    predictions = reweighting.predict_trajectory(
        potential, parameters, trajectory, job.observables, machine=job.machine, seed=job.seed
    )
    g = np.max(statistics.statistical_inefficiency(reweighting.thermal_columns(trajectory), trajectory.walkers))
    (folder / CHECKPOINT).unlink(missing_ok=True)
    return {
        "snapshots": len(trajectory.energies),
        "walkers": job.sampling.walkers,
        "mean_temperature": float(trajectory.temperatures.mean()),
        "mean_energy": float(trajectory.energies.mean()),
        "ensemble": trajectory.ensemble,
        "mean_volume": float(trajectory.volumes.mean()),
        "statistical_inefficiency": float(g),
        "predictions": [prediction.model_dump() for prediction in predictions],
        "timings": {"sampling_s": sampled - began, "observables_s": time.monotonic() - sampled},
    }
