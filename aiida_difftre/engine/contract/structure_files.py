"""Structure files as atoms that can be simulated: isotopes by name, and no site that is occupied in part. Free of JAX.

``D`` in a POSCAR, an extended XYZ file or a CIF is hydrogen with the mass of deuterium, and so are other isotopes by
their names. A site that two species share, or that is empty in part, has no place among whole atoms: ase takes the
species with the larger share, which would be another material.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aiida_difftre.engine.contract import isotopes
from aiida_difftre.engine.contract.bounds import MOST_ATOMS
from aiida_difftre.engine.errors import shown

if TYPE_CHECKING:
    from ase import Atoms

FULL = 1e-3
"""By which an occupancy may differ from 1."""

LINES_OF_HEADERS = 12
"""In which formats with counts of atoms have them."""

SAME_SITE = 1e-3
"""Of fractional coordinates."""

TOO_CLOSE = 0.4
"""Å; atoms that are closer are two descriptions of one."""

WHOLE_ATOMS = "a simulation needs whole atoms: make an ordered cell, such as a supercell with the sites drawn at random"

_OCCUPANCIES = ("occupancy", "occupancies", "occ")
_SPECIES = re.compile(r'Properties\s*=\s*"?([^"\s]+)')
_TYPE, _LABEL, _OCCUPANCY, _GROUP = (
    f"_atom_site_{name}" for name in ("type_symbol", "label", "occupancy", "disorder_group")
)
_RES_ATOM = re.compile(r"\s*([A-Za-z]\w*)\s+\d+(?:\s+[-+.\d]+){3}\s+([-+.\d]+)")


def read(path: Path, *, kind: str | None = None) -> list[Atoms]:
    """All structures of a file that is no (extended) XYZ; those are read frame by frame, see ``frames``.

    Args:
        path: A file that ase reads.
        kind: name of ase's format; by default that of the file's name or content.

    Returns:
        The structures.

    Raises:
        ValueError: naming the site and its occupancy, the isotope or the mass; what ase's readers raise, besides.
    """
    import ase.io  # late, with SciPy behind it
    from ase.io.formats import filetype

    kind = kind or filetype(str(path))
    frames: Any = None
    if kind == "cif":
        frames = _read_cif(path)
    elif kind == "vasp":
        _check_counts(path)
        frames = _isotopic_poscar(path.read_text())
    elif kind in ("gen", "gromacs", "gromos", "xsf", "cube"):
        _check_counts(path)
    elif kind.startswith("lammps"):
        _check_lammps(path, kind)
    elif kind == "res":
        _check_res(path.read_text())
    if frames is None:
        frames = ase.io.read(path, index=":", format=kind, do_not_split_by_at_sign=True)
    frames = frames if isinstance(frames, list) else [frames]
    for atoms in frames:
        check_occupied(atoms)
    return frames


def plain_frame(text: str) -> tuple[str, list[str]]:
    """One frame of (extended) XYZ with chemical symbols in place of isotopes.

    Args:
        text: Text of the frame.

    Returns:
        The frame, and the name of each atom as it stood there; no names where there was no isotope.
    """
    lines = text.splitlines()
    found = _SPECIES.search(lines[1]) if len(lines) > 1 else None
    column = _column(found[1]) if found is not None else 0
    names = [words[column] if len(words := line.split()) > column else "" for line in lines[2:]]
    plain = [_plain(name) for name in names]
    if plain == names:
        return text, []
    for index, (name, symbol) in enumerate(zip(names, plain, strict=True)):
        if name != symbol:
            words = lines[index + 2].split()
            lines[index + 2] = " ".join([*words[:column], symbol, *words[column + 1 :]])
    return "\n".join([*lines, ""]), [name for name in names if name]


def give_masses(atoms: Atoms, names: Sequence[str]) -> None:
    """Give atoms the masses of the isotopes that they are called.

    Args:
        atoms: whose masses are changed.
        names: Names of each atom; a bare symbol leaves its mass as it is.

    Raises:
        ValueError: where the file has another mass for an isotope.
    """
    if not names:
        return
    if len(names) != len(atoms):
        raise ValueError(f"{len(names)} names of species are given for {len(atoms)} atoms")
    masses, stated = atoms.get_masses(), atoms.has("masses")
    for index, name in enumerate(names):
        if _plain(name) == name:
            continue
        mass = isotopes.mass(name)
        if stated and abs(masses[index] - mass) > isotopes.NEAR_MASS:
            raise ValueError(
                f"atom {index} is {name}, of {mass:.4f} u, and its mass is {masses[index]:g} u; leave out one of both"
            )
        masses[index] = masses[index] if stated else mass
    atoms.set_masses(masses)


def check_occupied(atoms: Atoms) -> None:
    """Refuse a structure whose reader kept occupancies that are not 1.

    Raises:
        ValueError: naming the site and its occupancies.
    """
    for kind, shares in (atoms.info.get("occupancy") or {}).items():
        if any(abs(float(share) - 1) > FULL for share in shares.values()):
            held = ", ".join(f"{symbol} {float(share):g}" for symbol, share in shares.items())
            raise ValueError(f"site {kind} is occupied by {held}; {WHOLE_ATOMS}")
    for name in _OCCUPANCIES:
        if name in atoms.arrays:
            values = np.asarray(atoms.arrays[name], float)
            for index in np.flatnonzero(~(np.abs(values - 1) <= FULL)):
                raise ValueError(
                    f"atom {index} ({atoms.symbols[index]}) has the {name} {values[index]:g}; {WHOLE_ATOMS}, and give "
                    "each of its atoms the occupancy 1"
                )


def check_apart(atoms: Atoms) -> None:
    """Refuse two atoms at one place.

    Raises:
        ValueError: naming both.
    """
    from ase.neighborlist import neighbor_list

    first, second, distances = neighbor_list("ijd", atoms, TOO_CLOSE)
    if len(first):
        one, other = int(first[0]), int(second[0])
        symbols = f"{atoms.symbols[one]} and {atoms.symbols[other]}"
        raise ValueError(
            f"atoms {one} and {other} ({symbols}) are {distances[0]:.3g} Å apart: sites that are disordered or twice "
            f"in the file; {WHOLE_ATOMS}"
        )


def _plain(name: str) -> str:
    """The chemical symbol of an isotope; any other name as it is."""
    try:
        symbol, number = isotopes.parse(name)
    except ValueError:
        return name
    return name if number is None else symbol


def _column(properties: str) -> int:
    """Where the species stand, from ``species:S:1:pos:R:3``."""
    parts, column = properties.split(":"), 0
    for name, count in zip(parts[::3], parts[2::3], strict=False):
        if name.lower() in ("species", "symbols", "element"):
            return column
        column += int(count) if count.isdecimal() else 1
    return 0


def _check_lammps(path: Path, kind: str) -> None:
    """LAMMPS numbers its types; without more, ase takes type 1 for hydrogen and type 2 for helium."""
    wanted, remedy = {
        "lammps-data": (r"(?m)^\s*Masses\b", "add its section Masses"),
        "lammps-dump-text": (r"(?m)^ITEM: ATOMS .*\belement\b", "write its column element (dump_modify element)"),
    }.get(kind, (None, "convert it to extended XYZ"))
    if wanted is None or not re.search(wanted, path.read_text(errors="replace")):
        raise ValueError(f"it does not say which elements its types are; {remedy}")


def _check_counts(path: Path) -> None:
    """Refuse a count of atoms that the file has no lines for; ase would make room for them first."""
    lines = path.read_text(errors="replace").splitlines()
    for number, line in enumerate(lines[:LINES_OF_HEADERS], 1):
        for word in line.split():
            if word.isdecimal() and (len(word) > 18 or int(word) > max(MOST_ATOMS, len(lines))):
                raise ValueError(f"line {number} has the count {shown(word)}; there are {len(lines)} lines")


def _isotopic_poscar(text: str) -> Atoms | None:
    """A POSCAR with isotopes put in once it is read; None where there are none."""
    import ase.io

    lines = text.splitlines()
    # VASP writes the potential behind the symbol: H_GW, H/0a1b.
    names = [re.split(r"[_/]", word)[0] for word in (lines[5].split() if len(lines) > 6 else [])]
    plain = [_plain(name) for name in names]
    if plain == names:
        return None
    lines[5] = " ".join(plain)
    atoms: Any = ase.io.read(io.StringIO("\n".join([*lines, ""])), format="vasp")
    counts = [int(count) for count in lines[6].split()]
    give_masses(atoms, [name for name, count in zip(names, counts, strict=True) for _ in range(count)])
    return atoms


def _read_cif(path: Path) -> list[Atoms]:
    from ase.io.cif import CIFBlock, parse_cif

    frames = []
    with warnings.catch_warnings():
        # A row of too few or too many cells is left out, and its atom with it.
        warnings.filterwarnings("error", message="Wrong number")
        blocks = list(parse_cif(io.StringIO(path.read_text(errors="replace"))))
    for block in blocks:
        if not block.has_structure():
            continue
        tags = dict(block)
        _check_cell(tags)
        labels = [str(label) for label in _listed(tags.get(_LABEL) or tags.get(_TYPE))]
        names, tags[_TYPE] = _cif_species(tags, labels)
        tags = _check_sites(tags, labels, names)
        atoms = CIFBlock(block.name, tags).get_atoms()
        _check_swallowed(atoms, tags, labels, names)
        if any(_plain(name) != name for name in names):
            atoms.set_masses("defaults")
            masses = atoms.get_masses()
            for index, site in enumerate(atoms.arrays.get("spacegroup_kinds", range(len(atoms)))):
                if _plain(names[site]) != names[site]:
                    masses[index] = isotopes.mass(names[site])
            atoms.set_masses(masses)
        frames.append(atoms)
    if not frames:
        raise ValueError("the file holds no structure")
    return frames


def _check_cell(tags: dict[str, Any]) -> None:
    """Refuse lengths and angles that no cell has, of which ase makes one all the same."""
    lengths, angles = ("length_a", "length_b", "length_c"), ("angle_alpha", "angle_beta", "angle_gamma")
    for name in (*lengths, *angles):
        value = tags.get(f"_cell_{name}")
        most, limits = (np.inf, "above 0 Å") if name in lengths else (180, "between 0 and 180 degrees")
        if isinstance(value, int | float) and not 0 < value < most:
            raise ValueError(f"_cell_{name} is {value:g}; give one {limits}")


def _cif_species(tags: dict[str, Any], labels: list[str]) -> tuple[list[str], list[str]]:
    """The species of each site, isotopes by name, and what ase takes for it."""
    names, symbols = [], []
    for label, given in zip(labels, [str(one) for one in _listed(tags.get(_TYPE))] or labels, strict=True):
        found = re.search(r"(\d+)?([A-Z][a-z]?)", given)
        name = given if found is None else f"{found[1] or ''}{found[2]}"
        if found is not None:
            _check_one_element(label, given, found, is_label=_TYPE not in tags)
        if _TYPE not in tags and found is not None:
            name = found[2]
            if name == "T":
                raise ValueError(
                    f"site {label} may be tritium or a tetrahedral site: give _atom_site_type_symbol for each site"
                )
        names.append(name)
        symbols.append(_plain(name) if _plain(name) != name else given)
    return names, symbols


def _check_one_element(label: str, given: str, found: re.Match[str], *, is_label: bool) -> None:
    """Refuse what may be another species than its first letters: ``CuAu``, ``OH``, ``CU`` for copper."""
    from ase.data import atomic_numbers  # late, as all of ase

    rest = given[found.end() :]
    if not rest[:1].isupper() and (is_label or not any(one.isupper() for one in rest)):
        return
    if not is_label or f"{found[2]}{rest[0].lower()}" in atomic_numbers:
        raise ValueError(
            f"the species of site {label} is {given!r}, which may be another one than {found[2]}: give one chemical "
            "symbol, such as Cu, as its _atom_site_type_symbol"
        )


def _check_sites(tags: dict[str, Any], labels: list[str], names: list[str]) -> dict[str, Any]:
    """Refuse sites that are not full, or full in one of several ways; tags with an occupancy of 1 for each."""
    shares = _listed(tags.get(_OCCUPANCY)) or [1.0] * len(labels)
    groups = _listed(tags.get(_GROUP)) or ["."] * len(labels)
    occupancies = [1.0 if share == "." else share for share in shares]
    for index, share in enumerate(occupancies):
        if not isinstance(share, int | float):
            raise ValueError(
                f"the occupancy of site {labels[index]} ({names[index]}) is {share!r}; write 1.0 where it is full"
            )
        if abs(share - 1) > FULL:
            here = [
                f"{labels[other]} ({names[other]}) {occupancies[other]}"
                for other in _together(tags, index, len(labels))
            ]
            what = f"shared by {', '.join(here)}" if len(here) > 1 else f"occupied to {share:g}"
            raise ValueError(f"site {labels[index]} ({names[index]}) is {what}; {WHOLE_ATOMS}")
    for label, group in zip(labels, groups, strict=True):
        if group not in (".", "?", 0, "0"):
            raise ValueError(
                f"site {label} belongs to disorder group {group}; {WHOLE_ATOMS}, or leave out all but one group"
            )
    return {**tags, _OCCUPANCY: occupancies} if _OCCUPANCY in tags else tags


def _check_swallowed(atoms: Atoms, tags: dict[str, Any], labels: list[str], names: list[str]) -> None:
    """Refuse a site that ase leaves out since another species is at its place, or at that of one of its images."""
    kept = {int(site) for site in atoms.arrays.get("spacegroup_kinds", range(len(names)))}
    for site in sorted(set(range(len(names))) - kept):
        place = np.array([_listed(tags[f"_atom_site_fract_{axis}"])[site] for axis in "xyz"], float)
        apart = atoms.get_scaled_positions() - place
        nearest = int(np.abs(apart - np.rint(apart)).max(1).argmin())
        other = names[int(atoms.arrays["spacegroup_kinds"][nearest])]
        if other != names[site]:
            raise ValueError(
                f"site {labels[site]} ({names[site]}) is at the place of another site, of {other}; {WHOLE_ATOMS}"
            )


def _together(tags: dict[str, Any], index: int, count: int) -> Iterable[int]:
    """The sites at the place of one of them."""
    columns = [_listed(tags.get(f"_atom_site_fract_{axis}")) for axis in "xyz"]
    try:
        places = np.array(columns, float).T
    except ValueError:
        return [index]
    if places.shape != (count, 3):
        return [index]
    apart = places - places[index]
    return np.flatnonzero((np.abs(apart - np.rint(apart)) < SAME_SITE).all(1)).tolist()


def _check_res(text: str) -> None:
    """SHELX gives the share of an atom behind its coordinates, 11 for a fixed 1; ase does not look at it."""
    for number, line in enumerate(text.splitlines(), 1):
        found = _RES_ATOM.match(line)
        if found is not None and abs(float(found[2]) % 10 - 1) > FULL:
            raise ValueError(f"line {number}: site {found[1]} has the occupancy {found[2]}; {WHOLE_ATOMS}")


def _listed(values: Any) -> list[Any]:
    return [] if values is None else list(values) if isinstance(values, list | tuple) else [values]
