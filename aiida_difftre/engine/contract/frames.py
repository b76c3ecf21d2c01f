"""Frames of structure files: which are meant (``md.extxyz@::5``), and one clear error for all that ase cannot read."""

from __future__ import annotations

import io
import itertools
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import ArrayLike

from aiida_difftre.engine.contract import structure_files
from aiida_difftre.engine.contract.documents import check_regular
from aiida_difftre.engine.errors import shown

if TYPE_CHECKING:
    from ase import Atoms

INDEX = re.compile(r"(.+)@(-?\d+|(?:-?\d+)?:(?:-?\d+)?(?::(?:-?\d+)?)?)")
"""A file name with the frames that are meant, as ase writes it."""

EXTENDED_XYZ = (".xyz", ".extxyz")

SMALLEST_VOLUME = 1e-3
"""Å³, of a periodic cell."""

THINNEST = 0.4
"""Å, between opposite faces of a periodic cell: no atom is as near to its images, and a cutoff would hold millions."""

LONGEST_VECTOR = 1e4
"""Å, of a cell; no simulation reaches a micrometre."""

FARTHEST = 1e6
"""Å, of an atom from the origin: unwrapped trajectories drift by some thousand; beyond, float32 knows no Å."""

SAME_PLACE = 1e-3
"""Å; two atoms as near have no finite energy."""

GZIP = b"\x1f\x8b"
MARK = b"\xef\xbb\xbf"
"""At the beginning of text, as editors of Windows write it."""

UNIT_KEY = re.compile(r"(?:.*[_\-. ])?units?|units[_\-. ].*", re.IGNORECASE)
"""Names under which a header states units: ``units``, ``energy_unit``, ``units_length``."""

OTHER_QUANTITIES = {
    "time", "timestep", "velocity", "velocities", "momentum", "momenta", "mass", "masses", "temperature", "charge",
    "charges", "dipole", "magmom", "magmoms", "formula",
}  # fmt: skip
"""Whose units matter to nothing that is read from a frame."""

OWN_UNITS = {"ev", "a", "å", "ang", "angstrom", "angstroms", "ångström", "ångstrom", "per", "atom", "and"}
"""Words for the units in which frames are read."""

MOST_COLUMNS = 1000
"""Of the line of an atom; more are a damaged header, whose columns ase would count one by one."""

STRAIN_KEYS = re.compile(rb"(?<!\w)(stress|virial)(?=\s*=)")
_QUOTED = re.compile(rb"\"[^\"]*\"|'[^']*'|\{[^}]*\}")
_KEY = re.compile(rb"(?<!\S)([^\s=\"]+)\s*=")

RENAMED = "given_"
"""Prefix of ``stress`` and ``virial`` in a header: ase itself takes nine components alone, not six."""


@dataclass(frozen=True)
class _Place:
    """Where a frame lies in an extended XYZ file."""

    offset: int
    size: int
    line: int


def split_index(path: Path) -> tuple[Path, str | None]:
    """A path and the frames that are meant; ``md.extxyz@::5`` is every fifth frame of ``md.extxyz``.

    A file whose name is the whole wins, so that no file becomes unreachable.
    """
    found = INDEX.fullmatch(path.name)
    if found is None or os.path.exists(path):
        return path, None
    return path.with_name(found[1]), found[2]


def read_frames(path: Path, *, kind: str | None = None) -> list[Atoms]:
    """The frames of a file: all of them, or those of the index behind its name.

    Args:
        path: A file that ase reads, with an index or without: ``md.extxyz``, ``md.extxyz@-1``, ``md.extxyz@::5``.
        kind: name of ase's format; by default that of the file's name or content.

    Returns:
        At least one structure, each with finite positions and cell; its number in the file is ``info["frame"]``.

    Raises:
        ValueError: naming file, frame and value.
    """
    path, index = split_index(path)
    check_regular(path)
    kind = kind or _kind(path)
    numbered = _read_extended(path, index) if kind in ("extxyz", "xyz") else _read_other(path, index, kind)
    for number, atoms in numbered:
        _check_atoms(atoms, f"frame {number} of {path.name}")
        atoms.info["frame"] = number
    return [atoms for _, atoms in numbered]


