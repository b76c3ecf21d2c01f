"""Contract tests of a base potential: units and signs, batches, memory of earlier calls, positions outside the cell."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from aiida_difftre.engine.bases.protocol import BasePotential, Evaluation
from aiida_difftre.testing.expectations import close, require


@dataclass(frozen=True)
class BaseExample:
    """A base potential, and a crystal that it is meant for.

    Args:
        base: The base.
        atoms: A periodic structure whose atoms are not at their places: forces and stress should not vanish.
        step: Of finite differences, Å or a strain; larger for a model in single precision.
        tolerance: Of finite differences, as a fraction of the largest value.
    """

    base: BasePotential
    atoms: Atoms
    step: float = 1e-3
    tolerance: float = 1e-3

    @cached_property
    def symbols(self) -> list[str]:
        """Chemical symbols."""
        return list(self.atoms.get_chemical_symbols())

    @cached_property
    def here(self) -> Evaluation:
        """What the base gives of the structure."""
        return self.evaluate(self.atoms.positions[None], self.atoms.cell.array[None])

    def evaluate(self, positions: NDArray[np.float64], cells: NDArray[np.float64]) -> Evaluation:
        """Evaluate configurations of the atoms.

        Args:
            positions: Cartesian positions, (W, atoms, 3), Å.
            cells: Cells, (W, 3, 3), Å.
        """
        return self.base.evaluate(self.symbols, positions, cells)

    def energies(self, positions: NDArray[np.float64], cells: NDArray[np.float64]) -> NDArray[np.float64]:
        """Energies of configurations, (W,), eV."""
        return np.asarray(self.evaluate(positions, cells).energies, np.float64)


def everything_has_its_shape(example: BaseExample) -> None:
    """Energies (W,), forces (W, atoms, 3) and stresses (W, 3, 3), finite, also for several configurations at once."""
    positions, cell, count = example.atoms.positions, example.atoms.cell.array, len(example.atoms)
    found = example.evaluate(np.stack([positions] * 3), np.stack([cell] * 3))
    for name, array, shape in (
        ("energies", found.energies, (3,)),
        ("forces", found.forces, (3, count, 3)),
        ("stresses", found.stresses, (3, 3, 3)),
    ):
        require(array is not None, f"there are no {name}")
        values = np.asarray(array)
        require(values.shape == shape, f"{name} have the shape {values.shape}; it must be {shape}")
        require(bool(np.isfinite(values).all()), f"{name} are not finite")


def forces_are_derivatives(example: BaseExample) -> None:
    """F = -dU/dr in eV/Å, by central differences along a random direction."""
    direction = np.random.default_rng(0).normal(size=example.atoms.positions.shape)
    direction /= np.linalg.norm(direction)
    moved = example.atoms.positions + example.step * np.array([1, -1])[:, None, None] * direction
    up, down = example.energies(moved, np.stack([example.atoms.cell.array] * 2))
    slope = -np.sum(np.asarray(example.here.forces)[0] * direction)
    close((up - down) / (2 * example.step), slope, example.tolerance, "forces (eV/Å) are not -dU/dr")


def stress_is_a_derivative(example: BaseExample) -> None:
    """σ = dU/dε/V in eV/Å³, positive in tension, by central differences along each component of strain."""
    cell, volume = example.atoms.cell.array, abs(example.atoms.cell.volume)
    numeric = np.empty((3, 3))
    for i in range(3):
        for j in range(3):
            strain = np.zeros((3, 3))
            strain[i, j] += 0.5
            strain[j, i] += 0.5
            signed = np.eye(3) + example.step * np.array([1, -1])[:, None, None] * strain
            up, down = example.energies(example.atoms.positions @ signed, cell @ signed)
            numeric[i, j] = (up - down) / (2 * example.step * volume)
    stress = np.asarray(example.here.stresses)[0]
    close(stress, numeric, example.tolerance, "the stress (eV/Å³) is not dU/dε/V, positive in tension")


def walkers_do_not_see_each_other(example: BaseExample) -> None:
    """Several configurations at once, in other cells and in any order, give what each of them gives alone."""
    noise = np.random.default_rng(1).normal(scale=0.03, size=(4, *example.atoms.positions.shape))
    scales = np.array([1.0, 1.01, 0.99, 1.0])[:, None, None]
    positions, cells = scales * (example.atoms.positions + noise), scales * example.atoms.cell.array
    together, again = example.evaluate(positions, cells), example.evaluate(positions[::-1], cells[::-1])
    for number in range(4):
        alone = example.evaluate(positions[number : number + 1], cells[number : number + 1])
        for one, all_, reverse in zip(alone, together, again, strict=True):
            message = f"configuration {number} of several is not what it is alone"
            close(np.asarray(all_)[number], np.asarray(one)[0], 1e-5, message)
            close(np.asarray(reverse)[3 - number], np.asarray(one)[0], 1e-5, f"{message}, in another order")


def positions_need_not_lie_in_the_cell(example: BaseExample) -> None:
    """Atoms that have gone through the wall of the cell, as they do in molecular dynamics, are the same atoms."""
    cell = example.atoms.cell.array
    shifts = np.random.default_rng(2).integers(-2, 3, size=(len(example.atoms), 3)) @ cell
    moved = example.evaluate((example.atoms.positions + shifts)[None], cell[None])
    for name, one, other in zip(Evaluation._fields, moved, example.here, strict=True):
        close(one, other, 1e-5, f"{name} change where atoms leave the cell by lattice vectors")


BaseCheck = Callable[[BaseExample], None]

BASE_CHECKS: dict[str, BaseCheck] = {
    check.__name__: check
    for check in (
        everything_has_its_shape, forces_are_derivatives, stress_is_a_derivative, walkers_do_not_see_each_other,
        positions_need_not_lie_in_the_cell,
    )
}  # fmt: skip
"""By name; each takes a :class:`BaseExample`."""
