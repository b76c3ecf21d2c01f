"""Experimental targets and the registry of observables against which they are checked. Free of JAX.

An observable is registered here by an :class:`ObservableSpec` (name, unit, shape, options) under the entry-point group
``difftre.observables``; the spec names the JAX implementation by its import path, so that a target can be validated
where JAX is not installed or must not be imported.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from aiida_difftre.engine import bins
from aiida_difftre.engine.filters import NOTHING_LOST, Filter
from aiida_difftre.engine.lattice import has_hexagonal_axis

ENTRY_POINT_GROUP = "difftre.observables"

Ensemble = Literal["NVT", "NPT"]
Averages = Literal["intervals", "shells"]

VOIGT_LABELS = ("xx", "yy", "zz", "yz", "xz", "xy")
STIFFNESS_LABELS = {
    "cubic": ("C11", "C12", "C44"),
    "hexagonal": ("C11", "C12", "C13", "C33", "C44"),
    "general": tuple(f"C{i}{j}" for i in range(1, 7) for j in range(i, 7)),
}


@dataclass(frozen=True)
class ObservableSpec:
    """What an observable is called, in which unit it comes and which shape its values have.

    Args:
        name: registry name.
        unit: unit of the values, as a target must state it.
        implementation: ``module:attribute`` of the JAX implementation.
        description: one line.
        grid_unit: unit of the grid; None where the values carry labels instead.
        bins: over what values on a grid are averages: equal ``intervals`` with the grid at their centres, or spherical
            ``shells`` of equal thickness; None where they are values at points.
        options: default options; an option that is not listed here is refused.
        labels: the labels of the values for given options; None where there is a grid.
        check: further checks of options; raises ValueError naming the value and the remedy.
        check_grid: the same, of the grid for complete options.
        check_system: whether a system can give what is asked: (request, species of the atoms, cell in Å); raises
            likewise.
        unit_of: unit of the values for given options, where it depends on them; ``unit`` is that of the defaults.
        bins_of: the same of ``bins``.
        grid_powers: units in which tables hold the values times a power of the grid, and the power.
        filter_of: the linear filter through which values at points have gone, for complete options and a grid; None
            where there is none. ``target import`` applies it to tables.
        tables: options that are long tables, which predictions do not repeat.
        is_fitted: whether the observable fits parameters of the measurement; a request then carries what was measured.
        ensembles: those whose trajectories can give the observable, for given options; None for all.
    """

    name: str
    unit: str
    implementation: str
    description: str
    grid_unit: str | None = None
    bins: Averages | None = None
    options: dict[str, Any] = field(default_factory=dict)
    labels: Callable[[dict[str, Any]], tuple[str, ...]] | None = None
    check: Callable[[dict[str, Any]], None] | None = None
    check_grid: Callable[[dict[str, Any], list[float]], None] | None = None
    check_system: Callable[[ObservableRequest, tuple[str, ...], ArrayLike], None] | None = None
    unit_of: Callable[[dict[str, Any]], str] | None = None
    bins_of: Callable[[dict[str, Any]], Averages | None] | None = None
    grid_powers: dict[str, int] = field(default_factory=dict)
    filter_of: Callable[[dict[str, Any], list[float]], Filter | None] | None = None
    tables: tuple[str, ...] = ()
    is_fitted: bool = False
    ensembles: Callable[[dict[str, Any]], tuple[Ensemble, ...]] | None = None

    def complete_options(self, options: dict[str, Any]) -> dict[str, Any]:
        """Fill in the defaults and refuse what the observable does not know.

        Raises:
            ValueError: for an unknown option or a value out of range.
        """
        for key in options:
            if key not in self.options:
                known = ", ".join(sorted(self.options)) or "none"
                raise ValueError(f"observable {self.name!r} has no option {key!r}; known options: {known}")
        completed = {**self.options, **options}
        if self.check is not None:
            self.check(completed)
        return completed

    def unit_for(self, options: dict[str, Any]) -> str:
        """Unit of the values for complete options."""
        return self.unit if self.unit_of is None else self.unit_of(options)

    def bins_for(self, options: dict[str, Any]) -> Averages | None:
        """Over what values on a grid are averages, for complete options."""
        return self.bins if self.bins_of is None else self.bins_of(options)


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


def check_present(symbols: Iterable[str], option: str, name: str, species: Sequence[str]) -> None:
    """Refuse an option that names a species which the structure lacks.

    Args:
        symbols: that the option names.
        option: its name.
        name: of the observable.
        species: of the atoms.

    Raises:
        ValueError: naming the symbol and the species that there are.
    """
    for symbol in symbols:
        if symbol not in species:
            present = ", ".join(sorted(set(species)))
            raise ValueError(f"option {option!r} of {name!r} names {symbol!r}; the structure has {present}")


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


_OBSERVABLES = "aiida_difftre.engine.observables"

POTENTIAL_ENERGY = ObservableSpec(
    "potential_energy", "eV/atom", f"{_OBSERVABLES}.thermodynamic:PotentialEnergy", "mean potential energy per atom",
    labels=lambda options: ("U",),
)  # fmt: skip
PRESSURE = ObservableSpec(
    "pressure", "GPa", f"{_OBSERVABLES}.mechanical:Pressure", "pressure, kinetic term included",
    labels=lambda options: ("P",),
)  # fmt: skip
STRESS = ObservableSpec(
    "stress", "GPa", f"{_OBSERVABLES}.mechanical:Stress",
    "Cauchy stress in Voigt order xx yy zz yz xz xy, positive in tension, kinetic term included",
    labels=lambda options: VOIGT_LABELS,
)  # fmt: skip
STIFFNESS = ObservableSpec(
    "stiffness", "GPa", f"{_OBSERVABLES}.mechanical:Stiffness",
    "isothermal stiffness tensor by stress fluctuations, averaged over the crystal's symmetry",
    options={"symmetry": "cubic", "born_stride": 4},
    labels=lambda options: STIFFNESS_LABELS[options["symmetry"]],
    check=_check_stiffness,
    check_system=_check_orientation,
    ensembles=lambda options: ("NVT",),
)  # fmt: skip
DENSITY_PROFILE = ObservableSpec(
    "density_profile", "1", f"{_OBSERVABLES}.density:DensityProfile",
    "probability density of the atoms' fractional coordinate along an axis, on the centres of equal bins",
    grid_unit="cell",
    options={"axis": 0, "species": None, "smearing": 0.0},
    check=_check_density_profile,
    check_grid=_density_profile_grid,
    check_system=_density_profile_system,
)  # fmt: skip


@cache
def observables() -> dict[str, ObservableSpec]:
    """All registered observables, by name; other packages add theirs through the entry-point group."""
    return {point.name: point.load() for point in entry_points(group=ENTRY_POINT_GROUP)}


def observable(name: str) -> ObservableSpec:
    """The spec of the observable called ``name``.

    Raises:
        ValueError: for a name that nobody registered.
    """
    try:
        return observables()[name]
    except KeyError:
        known = ", ".join(sorted(observables()))
        raise ValueError(f"unknown observable {name!r}; registered observables: {known}") from None


class Strict(BaseModel):
    """A model that refuses unknown keys and numbers that are not finite."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, validate_default=True)