def read_frame(path: Path, *, kind: str | None = None) -> Atoms:
    """The one structure of a file; a file of several frames needs an index behind its name.

    Args:
        path: The same as in :func:`read_frames`.
        kind: The same as in :func:`read_frames`.

    Returns:
        The structure.

    Raises:
        ValueError: naming file, frame and value.
    """
    frames = read_frames(path, kind=kind)
    if len(frames) > 1:
        raise ValueError(
            f"{path.name} gives {len(frames)} frames where one structure is needed; say which: "
            f"{split_index(path)[0].name}@-1 for the last, @0 for the first"
        )
    atoms = frames[0]
    atoms.info = {key: value for key, value in atoms.info.items() if key != "frame" and not key.startswith(RENAMED)}
    return atoms


def not_periodic(atoms: Atoms) -> str | None:
    """Why a structure cannot be simulated, which takes a cell that is periodic in three directions; None if it can."""
    if atoms.cell.rank == 3 and atoms.pbc.all():
        return None
    what = f"pbc {atoms.pbc.tolist()}" if atoms.cell.rank == 3 else "no three-dimensional cell"
    return (
        f"it has {what}, and what is simulated is periodic in three directions; put a molecule or a slab into a "
        "box with vacuum around it, larger than the cutoff (in an input: system.vacuum; in ase: "
        "atoms.center(vacuum=10.0); atoms.pbc = True)"
    )


def chosen_numbers(count: int, index: str | None, name: str) -> range:
    """Numbers of the frames that an index means.

    Args:
        count: Number of frames of the file.
        index: Index behind its name, such as ``::5``; None for all.
        name: Name of the file, for messages.

    Returns:
        The numbers, at least one.

    Raises:
        ValueError: For an index that means none.
    """
    if index is None:
        return range(count)
    if ":" not in index:
        number = int(index)
        if not -count <= number < count:
            raise ValueError(f"{name}@{index}: the file has {count} frames, numbered from 0 to {count - 1}")
        return range(number % count, number % count + 1)
    step = [int(part) if part else None for part in index.split(":")]
    if step[2:] == [0]:
        raise ValueError(f"{name}@{index}: a step of 0 never ends; give a number above 0")
    found = range(count)[slice(*step)]
    if not found:
        raise ValueError(f"{name}@{index} means none of its {count} frames")
    return found


def _read_extended(path: Path, index: str | None) -> list[tuple[int, Atoms]]:
    """Frames of extended XYZ, read one by one, so that an error names its frame, and only those that are meant."""
    with path.open("rb") as stream:
        places = list(_places(stream, path.name))
        if not places:
            raise ValueError(f"{path.name} holds no frame")
        found = []
        for number in chosen_numbers(len(places), index, path.name):
            stream.seek(places[number].offset)
            content = stream.read(places[number].size)
            found.append((number, _parsed(content, f"frame {number} of {path.name} (line {places[number].line})")))
    return found


def _places(stream: BinaryIO, name: str) -> Iterator[_Place]:
    """Where each frame begins and how long it is; counts are believed only as far as there are lines.

    Raises:
        ValueError: naming frame, line and value.
    """
    offset, line, number = 0, 1, 0
    for first in (texts := iter(stream.readline, b"")):
        if not first.strip():  # between frames or at the end; ase would take it for the end
            offset, line = offset + len(first), line + 1
            continue
        where = f"frame {number} of {name} (line {line})"
        if first.startswith(GZIP):
            raise ValueError(f"{name} is compressed; unpack it")
        if first[:4] == b"VEC1":
            raise ValueError(f"{where}: cell vectors in lines VEC1 to VEC3 are not read; give a Lattice in the header")
        try:
            count = int(first.removeprefix(MARK))
        except ValueError:
            shown = first[:40].decode(errors="replace").strip()
            raise ValueError(f"{where} begins with {shown!r} where the number of its atoms belongs") from None
        if count < 1:
            raise ValueError(f"{where} has {count} atoms; at least one is needed")
        header = next(texts, None)
        if header is None:
            raise ValueError(f"{where} ends after its number of atoms, {count}: the file is cut")
        _check_header(header, where)
        size, there = len(first) + len(header), 0
        for text in itertools.islice(texts, min(count, sys.maxsize)):
            size, there = size + len(text), there + 1
        if there < count:
            raise ValueError(f"{where} has {there} lines of atoms where {count} are announced: the file is cut")
        yield _Place(offset, size, line)
        offset, line, number = offset + size, line + count + 2, number + 1


