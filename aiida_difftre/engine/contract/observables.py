"""The registry of observables, and how one is requested. Free of JAX.

An observable is registered by an :class:`ObservableSpec` (name, unit, shape, options) under the entry-point group
``difftre.observables``; the spec names the JAX implementation by its import path, so that a request or a target can be
checked where JAX is not installed or must not be imported.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from aiida_difftre.engine.contract.base import Name, Strict
from aiida_difftre.engine.contract.bounds import GridValue, Measurement, is_entering
from aiida_difftre.engine.contract.filters import Filter
from aiida_difftre.engine.errors import did_you_mean, shown

if TYPE_CHECKING:  # settings name ensembles, which are declared here
    from aiida_difftre.engine.contract.sampling_settings import SamplingSettings

ENTRY_POINT_GROUP = "difftre.observables"

Ensemble = Literal["NVT", "NPT"]
Averages = Literal["intervals", "shells"]
Curve = NDArray[np.float64]
Seen = tuple[dict[str, Any], tuple[str, ...]]


@dataclass(frozen=True)
class ObservableSpec:
    """What an observable is called, in which unit it comes, which options it has and which shape its values have.

    A spec is free of JAX: requests and targets are checked against it wherever they are made. It names the
    implementation in JAX, which is imported where snapshots are. Only the first four arguments are required; ``labels``
    or ``grid_unit`` says what the values are.

    Args:
        name: Name under which it is registered.
        unit: Unit of the values, as a target must state it.
        implementation: Where the implementation is, ``module:attribute``; see
            :class:`~aiida_difftre.engine.observables.protocol.Observable`.
        description: What it is, in one line.
        grid_unit: Unit of the grid; None where the values carry labels instead.
        bins: What values on a grid are averages over: equal ``intervals`` with the grid at their centres, or spherical
            ``shells`` of equal thickness; None where they are values at points.
        options: Options with their defaults; an option that is not listed here is refused.
        labels: Function from complete options to the labels of the values; None where there is a grid.
        check: Function that checks complete options further, and raises ValueError with the value and the remedy.
        check_grid: The same for the grid: from complete options and grid.
        check_system: The same for a system: from request, species of the atoms and cell (Å).
        seen: What the atoms are to the measurement: function from complete options, species and masses (u, or None) to
            the options with all that follows from the system, and the name of each atom; None where these are the
            species.
        check_values: Function that refuses measured values which are not in the observable's normalisation and units:
            from complete options, grid (empty where there is none), values and errors.
        check_tail: The part of that check which holds for a whole table, wherever the values wanted of it lie: from
            complete options, grid and values.
        unit_of: Function from complete options to the unit, where it depends on them; ``unit`` is then that of the
            defaults.
        bins_of: The same for ``bins``.
        grid_powers: Units in which tables hold the values times a power of the grid, with that power.
        filter_of: Function from complete options and grid to the linear filter through which values have gone, or to
            None; ``target import`` applies it to tables.
        tables: Names of options that are long tables, which predictions do not repeat.
        is_fitted: Whether the observable fits parameters of the measurement; a request then carries what was measured.
        ensembles: Function from complete options to the ensembles whose trajectories can give the observable; None for
            all.
        check_dynamics: Of a property of the dynamics, which no weights of snapshots reach: function that refuses
            settings of sampling whose dynamics cannot give it, from request and settings. None for averages
            over configurations.
        symbol: What the axis of a figure calls the values of a curve, such as ``g(r)``; the name where it is None.
        grid_symbol: What it calls the independent variable, such as ``r``; None for the unit alone.

    Example:
        >>> from aiida_difftre.engine.observable_specs import ObservableSpec
        >>> spec = ObservableSpec(
        ...     name="square_displacement",
        ...     unit="angstrom^2",
        ...     implementation="my_package.observables:SquareDisplacement",
        ...     description="mean square distance of the atoms from the centre of the cell",
        ...     options={"axis": None},
        ...     labels=lambda options: ("msd",),
        ... )
        >>> spec.complete_options({})
        {'axis': None}
        >>> spec.complete_options({"axes": 1})
        Traceback (most recent call last):
        ...
        ValueError: observable 'square_displacement' has no option 'axes'; known options: axis; did you mean 'axis'?
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
    seen: Callable[[dict[str, Any], tuple[str, ...], Sequence[float] | None], Seen] | None = None
    check_values: Callable[[dict[str, Any], Curve, Curve, Curve], None] | None = None
    check_tail: Callable[[dict[str, Any], Curve, Curve], None] | None = None
    unit_of: Callable[[dict[str, Any]], str] | None = None
    bins_of: Callable[[dict[str, Any]], Averages | None] | None = None
    grid_powers: dict[str, int] = field(default_factory=dict)
    filter_of: Callable[[dict[str, Any], list[float]], Filter | None] | None = None
    tables: tuple[str, ...] = ()
    is_fitted: bool = False
    ensembles: Callable[[dict[str, Any]], tuple[Ensemble, ...]] | None = None
    check_dynamics: Callable[[ObservableRequest, SamplingSettings], None] | None = None
    symbol: str | None = None
    grid_symbol: str | None = None

    def complete_options(self, options: dict[str, Any]) -> dict[str, Any]:
        """Fill in the defaults, and refuse options that the observable does not know.

        Args:
            options: Options by name.

        Returns:
            All options by name.

        Raises:
            ValueError: For an unknown option or a value out of range.
        """
        for key in options:
            if key not in self.options:
                known = ", ".join(sorted(self.options)) or "none"
                near = did_you_mean(key, self.options)
                raise ValueError(f"observable {self.name!r} has no option {key!r}; known options: {known}{near}")
        completed = {**self.options, **options}
        if self.check is not None and is_entering():
            self.check(completed)
        return completed

    @property
    def is_dynamic(self) -> bool:
        """Whether it is a property of the dynamics, which only the job that samples can predict."""
        return self.check_dynamics is not None

    def unit_for(self, options: dict[str, Any]) -> str:
        """Tell the unit of the values.

        Args:
            options: Complete options.

        Returns:
            The unit, such as ``GPa``.
        """
        return self.unit if self.unit_of is None else self.unit_of(options)

    def bins_for(self, options: dict[str, Any]) -> Averages | None:
        """Tell what values on a grid are averages over.

        Args:
            options: Complete options.

        Returns:
            ``intervals``, ``shells``, or None for values at points.
        """
        return self.bins if self.bins_of is None else self.bins_of(options)


