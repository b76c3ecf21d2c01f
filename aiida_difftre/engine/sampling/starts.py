"""Where walkers start: a structure, or the last snapshots of an earlier trajectory."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from numpy.typing import NDArray

from aiida_difftre.engine.contract import frames
from aiida_difftre.engine.contract.sampling_settings import SamplingSettings
from aiida_difftre.engine.contract.trajectories import Trajectory
from aiida_difftre.engine.errors import EngineError, ExitStatus
from aiida_difftre.engine.runtime import device

PLAIN_HEADER = re.compile(r'Lattice="([^"]+)" Properties=species:S:1:pos:R:3(:masses:R:1)? pbc="T T T"')
"""Of a structure as ase writes it where there is nothing but cell, species, positions and masses."""


@dataclass(frozen=True)
class Start:
    """Where walkers start: positions, and velocities where they are known.

    Args:
        positions: Fractional coordinates, (walkers, atoms, 3).
        velocities: Velocities, (walkers, atoms, 3), Å/fs; None to draw them from the Maxwell-Boltzmann distribution.
        cell: Lattice vectors in rows, (3, 3), Å.
        symbols: Chemical symbol of each atom.
        scales: Factor by which the cell of each walker is larger than ``cell``, (walkers,); None for ones.
        masses: Masses of the atoms, (atoms,), amu; None for the standard atomic weights.

    Example:
        >>> import numpy as np
        >>> from aiida_difftre.engine.sampling.starts import Start
        >>> Start(np.zeros((8, 1, 3)), None, 4.0 * np.eye(3), ("Ar",)).positions.shape  # eight walkers
        (8, 1, 3)
    """

    positions: NDArray[np.float64]
    velocities: NDArray[np.float64] | None
    cell: NDArray[np.float64]
    symbols: tuple[str, ...]
    scales: NDArray[np.float64] | None = None
    masses: NDArray[np.float64] | None = None


def read_structure(path: Path) -> Start:
    """Read one frame as the start of a single walker, with its column ``masses`` (amu) if there is one.

    Raises:
        EngineError: For a file that is no structure, one without a periodic cell, or a mass that is not positive.
    """
    atoms = _read_plain(path) or _read_any(path)
    if problem := frames.not_periodic(atoms):
        raise EngineError(ExitStatus.INVALID_INPUT, f"{path.name}: {problem}")
    positions = atoms.get_scaled_positions(wrap=False)[None]
    if not np.isfinite(positions).all():
        atom = int(np.argmin(np.isfinite(positions[0]).all(-1)))
        raise EngineError(
            ExitStatus.INVALID_INPUT,
            f"the position of atom {atom} in {path.name} is {atoms.positions[atom].tolist()}; give finite numbers",
        )
    try:
        frames.check_extent(atoms.positions, atoms.cell.array, path.name)
        frames.check_thickness(atoms.cell.array, path.name)
    except ValueError as error:
        raise EngineError(ExitStatus.INVALID_INPUT, str(error)) from None
    masses = atoms.get_masses() if atoms.has("masses") else None
    if masses is not None and not (np.isfinite(masses) & (masses > 0)).all():
        atom = int(np.argmin(np.where(np.isfinite(masses), masses, -np.inf)))
        raise EngineError(
            ExitStatus.INVALID_INPUT,
            f"the mass of atom {atom} in {path.name} is {masses[atom]} amu; give a positive one, or leave out the "
            "column for the standard atomic weights",
        )
    return Start(positions, None, np.array(atoms.cell), tuple(atoms.get_chemical_symbols()), masses=masses)


def _read_plain(path: Path) -> Atoms | None:
    """Read the structure of a job that AiiDA wrote, at a tenth of the cost of importing ``ase.io``; None for others."""
    try:
        number, header, *lines = path.read_text().splitlines()
        found = PLAIN_HEADER.fullmatch(header.strip())
        if found is None or int(number) != len(lines):
            return None
        cell = np.array(found[1].split(), float).reshape(3, 3)
        rows = [line.split() for line in lines]
        symbols = [row[0] for row in rows]
        numbers = np.array([row[1:] for row in rows], float)
    except (OSError, ValueError, IndexError):
        return None
    if numbers.shape[1:] != ((4,) if found[2] else (3,)) or any(symbol not in atomic_numbers for symbol in symbols):
        return None
    return Atoms(symbols, numbers[:, :3], cell=cell, pbc=True, masses=numbers[:, 3] if found[2] else None)


def _read_any(path: Path) -> Atoms:
    try:
        return frames.read_frame(path)
    except ValueError as error:
        raise EngineError(ExitStatus.INVALID_INPUT, str(error)) from None


def start_on_device(
    settings: SamplingSettings, structure: Start, previous: Trajectory | None
) -> tuple[Start, SamplingSettings]:
    """As many walkers as the settings ask for or the device takes, and the settings with the time of each."""
    running = None if previous is None else len(previous.last_positions)
    walkers, shared = settings.on_device(len(structure.symbols), gpu=device.has_gpu(), running=running)
    return start_walkers(walkers, structure, previous), shared


def start_walkers(walkers: int, structure: Start, previous: Trajectory | None) -> Start:
    """Walkers from a structure, or from the last snapshots of an earlier trajectory of the same system.

    The cell is that of the structure; at constant pressure walkers go on in the volumes that they had. Where no
    velocities are known, all zero, walkers start from snapshots along the trajectory and draw them.

    Raises:
        EngineError: When the earlier trajectory is of another system.
    """
    if previous is None:
        return replace(structure, positions=structure.positions.repeat(walkers, 0))
    if previous.species != structure.symbols:
        raise EngineError(
            ExitStatus.INVALID_INPUT,
            f"the trajectory to start from has {len(previous.species)} atoms ({sorted(set(previous.species))}), the "
            f"structure {len(structure.symbols)} ({sorted(set(structure.symbols))}), or another order of atoms",
        )
    ratio = (np.linalg.det(previous.cell) / np.linalg.det(structure.cell)) ** (1 / 3)
    if not previous.last_velocities.any():
        # Of another program: no velocities are known, and all its snapshots are places to start from.
        spread = np.linspace(0, len(previous.positions) - 1, walkers + 1)[1:].round().astype(int)
        positions = previous.positions[spread].astype(np.float64)
        return replace(structure, positions=positions, velocities=None, scales=ratio * previous.scales[spread])
    chosen = np.arange(walkers) % len(previous.last_positions)
    # More walkers than before: copies of one walker must part, so they draw new velocities.
    velocities = previous.last_velocities[chosen] if walkers <= len(previous.last_positions) else None
    scales = ratio * previous.last_scales[chosen]
    return replace(structure, positions=previous.last_positions[chosen], velocities=velocities, scales=scales)
