"""Registry entries of pressure, stress and stiffness. Free of JAX."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from aiida_difftre.engine.contract.bounds import is_number
from aiida_difftre.engine.contract.observables import ObservableRequest, ObservableSpec
from aiida_difftre.engine.geometry import voigt
from aiida_difftre.engine.geometry.lattice import has_hexagonal_axis, is_strained_cube

_MODULE = "aiida_difftre.engine.observables.mechanical"

STIFFNESS_LABELS = {
    "cubic": ("C11", "C12", "C44"),
    "hexagonal": ("C11", "C12", "C13", "C33", "C44"),
    "general": tuple(f"C{i}{j}" for i in range(1, 7) for j in range(i, 7)),
}

LARGEST_STRAIN = 0.05
"""Crystals answer larger ones far from linearly."""


def strained_plane(strain: Sequence[float]) -> tuple[int, int, int]:
    """The plane of a shear of a cubic crystal: ε along one axis, -ε along another, and an angle between both.

    Stress differences that such a strain leaves are odd in it by symmetry, so that one cell gives what two cells of
    opposite strains give.

    Args:
        strain: Voigt order, xx yy zz yz xz xy, engineering shears.

    Returns:
        The axes that are stretched and compressed, and the Voigt index of the angle.

    Raises:
        ValueError: for another strain.

    Example:
        >>> from aiida_difftre.engine.observables.specs.mechanical import strained_plane
        >>> strained_plane([0.01, -0.01, 0.0, 0.0, 0.0, 0.02])
        (0, 1, 5)
    """
    for voigt_index, (first, second) in enumerate(voigt.COMPONENTS[3:], start=3):
        others = [x for k, x in enumerate(strain) if k not in (first, second, voigt_index)]
        if not any(others) and strain[first] == -strain[second] and (strain[first] or strain[voigt_index]):
            return first, second, voigt_index
    raise ValueError(
        f"option 'strain' of stiffness is {list(strain)}; give ε along one axis, -ε along another, and an angle "
        "between both, such as [0.01, -0.01, 0, 0, 0, 0.02]; other strains are for targets of stress and pressure"
    )


def _stiffness_labels(options: dict[str, Any]) -> tuple[str, ...]:
    strain = options["strain"]
    if strain is None:
        return STIFFNESS_LABELS[options["symmetry"]]
    first, _, angle = strained_plane(strain)
    return tuple(label for label, size in (("C11-C12", strain[first]), ("C44", strain[angle])) if size)


def _check_strain(strain: Any, symmetry: str) -> None:
    if not (isinstance(strain, list | tuple) and len(strain) == 6 and all(map(is_number, strain))):
        raise ValueError(f"option 'strain' of stiffness is {strain!r}; give six numbers: xx yy zz yz xz xy, or none")
    if max(map(abs, strain)) > LARGEST_STRAIN:
        raise ValueError(f"option 'strain' of stiffness is {list(strain)}; give at most {LARGEST_STRAIN:g}")
    if symmetry != "cubic":
        raise ValueError(
            f"option 'strain' of stiffness is for cubic crystals, and symmetry is {symmetry!r}; take targets of stress "
            "in strained cells"
        )
    strained_plane(strain)


def _check_stiffness(options: dict[str, Any]) -> None:
    if options["symmetry"] not in tuple(STIFFNESS_LABELS):
        known = ", ".join(STIFFNESS_LABELS)
        raise ValueError(f"option 'symmetry' of stiffness is {options['symmetry']!r}; known symmetries: {known}")
    if not (isinstance(options["born_stride"], int) and options["born_stride"] >= 1):
        raise ValueError(f"option 'born_stride' of stiffness is {options['born_stride']!r}; give an integer >= 1")
    if options["strain"] is not None:
        _check_strain(options["strain"], options["symmetry"])


def _check_orientation(request: ObservableRequest, species: tuple[str, ...], cell: ArrayLike) -> None:
    if request.options["symmetry"] == "hexagonal" and not has_hexagonal_axis(cell):
        shown = [[round(float(x), 4) for x in row] for row in np.asarray(cell)]
        raise ValueError(
            f"the stiffness of a hexagonal crystal needs its c axis along z, and a cell that repeats it; the cell is "
            f"{shown} Å: turn it so that its third vector is along z and the others in the xy plane, or ask for "
            "symmetry: general"
        )
    if request.options["strain"] is not None and not is_strained_cube(cell, request.options["strain"]):
        shown = [[round(float(x), 4) for x in row] for row in np.asarray(cell)]
        raise ValueError(
            f"the cell is {shown} Å, which is no repeated cubic cell under the strain "
            f"{list(request.options['strain'])}; give the state point this strain, and a "
            "cell of cubic ones along the axes"
        )


PRESSURE = ObservableSpec(
    "pressure", "GPa", f"{_MODULE}:Pressure", "pressure, kinetic term included",
    labels=lambda options: ("P",),
)  # fmt: skip
STRESS = ObservableSpec(
    "stress", "GPa", f"{_MODULE}:Stress",
    "Cauchy stress in Voigt order xx yy zz yz xz xy, positive in tension, kinetic term included",
    labels=lambda options: voigt.LABELS,
)  # fmt: skip
STIFFNESS = ObservableSpec(
    "stiffness", "GPa", f"{_MODULE}:Stiffness",
    "isothermal stiffness tensor by stress fluctuations, averaged over the crystal's symmetry; with strain, of the "
    "stress in a cell that has it",
    options={"symmetry": "cubic", "born_stride": 4, "strain": None},
    labels=_stiffness_labels,
    check=_check_stiffness,
    check_system=_check_orientation,
    ensembles=lambda options: ("NVT",),
)  # fmt: skip
