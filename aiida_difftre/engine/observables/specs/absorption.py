"""X-ray absorption fine structure: the table of scattering paths and the observable's options. Free of JAX.

A table holds what FEFF computes for the single-scattering paths of an ideal crystal: once per absorber, the wave that
leaves it, and once per shell of neighbours, how this wave is scattered back. It is part of the options of the
observable, so that it travels with a target.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, ValidationError, model_validator
from scipy.interpolate import CubicSpline

from aiida_difftre.engine.contract.base import Strict
from aiida_difftre.engine.contract.bounds import GridValue, Length, Measurement, is_number
from aiida_difftre.engine.contract.filters import Filter
from aiida_difftre.engine.contract.observables import ObservableRequest, ObservableSpec, check_present
from aiida_difftre.engine.observables.filters import fourier_filter, independent_points
from aiida_difftre.engine.observables.specs.curve_checks import check_fine_structure

Floats = NDArray[np.float64]

SQUARED_K_PER_EV = 0.2624682917
"""2 m_e/ħ², 1/(Å² eV); CODATA 2018."""

EDGES = ("K", "L1", "L2", "L3")
K_WEIGHTS = {0: "1", 1: "1/angstrom", 2: "1/angstrom^2", 3: "1/angstrom^3"}
"""Powers of k, and the unit of k^n χ(k)."""


class Shell(Strict):
    """How neighbours at one distance scatter the photoelectron back.

    Args:
        scatterer: chemical symbol.
        distance: Distance to the absorber, Å.
        amplitude: reduced backscattering amplitude at each k, Å: FEFF's ``mag[feff]`` times ``red factor``.
        phase: Phase of the path at each k: FEFF's ``real[2*phc]`` plus ``phase[feff]``.
    """

    scatterer: str
    distance: Length
    amplitude: list[Measurement]
    phase: list[Measurement]


class PathTable(Strict):
    """Single-scattering paths of an absorber.

    Args:
        format: Format of the table.
        version: Version of the format.
        source: the program that made it, and for what.
        absorber: chemical symbol.
        edge: K, L1, L2 or L3.
        cutoff: distance up to which neighbours count, Å; between the last shell and the next one.
        k: wave numbers of the photoelectron above the Fermi level, 1/Å.
        momentum: real part of the complex momentum at each k, 1/Å.
        mean_free_path: Mean free path at each k, Å.
        shells: Shells, at least one for each species of neighbours.
    """

    format: Literal["difftre-exafs-paths"] = "difftre-exafs-paths"
    version: Literal[1] = 1
    source: str
    absorber: str
    edge: Literal["K", "L1", "L2", "L3"]
    cutoff: Length
    k: list[GridValue] = Field(min_length=4)
    momentum: list[Measurement]
    mean_free_path: list[Measurement]
    shells: list[Shell] = Field(min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> PathTable:
        if self.k[0] < 0 or any(b <= a for a, b in pairwise(self.k)):
            raise ValueError("k must increase strictly from a value that is not negative")
        columns = {"momentum": self.momentum, "mean_free_path": self.mean_free_path}
        for number, shell in enumerate(self.shells):
            columns |= {f"shells.{number}.{name}": getattr(shell, name) for name in ("amplitude", "phase")}
            if shell.distance >= self.cutoff:
                raise ValueError(f"shell {number} at {shell.distance:g} Å lies beyond the cutoff of {self.cutoff:g} Å")
        for name, numbers in columns.items():
            if len(numbers) != len(self.k):
                raise ValueError(f"{name} has {len(numbers)} values for {len(self.k)} values of k")
        if min(self.mean_free_path) <= 0:
            raise ValueError(f"mean_free_path is {min(self.mean_free_path)!r} Å somewhere; it must be positive")
        for scatterer in self.scatterers:
            distances = [shell.distance for shell in self.shells_of(scatterer)]
            if len(set(distances)) < len(distances):
                raise ValueError(f"two shells of {scatterer} at the same distance; merge them")
        return self

    @property
    def scatterers(self) -> tuple[str, ...]:
        """Species of neighbours."""
        return tuple(sorted({shell.scatterer for shell in self.shells}))

    def shells_of(self, scatterer: str) -> list[Shell]:
        """Shells of a species, the nearest first."""
        return sorted(
            (shell for shell in self.shells if shell.scatterer == scatterer), key=lambda shell: shell.distance
        )

    def contribution(self, scatterer: str, k: Floats, distances: Floats) -> Floats:
        r"""What one neighbour adds to χ(k), with S0² = 1.

        .. math:: \chi(k; R) = \frac{e^{-2R/\lambda(k)}}{k R^2}\,\mathrm{Im}\big[f(k, R)\, e^{2 i p(k) R}\big],
            \qquad f(k, R_j) = F_j(k)\, e^{i[\phi_j(k) + 2 (k - p) R_j]}

        p is the real part of the complex momentum. At the distance :math:`R_j` of a shell this is FEFF's path,
        :math:`F_j \sin(2kR_j + \phi_j)\, e^{-2R_j/\lambda}/kR_j^2`. Between shells, and beyond the first and the last,
        f is linear in 1/R, which is how the curvature of the wave enters to first order.

        Args:
            scatterer: species of the neighbour.
            k: wave numbers within those of the table, positive, 1/Å.
            distances: Å.

        Returns:
            (k, distances).

        References:
            Rehr & Albers, Rev. Mod. Phys. 72, 621 (2000).
        """
        grid = np.array(self.k)

        def at_k(values: Any) -> Floats:
            return np.asarray(CubicSpline(grid, np.asarray(values))(k))

        momentum, free_path = at_k(self.momentum), at_k(self.mean_free_path)
        shells = self.shells_of(scatterer)
        radii = np.array([shell.distance for shell in shells])
        waves = np.stack(
            [at_k(s.amplitude) * np.exp(1j * (at_k(s.phase) + 2 * (k - momentum) * s.distance)) for s in shells], axis=1
        )
        if len(shells) == 1:
            wave = waves
        else:
            after = np.clip(np.searchsorted(radii, distances), 1, len(radii) - 1)
            near, far = 1 / radii[after - 1], 1 / radii[after]
            share = (near - 1 / distances) / (near - far)
            wave = waves[:, after - 1] * (1 - share) + waves[:, after] * share
        outgoing = wave * np.exp(2j * momentum[:, None] * distances - 2 * distances / free_path[:, None])
        return np.asarray(outgoing.imag / (k[:, None] * distances**2))


def wave_numbers(grid: Floats, e0_shift: float) -> Floats:
    """Wave numbers of the table that belong to measured ones: sqrt(k² - 2m ΔE0/ħ²); not a number where that is < 0.

    Args:
        grid: measured, 1/Å.
        e0_shift: ΔE0, by which the Fermi level lies above the measured origin of the energy, eV.

    Returns:
        Wave numbers, 1/Å.
    """
    with np.errstate(invalid="ignore"):
        return np.asarray(np.sqrt(grid**2 - SQUARED_K_PER_EV * e0_shift))


def limits(value: float | list[float]) -> tuple[float, float]:
    """The range of a nuisance parameter: a number is fixed."""
    low, high = (value, value) if isinstance(value, int | float) else value
    return float(low), float(high)


def path_table(options: dict[str, Any]) -> PathTable:
    """The table in the options of a request.

    Raises:
        ValueError: where there is none.
    """
    if options["paths"] is None:
        raise ValueError(
            "option 'paths' is missing: the table of scattering paths for this crystal; the job difftre.feff makes one"
        )
    return PathTable.model_validate(options["paths"])


def _check_options(options: dict[str, Any]) -> None:
    if options["k_weight"] not in tuple(K_WEIGHTS) or isinstance(options["k_weight"], bool):
        known = ", ".join(str(power) for power in K_WEIGHTS)
        raise ValueError(f"option 'k_weight' of exafs is {options['k_weight']!r}; known powers of k: {known}")
    if options["edge"] not in EDGES:
        raise ValueError(f"option 'edge' of exafs is {options['edge']!r}; known edges: {', '.join(EDGES)}")
    if not isinstance(options["absorber"], str):
        raise ValueError(f"option 'absorber' of exafs is {options['absorber']!r}; give the symbol of an element")
    for name in ("s02", "e0_shift"):
        value = options[name]
        numbers = value if isinstance(value, list | tuple) and len(value) == 2 else [value, value]
        are_numbers = all(isinstance(n, int | float) and math.isfinite(n) for n in numbers)
        if not are_numbers or numbers[0] > numbers[1]:
            raise ValueError(f"option {name!r} of exafs is {value!r}; give a number, or a range [low, high] to fit in")
    if limits(options["s02"])[0] <= 0:
        raise ValueError(f"option 's02' of exafs is {options['s02']!r}; an amplitude factor is positive")
    _check_filter_options(options)
    if options["paths"] is None:
        return
    try:
        table = PathTable.model_validate(options["paths"])
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in ("paths", *problem["loc"]))
        raise ValueError(f"option {where!r} of exafs: {problem['msg'].removeprefix('Value error, ')}") from None
    if (table.absorber, table.edge) != (options["absorber"], options["edge"]):
        raise ValueError(
            f"the path table is for the {table.absorber} {table.edge} edge, the target for the {options['absorber']} "
            f"{options['edge']} edge; take the table of that edge"
        )


def _check_filter_options(options: dict[str, Any]) -> None:
    window = options["r_range"]
    is_range = isinstance(window, list | tuple) and len(window) == 2 and all(map(is_number, window))
    if window is not None and not (is_range and 0 <= window[0] < window[1]):
        raise ValueError(
            f"option 'r_range' of exafs is {window!r}; give [low, high] in Å, such as [1.0, 3.0], or leave it out"
        )
    for name in ("k_taper", "r_taper"):
        if not (is_number(options[name]) and options[name] > 0):
            raise ValueError(f"option {name!r} of exafs is {options[name]!r}; give a positive width")


def window_filter(options: dict[str, Any], grid: list[float]) -> Filter | None:
    """The Fourier filter that complete options ask for; None without ``r_range``.

    Raises:
        ValueError: for a grid that it does not suit.
    """
    if options["r_range"] is None:
        return None
    k, (low, high), taper = np.array(grid, dtype=float), map(float, options["r_range"]), float(options["k_taper"])
    matrix = fourier_filter(k, (low, high), taper, float(options["r_taper"]))
    return Filter(
        matrix,
        f"Fourier filtered from {low:g} to {high:g} Å (Hanning windows, tapers of {taper:g} 1/Å and "
        f"{options['r_taper']:g} Å): {independent_points(k, (low, high), taper):.1f} independent points",
    )


def _check_window(options: dict[str, Any], grid: list[float]) -> None:
    window_filter(options, grid)
    if options["paths"] is None:
        return
    low, high = limits(options["e0_shift"])
    ends = np.array([grid[0], grid[-1]])
    first, last = wave_numbers(ends, high)[0], wave_numbers(ends, low)[1]
    table = options["paths"]["k"]
    if not (first > 0 and first >= table[0] and last <= table[-1]):
        needed = f"{first:.3g} to {last:.3g}" if first > 0 else f"wave numbers below zero to {last:.3g}"
        raise ValueError(
            f"the k window {grid[0]:g} to {grid[-1]:g} 1/Å of exafs, moved by an e0_shift of {low:g} to {high:g} eV, "
            f"needs {needed} 1/Å; the path table spans {table[0]:g} to {table[-1]:g} 1/Å; narrow the window or "
            "the range of e0_shift"
        )


def _check_system(request: ObservableRequest, species: tuple[str, ...], cell: ArrayLike) -> None:
    options = request.options
    check_present((options["absorber"],), "absorber", request.name, species)
    if request.measured is None and any(low < high for low, high in map(limits, (options["s02"], options["e0_shift"]))):
        raise ValueError(
            "without a measurement there is nothing to fit s02 and e0_shift to; give each as a number, such as "
            "s02: 0.9, e0_shift: 0.0"
        )
    if options["paths"] is None:  # a job makes them
        return
    scatterers = path_table(options).scatterers
    if missing := sorted(set(species) - set(scatterers)):
        raise ValueError(
            f"the path table has no shell of {', '.join(missing)}, only of {', '.join(scatterers)}; make the table for "
            "this crystal"
        )


EXAFS = ObservableSpec(
    "exafs", "1", "aiida_difftre.engine.observables.absorption:Exafs",
    "X-ray absorption fine structure k^n χ(k), single scattering, averaged over absorbers, with S0² and ΔE0 fitted",
    grid_unit="1/angstrom",
    symbol="χ(k)",
    grid_symbol="k",
    options={
        "absorber": None, "edge": "K", "k_weight": 0, "r_range": None, "k_taper": 1.0, "r_taper": 0.5,
        "s02": [0.6, 1.1], "e0_shift": [-15.0, 15.0], "paths": None,
    },
    check=_check_options,
    check_grid=_check_window,
    check_system=_check_system,
    check_values=check_fine_structure,
    check_tail=check_fine_structure,
    unit_of=lambda options: K_WEIGHTS[options["k_weight"]],
    grid_powers={unit: power for power, unit in K_WEIGHTS.items()},
    filter_of=window_filter,
    tables=("paths",),
    is_fitted=True,
)  # fmt: skip
