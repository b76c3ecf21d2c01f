"""Specs of what publications without a curve tell of a shell of neighbours: how many, and how far. Free of JAX."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aiida_difftre.engine.contract.bounds import is_number
from aiida_difftre.engine.contract.observables import ObservableRequest, ObservableSpec, check_present
from aiida_difftre.engine.contract.settings import LONGEST_CUTOFF
from aiida_difftre.engine.observables.specs.structural import check_half_box

MEASURES = ("mean", "peak", "distribution_peak")
"""Of a distance: the mean of all in the range, or where g(r) or the radial distribution 4πr²ρg(r) is highest."""

NARROWEST = 0.05
"""Å, of a range in which a peak is looked for or distances are averaged."""

_MODULE = "aiida_difftre.engine.observables.shells"


def _check_shell(options: dict[str, Any], observable: str) -> None:
    pair, limits = options["pair"], options["r_range"]
    if not (isinstance(pair, list | tuple) and len(pair) == 2 and all(isinstance(one, str) for one in pair)):
        raise ValueError(
            f"option 'pair' of {observable} is {pair!r}; give two species, such as ['Si', 'O']: how many O a Si has"
        )
    is_range = isinstance(limits, list | tuple) and len(limits) == 2 and all(map(is_number, limits))
    if not (is_range and limits[0] >= 0 and limits[0] + NARROWEST <= limits[1] <= LONGEST_CUTOFF):
        raise ValueError(
            f"option 'r_range' of {observable} is {limits!r}; give where the shell begins and ends, in Å, such as "
            f"[1.2, 2.2], at least {NARROWEST:g} Å wide and {LONGEST_CUTOFF:g} Å at most"
        )


def _shell_system(request: ObservableRequest, species: tuple[str, ...], cell: ArrayLike) -> None:
    pair, limits = request.options["pair"], request.options["r_range"]
    check_present(pair, "pair", request.name, species)
    if pair[0] == pair[1] and species.count(pair[0]) < 2:
        raise ValueError(f"option 'pair' of {request.name!r} is {pair!r}, and the structure has one {pair[0]}")
    check_half_box(float(limits[1]), f"option 'r_range' of {request.name!r}", cell)


def _check_numbers(options: dict[str, Any], grid: NDArray[np.float64], values: NDArray, errors: NDArray) -> None:
    if values[0] < 0:
        raise ValueError(f"it is {values[0]:g}, and a number of neighbours is not negative")


def _check_distance_options(options: dict[str, Any]) -> None:
    _check_shell(options, "neighbor_distance")
    if options["measure"] not in MEASURES:
        raise ValueError(
            f"option 'measure' of neighbor_distance is {options['measure']!r}; choose {', '.join(MEASURES[:-1])} or "
            f"{MEASURES[-1]}"
        )


def _check_distance(options: dict[str, Any], grid: NDArray[np.float64], values: NDArray, errors: NDArray) -> None:
    low, high = options["r_range"]
    if not low < values[0] < high:
        raise ValueError(
            f"it is {values[0]:g} Å, outside of its r_range {[low, high]!r} Å, in which distances are looked for; give "
            "a range that has it in its middle"
        )


COORDINATION_NUMBER = ObservableSpec(
    "coordination_number", "1", f"{_MODULE}:CoordinationNumber",
    "mean number of neighbours of the second species that an atom of the first has at distances within a range",
    options={"pair": None, "r_range": None},
    labels=lambda options: (f"n({'-'.join(options['pair'] or 'ab')})",),
    check=lambda options: _check_shell(options, "coordination_number"),
    check_system=_shell_system,
    check_values=_check_numbers,
)  # fmt: skip
NEIGHBOR_DISTANCE = ObservableSpec(
    "neighbor_distance", "angstrom", f"{_MODULE}:NeighborDistance",
    "distance of neighbours within a range: the mean of all, as fits of T(r) give it for a narrow shell, or where g(r) "
    "or 4πr²ρg(r) is highest",
    options={"pair": None, "r_range": None, "measure": "mean"},
    labels=lambda options: (f"r({'-'.join(options['pair'] or 'ab')})",),
    check=_check_distance_options,
    check_system=_shell_system,
    check_values=_check_distance,
)  # fmt: skip
