"""Observables: per-snapshot features, then a combination of their weighted averages.

The registry of names, units and shapes is :mod:`aiida_difftre.engine.contract.observables`; the JAX implementations are
here.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray

from aiida_difftre.engine import units
from aiida_difftre.engine.contract.jobs import Prediction
from aiida_difftre.engine.contract.observables import ObservableRequest, observable
from aiida_difftre.engine.errors import EngineError, ExitStatus
from aiida_difftre.engine.snapshots.snapshots import Directions


@dataclass(frozen=True)
class StatePoint:
    """What a combination needs besides averages.

    Args:
        temperature: K.
        volume: Å³; the mean over the snapshots at constant pressure.
        atoms: number of atoms.
        pressure: GPa; None at constant volume.
        mass: of all atoms, amu.
    """

    temperature: float
    volume: float
    atoms: int
    pressure: float | None = None
    mass: float = 0.0

    @property
    def ideal_pressure(self) -> float:
        """N k T / V, GPa."""
        return self.atoms * self.thermal_energy / self.volume * units.EV_PER_A3_IN_GPA

    @property
    def thermal_energy(self) -> float:
        """k T, eV."""
        return units.BOLTZMANN * self.temperature

    @property
    def volume_over_thermal_energy(self) -> float:
        """V / k T, 1/GPa."""
        return self.volume / self.thermal_energy / units.EV_PER_A3_IN_GPA


class Observable(Protocol):
    """An observable of a trajectory.

    Attributes:
        quantities: theta-dependent quantities that it needs besides the energy: ``stress``, ``born``.
        static: True where it has features that depend on positions only (``features``).
    """

    quantities: tuple[str, ...]
    static: bool

    @classmethod
    def from_request(cls, request: ObservableRequest, species: tuple[str, ...], cell: NDArray[np.float64]) -> Self:
        """Prepare for a system, with the smallest cell of the trajectory (Å); ValueError names the value."""

    def directions(self, snapshots: int) -> Directions:
        """Strain directions of the Born terms, for observables that need ``born``."""

    def features(self, positions: Float[Array, "atoms 3"], cell: Float[Array, "3 3"]) -> Float[Array, " features"]:
        """Features of one snapshot that depend on positions only."""

    def combine(
        self, inputs: Mapping[str, Array], weights: Float[Array, " snapshots"], point: StatePoint
    ) -> Float[Array, " values"]:
        """The observable from quantities (``energy``, ``volume``, ``stress``, ``born``) or ``features`` of all
        snapshots.
        """


@runtime_checkable
class Fitted(Protocol):
    """An observable with parameters of the measurement, such as an origin or a scale, that ``combine`` fits."""

    def fitted(self, inputs: Mapping[str, Array], weights: Float[Array, " snapshots"]) -> dict[str, Array]:
        """The parameters by name, for the same arguments as ``combine``."""


@runtime_checkable
class Adaptive(Protocol):
    """A static observable with sizes that the snapshots decide, such as the room for neighbours."""

    def enlarged(self, features: NDArray[np.float64]) -> Observable | None:
        """The observable to compute the features of all snapshots anew with; None where they are complete.

        Raises:
            ValueError: where the snapshots do not have what is observed.
        """


@runtime_checkable
class Spanning(Protocol):
    """An observable that must know how large the cells of a trajectory become, such as one of their wave vectors."""

    @classmethod
    def spanning(
        cls, request: ObservableRequest, species: tuple[str, ...], cell: NDArray[np.float64], largest: float
    ) -> Observable:
        """As :meth:`Observable.from_request`, for cells up to ``largest`` times as long as ``cell``."""


def make(
    request: ObservableRequest,
    species: tuple[str, ...],
    cell: NDArray[np.float64],
    scales: tuple[float, float] = (1.0, 1.0),
    masses: Iterable[float] | None = None,
) -> Observable:
    """The implementation of a requested observable.

    Args:
        request: what is asked for.
        species: chemical symbol of each atom.
        cell: of the structure, (3, 3), Å; it decides whether the system can give the observable.
        scales: of the smallest and of the largest cell in the trajectory, which fluctuate at constant pressure.
        masses: of the atoms, u; None for the standard atomic weights.

    Raises:
        EngineError: with status INVALID_INPUT, when the request does not fit the system.
    """
    module, _, name = observable(request.observable).implementation.partition(":")
    implementation: Any = getattr(importlib.import_module(module), name)
    smallest, largest = scales[0] * cell, scales[1] / scales[0]
    try:
        request.check_system(species, cell, masses)
        request, names = request.for_system(species, masses)
        made: Observable = (
            implementation.spanning(request, names, smallest, largest)
            if isinstance(implementation, Spanning)
            else implementation.from_request(request, names, smallest)
        )
    except ValueError as error:
        raise EngineError(ExitStatus.INVALID_INPUT, f"observable {request.name!r}: {error}") from None
    return made


def prediction(
    request: ObservableRequest,
    values: NDArray[np.float64],
    errors: NDArray[np.float64],
    fitted: Mapping[str, float] | None = None,
    effective_samples: float | None = None,
) -> Prediction:
    """A prediction as results record it.

    Args:
        request: what was asked for.
        values: in its unit.
        errors: standard errors.
        fitted: parameters of the measurement.
        effective_samples: independent snapshots that stand for it.

    Raises:
        EngineError: with status NOT_FINITE, for a value or an error that is not; a single snapshot has no fluctuations.
    """
    if not (np.isfinite(values).all() and np.isfinite(errors).all()):
        raise EngineError(
            ExitStatus.NOT_FINITE,
            f"prediction {request.name!r} is not finite: {np.asarray(values).tolist()} ± {np.asarray(errors).tolist()}"
            "; sample more snapshots, or look at the potential",
        )
    spec = observable(request.observable)
    labels = list(spec.labels(request.options)) if spec.labels else [f"{x:g}" for x in request.grid or []]
    return Prediction(
        label=request.name,
        observable=request.observable,
        options={name: value for name, value in request.options.items() if name not in spec.tables},
        unit=spec.unit_for(request.options),
        labels=labels,
        grid=request.grid,
        values=np.asarray(values, float).tolist(),
        errors=np.asarray(errors, float).tolist(),
        fitted={name: float(value) for name, value in (fitted or {}).items()},
        effective_samples=effective_samples,
    )
