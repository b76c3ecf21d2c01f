"""Elasticity of a crystal at rest: stress and stiffness by finite strains, with relaxed internal coordinates."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms
from ase.optimize import BFGS
from numpy.typing import NDArray

from aiida_difftre.engine.calculators.crystal import primitive, primitive_atoms
from aiida_difftre.engine.calculators.difftre import DiffTReCalculator
from aiida_difftre.engine.errors import EngineError, ExitStatus
from aiida_difftre.engine.geometry import voigt
from aiida_difftre.engine.runtime.progress import Reporter
from aiida_difftre.engine.units import AMU_PER_A3_IN_KG_PER_M3, EV_PER_A3_IN_GPA

STRAIN = 2e-3
"""Strain of the central differences: their error is of its square, the stresses are exact to ten digits."""

FORCE_TOLERANCE = 1e-4
"""eV/Å, below which internal coordinates count as relaxed."""

RELAXATION_STEPS = 500

SAME_PLACE = 1e-3
"""Å, within which a translation has to bring each atom onto another for the primitive cell to stand for the whole."""


def static_stiffness(atoms: Atoms, calculator: DiffTReCalculator, progress: Reporter) -> dict[str, Any]:
    r"""Compute stress and stiffness of a crystal at rest (T = 0), in its cell as it is.

    .. math:: C_{ij} = \frac{d\sigma_i}{d\varepsilon_j}

    by central differences with symmetric strains; the atoms relax in every strained cell. Under a stress these
    stress-strain coefficients differ from second derivatives of the energy.

    A uniform strain moves the atoms of every primitive cell alike: of a cell that repeats a smaller one, the smallest
    is strained. Neighbours are counted with their images, however small it is.

    Args:
        atoms: The crystal, periodic in all directions.
        calculator: A calculator in float64.
        progress: Takes the number of strains that are done.

    Returns:
        ``stress`` (six, Voigt order, GPa), ``stiffness`` (C11, C12, C44, averages for cubic crystals, GPa), ``tensor``
        (6 x 6, GPa), ``density`` (kg/m³), ``energy`` (eV/atom) and ``strain``.

    Raises:
        EngineError: For a structure that is not periodic or whose atoms do not relax.

    Example:
        In a cubic crystal of central forces at zero stress C12 = C44:

        >>> import jax
        >>> from ase.build import bulk
        >>> from aiida_difftre.engine.calculator import DiffTReCalculator
        >>> from aiida_difftre.engine.calculators.elasticity import static_stiffness
        >>> from aiida_difftre.engine.contract.settings import PotentialSpec
        >>> from aiida_difftre.engine.potentials.potential import build
        >>> from aiida_difftre.engine.runtime.progress import Silent
        >>> hyperparameters = {"epsilon": 0.0103, "sigma": 3.4}
        >>> term = {"architecture": "lennard_jones", "cutoff": 8.5, "hyperparameters": hyperparameters}
        >>> potential = build(PotentialSpec(species=["Ar"], terms=[term]))
        >>> calculator = DiffTReCalculator(potential, potential.init(jax.random.key(0)))
        >>> found = static_stiffness(bulk("Ar", "fcc", 5.25), calculator, Silent())
        >>> stiffness = found["stiffness"]
        >>> stiffness["C11"] > stiffness["C12"] > 0 and stiffness["C44"] > 0
        True
    """
    if not atoms.pbc.all() or atoms.cell.rank < 3:
        raise EngineError(
            ExitStatus.INVALID_INPUT,
            f"static_stiffness needs a structure that is periodic in all directions; its pbc is {atoms.pbc.tolist()}",
        )
    rest = relaxed(_smallest(atoms, calculator), np.zeros(6), calculator)
    tensor = np.zeros((6, 6))
    for component in range(6):
        strain = STRAIN * np.eye(6)[component]
        stretched, compressed = (relaxed(rest, sign * strain, calculator).get_stress() for sign in (1, -1))
        tensor[:, component] = EV_PER_A3_IN_GPA * (stretched - compressed) / (2 * STRAIN)
        progress.report("static_stiffness", component + 1, 6)
    rest.calc = calculator
    stress = EV_PER_A3_IN_GPA * rest.get_stress()
    return {
        "stress": stress.tolist(),
        "stiffness": cubic_averages(tensor),
        "tensor": tensor.tolist(),
        "density": float(atoms.get_masses().sum() / atoms.get_volume() * AMU_PER_A3_IN_KG_PER_M3),
        "energy": rest.get_potential_energy() / len(rest),
        "strain": STRAIN,
    }


def _smallest(atoms: Atoms, calculator: DiffTReCalculator) -> Atoms:
    """The primitive cell; the cell as it is in an external field, which no translation leaves as it is."""
    if calculator.potential.has_external:
        return atoms
    return primitive_atoms(atoms, primitive(atoms, SAME_PLACE))


def cubic_averages(tensor: NDArray[np.float64]) -> dict[str, float]:
    """C11, C12 and C44 as means over the elements that a cubic crystal makes equal."""
    normal = tensor[:3, :3]
    diagonal = float(np.trace(normal)) / 3
    return {
        "C11": diagonal,
        "C12": float((normal.sum() - 3 * diagonal) / 6),
        "C44": float(np.trace(tensor[3:, 3:])) / 3,
    }


def relaxed(atoms: Atoms, engineering: NDArray[np.float64], calculator: DiffTReCalculator) -> Atoms:
    """Relax internal coordinates in a strained cell.

    Args:
        atoms: The crystal.
        engineering: Strains of the cell, engineering, Voigt order.
        calculator: A calculator in float64.

    Returns:
        A copy with the calculator.

    Raises:
        EngineError: For atoms that do not relax.
    """
    strain = np.zeros((3, 3))
    for component, (i, j) in zip(engineering, voigt.COMPONENTS, strict=True):
        strain[i, j] += component / 2
        strain[j, i] += component / 2
    copy = Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=True)
    copy.set_cell(copy.cell.array @ (np.eye(3) + strain), scale_atoms=True)
    copy.calc = calculator
    if not BFGS(copy, logfile=None).run(fmax=FORCE_TOLERANCE, steps=RELAXATION_STEPS):
        largest = float(np.abs(copy.get_forces()).max())
        raise EngineError(
            ExitStatus.INVALID_INPUT,
            f"the internal coordinates do not relax: a force of {largest:.2g} eV/Å is left after {RELAXATION_STEPS} "
            "steps; start from a structure nearer to equilibrium",
        )
    return copy
