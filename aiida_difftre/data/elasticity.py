"""Static stress and stiffness of a cubic crystal from the stresses of a few strained cells. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from aiida_difftre.data.structures import strained
from aiida_difftre.engine.geometry.lattice import strain_matrix
from aiida_difftre.engine.units import AMU_PER_A3_IN_KG_PER_M3, EV_PER_A3_IN_GPA

UNSTRAINED = "equilibrium_000"
STRETCHED = "elastic_stretched"
COMPRESSED = "elastic_compressed"
SHEARED = "elastic_sheared"

_VOIGT_STRAINS = {
    STRETCHED: (1.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    COMPRESSED: (-1.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    SHEARED: (0.0, 0.0, 0.0, 1.0, 0.0, 0.0),
}


RELAXED = frozenset(_VOIGT_STRAINS)
"""Names of the cells whose atoms have to relax."""


def elastic_cells(atoms: Atoms, strain: float) -> dict[str, Atoms]:
    """Make the strained cells whose stresses give the stiffness of a cubic crystal; their atoms have to relax.

    A single shear is enough, since +e4 and -e4 are related by a twofold axis in every cubic class.

    Args:
        atoms: Conventional cell, with its vectors along the cubic axes.
        strain: Size of the strains, dimensionless.

    Returns:
        The cells by name.

    Example:
        >>> from ase.build import bulk
        >>> from aiida_difftre.data.elasticity import elastic_cells
        >>> cells = elastic_cells(bulk("C", "diamond", 3.57, cubic=True), 0.01)
        >>> sorted(cells), round(float(cells["elastic_stretched"].cell[0, 0]), 4)
        (['elastic_compressed', 'elastic_sheared', 'elastic_stretched'], 3.6057)
    """
    return {name: strained(atoms, strain * strain_matrix(components)) for name, components in _VOIGT_STRAINS.items()}


def check_cubic(atoms: Atoms) -> None:
    """Refuse a cell whose lattice vectors are not along the cubic axes and equally long.

    Raises:
        ValueError: naming the cell.
    """
    cell = np.asarray(atoms.cell)
    if not np.allclose(cell, cell[0, 0] * np.eye(3), atol=1e-5 * abs(cell[0, 0])):
        raise ValueError(
            f"elastic constants are computed for a cubic cell along the Cartesian axes, got lattice vectors "
            f"{cell.round(4).tolist()} Å; use the conventional cubic cell or set elastic to false"
        )


def cubic_reference(
    atoms: Atoms, stresses: Mapping[str, NDArray[np.float64]], strain: float
) -> dict[str, list[float] | dict[str, float] | float]:
    r"""Compute stress and stiffness of a cubic crystal from the stresses of a few strained cells.

    .. math::
        C_{11} = \frac{\sigma_1(e_1) - \sigma_1(-e_1)}{2e}, \quad
        C_{12} = \frac{\sigma_2(e_1) + \sigma_3(e_1) - \sigma_2(-e_1) - \sigma_3(-e_1)}{4e}, \quad
        C_{44} = \frac{\sigma_4(e_4) - \sigma_4(0)}{e}

    These are stress-strain coefficients at the stress of the cell.

    Args:
        atoms: The unstrained cell.
        stresses: Stresses by the names of :func:`elastic_cells`, and of the unstrained cell as ``equilibrium_000``,
            (6,), Voigt order, eV/Å³, positive in tension.
        strain: Size of the strains, as in :func:`elastic_cells`.

    Returns:
        ``stress`` (six, GPa), ``stiffness`` (C11, C12, C44 in GPa), ``density`` (kg/m³) and ``strain``.

    Raises:
        ValueError: Where the stress of a cell is missing.

    Example:
        >>> import numpy as np
        >>> from ase.build import bulk
        >>> from aiida_difftre.data.elasticity import cubic_reference
        >>> stresses = {
        ...     "equilibrium_000": np.zeros(6),
        ...     "elastic_stretched": np.array([0.07, 0.01, 0.01, 0.0, 0.0, 0.0]),
        ...     "elastic_compressed": -np.array([0.07, 0.01, 0.01, 0.0, 0.0, 0.0]),
        ...     "elastic_sheared": np.array([0.0, 0.0, 0.0, 0.04, 0.0, 0.0]),
        ... }
        >>> found = cubic_reference(bulk("C", "diamond", 3.57, cubic=True), stresses, 0.01)
        >>> {name: round(value) for name, value in found["stiffness"].items()}
        {'C11': 1122, 'C12': 160, 'C44': 641}
    """
    names = (UNSTRAINED, *_VOIGT_STRAINS)
    missing = [name for name in names if name not in stresses]
    if missing:
        raise ValueError(f"no stress of {', '.join(missing)}")
    gpa = {name: np.asarray(stresses[name]) * EV_PER_A3_IN_GPA for name in names}
    slope = (gpa[STRETCHED] - gpa[COMPRESSED]) / (2 * strain)
    shear = (gpa[SHEARED][3] - gpa[UNSTRAINED][3]) / strain
    return {
        "stress": [float(value) for value in gpa[UNSTRAINED]],
        "stiffness": {"C11": float(slope[0]), "C12": float((slope[1] + slope[2]) / 2), "C44": float(shear)},
        "density": float(atoms.get_masses().sum() / atoms.get_volume() * AMU_PER_A3_IN_KG_PER_M3),
        "strain": strain,
    }
