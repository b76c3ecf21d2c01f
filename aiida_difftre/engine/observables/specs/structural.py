"""Specs of the structural observables: options, and what a grid and a cell must fulfil. Free of JAX."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aiida_difftre.engine.contract.observables import ObservableRequest, ObservableSpec, check_present
from aiida_difftre.engine.contract.settings import LONGEST_CUTOFF
from aiida_difftre.engine.geometry import lattice
from aiida_difftre.engine.observables import bins, scattering
from aiida_difftre.engine.observables.specs import curve_checks, radiation

TOLERANCE = 1e-6
"""Relative tolerance where a grid meets a limit."""

METHODS = ("direct", "transform")

MOST_FINE_BINS = 1e6
"""Of a histogram that is smeared afterwards."""

FINEST_R_BIN = 1e-3
"""Å, of the radial distribution functions behind a structure factor."""

MOST_WAVE_VECTORS = 5e7
"""Of a cell, which are enumerated."""

_OBSERVABLES = "aiida_difftre.engine.observables"


def check_half_box(end: float, what: str, cell: ArrayLike) -> None:
    """Refuse distances beyond half the smallest height of the cell, where an atom meets its neighbours' images.

    Raises:
        ValueError: naming the distance and the cell.
    """
    smallest = float(lattice.heights(cell).min())
    if end > smallest / 2 * (1 + TOLERANCE):
        raise ValueError(
            f"{what} reaches {end:g} Å, beyond half of the smallest height of the cell, {smallest:.5g} Å: images "
            f"of the same atoms are correlated there; end at {smallest / 2:.5g} Å at the most, or take a larger cell"
        )


def _check_symbols(value: Any, count: int, option: str, observable: str, example: str) -> None:
    given = isinstance(value, list | tuple) and len(value) == count and all(isinstance(one, str) for one in value)
    if not (given or value is None):
        raise ValueError(f"option {option!r} of {observable} is {value!r}; give {example}, or leave it out")


def _check_number(value: Any, option: str, observable: str, unit: str, *, zero: bool = False) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool) and np.isfinite(value)
    if not (number and (value >= 0 if zero else value > 0)):
        raise ValueError(
            f"option {option!r} of {observable} is {value!r}; give {'zero or ' if zero else ''}a positive number, "
            f"in {unit}"
        )


def _check_smearing(options: dict[str, Any], observable: str, unit: str) -> None:
    if options["smearing"] is not None:
        _check_number(options["smearing"], "smearing", observable, unit, zero=True)


def _check_fine_bins(deviation: float | int | None, edges: NDArray[np.float64], observable: str, unit: str) -> None:
    """Refuse a smearing that would need a histogram of too many bins."""
    if not deviation:
        return
    deviation = float(deviation)
    width = float(edges[1] - edges[0])
    needed = (edges[-1] + bins.SMEARING_REACH * deviation) / bins.fine_width(width, deviation)
    if needed > MOST_FINE_BINS:
        raise ValueError(
            f"option 'smearing' of {observable} is {deviation:g} {unit}, where the bins are {width:g} {unit} wide; "
            "give a standard deviation of that size, or leave it out"
        )


def _check_rdf(options: dict[str, Any]) -> None:
    _check_symbols(options["pair"], 2, "pair", "rdf", "two species, such as ['C', 'C']")
    _check_smearing(options, "rdf", "Å")
    if not isinstance(options["self_pairs"], bool):
        raise ValueError(
            f"option 'self_pairs' of rdf is {options['self_pairs']!r}; give true for V/N², or false for V/(N(N - 1))"
        )
    if options["radiation"] is None:
        stated = [name for name in radiation.OPTIONS if options[name] is not None]
        if stated:
            raise ValueError(f"option {stated[0]!r} of rdf needs a radiation, neutron or xray")
        return
    if options["radiation"] not in scattering.RADIATIONS:
        raise ValueError(
            f"option 'radiation' of rdf is {options['radiation']!r}; choose {' or '.join(scattering.RADIATIONS)}"
        )
    if options["pair"] is not None:
        raise ValueError("g(r) of one pair has no weights; leave out either pair or radiation")
    radiation.check_options(options, "rdf")


def _rdf_grid(options: dict[str, Any], grid: list[float]) -> None:
    _check_fine_bins(options["smearing"], bins.edges(grid, "rdf"), "rdf", "Å")


def _rdf_system(request: ObservableRequest, species: tuple[str, ...], cell: ArrayLike) -> None:
    if request.options["radiation"] is not None:
        radiation.check_system(request.options, species, request.name)
        scattering.weights(species, [0.0], request.options["radiation"], request.options["scattering_lengths"])
    check_present(request.options["pair"] or (), "pair", request.name, species)
    end = float(bins.edges(request.grid or [], request.name)[-1])
    check_half_box(end, f"grid of {request.name!r}, which ends at {(request.grid or [])[-1]:g} Å with a bin that", cell)


RDF = ObservableSpec(
    "rdf", "1", f"{_OBSERVABLES}.structural:RadialDistribution",
    "radial distribution function on the centres of equal bins: total, as neutrons or X-rays weigh it, or of one pair",
    grid_unit="angstrom",
    symbol="g(r)",
    grid_symbol="r",
    bins="shells",
    options={"pair": None, "smearing": None, "self_pairs": True, "radiation": None, **radiation.OPTIONS},
    check=_check_rdf,
    seen=radiation.seen,
    check_grid=_rdf_grid,
    check_system=_rdf_system,
    check_values=curve_checks.check_rdf,
    check_tail=curve_checks.check_rdf_tail,
)  # fmt: skip


def _check_adf(options: dict[str, Any]) -> None:
    _check_number(options["cutoff"], "cutoff", "adf", "Å")
    if options["cutoff"] > LONGEST_CUTOFF:
        raise ValueError(
            f"option 'cutoff' of adf is {options['cutoff']:g} Å; give the end of a shell of neighbours, "
            f"{LONGEST_CUTOFF:g} Å at most"
        )
    _check_symbols(options["triplet"], 3, "triplet", "adf", "three species with the centre in the middle")
    _check_smearing(options, "adf", "degrees")


def _adf_grid(options: dict[str, Any], grid: list[float]) -> None:
    edges = bins.edges(grid, "adf", "degrees")
    end = float(edges[-1])
    if end > 180 * (1 + TOLERANCE):
        raise ValueError(
            f"grid of 'adf' ends at {grid[-1]:g} degrees with a bin that reaches {end:g}; angles end at 180 degrees"
        )
    if end < 2 * np.pi:
        raise ValueError(f"grid of 'adf' ends at {grid[-1]:g} degrees: it seems to be in radians; convert it")
    _check_fine_bins(options["smearing"], edges, "adf", "degrees")


def _adf_system(request: ObservableRequest, species: tuple[str, ...], cell: ArrayLike) -> None:
    check_present(request.options["triplet"] or (), "triplet", request.name, species)


ADF = ObservableSpec(
    "adf", "1/rad", f"{_OBSERVABLES}.angular:AngularDistribution",
    "angular distribution function: probability density of the angles between two neighbours of an atom within a "
    "cutoff, on the centres of equal bins",
    grid_unit="degree",
    symbol="P(θ)",
    grid_symbol="θ",
    bins="intervals",
    options={"cutoff": None, "triplet": None, "smearing": None},
    check=_check_adf,
    check_grid=_adf_grid,
    check_system=_adf_system,
    check_values=curve_checks.check_adf,
)  # fmt: skip


def _check_structure_factor(options: dict[str, Any]) -> None:
    for option, known in (
        ("radiation", scattering.RADIATIONS),
        ("method", METHODS),
        ("window", scattering.WINDOWS),
    ):
        if options[option] not in known:
            raise ValueError(
                f"option {option!r} of structure_factor is {options[option]!r}; choose {' or '.join(known)}"
            )
    for option in ("r_max", "r_bin"):
        if options[option] is not None or option == "r_bin":
            _check_number(options[option], option, "structure_factor", "Å")
    if options["r_bin"] < FINEST_R_BIN:
        raise ValueError(
            f"option 'r_bin' of structure_factor is {options['r_bin']:g} Å; the transform needs no bins below "
            f"{FINEST_R_BIN:g} Å"
        )
    vectors = options["vectors_per_bin"]
    if vectors is not None and not (isinstance(vectors, int) and not isinstance(vectors, bool) and vectors >= 1):
        raise ValueError(
            f"option 'vectors_per_bin' of structure_factor is {vectors!r}; give an integer >= 1, or null for all"
        )
    radiation.check_options(options, "structure_factor")
    partial = options["partial"]
    if partial is None:
        return
    if isinstance(partial, str) and partial in scattering.BHATIA_THORNTON:
        if options["isotopes"] or options["scattering_lengths"]:
            raise ValueError("a partial structure factor has no weights; leave out isotopes and scattering_lengths")
        return
    example = f"two species, such as ['Si', 'O'], or one of {', '.join(scattering.BHATIA_THORNTON)}"
    _check_symbols(partial, 2, "partial", "structure_factor", example)


def _seen_by_structure_factor(
    options: dict[str, Any], species: tuple[str, ...], masses: Sequence[float] | None
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """A partial is of elements, whatever scatters."""
    return (options, species) if options["partial"] is not None else radiation.seen(options, species, masses)


def _structure_factor_grid(options: dict[str, Any], grid: list[float]) -> None:
    if options["method"] == "direct":
        bins.edges(grid, "structure_factor", "1/Å")


def _structure_factor_system(request: ObservableRequest, species: tuple[str, ...], cell: ArrayLike) -> None:
    options, grid = request.options, request.grid or []
    radiation.check_system(options, species, request.name)
    scattering.weighting(species, grid, options["radiation"], options["scattering_lengths"], partial=options["partial"])
    if options["method"] == "transform":
        if options["r_max"] is not None:
            check_half_box(options["r_max"], f"option 'r_max' of {request.name!r}", cell)
        return
    vectors = abs(np.linalg.det(np.asarray(cell))) * grid[-1] ** 3 / (12 * np.pi**2)
    if vectors > MOST_WAVE_VECTORS:
        raise ValueError(
            f"grid of {request.name!r} ends at {grid[-1]:g} 1/Å, up to where this cell has {vectors:.2g} wave vectors; "
            "end it earlier, or use method: transform"
        )
    shortest = lattice.shortest_wave_vector(cell)
    width = (grid[-1] - grid[0]) / (len(grid) - 1)
    if grid[0] + width / 2 < shortest * (1 - TOLERANCE):
        raise ValueError(
            f"grid of {request.name!r} begins at {grid[0]:g} 1/Å with a bin {width:g} wide; the cell has no wave "
            f"vector below {shortest:.5g} 1/Å (2π/L): begin there, take a larger cell, or use method: transform"
        )


STRUCTURE_FACTOR = ObservableSpec(
    "structure_factor", "1", f"{_OBSERVABLES}.structure_factor:StructureFactor",
    "structure factor S(q): the total, weighted as neutrons or X-rays see it, 1 at large q, or a partial one",
    grid_unit="1/angstrom",
    symbol="S(q)",
    grid_symbol="q",
    bins="shells",
    # The wave vectors in a bin are as dense as the shell is large; a transform is computed at points.
    bins_of=lambda options: "shells" if options["method"] == "direct" else None,
    options={
        "radiation": "neutron", "method": "direct", "vectors_per_bin": 50, "r_max": None, "r_bin": 0.02,
        "window": "lorch", "partial": None, **radiation.OPTIONS,
    },
    check=_check_structure_factor,
    check_grid=_structure_factor_grid,
    check_system=_structure_factor_system,
    seen=_seen_by_structure_factor,
    check_values=curve_checks.check_structure_factor,
    check_tail=curve_checks.check_structure_factor_tail,
)  # fmt: skip


def _check_density_profile(options: dict[str, Any]) -> None:
    axis = options["axis"]
    if isinstance(axis, bool) or axis not in (0, 1, 2):
        raise ValueError(f"option 'axis' of density_profile is {axis!r}; give the lattice vector: 0, 1 or 2")
    species = options["species"]
    if species is not None and not isinstance(species, str):
        raise ValueError(f"option 'species' of density_profile is {species!r}; give one species, or leave it out")
    width = options["smearing"]
    if isinstance(width, bool) or not isinstance(width, int | float) or not 0 <= width <= 0.1:
        raise ValueError(
            f"option 'smearing' of density_profile is {width!r}; give a standard deviation from 0 to 0.1 of the cell"
        )


def _density_profile_grid(options: dict[str, Any], grid: list[float]) -> None:
    bins.fractional_edges(grid, "density_profile")


def _density_profile_system(request: ObservableRequest, species: tuple[str, ...], cell: ArrayLike) -> None:
    wanted = request.options["species"]
    check_present(() if wanted is None else (wanted,), "species", request.name, species)


DENSITY_PROFILE = ObservableSpec(
    "density_profile", "1", "aiida_difftre.engine.observables.density:DensityProfile",
    "probability density of the atoms' fractional coordinate along an axis, on the centres of equal bins",
    grid_unit="cell",
    symbol="p(x)",
    grid_symbol="x",
    options={"axis": 0, "species": None, "smearing": 0.0},
    check=_check_density_profile,
    check_grid=_density_profile_grid,
    check_system=_density_profile_system,
    check_values=curve_checks.check_density_profile,
)  # fmt: skip
