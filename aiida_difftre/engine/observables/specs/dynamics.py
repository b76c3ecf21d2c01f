"""Registry entries of properties of the dynamics, which no weights of snapshots reach. Free of JAX."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from aiida_difftre.engine.contract.observables import ObservableRequest, ObservableSpec, check_present
from aiida_difftre.engine.contract.sampling_settings import SamplingSettings
from aiida_difftre.engine.observables import bins
from aiida_difftre.engine.observables.specs import curve_checks

LEAST_LAGS = 4
"""Lags of a straight line whose halves are compared."""

LEAST_ORIGINS = 2
"""Times the longest lag that a walker has to be followed: the last lag is else one of few origins."""

LARGEST_VISCOSITY = 1e6
"""mPa s; of pitch, in which nothing diffuses within a simulation."""

LEAST_RESOLVED = 2.0
"""Width of a bin of frequencies times the length of a segment: a Hann window spreads a line over as much."""

FS_PER_PS = 1000.0


def _check_time(options: dict[str, Any], name: str, observable: str) -> None:
    value = options[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1e12:
        raise ValueError(f"option {name!r} of {observable} is {value!r}; give a time in fs")


def _check_walkers(observable: str, settings: SamplingSettings) -> None:
    if settings.walkers is None:
        raise ValueError(
            f"{observable} follows each walker for a time, and walkers is not given, of which a GPU takes many for a "
            "shorter time each; give their number, such as walkers: 8"
        )
    if settings.walkers == 1:
        raise ValueError(f"{observable} takes its error from independent walkers, and walkers is 1; sample at least 2")


def _check_species(request: ObservableRequest, species: tuple[str, ...]) -> None:
    wanted = request.options["species"]
    if wanted is not None:
        check_present([wanted], "species", request.name, species)
    if len(species) < 2:
        raise ValueError(
            f"{request.observable} is that of atoms relative to their centre of mass, and there is one atom"
        )


def _check_options(options: dict[str, Any]) -> None:
    for name in ("begin_fs", "end_fs"):
        _check_time(options, name, "diffusion")
    if options["begin_fs"] >= options["end_fs"]:
        raise ValueError(
            f"option 'begin_fs' of diffusion is {options['begin_fs']:g}, which is not before end_fs = "
            f"{options['end_fs']:g}"
        )
    viscosity, citation = options["viscosity_mPa_s"], options["viscosity_citation"]
    if viscosity is not None and (
        isinstance(viscosity, bool) or not isinstance(viscosity, int | float) or not 0 < viscosity <= LARGEST_VISCOSITY
    ):
        raise ValueError(f"option 'viscosity_mPa_s' of diffusion is {viscosity!r}; give one above 0, or leave it out")
    if (viscosity is None) != (not citation):
        raise ValueError(
            f"options of diffusion: viscosity_mPa_s is {viscosity!r} and viscosity_citation {citation!r}; give both, "
            "or neither for a value that is not corrected for the size of the cell"
        )


def _check_sampling(request: ObservableRequest, settings: SamplingSettings) -> None:
    begin, end, stride = request.options["begin_fs"], request.options["end_fs"], settings.stride_fs
    _check_walkers("diffusion", settings)
    if settings.production_fs < LEAST_ORIGINS * end:
        raise ValueError(
            f"diffusion is the slope of the mean squared displacement up to end_fs = {end:g}, for which each walker "
            f"has to be followed for {LEAST_ORIGINS * end:g} fs, and production_fs is {settings.production_fs:g}; "
            "sample longer, or give the target options: {begin_fs: ..., end_fs: ...}"
        )
    if (end - begin) / stride < LEAST_LAGS - 1:
        raise ValueError(
            f"diffusion is a slope from begin_fs = {begin:g} to end_fs = {end:g}, in which stride_fs = {stride:g} "
            f"leaves fewer than {LEAST_LAGS} points; give a shorter stride_fs"
        )


def _check_system(request: ObservableRequest, species: tuple[str, ...], cell: ArrayLike) -> None:
    _check_species(request, species)
    lattice = np.asarray(cell, float)
    if request.options["viscosity_mPa_s"] is not None and not np.allclose(
        lattice @ lattice.T, np.eye(3) * np.sum(lattice[0] ** 2), rtol=1e-6, atol=1e-6 * np.sum(lattice[0] ** 2)
    ):
        raise ValueError(
            "the correction of diffusion for the size of the cell is known for cubic cells, and this one is none; "
            "leave out viscosity_mPa_s, for a value that is not corrected"
        )


DIFFUSION = ObservableSpec(
    "diffusion", "1e-9 m2/s", "aiida_difftre.engine.observables.diffusion:Diffusion",
    "self-diffusion coefficient from the mean squared displacement; a test, which no reweighting trains; corrected for "
    "the size of a cubic cell where the viscosity is given",
    options={
        "species": None, "begin_fs": 2000.0, "end_fs": 8000.0, "viscosity_mPa_s": None, "viscosity_citation": None,
    },
    labels=lambda options: ("D",) if options["viscosity_mPa_s"] else ("D of this cell",),
    check=_check_options,
    check_system=_check_system,
    check_dynamics=_check_sampling,
    ensembles=lambda options: ("NVT",),
)  # fmt: skip


def _check_vdos_options(options: dict[str, Any]) -> None:
    _check_time(options, "segment_fs", "vdos")
    if options["species"] is not None and not isinstance(options["species"], str):
        raise ValueError(
            f"option 'species' of vdos is {options['species']!r}; give one chemical symbol, or leave it out"
        )


def _check_vdos_grid(options: dict[str, Any], grid: list[float]) -> None:
    """Bins of frequencies that the segments resolve."""
    width = bins.equal_width(grid, "vdos", "THz")
    bins.edges(grid, "vdos", "THz")
    resolved = LEAST_RESOLVED * FS_PER_PS / options["segment_fs"] if options["segment_fs"] else np.inf
    if width < resolved * (1 - 1e-6):
        raise ValueError(
            f"the grid of vdos has steps of {width:g} THz, and segment_fs = {options['segment_fs']:g} resolves "
            f"{resolved:g} THz; take wider steps, or longer segments (option segment_fs)"
        )


def _check_vdos_sampling(request: ObservableRequest, settings: SamplingSettings) -> None:
    _check_walkers("vdos", settings)
    segment = request.options["segment_fs"]
    if settings.production_fs < segment:
        raise ValueError(
            f"vdos takes segments of {segment:g} fs of the path of each walker (option segment_fs), and production_fs "
            f"is {settings.production_fs:g}; sample longer, or give shorter segments and wider steps of the grid"
        )
    highest = float(bins.edges(request.grid or [], "vdos", "THz")[-1])
    stride = settings.steps_per_snapshot * settings.timestep_fs  # of the snapshots that there will be
    if highest > FS_PER_PS / (2 * stride) * (1 + 1e-6):
        raise ValueError(
            f"vdos reaches {highest:g} THz, of which stride_fs = {stride:g} (whole time steps) sees frequencies up to "
            f"{FS_PER_PS / (2 * stride):.4g} THz; give a stride_fs of at most {FS_PER_PS / (2 * highest):.4g}"
        )


VDOS = ObservableSpec(
    "vdos", "1/THz", "aiida_difftre.engine.observables.vibrations:VibrationalDensityOfStates",
    "vibrational density of states from the velocities of the paths, with area one; a test, which no reweighting "
    "trains",
    grid_unit="THz",
    bins="intervals",
    options={"species": None, "segment_fs": 4000.0},
    check=_check_vdos_options,
    check_grid=_check_vdos_grid,
    check_system=lambda request, species, cell: _check_species(request, species),
    check_values=curve_checks.check_vdos,
    check_dynamics=_check_vdos_sampling,
    ensembles=lambda options: ("NVT",),
    symbol="g(ν)",
    grid_symbol="ν",
)  # fmt: skip
