"""The sampler of this package: equilibrate and run walkers under guards, with checkpoints.

A run is a loop over blocks of snapshots. What becomes of a block is one of four transitions: it is void and repeated
with longer lists (:func:`overflowed`) or a wider skin (:func:`outrun`), it ends the run (a guard), or it is recorded.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from aiida_difftre.engine import units
from aiida_difftre.engine.bases.callback import Callback
from aiida_difftre.engine.contract.jobs import CHECKPOINT, TRAJECTORY
from aiida_difftre.engine.contract.sampling_settings import SamplingSettings
from aiida_difftre.engine.contract.state_points import StatePoint
from aiida_difftre.engine.contract.trajectories import Trajectory, write_trajectory
from aiida_difftre.engine.errors import EngineError, ExitStatus
from aiida_difftre.engine.geometry import neighbor_list
from aiida_difftre.engine.potentials.potential import Potential
from aiida_difftre.engine.potentials.term import Parameters
from aiida_difftre.engine.sampling import checkpoints, guards
from aiida_difftre.engine.sampling.checkpoints import Recording, Simulation
from aiida_difftre.engine.sampling.dynamics import dynamics
from aiida_difftre.engine.sampling.protocol import Run
from aiida_difftre.engine.sampling.starts import Start
from aiida_difftre.engine.sampling.system import System
from aiida_difftre.engine.sampling.walkers import Snapshot, Walkers, scale_of
from aiida_difftre.engine.snapshots.snapshots import Coordinates, total_energies


def simulate(
    potential: Potential,
    parameters: Parameters,
    start: Start,
    point: StatePoint,
    settings: SamplingSettings,
    run: Run,
) -> Trajectory:
    """Equilibrate, then sample; arguments as of :class:`~aiida_difftre.engine.sampling.protocol.Sampler`.

    The last checkpoint holds the whole run.

    Raises:
        EngineError: When the run goes bad (the good snapshots are written before, as ``trajectory.npz``), or must stop
            (a checkpoint is written before).
    """
    system = System(
        potential, start.symbols, start.cell, point.temperature, settings, run.machine.precision, point.pressure,
        masses=start.masses,
    )  # fmt: skip
    if run.base is not None:
        called = Callback(run.base, start.symbols, start.cell, needs_virial=system.barostat is not None)
        system = replace(system, base=called, base_digest=run.base_digest)
    if system.barostat is None or start.scales is None:
        start = replace(start, scales=np.ones(len(start.positions)))
    simulation = begin(system, parameters, start, run.seed)
    keeper = Keeper(run.folder, checkpoints.identity_of(system, parameters, start, run.seed))
    simulation, recording = keeper.restored(simulation)
    made_of = Made(parameters, len(start.positions), run.machine.batch_size)
    equilibration = system.snapshots(settings.equilibration_fs)
    total = equilibration + max(1, system.snapshots(settings.production_fs))
    judged_twice = -1  # the block that was judged again with a wider skin
    while recording.done < total:
        after, snapshot = simulation.dynamics.apply(simulation.walkers, parameters)
        if simulation.dynamics.capacity.exceeded(after.needed):
            simulation = overflowed(simulation, after)
            continue
        failure = guards.failure(simulation.system, snapshot, made_of.walkers, recording.done)
        if guards.has_outrun(simulation.system, after) and (failure is None or judged_twice < recording.done):
            # What is wrong with the block may come from neighbours that were missed.
            judged_twice = recording.done
            try:
                simulation = outrun(simulation, after)
            except EngineError as error:
                failure = failure or error
            else:
                continue
        if failure is not None:
            if run.folder is not None and recording.positions:
                write_trajectory(run.folder / TRAJECTORY, trajectory_of(simulation, recording, made_of))
            raise failure
        simulation = simulation._replace(walkers=after)
        temperature = record(recording, snapshot, made_of.walkers, after=equilibration)
        phase = "equilibration" if recording.done <= equilibration else "production"
        run.progress.report(phase, recording.done, total, temperature=temperature)
        reason = run.stop.requested() if run.stop is not None else None
        is_over = recording.done >= total  # a signal after this finds all that was sampled in the checkpoint
        if is_over or reason is not None or keeper.is_due(settings.checkpoint_interval_s):
            keeper.keep(simulation, recording)
        if reason is not None and not (is_over and reason.status == ExitStatus.WALLTIME):
            raise reason
    return trajectory_of(simulation, recording, made_of)


simulate.takes_base = True  # type: ignore[attr-defined]  # protocol.sample asks it


class Made(NamedTuple):
    """What a trajectory is made of besides the walkers and what was recorded of them.

    Args:
        parameters: Parameters of the potential.
        walkers: Number of walkers that count; others fill up the devices.
        batch_size: Number of snapshots per device and batch, for the energies; 0 to choose.
    """

    parameters: Parameters
    walkers: int
    batch_size: int


class Keeper:
    """Writes the checkpoints of a run, if it has a folder, and finds the one to go on from.

    Args:
        folder: Folder of the job; None for no checkpoints.
        identity: Digest of the run, which a checkpoint must have too.
    """

    def __init__(self, folder: Path | None, identity: str) -> None:
        self._path = None if folder is None else folder / CHECKPOINT
        self._identity = identity
        self._last = time.monotonic()

    def restored(self, simulation: Simulation) -> tuple[Simulation, Recording]:
        """Go on from the checkpoint, if there is one.

        Args:
            simulation: The run at its start.

        Returns:
            The simulation and the recording of the checkpoint; without one the same simulation, and nothing recorded.
        """
        if self._path is None or not self._path.exists():
            return simulation, Recording()
        found = checkpoints.restore(self._path, self._identity, simulation)
        self._last = time.monotonic()
        return found

    def is_due(self, interval_s: float) -> bool:
        """Whether it is time for the next checkpoint.

        Args:
            interval_s: Time between two checkpoints, s.

        Returns:
            True if the last one is older than that.
        """
        return time.monotonic() - self._last > interval_s

    def keep(self, simulation: Simulation, recording: Recording) -> None:
        """Write a checkpoint."""
        if self._path is not None:
            checkpoints.write(self._path, self._identity, simulation, recording)
            self._last = time.monotonic()


def begin(system: System, parameters: Parameters, start: Start, seed: int) -> Simulation:
    """Put walkers at their start onto the devices, with neighbour lists.

    Args:
        system: The simulated system.
        parameters: Parameters of the potential.
        start: Start of the walkers, with the scales of their cells.
        seed: Seed of velocities and thermostat.

    Returns:
        The run before its first step.

    Raises:
        EngineError: For a start that is refused (:func:`guards.check_start`).
    """
    lists = start_lists(system, start)
    guards.check_start(system, start, parameters, lists)
    devices, walkers = system.devices or jax.device_count(), len(start.positions)
    chosen = np.arange(-(-walkers // devices) * devices) % walkers
    momenta = None
    if start.velocities is not None:
        momenta = (start.velocities * units.TIME_UNIT_IN_FS * system.mass[:, None])[chosen]
    scales = np.ones(walkers) if start.scales is None else start.scales
    listed = jax.tree.map(lambda array: np.asarray(array)[chosen], lists)
    found = dynamics(system, list_capacity(lists))
    return Simulation(
        system, found, found.init(seed, start.positions[chosen], scales[chosen], momenta, parameters, listed)
    )


def start_lists(system: System, start: Start) -> neighbor_list.NeighborList:
    """Neighbour lists of all walkers at their start.

    Args:
        system: The simulated system.
        start: Start of the walkers.

    Returns:
        The lists, with a leading walkers axis.
    """
    scales = np.ones(len(start.positions)) if start.scales is None else start.scales
    positions = jax.device_put(np.asarray(start.positions, np.float64))
    return neighbor_list.build_batch(positions, start.cell, system.list_cutoff / scales)


def list_capacity(lists: neighbor_list.NeighborList) -> neighbor_list.Capacity:
    """Room that neighbour lists should have: some more than the start needs, rounded up to share a compiled program.

    Args:
        lists: Neighbour lists of all walkers at their start.

    Returns:
        Numbers of neighbours of an atom and of atoms in a bin.
    """
    needed, occupancy = np.max(np.asarray(neighbor_list.requirements(lists)), 0).tolist()
    # The number of atoms in a bin fluctuates by its square root, also where the start is a crystal.
    room = occupancy + math.ceil(2 * occupancy**0.5)
    return neighbor_list.Capacity(neighbor_list.rounded(max(4, int(1.15 * needed))), neighbor_list.rounded(room))


def overflowed(simulation: Simulation, after: Walkers) -> Simulation:
    """Go back to before a block whose lists did not hold all neighbours, with lists that would have.

    Args:
        simulation: The run before the block.
        after: The walkers after it, which are void.

    Returns:
        The run before the block, with longer lists.
    """
    return relisted(simulation, simulation.dynamics.capacity.enlarged(after.needed))


def outrun(simulation: Simulation, after: Walkers) -> Simulation:
    """Go back to before a block in which an atom has left its list, with a wider skin.

    Args:
        simulation: The run before the block.
        after: The walkers after it, which are void.

    Returns:
        The run before the block, with a wider skin.

    Raises:
        EngineError: With status TEMPERATURE_OUT_OF_BOUNDS, for atoms that are too fast for any list.
    """
    wider = widened(simulation.system, guards.farthest(after))
    capacity = simulation.dynamics.capacity.scaled((wider.list_cutoff / simulation.system.list_cutoff) ** 3)
    return relisted(simulation._replace(system=wider), capacity)


def relisted(simulation: Simulation, capacity: neighbor_list.Capacity) -> Simulation:
    """Build the neighbour lists of a run anew, for another capacity or skin.

    Args:
        simulation: The run, with the system whose skin the lists are to have.
        capacity: Numbers of neighbours and of atoms in a bin to begin with; they grow where they do not suffice.

    Returns:
        The run with the new lists.
    """
    while True:
        found = dynamics(simulation.system, capacity)
        walkers = found.relist(simulation.walkers)
        if not capacity.exceeded(walkers.needed):
            return simulation._replace(dynamics=found, walkers=walkers)
        capacity = capacity.enlarged(walkers.needed)


def widened(system: System, farthest: float) -> System:
    """Widen the skin of a system to suit how far its atoms move, by half at least.

    Args:
        system: The simulated system.
        farthest: Longest displacement of an atom since its list was built, Å.

    Returns:
        The system with the wider skin.

    Raises:
        EngineError: With status TEMPERATURE_OUT_OF_BOUNDS, naming the displacement, where no skin is wide enough.
    """
    widest = max(2 * system.potential.cutoff, 4 * (system.settings.skin or 0.0))
    if 2 * farthest >= widest:
        raise EngineError(
            ExitStatus.TEMPERATURE_OUT_OF_BOUNDS,
            f"an atom moves {farthest:.2f} Å within few steps of {system.settings.timestep_fs} fs, too fast for any "
            "neighbour list; use a shorter time step (sampling.timestep_fs)",
        )
    skin = min(widest, max(1.5 * system.skin, min(3 * system.skin, 2.5 * farthest)))
    return replace(system, widened=system.widened * skin / system.skin)


def record(recording: Recording, snapshot: Snapshot, walkers: int, *, after: int) -> float:
    """Add a block to what is recorded, unless it belongs to the equilibration.

    Args:
        recording: Snapshots so far.
        snapshot: Snapshots of the block.
        walkers: Number of walkers that count; others fill up the devices.
        after: Number of snapshots of the equilibration.

    Returns:
        Mean temperature of the block, K.
    """
    temperatures = np.asarray(snapshot.temperature, np.float64)[:, :walkers]
    recording.done += len(temperatures)
    if recording.done > after:
        recording.positions.append(np.asarray(snapshot.positions, np.float32)[:, :walkers])
        recording.temperatures.append(temperatures)
        recording.scales.append(np.asarray(snapshot.scale, np.float64)[:, :walkers])
    return float(temperatures.mean())


def trajectory_of(simulation: Simulation, recording: Recording, made_of: Made) -> Trajectory:
    """Make the trajectory of a run: walker by walker, each in the order of time.

    Args:
        simulation: The run at its end.
        recording: Snapshots of the production.
        made_of: Parameters, number of walkers and size of a batch.

    Returns:
        The trajectory, with energies in double precision.
    """
    system, md, walkers = simulation.system, simulation.walkers.md, made_of.walkers
    positions = np.concatenate(recording.positions)
    snapshots = len(positions)
    flat = np.ascontiguousarray(positions.swapaxes(0, 1).reshape(-1, *positions.shape[2:]))
    momentum, mass = np.asarray(md.momentum, np.float64), np.asarray(md.mass, np.float64)
    scales = np.concatenate(recording.scales).T.reshape(-1)
    return Trajectory(
        positions=flat,
        cell=np.asarray(system.cell, np.float64),
        species=system.symbols,
        energies=total_energies(
            system.potential,
            made_of.parameters,
            Coordinates(flat, system.cell, system.symbols, scales),
            made_of.batch_size,
        ),
        walkers=np.repeat(np.arange(walkers, dtype=np.int32), snapshots),
        times=np.tile((np.arange(snapshots) + 1) * system.stride_fs, walkers),
        temperatures=np.concatenate(recording.temperatures).T.reshape(-1),
        last_positions=np.asarray(md.position, np.float64)[:walkers],
        last_velocities=(momentum / mass)[:walkers] / units.TIME_UNIT_IN_FS,
        temperature=system.temperature,
        scales=scales,
        last_scales=np.asarray(scale_of(md), np.float64)[:walkers],
        pressure=None if system.barostat is None else system.pressure,
        masses=system.masses,
    )
