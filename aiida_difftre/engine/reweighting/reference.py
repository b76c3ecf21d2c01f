"""What is kept of a trajectory to average over it again at other parameters: snapshots, energies, static features."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray

from aiida_difftre.engine.contract.bases import BaseSpec
from aiida_difftre.engine.contract.dynamic_requests import check_dynamic_requests
from aiida_difftre.engine.contract.jobs import Machine
from aiida_difftre.engine.contract.observables import ObservableRequest, check_requests
from aiida_difftre.engine.contract.state_points import StatePoint
from aiida_difftre.engine.contract.trajectories import Trajectory
from aiida_difftre.engine.errors import EngineError, ExitStatus
from aiida_difftre.engine.observables import protocol
from aiida_difftre.engine.observables.features import static_features
from aiida_difftre.engine.observables.protocol import Observable
from aiida_difftre.engine.potentials.potential import Potential
from aiida_difftre.engine.potentials.term import Parameters, masses
from aiida_difftre.engine.reweighting import statistics
from aiida_difftre.engine.reweighting.weights import boltzmann_weights, state_shift
from aiida_difftre.engine.runtime import device
from aiida_difftre.engine.snapshots.snapshots import Coordinates, Directions, Snapshots

Quantities = Mapping[str, Array]


class Pooled(NamedTuple):
    """Where the snapshots of several trajectories are from.

    Args:
        origins: Number of the trajectory of each snapshot, (snapshots,); 0 for the newest.
        size: Effective snapshots of all of them for the potential that sampled the newest.
        shares: What each snapshot counts, (snapshots,), one on average: the less, the more its trajectory is
            correlated.
    """

    origins: NDArray[np.int32]
    size: float
    shares: NDArray[np.float64]


@dataclass(frozen=True)
class Reference:
    """A reference trajectory with what its observables need.

    Args:
        requests: the observables.
        implementations: Implementations of the requests.
        snapshots: evaluates theta-dependent quantities.
        features: theta-independent features by label, (snapshots, features).
        energies: reference energies of the terms, (snapshots,), eV: those of what sampled without those of a base,
            which cancel in the weights.
        volumes: (snapshots,), Å³.
        walkers: (snapshots,).
        shift: What the state point takes off the exponent of the weights, (snapshots,); zeros at the
            state point that was sampled.
        point: Thermodynamic state of the averages.
        base: What the base gave, by quantity, which is added to what the terms give; empty without a base.
        pooled: Where the snapshots are from, if from several trajectories; None for a single one.
    """

    requests: tuple[ObservableRequest, ...]
    implementations: tuple[Observable, ...]
    snapshots: Snapshots
    features: Mapping[str, NDArray[np.float64] | Array]
    energies: NDArray[np.float64]
    volumes: NDArray[np.float64] | Array
    walkers: NDArray[np.int32]
    shift: NDArray[np.float64]
    point: protocol.Macrostate
    base: Mapping[str, NDArray[np.float64] | Array] = field(default_factory=dict)
    pooled: Pooled | None = None

    @property
    def parts(self) -> list[NDArray[np.intp]]:
        """The snapshots of each trajectory, which were drawn from one ensemble, as indices."""
        if self.pooled is None:
            return [np.arange(len(self.walkers))]
        origins = self.pooled.origins
        return [np.flatnonzero(origins == number) for number in range(int(origins.max()) + 1)]

    @property
    def shares(self) -> NDArray[np.float64] | None:
        """What each snapshot counts, (snapshots,), one on average; None where all are of one trajectory."""
        return None if self.pooled is None else self.pooled.shares

    @property
    def born_strides(self) -> dict[str, int]:
        """Every so many snapshots have a Born term, by the key of these among the quantities."""
        return {label: held.stride for label, held in _directions(1, self.requests, self.implementations).items()}

    @property
    def whole_size(self) -> float:
        """Snapshots that stand for the potential which sampled the (newest) trajectory."""
        return float(len(self.walkers)) if self.pooled is None else self.pooled.size

    def weights(self, energies: Float[Array, " S"]) -> Float[Array, " S"]:
        """Weights of the snapshots for energies at other parameters; traceable."""
        return boltzmann_weights(energies, jnp.asarray(self.energies), self.point.temperature, jnp.asarray(self.shift))

    def inputs(self, number: int, quantities: Quantities) -> dict[str, Array]:
        """What the combination of one observable takes: of the whole potential, with its base."""
        name = self.requests[number].name
        if self.implementations[number].static:
            return {"features": jnp.asarray(self.features[name])}
        inputs = {key: self.whole(key, quantities[key]) for key in ("energy", "stress") if key in quantities}
        inputs["volume"] = jnp.asarray(self.volumes)
        if born_label(name) in quantities:
            inputs["born"] = self.whole(born_label(name), quantities[born_label(name)])
        return inputs

    def whole(self, key: str, values: Any) -> Any:
        """A quantity of the whole potential from that of its terms."""
        return values + self.base[key] if key in self.base else values

    def averages(self, quantities: Quantities, weight: Float[Array, " S"]) -> list[Array]:
        """All observables for given weights; traceable."""
        return [
            implementation.combine(self.inputs(number, quantities), weight, self.point)
            for number, implementation in enumerate(self.implementations)
        ]

    def fitted(self, number: int, quantities: Quantities, weight: NDArray[np.float64]) -> dict[str, float]:
        """Parameters of the measurement that one observable fits; empty for those that fit none."""
        implementation = self.implementations[number]
        if not isinstance(implementation, protocol.Fitted):
            return {}
        found = implementation.fitted(self.inputs(number, quantities), jnp.asarray(weight))
        return {name: float(value) for name, value in found.items()}

    def inefficiency(self, quantities: Mapping[str, NDArray[np.float64]]) -> float:
        """Statistical inefficiency g: all snapshots over the independent ones of all trajectories."""
        counts = np.array([len(part) for part in self.parts])
        return float(counts.sum() / np.sum(counts / self.inefficiencies(quantities)))

    def inefficiencies(self, quantities: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
        """That of each trajectory, (trajectories,): the largest of energy, volume and stress components."""
        columns = [self.whole("energy", quantities["energy"])[:, None], np.asarray(self.volumes)[:, None]]
        if "stress" in quantities:
            columns.append(self.whole("stress", quantities["stress"]))
        return self.slowest(np.concatenate(columns, 1))

    def slowest(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The largest statistical inefficiency of any column, (snapshots, columns), in each of the trajectories."""
        found = (statistics.statistical_inefficiency(values[part], self.walkers[part]) for part in self.parts)
        return np.array([np.max(g) for g in found])


