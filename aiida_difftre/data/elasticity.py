"""Static stress and stiffness of a cubic crystal from the stresses of a few strained cells. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from aiida_difftre.data.structures import strained, voigt_strain
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
    """The strained cells whose stresses give the stiffness of a cubic crystal; they need internal relaxation.

    A single shear is enough, since +e4 and -e4 are related by a twofold axis in every cubic class.

    Args:
        atoms: conventional cell, axes along the cubic axes.
        strain: size, dimensionless.
    """
    return {
        name: strained(atoms, strain * voigt_strain(list(components))) for name, components in _VOIGT_STRAINS.items()
    }


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
    """Stress and stiffness (stress-strain coefficients dσ/dε at the stress of the cell).

    C11 = [σ1(e1) - σ1(-e1)] / 2e, C12 = [σ2(e1) + σ3(e1) - σ2(-e1) - σ3(-e1)] / 4e, C44 = σ4(e4) / e.

    Args:
        atoms: the unstrained cell.
        stresses: (6,) Voigt, eV/Å³, positive in tension, by the names of :func:`elastic_cells` and ``UNSTRAINED``.
        strain: as in :func:`elastic_cells`.

    Returns:
        ``stress`` (six, GPa), ``stiffness`` (C11, C12, C44 in GPa), ``density`` (kg/m³) and ``strain``.

    Raises:
        ValueError: when a cell is missing.
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
