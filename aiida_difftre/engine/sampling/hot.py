"""Short runs above the temperature of a state point, in which a walker may blow up and the others go on.

A run that samples ends with the first walker that goes bad. Here each is asked for itself: one that has blown up goes
on as a copy of one that has not, which nobody looks at any more, so that the compiled program stays the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from aiida_difftre.engine.bases.callback import Callback
from aiida_difftre.engine.contract.hot import BlowUp, HotRun, HotSettings
from aiida_difftre.engine.contract.sampling_settings import SamplingSettings
from aiida_difftre.engine.contract.trajectories import Trajectory
from aiida_difftre.engine.errors import EngineError, ExitStatus
from aiida_difftre.engine.potentials.potential import Potential
from aiida_difftre.engine.potentials.term import Parameters
from aiida_difftre.engine.sampling import guards
from aiida_difftre.engine.sampling.checkpoints import Simulation
from aiida_difftre.engine.sampling.protocol import Run
from aiida_difftre.engine.sampling.run import begin, outrun, overflowed
from aiida_difftre.engine.sampling.starts import Start
from aiida_difftre.engine.sampling.system import System
from aiida_difftre.engine.sampling.walkers import Snapshot, Walkers
from aiida_difftre.engine.snapshots.snapshots import Coordinates, total_energies

LOOKS = 40
"""Snapshots of a hot run, at least: what happens between two of them is not seen."""

KEPT = 3
"""Snapshots of a walker that blew up that are kept: the last ones in which nothing was wrong."""


class Hot(NamedTuple):
    """What a hot run found.

    Args:
        run: What became of its walkers.
        frames: Structures on the way to where walkers blew up, with where they are from in ``info``.
    """

    run: HotRun
    frames: list[Atoms]


@dataclass
class _Course:
    """What was seen of the walkers, of which those beyond the number that was asked for fill up the devices."""

    stride_fs: float
    alive: NDArray[np.bool_]
    positions: list[NDArray[np.float32]] = field(default_factory=list)
    closest: list[NDArray[np.float64]] = field(default_factory=list)
    temperatures: list[NDArray[np.float64]] = field(default_factory=list)
    blown_up: list[BlowUp] = field(default_factory=list)

    @property
    def done(self) -> int:
        """Number of snapshots of each walker, without the start."""
        return len(self.positions) - 1


def perturbed(trajectory: Trajectory, walkers: int, rattle: float, seed: int) -> Start:
    """Starts of walkers from the last snapshots of a trajectory, displaced at random, in its mean last cell.

    Args:
        trajectory: The trajectory.
        walkers: Number of walkers.
        rattle: Standard deviation of each coordinate, Å.
        seed: Seed of the displacements.

    Returns:
        The starts, whose velocities are to be drawn.
    """
    chosen = np.arange(walkers) % len(trajectory.last_positions)
    cell = trajectory.cell * float(trajectory.last_scales.mean())
    places = trajectory.last_positions[chosen]
    noise = np.random.default_rng(seed).normal(scale=rattle, size=places.shape) if rattle else np.zeros(places.shape)
    return Start(places + noise @ np.linalg.inv(cell), None, cell, trajectory.species, masses=trajectory.masses)


def settings_of(sampling: SamplingSettings, hot: HotSettings) -> SamplingSettings:
    """The settings of a hot run: those of the run before it at constant volume, with snapshots at short times.

    Args:
        sampling: Settings of the run at the state point.
        hot: What is asked for.

    Returns:
        The settings.
    """
    stride = max(sampling.timestep_fs, min(sampling.stride_fs, hot.time_fs / LOOKS))
    changes = {"production_fs": max(hot.time_fs, stride), "equilibration_fs": 0.0, "stride_fs": stride}
    return sampling.model_copy(update={**changes, "walkers": hot.walkers, "barostat": None})


def hot_run(
    model: tuple[Potential, Parameters],
    start: Start,
    temperature: float,
    factor: float,
    settings: SamplingSettings,
    run: Run,
) -> Hot:
    """Run walkers at a temperature until the time is over or all have blown up.

    Args:
        model: Potential and parameters.
        start: Starts of the walkers.
        temperature: Temperature of the run, K.
        factor: That over the temperature of the state point.
        settings: Settings of :func:`settings_of`.
        run: Machine, seed, what may end the run, and the base.

    Returns:
        The run, with its structures.

    Raises:
        EngineError: For a signal or the walltime, and a machine on which nothing can run.
    """
    potential, parameters = model
    system = System(
        potential, start.symbols, start.cell, temperature, settings, run.machine.precision, masses=start.masses
    )
    if run.base is not None:
        called = Callback(run.base, start.symbols, start.cell, needs_virial=False)
        system = replace(system, base=called, base_digest=run.base_digest)
    made = HotRun(
        factor=factor,
        temperature=temperature,
        time_fs=settings.production_fs,
        walkers=len(start.positions),
        blown_up=[],
    )
    try:
        simulation = begin(system, parameters, replace(start, scales=np.ones(len(start.positions))), run.seed)
    except EngineError as error:
        if error.status is not ExitStatus.ATOMS_TOO_CLOSE:
            raise
        made.skipped = error.message
        return Hot(made, [])
    course = _followed(simulation, parameters, made, run)
    made.blown_up = course.blown_up
    held = np.flatnonzero(course.alive[: made.walkers])
    if len(held) and course.done:
        distance = min(float(one[:, held].min()) for one in course.closest)
        made.closest = distance if np.isfinite(distance) else None
        made.hottest = max(float(one[:, held].max()) for one in course.temperatures)
        if run.base is None:
            made.drift = _drift(potential, parameters, start, np.stack(course.positions[1:])[:, held], run)
    return Hot(made, _frames(course, start, made))


def _followed(simulation: Simulation, parameters: Parameters, made: HotRun, run: Run) -> _Course:
    """The walkers until the time is over, or all have blown up."""
    first = np.asarray(simulation.walkers.md.position, np.float32)
    course = _Course(simulation.system.stride_fs, np.ones(len(first), bool), [first])
    total, judged_twice = max(1, simulation.system.snapshots(made.time_fs)), -1
    while course.done < total and course.alive[: made.walkers].any():
        after, snapshot = simulation.dynamics.apply(simulation.walkers, parameters)
        if simulation.dynamics.capacity.exceeded(after.needed):
            simulation = overflowed(simulation, after)
            continue
        wrong = _wrong(simulation.system, snapshot) & course.alive
        if guards.has_outrun(simulation.system, after) and (not wrong.any() or judged_twice < course.done):
            judged_twice = course.done
            try:
                simulation = outrun(simulation, after)
            except EngineError:
                wrong[-1] |= (np.asarray(after.farthest) > simulation.system.skin / 2) & course.alive
            else:
                continue
        _record(course, simulation.system, snapshot, wrong, made)
        simulation = simulation._replace(walkers=_with_copies(after, course.alive))
        run.progress.report("hot", course.done, total, temperature=made.temperature)
        if run.stop is not None and (reason := run.stop.requested()) is not None:
            raise reason
    return course


def _wrong(system: System, snapshot: Snapshot) -> NDArray[np.bool_]:
    """Which snapshots of which walkers are wrong, (snapshots, walkers)."""
    limit = system.temperature * guards.hottest(system.settings.max_temperature_ratio, len(system.symbols))
    wrong = ~np.asarray(snapshot.finite) | ~(np.asarray(snapshot.temperature) <= limit)
    wrong |= np.asarray(snapshot.min_distance) < system.settings.min_distance
    if system.base is not None and system.base.failure_within(system.settings.min_distance) is not None:
        wrong |= True  # a base is called for all walkers at once, and does not say for which it failed
    return wrong


def _record(course: _Course, system: System, snapshot: Snapshot, wrong: NDArray[np.bool_], made: HotRun) -> None:
    """Add a block to the course; walkers that blew up in it are not alive any more."""
    temperatures, distances = (np.asarray(one, np.float64) for one in (snapshot.temperature, snapshot.min_distance))
    for walker in np.flatnonzero(wrong.any(0)):
        index = int(np.argmax(wrong[:, walker]))
        course.alive[walker] = False
        if walker >= made.walkers:
            continue
        temperature, distance = float(temperatures[index, walker]), float(distances[index, walker])
        if not np.asarray(snapshot.finite)[index, walker]:
            reason = "positions or forces are not finite"
        elif distance < system.settings.min_distance:
            reason = f"two atoms {distance:.3g} Å apart (limit {system.settings.min_distance:g} Å)"
        else:
            reason = f"{temperature:.4g} K, or atoms too fast for a time step of {system.settings.timestep_fs:g} fs"
        course.blown_up.append(
            BlowUp(
                walker=int(walker),
                time_fs=(course.done + index + 1) * course.stride_fs,
                reason=reason,
                closest=distance if np.isfinite(distance) else None,
                temperature=temperature if np.isfinite(temperature) else None,
            )
        )
    course.positions += list(np.asarray(snapshot.positions, np.float32))
    course.closest.append(distances)
    course.temperatures.append(temperatures)


def _with_copies(walkers: Walkers, alive: NDArray[np.bool_]) -> Walkers:
    """Walkers in which a copy of one that is alive stands for each that is not."""
    if alive.all() or not alive.any():
        return walkers
    index = np.where(alive, np.arange(len(alive)), np.argmax(alive))

    def chosen(leaf: Any) -> Any:
        return jax.device_put(leaf[index], leaf.sharding)

    parts = ("md", "lists", "built", "built_scale", "farthest")
    return walkers._replace(**{name: jax.tree.map(chosen, getattr(walkers, name)) for name in parts})


def _drift(
    potential: Potential, parameters: Parameters, start: Start, positions: NDArray[np.float32], run: Run
) -> float | None:
    """Mean energy of the last quarter less that of the one before, eV/atom, of (snapshots, walkers, atoms, 3)."""
    quarter = len(positions) // 4
    if not quarter:
        return None
    late = positions[-2 * quarter :]
    flat = np.ascontiguousarray(late.reshape(-1, *late.shape[2:]))
    found = total_energies(
        potential,
        parameters,
        Coordinates(flat, start.cell, start.symbols, np.ones(len(flat))),
        run.machine.batch_size,
    ).reshape(2, -1)
    return float((found[1].mean() - found[0].mean()) / len(start.symbols))


def _frames(course: _Course, start: Start, made: HotRun) -> list[Atoms]:
    """The last snapshots of each walker that blew up before something was wrong with it."""
    frames = []
    for one in course.blown_up:
        last = round(one.time_fs / course.stride_fs) - 1
        for number in range(max(0, last + 1 - KEPT), last + 1):
            where = {"temperature": made.temperature, "walker": one.walker, "time_fs": number * course.stride_fs}
            places = course.positions[number][one.walker].astype(np.float64)
            atoms = Atoms(start.symbols, scaled_positions=places, cell=start.cell, pbc=True, info=where)
            atoms.wrap()
            frames.append(atoms)
    return frames
