"""An ase calculator over any potential."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.neighborlist import neighbor_list
from jaxtyping import Array
from numpy.typing import NDArray

from aiida_difftre.engine.contract.frames import check_extent, check_thickness
from aiida_difftre.engine.contract.jobs import PotentialSpec
from aiida_difftre.engine.errors import EngineError, ExitStatus
from aiida_difftre.engine.geometry import voigt
from aiida_difftre.engine.potentials.potential import Potential, build, forces, load, virial, without_references
from aiida_difftre.engine.potentials.term import Environment, Parameters, densities, species_index


class DiffTReCalculator(Calculator):
    """Any potential as an ASE calculator: energies (eV), forces (eV/Å) and stress (eV/Å³, positive in tension).

    It takes any cell and any periodicity. The neighbour list reaches a skin beyond the cutoff, and is kept until an
    atom has moved half of it or the cell changes.

    Args:
        potential: A potential file, or the spec of a potential, or a
            :class:`~aiida_difftre.engine.potentials.potential.Potential`.
        parameters: Parameters of the potential; None where it is a file, which holds them.
        precision: Precision of the arithmetic; the reference energies of the atoms are always added in float64.
        skin: How far the neighbour list reaches beyond the cutoff, Å.

    Raises:
        ValueError: Where a spec or potential is given without parameters.
        EngineError: Where the file is corrupt, or the spec is invalid.

    Example:
        Two argon atoms at the bottom of their Lennard-Jones well:

        >>> import jax
        >>> from ase import Atoms
        >>> from aiida_difftre.engine.calculator import DiffTReCalculator
        >>> from aiida_difftre.engine.contract.settings import PotentialSpec
        >>> from aiida_difftre.engine.potentials.potential import build
        >>> hyperparameters = {"epsilon": 0.0103, "sigma": 3.4}
        >>> term = {"architecture": "lennard_jones", "cutoff": 8.5, "hyperparameters": hyperparameters}
        >>> potential = build(PotentialSpec(species=["Ar"], terms=[term]))
        >>> dimer = Atoms("Ar2", positions=[[0, 0, 0], [3.4 * 2 ** (1 / 6), 0, 0]])
        >>> dimer.calc = DiffTReCalculator(potential, potential.init(jax.random.key(0)))
        >>> round(dimer.get_potential_energy(), 4)
        -0.0103
        >>> bool(abs(dimer.get_forces()).max() < 1e-6)
        True
    """

    implemented_properties = ["energy", "free_energy", "energies", "forces", "stress"]

    def __init__(
        self,
        potential: Path | str | PotentialSpec | Potential,
        parameters: Parameters | None = None,
        *,
        precision: Literal["float32", "float64"] = "float64",
        skin: float = 0.4,
    ) -> None:
        super().__init__()
        with jax.enable_x64(True):
            if isinstance(potential, Path | str):
                self.potential, parameters = load(Path(potential))
            elif isinstance(potential, PotentialSpec):
                self.potential = build(potential)
            else:
                self.potential = potential
            if parameters is None:
                raise ValueError("a potential that is not a file needs its parameters")
            self._dtype = jnp.dtype(precision)
            self._references = np.asarray(parameters["atomic_energies"], np.float64)
            self._parameters = without_references(parameters, self._dtype)
        self._skin = skin
        self._capacity = 0
        self._listed: Atoms | None = None
        self._list: tuple[NDArray[Any], ...] = ()
        self._compiled = jax.jit(self._evaluate)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Compute energies, forces and, in a periodic cell, stress of a structure; ASE calls it.

        Args:
            atoms: The structure.
            properties: What is asked for; everything is computed at once.
            system_changes: What changed since the last call.

        Raises:
            EngineError: Where the potential does not know an element, or positions or cell are invalid; the message
                names them.
        """
        super().calculate(atoms, properties, system_changes)
        current = self.atoms
        self._check(current)
        kinds = species_index(current.get_chemical_symbols(), self.potential.spec.species)
        if not self._list_holds(current):
            self._build_list(current)
        with jax.enable_x64(True):
            neighbors, mask, offsets = self._list
            vectors = current.positions[neighbors] + offsets - current.positions[:, None]
            environment = Environment(
                jnp.asarray(np.where(mask[..., None], vectors, 0.0), self._dtype),
                jnp.asarray(mask),
                jnp.asarray(kinds),
                jnp.asarray(kinds[neighbors]),
                self._fractional(current),
                neighbors=jnp.asarray(neighbors),
                densities=self._densities(current, kinds),
            )
            cell = jnp.asarray(current.cell.array, self._dtype)
            found = self._compiled(self._parameters, environment, jnp.asarray(neighbors), cell)
            energies, force, tensor = (np.asarray(part, np.float64) for part in found)
        energies = energies + self._references[kinds]
        energy = float(energies.sum())
        if not math.isfinite(energy):
            raise EngineError(ExitStatus.NOT_FINITE, f"the energy is {energy}; are there two atoms at one place?")
        self.results: dict[str, Any] = {"energy": energy, "free_energy": energy, "energies": energies, "forces": force}
        if current.cell.rank == 3 and current.pbc.all():
            self.results["stress"] = tensor[*np.transpose(voigt.COMPONENTS)] / current.get_volume()

    def _check(self, atoms: Atoms) -> None:
        """Refuse what would give energies that are not finite, or none at all."""
        if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()):
            raise EngineError(ExitStatus.INVALID_INPUT, "positions or cell are not finite; give finite numbers, in Å")
        if not len(atoms):
            raise EngineError(ExitStatus.INVALID_INPUT, "there are no atoms")
        flat = [axis for axis in range(3) if atoms.pbc[axis] and not atoms.cell.array[axis].any()]
        if flat:
            raise EngineError(
                ExitStatus.INVALID_INPUT,
                f"the structure is periodic along axis {flat[0]}, where its cell has no vector; set the cell or pbc",
            )
        try:
            check_extent(atoms.positions, atoms.cell.array, "the structure")
            if atoms.pbc.all():
                check_thickness(atoms.cell.array, "the structure")
        except ValueError as error:
            raise EngineError(ExitStatus.INVALID_INPUT, str(error)) from None
        if self.potential.has_external and atoms.cell.rank < 3:
            raise EngineError(
                ExitStatus.INVALID_INPUT,
                "an external field is a function of fractional positions, but the cell is "
                f"{atoms.cell.array.tolist()}; give three lattice vectors, in Å",
            )

    def _fractional(self, atoms: Atoms) -> Array | None:
        if atoms.cell.rank < 3:
            return None
        return jnp.asarray(atoms.get_scaled_positions(wrap=False), self._dtype)

    def _densities(self, atoms: Atoms, kinds: NDArray[np.int32]) -> Array | None:
        """Densities of the species; there are none where a structure does not fill space."""
        if atoms.cell.rank < 3 or not atoms.pbc.all():
            return None
        return densities(jnp.asarray(kinds), len(self.potential.spec.species), atoms.get_volume()).astype(self._dtype)

    def _evaluate(
        self, parameters: Parameters, environment: Environment, neighbors: Array, cell: Array
    ) -> tuple[Array, ...]:
        def total(displacements: Array) -> tuple[Array, Array]:
            energies = self.potential.energies(parameters, environment._replace(displacements=displacements))
            return jnp.sum(energies), energies

        gradient, energies = jax.grad(total, has_aux=True)(environment.displacements)
        gradient = jnp.where(environment.mask[..., None], gradient, 0.0)
        force = forces(gradient, neighbors)
        if self.potential.has_external:
            force = force + self.potential.external_forces(parameters, environment, cell)
        beyond = self.potential.tail_work(parameters, environment) * jnp.eye(3)
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
        index, neighbor, shift = neighbor_list("ijS", atoms, self.potential.cutoff + self._skin)
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
