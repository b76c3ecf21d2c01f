"""Energies, forces and virial of one structure after the other, with any cell and any periodicity."""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from ase import Atoms
from jaxtyping import Array
from numpy.typing import NDArray

from aiida_difftre.engine.potentials.derivatives import forces, virial
from aiida_difftre.engine.potentials.parameters import without_references
from aiida_difftre.engine.potentials.potential import Potential
from aiida_difftre.engine.potentials.term import Environment, Parameters, densities, species_index


class Evaluator:
    """A potential with its parameters, compiled for structures of one size after the other.

    The neighbour list reaches a skin beyond the cutoff, and is kept until an atom has moved half of it or the cell
    changes.

    Args:
        potential: The potential.
        parameters: Its parameters.
        precision: Precision of the arithmetic; the reference energies of the atoms are always added in float64.
        skin: How far the neighbour list reaches beyond the cutoff, Å.
    """

    def __init__(
        self,
        potential: Potential,
        parameters: Parameters,
        *,
        precision: Literal["float32", "float64"] = "float64",
        skin: float = 0.4,
    ) -> None:
        self._potential = potential
        with jax.enable_x64(True):
            self._dtype = jnp.dtype(precision)
            self._references = np.asarray(parameters["atomic_energies"], np.float64)
            self._parameters = without_references(parameters, self._dtype)
        self._skin = skin
        self._capacity = 0
        self._listed: Atoms | None = None
        self._list: tuple[NDArray[Any], ...] = ()
        self._compiled = jax.jit(self._evaluate)

    def __call__(self, atoms: Atoms) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Evaluate a structure.

        Args:
            atoms: The structure.

        Returns:
            Energy of each atom with its reference energy, (atoms,), eV; forces, (atoms, 3), eV/Å; derivative of the
            energy by strain, (3, 3), eV.

        Raises:
            EngineError: For an element that the potential does not know.
        """
        kinds = species_index(atoms.get_chemical_symbols(), self._potential.spec.species)
        if not self._list_holds(atoms):
            self._build_list(atoms)
        with jax.enable_x64(True):
            neighbors, mask, offsets = self._list
            vectors = atoms.positions[neighbors] + offsets - atoms.positions[:, None]
            environment = Environment(
                jnp.asarray(np.where(mask[..., None], vectors, 0.0), self._dtype),
                jnp.asarray(mask),
                jnp.asarray(kinds),
                jnp.asarray(kinds[neighbors]),
                self._fractional(atoms),
                neighbors=jnp.asarray(neighbors),
                densities=self._densities(atoms, kinds),
            )
            cell = jnp.asarray(atoms.cell.array, self._dtype)
            found = self._compiled(self._parameters, environment, jnp.asarray(neighbors), cell)
            energies, force, tensor = (np.asarray(part, np.float64) for part in found)
        return energies + self._references[kinds], force, tensor

    def _fractional(self, atoms: Atoms) -> Array | None:
        if atoms.cell.rank < 3:
            return None
        return jnp.asarray(atoms.get_scaled_positions(wrap=False), self._dtype)

    def _densities(self, atoms: Atoms, kinds: NDArray[np.int32]) -> Array | None:
        """Densities of the species; there are none where a structure does not fill space."""
        if atoms.cell.rank < 3 or not atoms.pbc.all():
            return None
        return densities(jnp.asarray(kinds), len(self._potential.spec.species), atoms.get_volume()).astype(self._dtype)

    def _evaluate(
        self, parameters: Parameters, environment: Environment, neighbors: Array, cell: Array
    ) -> tuple[Array, ...]:
        def total(displacements: Array) -> tuple[Array, Array]:
            energies = self._potential.energies(parameters, environment._replace(displacements=displacements))
            return jnp.sum(energies), energies

        gradient, energies = jax.grad(total, has_aux=True)(environment.displacements)
        gradient = jnp.where(environment.mask[..., None], gradient, 0.0)
        force = forces(gradient, neighbors)
        if self._potential.has_external:
            force = force + self._potential.external_forces(parameters, environment, cell)
        beyond = self._potential.tail_work(parameters, environment) * jnp.eye(3)
        return energies, force, virial(gradient, environment.displacements) + beyond

    def _list_holds(self, atoms: Atoms) -> bool:
        listed = self._listed
        if listed is None or len(listed) != len(atoms) or not np.array_equal(listed.pbc, atoms.pbc):
            return False
        if not np.array_equal(listed.cell.array, atoms.cell.array):
            return False
        moved = np.sum((listed.positions - atoms.positions) ** 2, axis=1)
        return bool(np.max(moved, initial=0.0) < (0.5 * self._skin) ** 2)

    def _build_list(self, atoms: Atoms) -> None:
        from ase.neighborlist import neighbor_list  # as late as ase.io

        index, neighbor, shift = neighbor_list("ijS", atoms, self._potential.cutoff + self._skin)
        order = np.argsort(index, kind="stable")
        index, neighbor, shift = index[order], neighbor[order], shift[order]
        counts = np.bincount(index, minlength=len(atoms))
        needed = int(counts.max(initial=1))
        if needed > self._capacity:
            self._capacity = 8 * -(-int(1.15 * needed) // 8)
        shape = (len(atoms), self._capacity)
        neighbors = np.tile(np.arange(len(atoms), dtype=np.int32)[:, None], (1, self._capacity))
        mask, offsets = np.zeros(shape, bool), np.zeros((*shape, 3))
        slot = np.arange(len(index)) - np.repeat(np.cumsum(counts) - counts, counts)
        neighbors[index, slot], mask[index, slot] = neighbor, True
        offsets[index, slot] = shift @ atoms.cell.array
        self._list, self._listed = (neighbors, mask, offsets), atoms.copy()