@cache
def registered() -> dict[str, EntryPoint]:
    """List the observables that are installed, those of other packages included.

    Returns:
        Entry points by the name of the observable.

    Example:
        >>> from aiida_difftre.engine.contract.observables import registered
        >>> {"rdf", "stress", "stiffness"} <= set(registered())
        True
    """
    return {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}


@cache
def observable(name: str) -> ObservableSpec:
    """Look up the spec of an observable; only its module is imported.

    Args:
        name: Name under which it is registered.

    Returns:
        The spec.

    Raises:
        ValueError: For a name that nobody registered; the message lists those that there are.

    Example:
        >>> from aiida_difftre.engine.contract.observables import observable
        >>> observable("density").unit
        'kg/m3'
    """
    if name not in registered():
        near, known = did_you_mean(name, registered()), ", ".join(sorted(registered()))
        raise ValueError(f"unknown observable {shown(name)}; registered observables: {known}{near}")
    spec: ObservableSpec = registered()[name].load()
    return spec


class Measured(Strict):
    """What was measured, for observables that fit parameters of the measurement.

    Args:
        values: Measured values at each value of the grid, in the observable's unit.
        errors: their standard errors.
        covariance: Covariance of all their errors, (points, points); None where the points are independent.
    """

    values: list[Measurement]
    errors: list[Measurement]
    covariance: list[list[Measurement]] | None = None

    @model_validator(mode="after")
    def _of_all_points(self) -> Measured:
        count = len(self.values)
        if len(self.errors) != count or any(error <= 0 for error in self.errors):
            raise ValueError(f"measured has {count} values; give as many errors, all of them positive")
        if self.covariance is None:
            return self
        if [len(row) for row in self.covariance] != [count] * count:
            raise ValueError(f"measured.covariance must have {count} rows of {count} numbers, one for each point")
        if np.linalg.eigvalsh(self.covariance)[0] <= 0:
            raise ValueError("measured.covariance is not positive definite; give that of all errors")
        return self

    @model_serializer(mode="wrap")
    def _without_independence(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # As it was written before points could share errors: nodes stay the same.
        content: dict[str, Any] = handler(self)
        return {key: value for key, value in content.items() if value is not None}

    def matrix(self) -> NDArray[np.float64]:
        """Covariance of the errors, (points, points), diagonal where the points are independent."""
        return np.diag(np.square(self.errors)) if self.covariance is None else np.array(self.covariance)


class ObservableRequest(Strict):
    """An observable that a job is asked to predict, checked against its spec when it is made.

    Args:
        observable: Name under which it is registered.
        options: Options of the observable; those that are left out have their defaults.
        grid: Values of the independent variable, in the grid unit of the observable; required where it has one.
        label: Name of the prediction in results; None for the name of the observable.
        measured: What parameters of the measurement are fitted to, for observables that have some; else None.

    Example:
        >>> from aiida_difftre.engine.observable_specs import ObservableRequest
        >>> request = ObservableRequest(observable="rdf", grid=[2.05, 2.15, 2.25], label="g(r)")
        >>> request.name, request.grid
        ('g(r)', [2.05, 2.15, 2.25])
    """

    observable: str
    options: dict[str, Any] = Field(default_factory=dict)
    grid: list[GridValue] | None = None
    label: Name | None = None
    measured: Measured | None = None

    @model_validator(mode="after")
    def _known(self) -> ObservableRequest:
        spec = observable(self.observable)
        self.options.update(spec.complete_options(self.options))
        if spec.grid_unit is None and self.grid is not None:
            raise ValueError(f"observable {self.observable!r} has no grid, but one of {len(self.grid)} values is given")
        if spec.grid_unit is not None:
            check_grid(self.grid, self.observable)
        if is_entering() and spec.check_grid is not None and self.grid is not None:
            spec.check_grid(self.options, self.grid)
        if self.measured is not None and not spec.is_fitted:
            raise ValueError(f"observable {self.observable!r} fits nothing to a measurement; leave out 'measured'")
        return self

    def for_system(
        self, species: Sequence[str], masses: Iterable[float] | None = None
    ) -> tuple[ObservableRequest, tuple[str, ...]]:
        """Complete the request with what follows from a system, such as scattering lengths.

        Args:
            species: Chemical symbol of each atom.
            masses: Masses of the atoms, u; None for the standard atomic weights.

        Returns:
            The request, and the name of each atom: isotopes to neutrons, the chemical symbol else.

        Raises:
            ValueError: For a mass that means nothing to the observable.
        """
        seen = observable(self.observable).seen
        if seen is None:
            return self, tuple(species)
        options, names = seen(
            self.options, tuple(species), None if masses is None else [float(mass) for mass in masses]
        )
        return self.model_copy(update={"options": options}), names

    def check_system(self, species: Sequence[str], cell: ArrayLike, masses: Iterable[float] | None = None) -> None:
        """Refuse a system that cannot give the observable.

        Args:
            species: Chemical symbol of each atom.
            cell: Lattice vectors in rows, (3, 3), Å.
            masses: Masses of the atoms, u; None for the standard atomic weights.

        Raises:
            ValueError: With the value and the remedy.
        """
        check = observable(self.observable).check_system
        if check is not None:
            request, names = self.for_system(species, masses)
            check(request, names, cell)

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


def check_present(symbols: Iterable[str], option: str, name: str, species: Sequence[str]) -> None:
    """Refuse an option that names a species which the structure lacks.

    Args:
        symbols: that the option names.
        option: its name.
        name: Name of the observable.
        species: Species of the atoms.

    Raises:
        ValueError: naming the symbol and the species that there are.
    """
    for symbol in symbols:
        if symbol not in species:
            present = ", ".join(sorted(set(species)))
            raise ValueError(f"option {option!r} of {name!r} names {symbol!r}; the structure has {present}")