def born_label(name: str) -> str:
    """Key of the Born terms of an observable among the quantities."""
    return f"born:{name}"


def prepare_reference(
    potential: Potential,
    parameters: Parameters,
    trajectory: Trajectory,
    requests: Sequence[ObservableRequest],
    machine: Machine,
    point: StatePoint | None = None,
) -> Reference:
    """Prepare a trajectory that was sampled with these parameters.

    Args:
        potential: the potential.
        parameters: those that sampled.
        trajectory: the snapshots.
        requests: observables.
        machine: precision and batches.
        point: state point of the averages, which is reached by reweighting where it is not the sampled one
            (:func:`check_sampled_at` refuses another one); None for that of the trajectory. Without a pressure, that of
            the trajectory.

    Returns:
        The reference.

    Raises:
        EngineError: with status INVALID_INPUT, for a repeated label, an observable that fits neither the system nor the
            ensemble, a pressure where none was held, or a trajectory of another potential; SELF_CHECK_FAILED, where JAX
            miscompiles.
    """
    ref = unchecked_reference(potential, parameters, trajectory, requests, machine, point)
    check_potential(trajectory, ref.energies + ref.base.get("energy", 0.0))
    return relative_to_sampled(ref, trajectory)


def relative_to_sampled(ref: Reference, trajectory: Trajectory) -> Reference:
    """A reference whose weights are relative to what sampled the trajectory, where that was another potential.

    Args:
        ref: The reference, relative to the potential of its energies.
        trajectory: The snapshots.

    Returns:
        The reference.
    """
    if trajectory.reference_energies is None:
        return ref
    sampled, to = trajectory.reference_energies, ref.point
    shift = state_shift(sampled, trajectory, to.temperature, to.pressure)
    return replace(ref, energies=sampled - ref.base.get("energy", 0.0), shift=shift)


