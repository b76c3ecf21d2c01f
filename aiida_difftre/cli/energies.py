"""What a potential has learned, as curves of energy: computed by the engine in a process of its own, which has JAX."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations_with_replacement
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from aiida_difftre.data.potential import PotentialData
from aiida_difftre.engine.contract.jobs import DATASET, ERROR, JOB, POTENTIAL_IN, PREDICTIONS

PAIR_TERMS = {"lennard_jones", "pair_spline", "repulsion", "dispersion", "born_mayer", "buckingham"}
"""Terms whose energy is one of pairs: two atoms alone tell all of it."""

DISTANCES = np.linspace(1.0, 10.0, 181)
"""Å, between two atoms; those beyond the cutoff are left out."""

SCALES = np.linspace(0.96, 1.04, 17)
"""Factors on the edges of a cell."""

LARGEST_CELL = 2000
"""Atoms of a cell that is stretched; larger ones take too long for a report."""

TIMEOUT_S = 300


@dataclass(frozen=True)
class Curve:
    """Energies of several potentials along one coordinate.

    Args:
        name: What is moved, such as ``Ar–Ar``.
        coordinate: Label of the abscissa.
        unit: Unit of the energies.
        grid: Values of the coordinate, (points,).
        energies: Energies by potential, (points,).
        is_pair: Whether it is the energy of two atoms.
    """

    name: str
    coordinate: str
    unit: str
    grid: NDArray[np.float64]
    energies: dict[str, NDArray[np.float64]]
    is_pair: bool


def curves(potentials: dict[str, PotentialData], cell: Atoms | None) -> list[Curve]:
    """The energy of pairs where a potential has nothing else; else that of a cell which is stretched.

    Args:
        potentials: Potentials of the same species, by name.
        cell: A structure of a state point; None for none.

    Returns:
        The curves; none where there is nothing that tells.

    Raises:
        ValueError: Where the engine cannot compute them, and why.
    """
    first = next(iter(potentials.values()))
    terms = {term.architecture for potential in potentials.values() for term in potential.spec.terms}
    if terms <= PAIR_TERMS and all(potential.spec.base is None for potential in potentials.values()):
        return _pairs(potentials, first.species, max(potential.cutoff for potential in potentials.values()))
    if cell is None or len(cell) > LARGEST_CELL or any(term.startswith("external") for term in terms):
        return []
    frames = []
    for scale in SCALES:
        frame = cell.copy()
        frame.set_cell(cell.cell * scale, scale_atoms=True)
        frames.append(frame)
    found = {name: values / len(cell) for name, values in _all(potentials, frames).items()}
    zero = float(found[next(iter(found))][len(SCALES) // 2])
    shifted = {name: 1e3 * (values - zero) for name, values in found.items()}
    return [Curve("cell", "volume / volume at the state point", "meV/atom", SCALES**3, shifted, is_pair=False)]


def _pairs(potentials: dict[str, PotentialData], species: list[str], cutoff: float) -> list[Curve]:
    pairs = list(combinations_with_replacement(species, 2))
    grid = DISTANCES[cutoff >= DISTANCES]
    dimers = [Atoms(list(pair), positions=[(0, 0, 0), (r, 0, 0)]) for pair in pairs for r in grid]
    # Two atoms out of reach of each other: what the pair costs is the rest.
    apart = [Atoms(list(pair), positions=[(0, 0, 0), (3 * cutoff, 0, 0)]) for pair in pairs]
    found = {}
    for name, values in _all(potentials, [*dimers, *apart]).items():
        bound, free = values[: len(dimers)].reshape(len(pairs), -1), values[len(dimers) :]
        found[name] = 1e3 * (bound - free[:, None])
    return [
        Curve("–".join(pair), "r / Å", "meV", grid, {name: rows[index] for name, rows in found.items()}, is_pair=True)
        for index, pair in enumerate(pairs)
    ]


def _all(potentials: dict[str, PotentialData], frames: list[Atoms]) -> dict[str, NDArray[np.float64]]:
    """Energies of the same structures by each potential, computed side by side."""
    # Read in this thread: sessions of the database belong to one.
    files = [potential.get_content(mode="rb") for potential in potentials.values()]
    with ThreadPoolExecutor(len(files)) as pool:
        found = pool.map(lambda file: energies(file, frames), files)
        return dict(zip(potentials, found, strict=True))


def energies(potential: bytes, frames: list[Atoms]) -> NDArray[np.float64]:
    """Energies of structures by the engine, eV.

    Args:
        potential: Content of its file.
        frames: Structures.

    Returns:
        Energy of each structure, eV.

    Raises:
        ValueError: With what the engine said.
    """
    with tempfile.TemporaryDirectory(prefix="difftre-energies-") as name:
        folder = Path(name)
        (folder / POTENTIAL_IN).write_bytes(potential)
        ase.io.write(folder / DATASET, frames, format="extxyz")
        job = {"schema_version": 1, "kind": "predict", "potential": POTENTIAL_IN, "structures": DATASET}
        (folder / JOB).write_text(json.dumps(job), encoding="utf-8")
        command = [sys.executable, "-m", "aiida_difftre.engine.cli", "predict", str(folder / JOB)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=TIMEOUT_S, env={**os.environ, "JAX_PLATFORMS": "cpu"}
            )
        except subprocess.TimeoutExpired:
            raise ValueError(f"the engine took more than {TIMEOUT_S} s for {len(frames)} structures") from None
        if done.returncode != 0:
            raise ValueError(_reason(folder / ERROR, done.stderr))
        with np.load(folder / PREDICTIONS, allow_pickle=False) as arrays:
            return np.asarray(arrays["energies"], np.float64)


def _reason(error: Path, said: str) -> str:
    """Why the engine failed: its own words, else the last line of what Python said."""
    if error.is_file():
        return str(json.loads(error.read_text(encoding="utf-8"))["message"])
    lines = [line for line in said.splitlines() if line.strip()]
    return lines[-1] if lines else "the engine failed and said nothing"