class Measured(Strict):
    """What was measured, for observables that fit parameters of the measurement.

    Args:
        values: at each value of the grid, in the observable's unit.
        errors: their standard errors.
    """

    values: list[float]
    errors: list[float]


class ObservableRequest(Strict):
    """An observable to predict.

    Args:
        observable: registry name.
        options: options of the observable.
        grid: values of the independent variable, in the observable's grid unit; required where there is one.
        label: name of the prediction in results; the observable's name by default.
        measured: what the parameters of the measurement are fitted to, for observables that have some.
    """

    observable: str
    options: dict[str, Any] = Field(default_factory=dict)
    grid: list[float] | None = None
    label: str | None = None
    measured: Measured | None = None

    @model_validator(mode="after")
    def _known(self) -> ObservableRequest:
        spec = observable(self.observable)
        self.options.update(spec.complete_options(self.options))
        if spec.grid_unit is None and self.grid is not None:
            raise ValueError(f"observable {self.observable!r} has no grid, but one of {len(self.grid)} values is given")
        if spec.grid_unit is not None:
            check_grid(self.grid, self.observable)
        if spec.check_grid is not None and self.grid is not None:
            spec.check_grid(self.options, self.grid)
        if self.measured is not None and not spec.is_fitted:
            raise ValueError(f"observable {self.observable!r} fits nothing to a measurement; leave out 'measured'")
        return self

    def check_system(self, species: Sequence[str], cell: ArrayLike) -> None:
        """Refuse a system that cannot give the observable.

        Args:
            species: chemical symbol of each atom.
            cell: rows are the lattice vectors, Å.

        Raises:
            ValueError: naming the value and the remedy.
        """
        check = observable(self.observable).check_system
        if check is not None:
            check(self, tuple(species), cell)

    @property
    def name(self) -> str:
        """The label, or the observable's name."""
        return self.label or self.observable


def check_requests(requests: Iterable[ObservableRequest], ensemble: Ensemble) -> None:
    """Refuse labels that repeat, and observables that an ensemble cannot give, such as the density at constant volume.

    Raises:
        ValueError: naming the observable, the ensemble and the remedy.
    """
    labels: set[str] = set()
    for request in requests:
        if request.name in labels:
            raise ValueError(f"observable label {request.name!r} is used twice; give each a label of its own")
        labels.add(request.name)
        spec = observable(request.observable)
        fitting = None if spec.ensembles is None else spec.ensembles(request.options)
        if fitting is not None and ensemble not in fitting:
            kind = "".join(f" with {key} = {value!r}" for key, value in request.options.items() if key == "kind")
            remedy = {
                "NPT": "give the state point a pressure and sampling a barostat",
                "NVT": "leave out the pressure of the state point or the barostat of sampling",
            }[fitting[0]]
            raise ValueError(
                f"observable {request.name!r}{kind} needs an {fitting[0]} trajectory, not {ensemble}; {remedy}"
                + (", or choose another kind" if kind else "")
            )