def unchecked_reference(
    potential: Potential,
    parameters: Parameters,
    trajectory: Trajectory,
    requests: Sequence[ObservableRequest],
    machine: Machine,
    point: StatePoint | None = None,
) -> Reference:
    """Prepare snapshots as if these parameters had sampled them, which whoever calls has to make true.

    Args:
        potential: the potential.
        parameters: those of the reference energies.
        trajectory: the snapshots, whose own energies do not count.
        requests: observables.
        machine: precision and batches.
        point: as for :func:`prepare_reference`.

    Returns:
        The reference.

    Raises:
        EngineError: as for :func:`prepare_reference`, but for a trajectory of another potential.
    """
    point = _state_point(trajectory, point)
    try:
        check_requests(requests, trajectory.ensemble)
        check_dynamic_requests(requests, None)
    except ValueError as error:
        raise EngineError(ExitStatus.INVALID_INPUT, str(error)) from None
    made = _implementations(requests, trajectory)
    # What follows from the system, such as scattering lengths, is then part of what results report.
    requests = [request.for_system(trajectory.species, trajectory.masses)[0] for request in requests]
    base = of_base(potential.spec.base, trajectory, requests, made)
    snapshots = _snapshots(potential, trajectory, requests, made, machine)
    # Weights take energies in double precision, so that a JAX that miscompiles them is refused first.
    device.self_check(potential, parameters, snapshots.environment(), "float64")
    features = {
        request.name: static_features(implementation, trajectory, request.name, machine.batch_size)
        for request, implementation in zip(requests, made, strict=True)
        if implementation.static
    }
    energies = snapshots.energies(parameters)
    atomic_masses = masses(trajectory.species, trajectory.masses)
    return Reference(
        tuple(requests),
        made,
        snapshots,
        features,
        energies,
        snapshots.volumes,
        trajectory.walkers,
        state_shift(energies + base.get("energy", 0.0), trajectory, point.temperature, point.pressure),
        protocol.Macrostate(
            point.temperature,
            float(snapshots.volumes.mean()),
            len(trajectory.species),
            pressure=point.pressure,
            mass=float(atomic_masses.sum()),
        ),
        base,
    )


def _implementations(requests: Sequence[ObservableRequest], trajectory: Trajectory) -> tuple[Observable, ...]:
    scales = float(trajectory.scales.min()), float(trajectory.scales.max())
    return tuple(
        protocol.make(request, trajectory.species, trajectory.cell, scales, trajectory.masses) for request in requests
    )


def _directions(
    snapshots: int, requests: Sequence[ObservableRequest], implementations: Sequence[Observable]
) -> dict[str, Directions]:
    """Strains along which observables want Born terms, by the label of these."""
    return {
        born_label(request.name): implementation.directions(snapshots)
        for request, implementation in zip(requests, implementations, strict=True)
        if "born" in implementation.quantities
    }


def born_stride(
    species: tuple[str, ...],
    cell: NDArray[np.float64],
    requests: Sequence[ObservableRequest],
    masses: NDArray[np.float64] | None = None,
) -> int:
    """The stride of Born terms that serves all observables which need them; 0 where none does.

    Args:
        species: Chemical symbol of each atom.
        cell: Lattice vectors in rows, (3, 3), Å.
        requests: Observables.
        masses: Masses of the atoms, u; None for the standard atomic weights.

    Returns:
        The stride, in snapshots.
    """
    made = [protocol.make(request, species, cell, masses=masses) for request in requests]
    return math.gcd(*(directions.stride for directions in _directions(1, requests, made).values()))


