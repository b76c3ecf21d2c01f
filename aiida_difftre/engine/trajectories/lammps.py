"""Dumps of LAMMPS with their thermodynamic log: units, ids, scaled and wrapped positions, energies and pressures."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_numbers
from numpy.typing import NDArray

from aiida_difftre.engine import units as own
from aiida_difftre.engine.trajectories.frames import Array, Frames, check_same

STYLES = ("metal", "real", "si", "cgs", "electron", "micro", "nano")
"""Styles of units of LAMMPS with a meaning; ``lj`` has none."""

PRESSURES = ("Pxx", "Pyy", "Pzz", "Pyz", "Pxz", "Pxy")
"""Columns of a log, in Voigt order."""

SAME = 1e-9
"""Relative, of two energies of one step in a log."""

SPELLINGS = (("x", "y", "z"), ("xu", "yu", "zu"), ("xs", "ys", "zs"), ("xsu", "ysu", "zsu"))
"""Columns of positions: wrapped, unwrapped, and both scaled by the cell."""


@dataclass(frozen=True)
class _Snapshot:
    """One frame of a dump, as it stands there."""

    step: int
    time: float | None
    cell: Array
    origin: Array
    columns: Mapping[str, NDArray[np.str_]]


def converted(value: Any, quantity: str, style: str) -> Any:
    """A number in a style of units of LAMMPS in the units of this package.

    Args:
        value: The number, or an array.
        quantity: ``distance`` (Å), ``energy`` (eV), ``pressure`` (GPa) or ``time`` (fs).
        style: Style of units.

    Returns:
        The same in the units of this package.
    """
    from ase import units as ase_units
    from ase.calculators.lammps import convert  # late, with calculators behind it

    found = convert(value, quantity, style, "ASE")
    return found / {"pressure": ase_units.GPa, "time": ase_units.fs}.get(quantity, 1.0)


def read(path: Path, chosen: Any, *, log: Path | None, style: str | None, species: Mapping[str, str] | None) -> Frames:
    """Read a dump, and its log where there is one.

    Args:
        path: The dump, as text.
        chosen: From the number of frames to those that are meant.
        log: The log of the run, with a line of its thermo output for each frame.
        style: Style of the units; None takes that of the dump or the log.
        species: Chemical symbols by type, for a dump without a column ``element``.

    Returns:
        The frames.

    Raises:
        ValueError: naming the frame, its step and the value, and the remedy.
    """
    parsed = _Dump(path)
    numbers = np.asarray(chosen(parsed.count))
    text = None if log is None else log.read_text(errors="replace")
    style = _style(style, parsed.units, text, path.name)
    snapshots = [parsed.snapshot(int(number)) for number in numbers]
    orders = [_order(one, path.name) for one in snapshots]
    symbols = _symbols(snapshots[0], orders[0], species, path.name)
    ids = _column(snapshots[0], "id", path.name)[orders[0]]
    for number, one, order in zip(numbers, snapshots, orders, strict=True):
        where = f"frame {number} (step {one.step}) of {path.name}"
        check_same(symbols, _symbols(one, order, species, path.name), where)
        if not np.array_equal(_column(one, "id", path.name)[order], ids):
            raise ValueError(f"{where} has other atoms (ids) than the first frame; dump one group that does not change")
    mass = snapshots[0].columns.get("mass")
    factor = converted(1.0, "distance", style)
    frames = Frames(
        symbols=tuple(symbols),
        positions=factor * np.stack([_positions(*one, path.name) for one in zip(snapshots, orders, strict=True)]),
        cells=factor * np.stack([one.cell for one in snapshots]),
        numbers=numbers,
        times=_times(snapshots, text, style),
        masses=None if mass is None else converted(mass.astype(float)[orders[0]], "mass", style),
    ).noted(units=style)
    if text is None or log is None:
        return frames
    return _with_log(frames, [one.step for one in snapshots], text, log.name, style)


class _Dump:
    """Where the frames of a dump lie; the atoms of a frame are read when it is asked for."""

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self._lines = path.read_text(errors="replace").splitlines()
        self.units: str | None = None
        self._heads = list(self._scan())
        if not self._heads:
            raise ValueError(f"{self.name} holds no frame")

    @property
    def count(self) -> int:
        return len(self._heads)

    def _scan(self) -> Iterator[dict[str, Any]]:
        line = 0
        head: dict[str, Any] = {"time": None}
        while line < len(self._lines):
            text = self._lines[line]
            if not text.startswith("ITEM: "):
                raise ValueError(
                    f"line {line + 1} of {self.name} is {text[:40]!r} where an ITEM belongs: the dump is damaged"
                )
            item, size = text[6:].strip(), 1
            following = self._lines[line + 1] if line + 1 < len(self._lines) else ""
            if item == "UNITS":
                self.units = following.strip()
            elif item == "TIME":
                head["time"] = float(following)
            elif item == "TIMESTEP":
                head["step"] = int(following) if following.strip().isdecimal() else following
            elif item == "NUMBER OF ATOMS":
                head["atoms"] = int(following) if following.strip().isdecimal() else following
            elif item.startswith("BOX BOUNDS"):
                head["box"], head["bounds"], size = item.split()[2:], (line + 1, line + 4), 3
            elif item.startswith("ATOMS"):
                head["columns"], size = item.split()[1:], int(head["atoms"])
                head["lines"] = (line + 1, line + 1 + size)
                yield head
                head = {"time": None}
            else:
                raise ValueError(f"line {line + 1} of {self.name} has the unknown ITEM: {item[:40]}")
            line += 1 + size
        if "step" in head:  # begun, and cut before its atoms
            yield {**head, "columns": [], "lines": (len(self._lines), len(self._lines) + 1)}

    def snapshot(self, number: int) -> _Snapshot:
        """A frame.

        Raises:
            ValueError: for one that is cut, not periodic, or whose lines do not hold what is announced.
        """
        head = self._heads[number]
        where = f"frame {number} (step {head['step']}) of {self.name}"
        start, stop = head["lines"]
        rows = [line.split() for line in self._lines[start:stop]]
        width = len(head["columns"])
        if len(rows) < stop - start or len(rows[-1]) < width:
            whole = sum(len(row) == width for row in rows)
            raise ValueError(
                f"{where} ends after {whole} of {head.get('atoms', '?')} atoms: the file is cut; leave the frame out, "
                f"{self.name}@:{number}"
            )
        if any(len(row) != width for row in rows):
            raise ValueError(f"{where} has lines of other than its {width} columns: the dump is damaged")
        cell, origin = self._cell(head, where)
        table = np.array(rows, np.str_)
        columns = {name: table[:, index] for index, name in enumerate(head["columns"])}
        return _Snapshot(int(head["step"]), head["time"], cell, origin, columns)

    def _cell(self, head: Mapping[str, Any], where: str) -> tuple[Array, Array]:
        words, (start, stop) = head["box"], head["bounds"]
        bounds = np.array([line.split() for line in self._lines[start:stop]], float)
        boundaries = [word for word in words if re.fullmatch("[pfsm]{1,2}", word)]
        if any(set(one) != {"p"} for one in boundaries) or len(boundaries) != 3:
            raise ValueError(
                f"{where} has the boundaries {' '.join(boundaries) or 'unknown'}; a cell that is periodic in three "
                "directions (pp pp pp) is needed"
            )
        if "abc" in words:
            return bounds[:, :3], bounds[:, 3]
        low, high = bounds[:, 0].copy(), bounds[:, 1].copy()
        xy, xz, yz = bounds[:, 2] if bounds.shape[1] > 2 else np.zeros(3)
        low -= [min(0.0, xy, xz, xy + xz), min(0.0, yz), 0.0]
        high -= [max(0.0, xy, xz, xy + xz), max(0.0, yz), 0.0]
        lengths = high - low
        return np.array([[lengths[0], 0, 0], [xy, lengths[1], 0], [xz, yz, lengths[2]]]), low


def _column(one: _Snapshot, name: str, file: str) -> NDArray[np.int64]:
    if name not in one.columns:
        raise ValueError(
            f"{file} has no column {name}, and LAMMPS does not keep the order of atoms: dump it with `id`, as in "
            "`dump 1 all custom 100 FILE id element x y z ix iy iz`"
        )
    return one.columns[name].astype(np.int64)


def _order(one: _Snapshot, file: str) -> NDArray[np.intp]:
    ids = _column(one, "id", file)
    order = np.argsort(ids, kind="stable")
    if len(np.unique(ids)) < len(ids):
        raise ValueError(f"step {one.step} of {file} has an atom (id) twice: the dump is damaged")
    return order


def _symbols(one: _Snapshot, order: NDArray[np.intp], species: Mapping[str, str] | None, file: str) -> list[str]:
    if "element" in one.columns and species is None:
        names = one.columns["element"][order].tolist()
    elif species is None:
        raise ValueError(
            f"{file} does not say which elements its types are; give them (--species 1=Cu,2=O), or write the column "
            "element (dump_modify element)"
        )
    elif "type" not in one.columns:
        raise ValueError(f"{file} has no column type, whose elements --species gives; leave out --species")
    else:
        types = one.columns["type"][order].tolist()
        if missing := sorted(set(types) - set(species)):
            raise ValueError(f"{file} has the types {', '.join(missing)} that --species does not name")
        names = [species[one_type] for one_type in types]
    for name in set(names):
        if atomic_numbers.get(name, 0) < 1:
            raise ValueError(f"{name!r} in {file} is no chemical symbol; name the elements with --species 1=Cu,2=O")
    return names


def _positions(one: _Snapshot, order: NDArray[np.intp], file: str) -> Array:
    names = next((names for names in SPELLINGS if all(name in one.columns for name in names)), None)
    if names is None:
        raise ValueError(f"{file} has no positions (x y z, xu yu zu, xs ys zs or xsu ysu zsu); dump them")
    found = np.stack([one.columns[name].astype(float)[order] for name in names], 1)
    positions = found @ one.cell if "s" in names[0] else found - one.origin
    if "u" not in names[0] and all(name in one.columns for name in ("ix", "iy", "iz")):
        images = np.stack([one.columns[name].astype(float)[order] for name in ("ix", "iy", "iz")], 1)
        positions = positions + images @ one.cell
    return positions


def _style(given: str | None, dump: str | None, log: str | None, file: str) -> str:
    found = re.findall(r"(?m)^(?:units\s+|\s*Unit style\s*:\s*)(\w+)", log or "")
    stated = {"the dump": dump, "the log": found[-1] if found else None, "--units": given}
    names = {one for one in stated.values() if one is not None}
    if len(names) > 1:
        said = ", ".join(f"{name} in {where}" for where, name in stated.items() if name is not None)
        raise ValueError(f"{file}: the units are {said}; give one of them, and files that belong together")
    if not names:
        raise ValueError(
            f"{file} does not say its units; give --units {'|'.join(STYLES[:2])}, or the log of the run (--log)"
        )
    (style,) = names
    if style not in STYLES:
        why = "reduced units mean nothing for real atoms; convert them" if style == "lj" else "they are unknown"
        raise ValueError(f"{file} has the units {style}; {why}: {', '.join(STYLES)} are read")
    return style


def _times(snapshots: list[_Snapshot], log: str | None, style: str) -> Array | None:
    steps = np.array([one.step for one in snapshots], float)
    if all(one.time is not None for one in snapshots):
        return np.asarray(converted(np.array([one.time for one in snapshots]), "time", style))
    found = re.findall(r"(?m)^(?:timestep\s+|\s*Time step\s*:\s*)([-+.\deE]+)", log or "")
    if not found:
        return None
    return np.asarray(converted(steps * float(found[-1]), "time", style))


def _tables(text: str) -> Iterator[tuple[list[str], Array]]:
    """The tables of thermo output: names of the columns, and rows."""
    names: list[str] = []
    rows: list[list[float]] = []
    for line in text.splitlines():
        words = line.split()
        if words[:1] == ["Step"]:
            if rows:
                yield names, np.array(rows)
            names, rows = words, []
        elif names and len(words) == len(names) and re.fullmatch(r"-?\d+", words[0]):
            try:
                rows.append([float(word) for word in words])
            except ValueError:
                continue
        elif words[:2] == ["Loop", "time"] and rows:
            yield names, np.array(rows)
            names, rows = [], []
    if rows:
        yield names, np.array(rows)


def _with_log(frames: Frames, steps: list[int], text: str, name: str, style: str) -> Frames:
    """Frames with energies, pressures and temperatures of the lines of their steps."""
    tables = list(_tables(text))
    if not tables:
        raise ValueError(
            f"{name} has no table of thermo output with a column Step (thermo_style one or custom, thermo_modify line "
            "one); give the log of the run"
        )
    # A restart or reset_timestep begins to count anew: the last run that has all steps is that of the dump.
    runs: list[list[tuple[list[str], Array]]] = []
    for table in tables:
        follows = bool(runs) and runs[-1][-1][0] == table[0] and runs[-1][-1][1][-1, 0] <= table[1][0, 0]
        if follows:
            runs[-1].append(table)
        else:
            runs.append([table])
    wanted = np.array(steps, float)
    for run in reversed(runs):
        columns, rows = run[0][0], np.concatenate([table[1] for table in run])
        if np.isin(wanted, rows[:, 0]).all():
            return _of_rows(frames, columns, rows, wanted, (text, name, style))
    last = np.concatenate([table[1] for table in runs[-1]])
    missing = wanted[~np.isin(wanted, last[:, 0])]
    raise ValueError(
        f"{name} has no thermo output at step {missing[0]:.0f} of the dump ({len(missing)} of {len(wanted)} frames); "
        "write it as often as the dump (thermo N), or choose the frames that have it (FILE@::N)"
    )


def _of_rows(frames: Frames, columns: list[str], rows: Array, wanted: Array, log: tuple[str, str, str]) -> Frames:
    text, name, style = log
    place = {column: index for index, column in enumerate(columns)}
    at = len(rows) - 1 - np.argmax(rows[::-1, 0][None] == wanted[:, None], axis=1)  # of a step twice, the last
    found = rows[at]
    energy = ["PotEng"] if "PotEng" in place else [one for one in ("E_pair", "E_mol") if one in place]
    if not energy or energy == ["E_mol"]:
        raise ValueError(f"{name} has no potential energy (PotEng, or E_pair and E_mol); add pe to thermo_style")
    _check_repeated(rows, [place[one] for one in energy], name)
    atoms = len(frames.symbols)
    is_per_atom = re.search(r"(?m)^thermo_modify\b.*\bnorm\s+yes", text) is not None
    energies = sum(found[:, place[one]] for one in energy) * (atoms if is_per_atom else 1)
    temperatures = found[:, place["Temp"]] if "Temp" in place else None
    stresses = None
    if temperatures is not None and all(one in place for one in PRESSURES):
        pressures = converted(found[:, [place[one] for one in PRESSURES]], "pressure", style)
        stresses = -np.asarray(pressures)
        # LAMMPS counts the kinetic part with the degrees of freedom of its temperature, three less than of all atoms.
        kinetic = (atoms - 1) * own.BOLTZMANN * temperatures / np.abs(np.linalg.det(frames.cells))
        stresses[:, :3] += (own.EV_PER_A3_IN_GPA * kinetic)[:, None]
    return replace(
        frames, energies=np.asarray(converted(energies, "energy", style)), stresses=stresses, temperatures=temperatures
    ).noted(energies=f"{' + '.join(energy)} of {name}{', times atoms' if is_per_atom else ''}")


def _check_repeated(rows: Array, energy: list[int], name: str) -> None:
    """Refuse two energies of one step in one run: its log is of two."""
    steps, first = np.unique(rows[:, 0], return_index=True)
    if len(steps) == len(rows):
        return
    values = rows[:, energy].sum(1)
    found = values[first][np.searchsorted(steps, rows[:, 0])]
    differs = np.abs(values - found) > SAME * np.maximum(1.0, np.abs(found))
    if differs.any():
        step = rows[int(np.argmax(differs)), 0]
        raise ValueError(f"{name} has two different energies at step {step:.0f}; give the log of this run alone")
