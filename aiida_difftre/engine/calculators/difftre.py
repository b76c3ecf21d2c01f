"""An ase calculator over any potential."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from numpy.typing import NDArray

from aiida_difftre.engine.bases.loading import of_potential
from aiida_difftre.engine.bases.protocol import EVERYTHING, BasePotential, Quantity, explained
from aiida_difftre.engine.bases.traced import TracedBase
from aiida_difftre.engine.contract.frames import check_extent, check_thickness
from aiida_difftre.engine.contract.jobs import PotentialSpec
from aiida_difftre.engine.errors import EngineError, ExitStatus
from aiida_difftre.engine.geometry import voigt
from aiida_difftre.engine.potentials.evaluator import Evaluator
from aiida_difftre.engine.potentials.potential import Potential, build, load
from aiida_difftre.engine.potentials.term import Parameters


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
        base: Base of the potential, whose energies, forces and stresses are added; None to load it where the potential
            has one, with its files beside that of the potential.

    Raises:
        ValueError: Where a spec or potential is given without parameters.
        EngineError: Where the file is corrupt, the spec is invalid, or the base cannot be loaded.

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
        base: BasePotential | None = None,
    ) -> None:
        super().__init__()
        folder = Path(potential).parent if isinstance(potential, Path | str) else Path()
        with jax.enable_x64(True):
            if isinstance(potential, Path | str):
                self.potential, parameters = load(Path(potential))
            elif isinstance(potential, PotentialSpec):
                self.potential = build(potential)
            else:
                self.potential = potential
            if parameters is None:
                raise ValueError("a potential that is not a file needs its parameters")
            if base is None:
                base = of_potential(self.potential.spec, folder)
            if isinstance(base, TracedBase):
                self.potential, parameters = base.joined(self.potential, parameters)
                base = None
            self._evaluator = Evaluator(self.potential, parameters, precision=precision, skin=skin)
        self._base = base

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
        energies, force, tensor = self._evaluator(current)
        energy = float(energies.sum())
        if self._base is not None:
            added = self._of_base(current)
            energy, force, tensor = energy + added[0], force + added[1], tensor + added[2]
        if not math.isfinite(energy):
            raise EngineError(ExitStatus.NOT_FINITE, f"the energy is {energy}; are there two atoms at one place?")
        self.results: dict[str, Any] = {"energy": energy, "free_energy": energy, "forces": force}
        if self._base is None:  # which tells no energies of atoms
            self.results["energies"] = energies
        if current.cell.rank == 3 and current.pbc.all():
            self.results["stress"] = tensor[*np.transpose(voigt.COMPONENTS)] / current.get_volume()

    def _of_base(self, atoms: Atoms) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
        """Energy (eV), forces (eV/Å) and derivative of the energy by strain (eV) of the base."""
        is_bulk = atoms.cell.rank == 3 and bool(atoms.pbc.all())
        what: tuple[Quantity, ...] = EVERYTHING if is_bulk else ("energy", "forces")
        with explained():
            found = self._base.evaluate(  # type: ignore[union-attr]  # whoever calls has one
                atoms.get_chemical_symbols(), atoms.positions[None], atoms.cell.array[None], what, pbc=tuple(atoms.pbc)
            )
        if found.energies is None or found.forces is None:
            raise EngineError(ExitStatus.INVALID_INPUT, "the base gives no energy or no forces")
        strained = np.zeros((3, 3)) if found.stresses is None else found.stresses[0] * abs(atoms.cell.volume)
        return float(found.energies[0]), found.forces[0], strained

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