def _check_header(header: bytes, where: str) -> None:
    _check_repeated(header, where)
    found = re.search(rb"Properties\s*=\s*\"?([^\s\"]+)", header)
    if found is None:
        return
    parts = found[1].split(b":")
    columns = [int(part) for part in parts[2::3] if part.isdigit() and len(part) < 12]
    if sum(columns) > MOST_COLUMNS:
        raise ValueError(f"{where}: its header announces {sum(columns)} columns; at most {MOST_COLUMNS} are read")
    if not {b"pos", b"positions"} & set(parts[::3]):
        raise ValueError(f"{where}: its header announces no column of positions; name it in Properties, as pos:R:3")


def _check_repeated(header: bytes, where: str) -> None:
    """Refuse a key that stands twice: ase takes the last, whatever the first says."""
    counts = Counter(_KEY.findall(_QUOTED.sub(b'""', header)))
    for key, count in counts.items():
        if count > 1:
            raise ValueError(
                f"{where}: its header gives {key.decode(errors='replace')} {count} times; remove all but one"
            )


def _parsed(content: bytes, where: str) -> Atoms:
    from ase.io.extxyz import read_xyz  # late, with SciPy behind it

    first, header, rest = content.removeprefix(MARK).split(b"\n", 2)
    header = STRAIN_KEYS.sub(rb"%s\1" % RENAMED.encode(), header)
    try:
        text = b"\n".join((first, header, rest)).decode()
        text, names = structure_files.plain_frame(text)
        atoms: Atoms = next(read_xyz(io.StringIO(text), index=0))
        structure_files.give_masses(atoms, names)
        structure_files.check_occupied(atoms)
    except UnicodeDecodeError as error:
        raise ValueError(f"{where} is no text in UTF-8: it has a byte {error.object[error.start]:#x}") from None
    except Exception as error:  # ase raises whatever its parsing meets
        raise ValueError(f"{where} cannot be read: {_reason(error)}") from None
    return atoms


def _kind(path: Path) -> str:
    """The name of ase's format, by the name of the file or else its content."""
    if path.suffix.lower() in EXTENDED_XYZ:
        return "extxyz"
    from ase.io.formats import filetype  # as late

    try:
        return str(filetype(str(path)))
    except Exception as error:  # ase looks into the file, and raises whatever it meets
        raise ValueError(f"{path.name} is no structure file that ase reads: {_reason(error)}") from None


def _read_other(path: Path, index: str | None, kind: str) -> list[tuple[int, Atoms]]:
    try:
        frames = structure_files.read(path, kind=kind)
    except Exception as error:  # ase's many readers raise whatever they meet
        raise ValueError(f"{path.name} is no structure file that ase reads: {_reason(error)}") from None
    if not frames:
        raise ValueError(f"{path.name} holds no frame")
    return [(number, frames[number]) for number in chosen_numbers(len(frames), index, path.name)]


def _reason(error: Exception) -> str:
    """One line of what a reader says; the kind of the error where it says nothing."""
    said = " ".join(str(error).split())[:200]
    return said if isinstance(error, ValueError | OSError) and said else f"{type(error).__name__} {said}".strip()


def _check_atoms(atoms: Atoms, where: str) -> None:
    if not len(atoms):
        raise ValueError(f"{where} has no atoms")
    positions, cell = np.asarray(atoms.positions), np.asarray(atoms.cell)
    if positions.shape != (len(atoms), 3) or positions.dtype.kind != "f":
        raise ValueError(f"{where}: its positions are no three numbers for each atom")
    if not np.isfinite(positions).all():
        atom = int(np.argmin(np.isfinite(positions).all(axis=1)))
        raise ValueError(f"{where}: the position of atom {atom} is {positions[atom].tolist()}, which is not finite")
    if not np.isfinite(cell).all():
        raise ValueError(f"{where}: its cell is {cell.tolist()}, which is not finite")
    check_extent(positions, cell, where)
    check_units(atoms, where)
    if (atoms.numbers == 0).any():
        raise ValueError(f"{where}: atom {int(np.argmin(atoms.numbers))} is of no element")
    if atoms.cell.rank < 3:
        for key in atoms.info:
            if key.lower() in ("lattice", "cell"):
                raise ValueError(f"{where}: its cell is not read from {key!r}; name it Lattice, nine numbers in Å")
    for vector, periodic in zip(cell, atoms.pbc, strict=True):
        if periodic and not vector.any():
            raise ValueError(
                f"{where} is periodic (pbc {atoms.pbc.tolist()}) along a cell vector of length 0; give a Lattice, or "
                'pbc="F F F" for atoms in free space'
            )
    if atoms.pbc.all():
        check_thickness(cell, where)


