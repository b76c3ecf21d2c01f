"""Trajectories of CP2K: positions as XYZ, with the energies (.ener) and cells (.cell) of the same run beside them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_numbers

from aiida_difftre.engine.trajectories.frames import Array, Frames, check_same

HARTREE = 27.211386245988
"""eV (CODATA 2018)."""

COMMENT = re.compile(r"\s*i\s*=\s*(\d+)\s*,\s*time\s*=\s*([-+.\dEe]+)(?:\s*,\s*E\s*=\s*([-+.\dEe]+))?")
"""The second line of a frame: step, time in fs, energy in hartree."""


def read(path: Path, chosen: Any, *, logs: Sequence[Path], cell: Array | None) -> Frames:
    """Read the positions that CP2K writes, with its tables of energies and cells.

    Args:
        path: Positions, in the format XYZ.
        chosen: From the number of frames to those that are meant.
        logs: The files .ener and .cell of the run, in any order.
        cell: The cell where it does not change, (3, 3), Å; else None.

    Returns:
        The frames.

    Raises:
        ValueError: naming the frame, its step and the value, and the remedy.
    """
    lines = path.read_text(errors="replace").splitlines()
    atoms = _count(lines[0] if lines else "", f"line 1 of {path.name}")
    count = -(-len(lines) // (atoms + 2))
    numbers = np.asarray(chosen(count))
    steps, times, energies, positions, symbols = [], [], [], [], None
    for number in numbers:
        where = f"frame {number} of {path.name}"
        block = lines[number * (atoms + 2) : (number + 1) * (atoms + 2)]
        rows = [line.split() for line in block[2:]]
        if len(rows) < atoms or len(rows[-1]) < 4:
            whole = sum(len(row) == 4 for row in rows)
            raise ValueError(
                f"{where} ends after {whole} of {atoms} atoms: the file is cut; leave the frame out, "
                f"{path.name}@:{number}"
            )
        found = COMMENT.match(block[1])
        if _count(block[0], where) != atoms or found is None:
            raise ValueError(f"{where} begins with {block[0][:20]!r} and {block[1][:40]!r}: it is damaged")
        names = [row[0].capitalize() for row in rows]
        if unknown := sorted({name for name in names if atomic_numbers.get(name, 0) < 1}):
            raise ValueError(f"{where} has the kind {unknown[0]!r}, which is no element; name kinds by their elements")
        symbols = names if symbols is None else symbols
        check_same(symbols, names, where)
        steps.append(int(found[1]))
        times.append(float(found[2]))
        energies.append(np.nan if found[3] is None else float(found[3]))
        positions.append(np.array([row[1:4] for row in rows], float))
    frames = Frames(
        symbols=tuple(symbols or ()),
        positions=np.stack(positions),
        cells=_cells(logs, np.array(steps), cell, path.name),
        numbers=numbers,
        times=np.array(times),
    ).noted(units="Å, fs, hartree")
    if not np.isnan(energies).any():
        frames = replace(frames, energies=HARTREE * np.array(energies)).noted(energies=f"E of {path.name}")
    for log in logs:
        if _header(log)[:1] != ["Step"] or "Pot.[a.u.]" not in _header(log):
            continue
        # The columns are numbers: step, time, kinetic energy, temperature, potential energy, conserved quantity.
        table = _rows(log, np.array(steps))
        frames = replace(frames, energies=HARTREE * table[:, 4], temperatures=table[:, 3])
        frames = frames.noted(energies=f"Pot. of {log.name}")
    return frames


def _count(line: str, where: str) -> int:
    if not line.strip().isdecimal() or int(line) < 1:
        raise ValueError(f"{where} begins with {line[:20]!r} where the number of atoms belongs")
    return int(line)


def _header(log: Path) -> list[str]:
    with log.open(errors="replace") as stream:
        return stream.readline().lstrip("# ").split()


def _cells(logs: Sequence[Path], steps: Any, cell: Array | None, name: str) -> Array:
    for log in logs:
        if "[Angstrom]" in _header(log) and "Ax" in _header(log):
            return _rows(log, steps)[:, 2:11].reshape(-1, 3, 3)
    if cell is None:
        raise ValueError(f"{name} has no cell; give the .cell file of the run (--log), or --cell 'A B C' in Å")
    return np.repeat(cell[None], len(steps), 0)


def _rows(log: Path, steps: Any) -> Array:
    """The rows of a table of CP2K at steps; of a step twice, as after a restart, the last one."""
    rows = [line.split() for line in log.read_text(errors="replace").splitlines() if line.split()[:1] != ["#"]]
    try:
        table = np.array([row for row in rows if row and not row[0].startswith("#")], float)
    except ValueError:
        raise ValueError(f"{log.name} is no table of numbers with as many in each line; a cut last line?") from None
    missing = steps[~np.isin(steps, table[:, 0])]
    if len(missing):
        raise ValueError(
            f"{log.name} has no line of step {missing[0]} ({len(missing)} of {len(steps)} frames); write it as often "
            "as the positions, or choose the frames that have it (FILE@::N)"
        )
    found: Array = table[len(table) - 1 - np.argmax(table[::-1, 0][None] == steps[:, None], axis=1)]
    return found
