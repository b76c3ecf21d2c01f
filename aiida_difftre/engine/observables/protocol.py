"""Observables: per-snapshot features, then a combination of their weighted averages.

The registry of names, units and shapes is :mod:`aiida_difftre.engine.contract.observables`; the JAX implementations are
here.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, Self, runtime_checkable

import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray

from aiida_difftre.engine import units
from aiida_difftre.engine.contract.observables import ObservableRequest, observable
from aiida_difftre.engine.contract.predictions import Prediction
from aiida_difftre.engine.contract.trajectories import Trajectory
from aiida_difftre.engine.errors import EngineError, ExitStatus
from aiida_difftre.engine.snapshots.snapshots import Directions


@dataclass(frozen=True)
class Macrostate:
    """Thermodynamic state of the averages: temperature, volume and number of atoms, which some observables need.

    Args:
        temperature: Temperature, K.
        volume: Volume, Å³; the mean over the snapshots at constant pressure.
        atoms: Number of atoms.
        pressure: Pressure of the barostat, GPa; None at constant volume.
        mass: Mass of all atoms together, amu.

    Example:
        >>> from aiida_difftre.engine.observables.protocol import Macrostate
        >>> gas = Macrostate(temperature=300.0, volume=1000.0, atoms=10)
        >>> round(gas.thermal_energy, 5), round(gas.ideal_pressure, 5)  # eV, GPa
        (0.02585, 0.04142)
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
    """What the implementation of an observable has: any class with these attributes and methods will do.

    An observable is computed in two steps: ``features`` of each snapshot, and ``combine``, which turns weighted
    averages over all snapshots into the values. JAX differentiates ``combine``; a gradient needs no code of its own.

    Attributes:
        quantities: Quantities that depend on the parameters and that ``combine`` needs besides the energy: ``stress``,
            ``born``.
        static: Whether the features depend on positions and cell alone; they are then computed once per trajectory.

    Example:
        The mean distance of the atoms from the centre of the cell:

        >>> import jax.numpy as jnp
        >>> from aiida_difftre.engine.observables.protocol import Macrostate
        >>> class MeanDistance:
        ...     quantities = ()
        ...     static = True
        ...
        ...     @classmethod
        ...     def from_request(cls, request, species, cell):
        ...         return cls()
        ...
        ...     def features(self, positions, cell):
        ...         return jnp.mean(jnp.linalg.norm((positions - 0.5) @ cell, axis=-1), keepdims=True)
        ...
        ...     def combine(self, inputs, weights, point):
        ...         return weights @ inputs["features"]
        >>> observable = MeanDistance()
        >>> snapshots = jnp.array([[[0.5, 0.5, 0.25]], [[0.5, 0.5, 0.0]]])
        >>> features = jnp.stack([observable.features(snapshot, 4 * jnp.eye(3)) for snapshot in snapshots])
        >>> observable.combine({"features": features}, jnp.array([0.5, 0.5]), Macrostate(300.0, 64.0, 1)).tolist()
        [1.5]
    """

    quantities: tuple[str, ...]
    static: bool

    @classmethod
    def from_request(cls, request: ObservableRequest, species: tuple[str, ...], cell: NDArray[np.float64]) -> Self:
        """Prepare the observable for a system.

        Args:
            request: What is asked for, with complete options.
            species: Chemical symbol of each atom.
            cell: The smallest cell of the trajectory, lattice vectors in rows, (3, 3), Å.

        Returns:
            The observable.

        Raises:
            ValueError: Where the system cannot give what is asked; the message refuses the job.
        """

    def directions(self, snapshots: int) -> Directions:
        """Choose the strains along which Born terms are computed, for observables that need ``born``.

        Args:
            snapshots: Number of snapshots.

        Returns:
            Strains for some or all of the snapshots.
        """

    def features(self, positions: Float[Array, "atoms 3"], cell: Float[Array, "3 3"]) -> Float[Array, " features"]:
        """Compute what is needed of one snapshot and depends on positions and cell alone.

        Args:
            positions: Fractional coordinates, unwrapped, (atoms, 3).
            cell: Lattice vectors in rows, (3, 3), Å.

        Returns:
            Features, (features,).
        """

    def combine(
        self, inputs: Mapping[str, Array], weights: Float[Array, " snapshots"], point: Macrostate
    ) -> Float[Array, " values"]:
        """Compute the values of the observable from all snapshots.

        Args:
            inputs: ``features``, (snapshots, features), of a static observable; else ``energy`` (eV), ``volume`` (Å³)
                and, where they are asked for, ``stress`` (GPa) and ``born`` (GPa), with the snapshots as their first
                axis.
            weights: Weights of the snapshots, (snapshots,), which add up to one.
            point: Temperature, volume and number of atoms for which the averages are.

        Returns:
            The values, (values,), in the observable's unit.
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
        """Prepare the observable for cells up to ``largest`` times as long as ``cell``."""


class Observed(NamedTuple):
    """A property of the dynamics, as its paths tell it.

    Args:
        values: Values in the unit of the observable, (values,).
        errors: Their standard errors, (values,).
        told: Numbers behind them, by name, which results record.
        samples: Number of independent paths.

    Example:
        >>> import numpy as np
        >>> from aiida_difftre.engine.observables.protocol import Observed
        >>> Observed(np.array([2.3]), np.array([0.1]), {}, samples=8.0).values.tolist()
        [2.3]
    """

    values: NDArray[np.float64]
    errors: NDArray[np.float64]
    told: dict[str, float]
    samples: float


@runtime_checkable
class Dynamic(Protocol):
    """A property of the dynamics, which takes the paths of all walkers and no weights of snapshots.

    Example:
        >>> import numpy as np
        >>> from aiida_difftre.engine.observable_specs import ObservableRequest
        >>> from aiida_difftre.engine.observables.protocol import Dynamic, make
        >>> diffusion = make(ObservableRequest(observable="diffusion"), ("Ar", "Ar"), 10 * np.eye(3))
        >>> isinstance(diffusion, Dynamic)
        True
    """

    def of_trajectory(self, trajectory: Trajectory, masses: NDArray[np.float64]) -> Observed:
        """Compute the values from the paths.

        Args:
            trajectory: The trajectory, whose snapshots of each walker are in the order of time.
            masses: Masses of the atoms, (atoms,), amu.

        Returns:
            Values and errors in the unit of the observable.

        Raises:
            ValueError: Where the paths do not tell it.
        """


def make(
    request: ObservableRequest,
    species: tuple[str, ...],
    cell: NDArray[np.float64],
    scales: tuple[float, float] = (1.0, 1.0),
    masses: Iterable[float] | None = None,
) -> Observable:
    """Make the implementation of an observable that is asked for.

    Args:
        request: What is asked for.
        species: Chemical symbol of each atom.
        cell: Lattice vectors of the structure in rows, (3, 3), Å; they decide whether the system can give the
            observable.
        scales: The smallest and the largest cell of the trajectory, over ``cell``; cells fluctuate at constant
            pressure.
        masses: Masses of the atoms, u; None for the standard atomic weights.

    Returns:
        The implementation.

    Raises:
        EngineError: With status INVALID_INPUT, where the request does not fit the system.

    Example:
        >>> import jax.numpy as jnp
        >>> import numpy as np
        >>> from aiida_difftre.engine.observable_specs import ObservableRequest
        >>> from aiida_difftre.engine.observables.protocol import Macrostate, make
        >>> energy = make(ObservableRequest(observable="potential_energy"), ("Ar", "Ar"), 10 * np.eye(3))
        >>> inputs, weights = {"energy": jnp.array([-0.25, -0.75])}, jnp.array([0.5, 0.5])
        >>> energy.combine(inputs, weights, Macrostate(300.0, 1000.0, 2)).tolist()  # eV/atom
        [-0.25]
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
        values: Values in its unit.
        errors: standard errors.
        fitted: parameters of the measurement.
        effective_samples: independent snapshots that stand for it.

    Returns:
        The prediction.

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