def check_units(atoms: Atoms, where: str) -> None:
    """Refuse a frame that states other units than those in which it is read.

    Args:
        atoms: The frame; what its header says is in ``info``.
        where: How messages name it.

    Raises:
        ValueError: naming the key and the unit.
    """
    for key, stated in atoms.info.items():
        if not isinstance(stated, str | dict) or not UNIT_KEY.fullmatch(str(key)):
            continue
        if OTHER_QUANTITIES & set(re.split(r"[_\-. ]", str(key).lower())):
            continue
        units = stated.values() if isinstance(stated, dict) else [stated]
        words = {word for unit in units for word in re.findall(r"[^\W\d_]+", str(unit).lower())}
        if not words <= OWN_UNITS:
            raise ValueError(
                f"{where}: its header says {key}={shown(stated)}; frames are read in eV and Å: convert the values and "
                "say eV and angstrom there, or remove the key if they are in these"
            )


def check_extent(positions: ArrayLike, cell: ArrayLike, where: str) -> None:
    """Refuse lengths that no simulation has.

    Args:
        positions: Positions of the atoms, (atoms, 3), Å.
        cell: Lattice vectors in rows, (3, 3), Å.
        where: How messages name the structure.

    Raises:
        ValueError: naming the length and the largest one.
    """
    if (far := np.abs(positions).max()) > FARTHEST:
        raise ValueError(
            f"{where}: an atom is {far:g} Å from the origin; at most {FARTHEST:g} Å: see the unit, or wrap"
        )
    if (long := np.abs(cell).max()) > LONGEST_VECTOR:
        raise ValueError(f"{where}: its cell is {long:g} Å long; at most {LONGEST_VECTOR:g} Å are simulated")


def check_places(atoms: Atoms, where: str) -> None:
    """Refuse two atoms at one place, periodic images included.

    Args:
        atoms: The structure.
        where: How messages name it.

    Raises:
        ValueError: naming both atoms and their distance.
    """
    from scipy.spatial import cKDTree  # late, as all of SciPy

    cell, periodic = np.asarray(atoms.cell.complete()), np.asarray(atoms.pbc)
    inverse = np.linalg.inv(cell)
    fractional = np.asarray(atoms.positions) @ inverse
    wrapped = np.where(periodic, fractional - np.floor(fractional), fractional)
    wrapped[:, periodic] %= 1.0  # a tiny negative number wraps to 1 itself
    tree = cKDTree(wrapped, boxsize=np.where(periodic, 1.0, 0.0))
    for first, second in tree.query_pairs(SAME_PLACE * np.linalg.norm(inverse, 2), output_type="ndarray"):
        apart = wrapped[first] - wrapped[second]
        distance = np.linalg.norm(np.where(periodic, apart - np.rint(apart), apart) @ cell)
        if distance < SAME_PLACE:
            symbols = f"{atoms.symbols[first]} and {atoms.symbols[second]}"
            raise ValueError(
                f"{where}: atoms {first} and {second} ({symbols}) are at one place, {distance:.2g} Å apart, where no "
                "energy is finite; remove one of them, or the frame"
            )


def check_thickness(cell: ArrayLike, where: str) -> None:
    """Refuse a periodic cell in which each atom has images without number within a cutoff.

    Args:
        cell: Lattice vectors in rows, (3, 3), Å.
        where: How messages name the structure.

    Raises:
        ValueError: naming the volume or the thickness.
    """
    vectors = np.asarray(cell, np.float64)
    volume = abs(np.linalg.det(vectors))
    if volume < SMALLEST_VOLUME:
        raise ValueError(f"{where}: its cell has a volume of {volume:g} Å³")
    if (thin := 1 / np.linalg.norm(np.linalg.inv(vectors), axis=0).max()) < THINNEST:
        raise ValueError(
            f"{where}: its cell is {thin:.3g} Å thick; at least {THINNEST:g} Å: see the unit, and that no cell vector "
            "nearly follows from the others"
        )
