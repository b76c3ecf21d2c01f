"""What a run must fulfil: before it starts, and whenever snapshots are recorded."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from aiida_difftre.engine.contract.jobs import BarostatSpec
from aiida_difftre.engine.errors import EngineError, ExitStatus
from aiida_difftre.engine.geometry import neighbor_list
from aiida_difftre.engine.potentials.term import Parameters
from aiida_difftre.engine.runtime import device
from aiida_difftre.engine.sampling.starts import Start
from aiida_difftre.engine.sampling.system import System
from aiida_difftre.engine.sampling.walkers import Snapshot, Walkers
from aiida_difftre.engine.snapshots.snapshots import environment


def check_start(system: System, start: Start, parameters: Parameters, lists: neighbor_list.NeighborList) -> None:
    """Refuse a start whose atoms overlap, and a JAX that miscompiles, before the run.

    Args:
        system: The system that will be simulated.
        start: Start of its walkers.
        parameters: Parameters of its potential.
        lists: Neighbour lists of the walkers at their start.

    Raises:
        EngineError: Naming the distance, or the difference of energies.
    """
    if system.barostat is not None and system.potential.has_external:
        raise EngineError(
            ExitStatus.INVALID_INPUT,
            f"the potential has an external field, which holds the cell: it cannot be sampled at {system.pressure:g} "
            "GPa; leave out the pressure of the state point or sampling.barostat",
        )
    scale = 1.0 if start.scales is None else start.scales[0]
    surroundings = environment(
        system.potential, start.positions[0], scale * start.cell, start.symbols, system.precision, lists
    )
    squared = np.where(surroundings.mask, np.sum(np.asarray(surroundings.displacements) ** 2, -1), np.inf)
    distance = float(np.sqrt(squared.min()))
    if distance < system.settings.min_distance:
        raise EngineError(
            ExitStatus.ATOMS_TOO_CLOSE,
            f"two atoms of the starting structure are {distance:.3f} Å apart; the limit (sampling.min_distance) is "
            f"{system.settings.min_distance} Å",
        )
    device.self_check(system.potential, parameters, surroundings, system.precision)


def failure(system: System, snapshot: Snapshot, walkers: int, done: int) -> EngineError | None:
    """Look for what is wrong with a run: numbers that are not finite, atoms too close, too hot, a volume out of bounds.

    Args:
        system: The simulated system.
        snapshot: The snapshots that were recorded last.
        walkers: Number of walkers that count; others fill up the devices.
        done: Number of snapshots of a walker before these.

    Returns:
        The error that ends the run; None where nothing is wrong.
    """
    if system.base is not None and (of_base := system.base.failure_within(system.settings.min_distance)) is not None:
        return of_base
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


def farthest(walkers: Walkers) -> float:
    """Longest displacement of an atom since its list was built, at any step so far.

    Args:
        walkers: All walkers.

    Returns:
        The displacement, Å.
    """
    return float(np.max(np.asarray(walkers.farthest)))


def has_outrun(system: System, walkers: Walkers) -> bool:
    """Whether an atom has moved beyond half the skin in one list, so that neighbours may have been missed.

    Args:
        system: The simulated system.
        walkers: All walkers.

    Returns:
        True if so; never for a potential without neighbours.
    """
    return system.potential.has_neighbors and farthest(walkers) > system.skin / 2


def hottest(ratio: float, atoms: int) -> float:
    """Largest ratio of the instantaneous to the target temperature; a run stops beyond it.

    The relative standard deviation of the instantaneous temperature is sqrt(2/3N): six of them are allowed on top of
    the ratio. Of a few atoms the distribution has a long tail: a chi² variable with k degrees of freedom exceeds
    k + 2 sqrt(k x) + 2 x with a probability of at most exp(-x) (Laurent & Massart, Ann. Statist. 28, 1302 (2000)).

    Args:
        ratio: Ratio that no sane run exceeds on average.
        atoms: Number of atoms.

    Returns:
        The ratio at which a run stops.
    """
    k, x = 3 * atoms, 30.0
    return float(max(ratio + 6 * np.sqrt(2 / k), 1 + 2 * np.sqrt(x / k) + 2 * x / k))


def bounded(ratios: NDArray[np.float64], barostat: BarostatSpec) -> bool:
    """Whether the volumes of all walkers are within the bounds of a barostat.

    Args:
        ratios: Volumes over that of the starting structure.
        barostat: The barostat, with its largest ratio.

    Returns:
        True if no volume is larger than that ratio or smaller than its inverse.
    """
    return bool(np.max(abs(np.log(ratios))) <= np.log(barostat.max_volume_ratio))