def of_base(
    base: BaseSpec | None,
    trajectory: Trajectory,
    requests: Sequence[ObservableRequest],
    implementations: Sequence[Observable],
) -> dict[str, NDArray[np.float64]]:
    """What the base gave on the snapshots, by quantity; empty for a potential without one.

    Args:
        base: The base of the potential.
        trajectory: The snapshots.
        requests: Observables.
        implementations: Their implementations.

    Returns:
        ``energy`` (eV), ``stress`` and the Born terms of each observable (GPa).

    Raises:
        EngineError: With status INVALID_INPUT, for a trajectory of another base, or one without the Born terms that an
            observable needs.
    """
    arrays, digest = trajectory.base, None if base is None else base.digest
    if (found := None if arrays is None else arrays.digest) != digest:
        of, wants = ("no base" if one is None else f"a base with the digest {one[:12]}" for one in (found, digest))
        raise EngineError(
            ExitStatus.INVALID_INPUT,
            f"the trajectory was sampled with {of}, and the potential has {wants}; give the potential that sampled it",
        )
    if arrays is None:
        return {}
    quantities = {"energy": arrays.energies, "stress": arrays.stresses}
    for label, directions in _directions(len(trajectory.positions), requests, implementations).items():
        born = arrays.born_for(directions.stride)
        if born is None:
            held = "none" if arrays.born is None else f"one for every {arrays.born_stride} snapshots"
            raise EngineError(
                ExitStatus.INVALID_INPUT,
                f"observable {label.removeprefix(born_label(''))!r} needs a Born term of the base for every "
                f"{directions.stride} snapshots, and the trajectory holds {held}; sample with this observable among "
                f"those of the job (or base_born_stride: {directions.stride})",
            )
        quantities[label] = np.einsum("sdi,sij,sdj->sd", directions.vectors, born, directions.vectors)
    return quantities


def _snapshots(
    potential: Potential,
    trajectory: Trajectory,
    requests: Sequence[ObservableRequest],
    implementations: Sequence[Observable],
    machine: Machine,
) -> Snapshots:
    """What evaluates the quantities that the observables need."""
    return Snapshots(
        potential,
        Coordinates.of(trajectory),
        machine,
        stress=any("stress" in implementation.quantities for implementation in implementations),
        directions=_directions(len(trajectory.positions), requests, implementations),
    )


def sampled_at(trajectory: Trajectory) -> StatePoint:
    """The state point of a trajectory."""
    return StatePoint(trajectory.temperature, trajectory.pressure)


def _state_point(trajectory: Trajectory, point: StatePoint | None) -> StatePoint:
    """The state point of the averages; refuse a pressure that nothing stands for."""
    if point is None:
        return sampled_at(trajectory)
    if point.pressure is None:
        return replace(point, pressure=trajectory.pressure)
    if trajectory.pressure is None:
        raise EngineError(
            ExitStatus.INVALID_INPUT,
            "the trajectory was sampled at constant volume, but the state point is at a pressure of "
            f"{point.pressure:g} GPa; sample it with a barostat, or leave out the pressure",
        )
    return point


def check_sampled_at(trajectory: Trajectory, point: StatePoint) -> None:
    """Refuse a trajectory of another state point.

    Args:
        trajectory: the snapshots.
        point: State point that the snapshots should be from; without a pressure, any pressure will do.

    Raises:
        EngineError: with status INVALID_INPUT.
    """
    if not np.isclose(point.temperature, trajectory.temperature, rtol=1e-6):
        raise EngineError(
            ExitStatus.INVALID_INPUT,
            f"the trajectory was sampled at {trajectory.temperature:g} K, but the state point is at "
            f"{point.temperature:g} K; sample it at that temperature",
        )
    pressure, held = _state_point(trajectory, point).pressure, trajectory.pressure
    if pressure is not None and held is not None and not np.isclose(pressure, held, rtol=1e-6, atol=1e-12):
        raise EngineError(
            ExitStatus.INVALID_INPUT,
            f"the trajectory was sampled at {held:g} GPa, but the state point is at {pressure:g} GPa; "
            "sample it at that pressure",
        )


def agree(stored: NDArray[np.float64], energies: NDArray[np.float64]) -> bool:
    """Whether energies are those of one potential: they differ by a constant, and what is rounded in files."""
    return float(np.ptp(stored - energies)) <= 1e-3 * float(np.ptp(energies)) + 1e-3


def check_potential(trajectory: Trajectory, energies: NDArray[np.float64]) -> None:
    """Refuse a trajectory whose stored energies are not those of the potential.

    Args:
        trajectory: The snapshots.
        energies: Energies with the potential, (snapshots,), eV.

    Raises:
        EngineError: with status INVALID_INPUT.
    """
    if not agree(trajectory.energies, energies):
        spread = float(np.ptp(trajectory.energies - energies))
        raise EngineError(
            ExitStatus.INVALID_INPUT,
            f"the trajectory was not sampled with this potential: its stored energies deviate by {spread:.3g} eV; give "
            "the potential that sampled it",
        )
