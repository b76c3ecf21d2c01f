"""Trajectories that ase reads: extended XYZ, its own .traj, and XDATCAR or vasprun.xml of VASP."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from aiida_difftre.engine.contract import labels
from aiida_difftre.engine.contract.frames import read_frames
from aiida_difftre.engine.contract.label_names import LabelKeys
from aiida_difftre.engine.trajectories.frames import Array, Frames, of_atoms
from aiida_difftre.engine.units import EV_PER_A3_IN_GPA

if TYPE_CHECKING:
    from ase import Atoms

OSZICAR = re.compile(r"(?m)^\s*(\d+)\s+T=\s*([-+.\dE]+)\s+E=\s*\S+\s+F=\s*([-+.\dE]+)")
"""A step of molecular dynamics: its number, temperature (K) and free energy (eV)."""

NEAR = 0.01
"""Relative, between the temperature of a run and the one that is stated."""


def read(path: Path, kind: str, *, logs: Sequence[Path], keys: LabelKeys, temperature: float) -> Frames:
    """Read a trajectory through ase, with energies and stresses as they stand in it.

    Args:
        path: The file, with an index of its frames behind its name or without.
        kind: Name of ase's format.
        logs: OSZICAR, for an XDATCAR; else nothing.
        keys: Names of energies and stresses, where these are not the usual ones.
        temperature: Temperature that is stated, K.

    Returns:
        The frames.

    Raises:
        ValueError: naming the frame and the value, and the remedy.
    """
    if logs and kind != "vasp-xdatcar":
        raise ValueError(f"{logs[0].name} is given as a log of {path.name}, which holds its own energies; leave it out")
    structures = read_frames(path, kind=kind)
    for atoms in structures:
        _force_consistent(atoms)
    frames = _labelled(of_atoms(structures, path.name), structures, keys, path.name)
    file = path if path.is_file() else path.with_name(path.name.rpartition("@")[0])
    if kind == "vasp-xml":
        return _vasprun(frames, file.read_text(errors="replace"), file.name, temperature)
    if kind == "vasp-xdatcar":
        return _xdatcar(frames, file, logs)
    return frames.noted(units="Å, eV")


def _force_consistent(atoms: Atoms) -> None:
    """Keep the energy whose gradient the forces are, where smearing of electrons makes it another one."""
    results = getattr(atoms.calc, "results", {})
    if "free_energy" in results:
        results["energy"] = results.pop("free_energy")


def _labelled(frames: Frames, structures: list[Atoms], keys: LabelKeys, name: str) -> Frames:
    found = labels.labelled(structures, keys, name)
    results = [{} if atoms.calc is None else atoms.calc.results for atoms in found.frames]
    for what in ("energy", "stress"):
        there = [what in one for one in results]
        if any(there) and not all(there):
            number = frames.numbers[there.index(False)]
            raise ValueError(f"frame {number} of {name} has no {what}, and others have; label or leave out the frame")
    if results and "energy" in results[0]:
        origins = ", ".join(found.origins["energy"])
        frames = replace(frames, energies=np.array([one["energy"] for one in results])).noted(energies=origins)
    if results and "stress" in results[0]:
        stresses = np.stack([np.asarray(one["stress"], float) for one in results])
        frames = replace(frames, stresses=EV_PER_A3_IN_GPA * stresses)
    return frames


def _tag(text: str, name: str) -> float | None:
    found = re.search(rf'<i [^>]*name="{name}"[^>]*>\s*([-+.\dE]+)\s*</i>', text)
    return None if found is None else float(found[1])


def _vasprun(frames: Frames, text: str, name: str, temperature: float) -> Frames:
    if (kind := _tag(text, "IBRION")) is not None and kind != 0:
        raise ValueError(
            f"{name} has IBRION = {kind:.0f}, which is no molecular dynamics (0); its frames sample nothing"
        )
    for tag in ("TEBEG", "TEEND"):
        held = _tag(text, tag)
        if held is not None and held > 0 and abs(held - temperature) > NEAR * temperature:
            raise ValueError(f"{name} has {tag} = {held:g} K, and --temperature says {temperature:g} K; give its own")
    if "</modeling>" not in text[-200:]:
        frames = frames.noted(completeness=f"{name} was cut: its end is missing")
    if (step := _tag(text, "POTIM")) is not None:
        frames = replace(frames, times=step * frames.numbers.astype(np.float64))
    return frames.noted(units="Å, eV, fs")


def _xdatcar(frames: Frames, path: Path, logs: Sequence[Path]) -> Frames:
    text = path.read_text(errors="replace")
    steps = np.array([int(step) for step in re.findall(r"(?m)^Direct configuration=\s*(\d+)", text)])
    if len(steps) <= frames.numbers.max():
        raise ValueError(f"{path.name} has frames without a line `Direct configuration=`: it is damaged")
    frames = frames.noted(units="Å, eV")
    if not logs:
        return frames
    rows = np.array(OSZICAR.findall(logs[0].read_text(errors="replace")), float).reshape(-1, 3)
    wanted = steps[frames.numbers].astype(float)
    if len(missing := wanted[~np.isin(wanted, rows[:, 0])]):
        raise ValueError(
            f"{logs[0].name} has no step {missing[0]:.0f} of {path.name} ({len(missing)} of {len(wanted)} frames); "
            "give the OSZICAR of the same run, whole"
        )
    found: Array = rows[np.searchsorted(rows[:, 0], wanted)]
    return replace(frames, energies=found[:, 2], temperatures=found[:, 1]).noted(energies=f"F of {logs[0].name}")