def check_grid(grid: list[float] | None, name: str) -> None:
    """Refuse a grid that is missing, not finite, not positive or not strictly increasing.

    Raises:
        ValueError: naming the first offending value.
    """
    if not grid or len(grid) < 2:
        raise ValueError(f"observable {name!r} needs a grid of at least two values, got {grid!r}")
    for index, value in enumerate(grid):
        if not math.isfinite(value) or value < 0:
            raise ValueError(f"grid value {value!r} at index {index} of {name!r} must be finite and not negative")
        if index and value <= grid[index - 1]:
            raise ValueError(
                f"grid of {name!r} must increase strictly: value {value!r} at index {index} follows {grid[index - 1]!r}"
            )


class Conditions(Strict):
    """Conditions of a measurement.

    Args:
        temperature: K.
        pressure: GPa; None where it is not stated.
        density: kg/m³; None where it is not stated.
    """

    temperature: float = Field(gt=0)
    pressure: float | None = None
    density: float | None = Field(default=None, gt=0)


class Source(Strict):
    """The table from which a target was made.

    Args:
        file: its name.
        sha256: digest of its bytes.
        processing: what was done to it, in words.
    """

    file: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    processing: str = ""


class Target(Strict):
    """A measured observable with its errors, conditions and source.

    Args:
        observable: registry name.
        options: options of the observable.
        grid: as in :class:`ObservableRequest`.
        values: measured values, in ``unit``, in the order of the observable's labels or of the grid.
        errors: standard errors of the values, in ``unit``, positive.
        unit: must be the observable's own.
        error_source: whether the errors were measured or are an assumption of the user.
        conditions: of the measurement.
        citation: the publication.
        doi: its digital object identifier.
        role: ``training`` targets enter the loss, ``held_out`` ones only the validation.
        weight: the factor gamma in the loss.
        label: name in results; the observable's name by default.
        source: the table from which it was made, where there is one.
    """

    observable: str
    options: dict[str, Any] = Field(default_factory=dict)
    grid: list[float] | None = None
    values: list[float]
    errors: list[float]
    unit: str
    error_source: Literal["measured", "assumed"] = "measured"
    conditions: Conditions
    citation: str = Field(min_length=1)
    doi: str | None = None
    role: Literal["training", "held_out"] = "training"
    weight: float = Field(default=1.0, ge=0)
    label: str | None = None
    source: Source | None = None

    @field_validator("values", "errors", mode="before")
    @classmethod
    def _finite(cls, numbers: Any, info: Any) -> Any:
        if isinstance(numbers, list | tuple):
            for index, number in enumerate(numbers):
                if isinstance(number, int | float) and not math.isfinite(number):
                    raise ValueError(f"{info.field_name}[{index}] is {number!r}; remove the point or give a number")
        return numbers

    @model_validator(mode="after")
    def _consistent(self) -> Target:
        request = self.request()
        spec = observable(self.observable)
        self.options.update(request.options)
        unit = spec.unit_for(self.options)
        if self.unit != unit:
            raise ValueError(
                f"target {self.name!r} is in {self.unit!r}; observable {self.observable!r} comes in {unit!r}"
            )
        expected = len(self.grid) if self.grid is not None else len(self.component_labels())
        for what, numbers in (("values", self.values), ("errors", self.errors)):
            if len(numbers) != expected:
                raise ValueError(f"target {self.name!r} has {len(numbers)} {what} where {expected} are expected")
        filtering = None if spec.filter_of is None or self.grid is None else spec.filter_of(self.options, self.grid)
        if filtering is not None and (lost := filtering.lost(np.array(self.values))) > NOTHING_LOST:
            raise ValueError(
                f"the values of target {self.name!r} have not gone through its filter: {100 * lost:.0f} % of them lie "
                "outside of what it passes; make the target with `aiida-difftre target import`, which filters"
            )
        for index, error in enumerate(self.errors):
            if error <= 0:
                raise ValueError(
                    f"errors[{index}] of target {self.name!r} is {error!r}; a standard error must be positive "
                    "(state an assumed one, with error_source: assumed, where the experiment gives none)"
                )
        return self

    @property
    def is_in_loss(self) -> bool:
        """Whether a refinement works towards it."""
        return self.role == "training" and self.weight > 0

    @property
    def name(self) -> str:
        """The label, or the observable's name."""
        return self.label or self.observable

    def request(self) -> ObservableRequest:
        """The observable that predicts this target."""
        measured = Measured(values=self.values, errors=self.errors) if observable(self.observable).is_fitted else None
        return ObservableRequest(
            observable=self.observable, options=dict(self.options), grid=self.grid, label=self.label, measured=measured
        )

    def component_labels(self) -> list[str]:
        """A label for each value: the observable's own, or the grid value with its unit."""
        spec = observable(self.observable)
        if spec.labels is not None:
            return list(spec.labels(self.options))
        return [f"{value:g} {spec.grid_unit}" for value in self.grid or []]
