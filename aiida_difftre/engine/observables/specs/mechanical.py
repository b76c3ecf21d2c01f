"""Registry entries of pressure, stress and stiffness. Free of JAX."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from aiida_difftre.engine.contract.observables import ObservableRequest, ObservableSpec
from aiida_difftre.engine.geometry import voigt
from aiida_difftre.engine.geometry.lattice import has_hexagonal_axis

_MODULE = "aiida_difftre.engine.observables.mechanical"

STIFFNESS_LABELS = {
    "cubic": ("C11", "C12", "C44"),
    "hexagonal": ("C11", "C12", "C13", "C33", "C44"),
    "general": tuple(f"C{i}{j}" for i in range(1, 7) for j in range(i, 7)),
}


def _check_stiffness(options: dict[str, Any]) -> None:
    if options["symmetry"] not in tuple(STIFFNESS_LABELS):
        known = ", ".join(STIFFNESS_LABELS)
        raise ValueError(f"option 'symmetry' of stiffness is {options['symmetry']!r}; known symmetries: {known}")
    if not (isinstance(options["born_stride"], int) and options["born_stride"] >= 1):
        raise ValueError(f"option 'born_stride' of stiffness is {options['born_stride']!r}; give an integer >= 1")


def _check_orientation(request: ObservableRequest, species: tuple[str, ...], cell: ArrayLike) -> None:
    if request.options["symmetry"] == "hexagonal" and not has_hexagonal_axis(cell):
        shown = [[round(float(x), 4) for x in row] for row in np.asarray(cell)]
        raise ValueError(
            f"the stiffness of a hexagonal crystal needs its c axis along z, and a cell that repeats it; the cell is "
            f"{shown} Å: turn it so that its third vector is along z and the others in the xy plane, or ask for "
            "symmetry: general"
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
    "isothermal stiffness tensor by stress fluctuations, averaged over the crystal's symmetry",
    options={"symmetry": "cubic", "born_stride": 4},
    labels=lambda options: STIFFNESS_LABELS[options["symmetry"]],
    check=_check_stiffness,
    check_system=_check_orientation,
    ensembles=lambda options: ("NVT",),
)  # fmt: skip
