"""What the labels of a run will take of pw.x, before it is submitted: cells, k-points, bands, plane waves; rough."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiida import orm
from ase.units import Bohr

from aiida_difftre.data import elasticity
from aiida_difftre.data.structures import EQUILIBRIUM, GIVEN, Generation, generate
from aiida_difftre.engine.contract.validation import validate
from aiida_difftre.workchains.estimate import core_time
from aiida_difftre.workchains.kpoints import mesh_of

if TYPE_CHECKING:
    from ase import Atoms

SECONDS_PER_COEFFICIENT = 1.5e-5
"""CPU time of one core for each k-point, band and plane wave, s: from aluminium (0.8e-5), silicon carbide (1.5e-5) and
copper (5e-5, whose d band takes many iterations), docs/systems."""

SECONDS_TO_START = 2.0
"""Of one calculation, CPU time, s."""

FREE_BANDS = 1.2
"""pw.x has a fifth more bands than a metal fills, but :data:`LEAST_FREE_BANDS` at least."""

LEAST_FREE_BANDS = 4


@dataclass(frozen=True)
class Labels:
    """Calculations of pw.x.

    Args:
        cells: Their number.
        atoms: Number of atoms of the largest cell.
        mesh: Mesh of k-points of the seed cell, or else of the first cell.
        seconds: CPU time of all, s.
    """

    cells: int
    atoms: int
    mesh: tuple[int, int, int]
    seconds: float

    def __str__(self) -> str:
        mesh = " × ".join(map(str, self.mesh))
        return (
            f"labels by pw.x: {self.cells} cells of up to {self.atoms} atom{'s' * (self.atoms > 1)}, {mesh} k-points: "
            f"some {core_time(self.seconds / 3600)}"
        )


def labels(inputs: Mapping[str, Any]) -> Labels | None:
    """What the calculations of a DftDatasetWorkChain take.

    Args:
        inputs: Its inputs.

    Returns:
        Their number and CPU time; None where nothing is labelled, or nobody knows the cutoff.
    """
    if "structure" not in inputs and not inputs.get("structures"):
        return None
    pw = inputs["pw"]
    system = pw["pw"]["parameters"].get_dict().get("SYSTEM", {})
    if "ecutwfc" not in system:
        return None
    cells = cells_to_label(inputs)
    seed = inputs["structure"].get_ase() if "structure" in inputs else None
    valence = {pseudo.element: float(pseudo.z_valence) for pseudo in pw["pw"]["pseudos"].values()}
    waves = math.sqrt(system["ecutwfc"]) ** 3 / (6 * math.pi**2 * Bohr**3)  # of 1 Å³
    seconds = 0.0
    for name, cell in cells.items():
        electrons = sum(valence[symbol] for symbol in cell.get_chemical_symbols())
        bands = electrons / 2
        if system.get("occupations") != "fixed":
            bands = max(FREE_BANDS * bands, bands + LEAST_FREE_BANDS)
        points = _points(_mesh(name, cell, pw, seed))
        seconds += SECONDS_TO_START + SECONDS_PER_COEFFICIENT * points * bands * waves * cell.get_volume()
    name, first = (EQUILIBRIUM, seed) if seed is not None else next(iter(cells.items()))
    return Labels(len(cells), max(map(len, cells.values())), _mesh(name, first, pw, seed), seconds)


def cells_to_label(inputs: Mapping[str, Any]) -> dict[str, Atoms]:
    """The cells that a DftDatasetWorkChain labels, as it names them: those of its seed cell, and those that are given.

    Args:
        inputs: Its inputs.
    """
    cells: dict[str, Atoms] = {}
    if "structure" in inputs:
        seed, generation = inputs["structure"].get_ase(), validate(Generation, inputs["generation"].get_dict())
        cells = generate(seed, generation)
        if generation.elastic:
            cells |= elasticity.elastic_cells(seed, generation.elastic_strain)
    return cells | {f"{GIVEN}_{name}": node.get_ase() for name, node in inputs.get("structures", {}).items()}


def _mesh(name: str, cell: Atoms, pw: Mapping[str, Any], seed: Atoms | None) -> tuple[int, int, int]:
    """The mesh of a cell, as DftDatasetWorkChain or, by the distance of k-points, its PwBaseWorkChain chooses it."""
    chosen = mesh_of(name, cell.cell.array, pw, None if seed is None else seed.cell.array)
    if chosen is not None:
        return chosen.numbers
    by_distance = orm.KpointsData()
    by_distance.set_cell(cell.cell.array, pbc=(True, True, True))
    by_distance.set_kpoints_mesh_from_density(pw["kpoints_distance"].value, force_parity=False)
    first, second, third = by_distance.get_kpoints_mesh()[0]
    return first, second, third


def _points(mesh: tuple[int, int, int]) -> int:
    """Points of which none is the inverse of another; more symmetry a rattled cell does not have."""
    return math.ceil(math.prod(mesh) / 2)
