"""What every format of a trajectory is read into: all frames of one run, in the units of this package."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aiida_difftre.engine import units
from aiida_difftre.engine.contract.frames import check_extent, check_thickness, not_periodic

if TYPE_CHECKING:
    from ase import Atoms

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Frames:
    """The frames of one run, in the order of time; what a file does not tell is None.

    Args:
        symbols: Chemical symbol of each atom.
        positions: Positions, (frames, atoms, 3), Å, from the origin of the cell.
        cells: Lattice vectors in rows, (frames, 3, 3), Å.
        numbers: Number of each frame in its file, (frames,).
        energies: Potential energies, (frames,), eV.
        stresses: Stresses without the kinetic part, (frames, 6), GPa, Voigt order xx yy zz yz xz xy, positive in
            tension.
        temperatures: Temperatures of the velocities, (frames,), K.
        times: Times, (frames,), fs.
        masses: Masses, (atoms,), amu; None for the standard atomic weights.
        notes: What was found where, in words, by what it is about.
    """

    symbols: tuple[str, ...]
    positions: Array
    cells: Array
    numbers: NDArray[np.int64]
    energies: Array | None = None
    stresses: Array | None = None
    temperatures: Array | None = None
    times: Array | None = None
    masses: Array | None = None
    notes: tuple[tuple[str, str], ...] = ()

    def noted(self, **notes: str) -> Frames:
        """The same frames with further notes."""
        return replace(self, notes=(*self.notes, *notes.items()))

    def take(self, chosen: NDArray[np.intp] | slice) -> Frames:
        """Some of the frames.

        Args:
            chosen: Which ones.

        Returns:
            These, with everything that belongs to them.
        """
        names = ("positions", "cells", "numbers", "energies", "stresses", "temperatures", "times")
        there = {name: getattr(self, name) for name in names}
        return replace(self, **{name: array[chosen] for name, array in there.items() if array is not None})


def of_atoms(structures: Sequence[Atoms], name: str) -> Frames:
    """Frames of structures of ase: positions, cells, masses and the temperatures of their momenta.

    Args:
        structures: The structures, each with the number of its frame in ``info["frame"]``.
        name: Name of the file, for messages.

    Returns:
        The frames, without energies and stresses.

    Raises:
        ValueError: For frames of different atoms, of another order of atoms, without a cell, or with atoms that are
            held.
    """
    first = structures[0]
    symbols = first.get_chemical_symbols()
    for atoms in structures:
        where = f"frame {atoms.info.get('frame', 0)} of {name}"
        check_same(symbols, atoms.get_chemical_symbols(), where)
        if problem := not_periodic(atoms):
            raise ValueError(f"{where}: {problem}")
        if atoms.constraints:
            held = ", ".join(sorted({type(one).__name__ for one in atoms.constraints}))
            raise ValueError(
                f"{where} has constraints ({held}): atoms that are held sample another ensemble; give a trajectory in "
                "which all atoms move"
            )
    masses = first.get_masses() if first.has("masses") else None
    if masses is not None and any(
        not atoms.has("masses") or np.abs(atoms.get_masses() - masses).max() > 1e-6 for atoms in structures
    ):
        raise ValueError(f"the masses of the atoms change in {name}; give a trajectory of one system")
    has_momenta = all(atoms.has("momenta") and atoms.get_momenta().any() for atoms in structures)
    return Frames(
        symbols=tuple(symbols),
        positions=np.stack([atoms.positions for atoms in structures]),
        cells=np.stack([atoms.cell.array for atoms in structures]),
        numbers=np.array([atoms.info.get("frame", index) for index, atoms in enumerate(structures)]),
        temperatures=np.array([_temperature(atoms) for atoms in structures]) if has_momenta else None,
        masses=masses,
    )


def _temperature(atoms: Any) -> float:
    """Of the momenta of all atoms but the motion of the centre of mass, K."""
    momenta, masses = atoms.get_momenta(), atoms.get_masses()
    velocities = momenta / masses[:, None]
    velocities -= momenta.sum(0) / masses.sum()
    free = 3 * max(1, len(atoms) - 1)
    return float((masses[:, None] * velocities**2).sum() / (free * units.BOLTZMANN))


def check_same(symbols: Sequence[str], other: Sequence[str], where: str) -> None:
    """Refuse a frame whose atoms are not those of the first one, in the same order.

    Args:
        symbols: Symbols of the first frame.
        other: Symbols of the frame.
        where: How messages name it.

    Raises:
        ValueError: naming what differs.
    """
    if list(symbols) == list(other):
        return
    before, after = (Counter(one) for one in (symbols, other))
    if before != after:
        text = [" ".join(f"{symbol}{count}" for symbol, count in sorted(one.items())) for one in (before, after)]
        raise ValueError(f"{where} is of {text[1]}, the first frame of {text[0]}; give a trajectory of one system")
    place = next(index for index, pair in enumerate(zip(symbols, other, strict=True)) if pair[0] != pair[1])
    raise ValueError(
        f"{where} has its atoms in another order: atom {place} is {other[place]}, in the first frame "
        f"{symbols[place]}; sort the atoms of all frames alike, as by their ids"
    )


def check_frames(frames: Frames, name: str) -> None:
    """Refuse positions, cells and energies that nothing simulated has.

    Args:
        frames: The frames.
        name: Name of the file, for messages.

    Raises:
        ValueError: naming the frame and the value.
    """
    for what in ("positions", "cells", "energies", "stresses", "temperatures", "times"):
        array = getattr(frames, what)
        if array is None:
            continue
        good = np.isfinite(array.reshape(len(array), -1)).all(1)
        if not good.all():
            number = frames.numbers[int(np.argmin(good))]
            raise ValueError(f"frame {number} of {name}: its {what} are not finite; leave the frame out")
    check_extent(frames.positions, frames.cells, name)
    widest = int(np.argmin(np.abs(np.linalg.det(frames.cells))))
    check_thickness(frames.cells[widest], f"frame {frames.numbers[widest]} of {name}")
