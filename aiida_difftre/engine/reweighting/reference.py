r"""Weights, effective sample sizes, and reweighted predictions with their errors.

    w_i = softmax_i( -[U_θ(x_i) - U_ref(x_i)]/kT )            (Thaler & Zavadlav, Nat. Commun. 12, 6884 (2021), eq. 3)
    <O> = Σ_i w_i O(x_i)

Towards another temperature T' or pressure P' the exponent is -([U_θ + P'V]/kT' - [U_ref + PV]/kT) (the one-reference
case of Shirts & Chodera, J. Chem. Phys. 129, 124105 (2008)).

Both energies are evaluated in float64 on the snapshot as stored, in the same arithmetic, so that the weights are
exactly uniform at θ = θ_ref.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray

from aiida_difftre.engine import units
from aiida_difftre.engine.contract.files import Trajectory
from aiida_difftre.engine.contract.jobs import Machine, Prediction
from aiida_difftre.engine.contract.observables import ObservableRequest, check_requests
from aiida_difftre.engine.errors import EngineError, ExitStatus
from aiida_difftre.engine.observables import protocol as observables
from aiida_difftre.engine.observables.histogram import PAIRS_AT_ONCE
from aiida_difftre.engine.observables.protocol import Observable, StatePoint
from aiida_difftre.engine.potentials.potential import Potential
from aiida_difftre.engine.potentials.term import Parameters, masses
from aiida_difftre.engine.reweighting import extrapolation, statistics
from aiida_difftre.engine.runtime import device
from aiida_difftre.engine.snapshots.snapshots import ATOMS_PER_BATCH, Snapshots

Quantities = Mapping[str, Array]

SNAPSHOTS_AT_ONCE = 8
"""Snapshots of a middling size whose static features are computed together."""


@jax.jit
def weights(
    energies: Float[Array, " S"],
    reference: Float[Array, " S"],
    temperature: float | Float[Array, ""],
    shift: Float[Array, " S"] | float = 0.0,
) -> Float[Array, " S"]:
    """Normalised weights of snapshots; invariant under a constant added to either energy. Energies in eV, float64.

    Args:
        energies: U_θ.
        reference: U_ref.
        temperature: for which to weigh, K.
        shift: (1/kT' - 1/kT) U_ref + (P'/kT' - P/kT) V, where it is not the state point that was sampled
            (:func:`state_shift`).
    """
    return jax.nn.softmax(-(energies - reference) / (units.BOLTZMANN * temperature) - shift)


def state_shift(
    energies: NDArray[np.float64], trajectory: Trajectory, temperature: float, pressure: float | None
) -> NDArray[np.float64]:
    """What :func:`weights` takes off the exponent for a temperature (K) and pressure (GPa); zeros for those sampled."""
    inverse, sampled = (1 / (units.BOLTZMANN * t) for t in (temperature, trajectory.temperature))
    work = 0.0
    if pressure is not None and trajectory.pressure is not None:
        work = (inverse * pressure - sampled * trajectory.pressure) / units.EV_PER_A3_IN_GPA
    return (inverse - sampled) * energies + work * trajectory.volumes


class EffectiveSize(NamedTuple):
    """Effective sample sizes: exp(-Σ w ln w), as in the paper, and Kish's 1/Σ w²."""

    entropy: float
    kish: float

    @property
    def smallest(self) -> float:
        """The smaller of the two; the gate uses it."""
        return min(self.entropy, self.kish)


def effective_size(weight: NDArray[np.float64]) -> EffectiveSize:
    """Effective sample sizes of normalised weights."""
    positive = weight[weight > 0]
    return EffectiveSize(float(np.exp(-np.sum(positive * np.log(positive)))), float(1 / np.sum(weight**2)))


def reliable_size(weight: NDArray[np.float64]) -> float:
    """The smallest of all effective sample sizes of normalised weights: for errors, and for what is refused."""
    return min(effective_size(weight).smallest, extrapolation.normal_size(weight))


@dataclass(frozen=True)
class Reference:
    """A reference trajectory with what its observables need.

    Args:
        requests: the observables.
        implementations: of the requests.
        snapshots: evaluates theta-dependent quantities.
        features: theta-independent features by label, (snapshots, features).
        energies: reference energies, (snapshots,), eV.
        volumes: (snapshots,), Å³.
        walkers: (snapshots,).
        shift: of the exponent of the weights, (snapshots,); zeros at the state point that was sampled.
        point: state point, of the averages.
    """

    requests: tuple[ObservableRequest, ...]
    implementations: tuple[Observable, ...]
    snapshots: Snapshots
    features: dict[str, NDArray[np.float64]]
    energies: NDArray[np.float64]
    volumes: NDArray[np.float64]
    walkers: NDArray[np.int32]
    shift: NDArray[np.float64]
    point: StatePoint

    def weights(self, energies: Float[Array, " S"]) -> Float[Array, " S"]:
        """Weights of the snapshots for energies at other parameters; traceable."""
        return weights(energies, jnp.asarray(self.energies), self.point.temperature, jnp.asarray(self.shift))

    def inputs(self, number: int, quantities: Quantities) -> dict[str, Array]:
        """What the combination of one observable takes."""
        name = self.requests[number].name
        if self.implementations[number].static:
            return {"features": jnp.asarray(self.features[name])}
        inputs = {key: quantities[key] for key in ("energy", "stress") if key in quantities}
        inputs["volume"] = jnp.asarray(self.volumes)
        if born_label(name) in quantities:
            inputs["born"] = quantities[born_label(name)]
        return inputs

    def averages(self, quantities: Quantities, weight: Float[Array, " S"]) -> list[Array]:
        """All observables for given weights; traceable."""
        return [
            implementation.combine(self.inputs(number, quantities), weight, self.point)
            for number, implementation in enumerate(self.implementations)
        ]

    def fitted(self, number: int, quantities: Quantities, weight: NDArray[np.float64]) -> dict[str, float]:
        """Parameters of the measurement that one observable fits; empty for those that fit none."""
        implementation = self.implementations[number]
        if not isinstance(implementation, observables.Fitted):
            return {}
        found = implementation.fitted(self.inputs(number, quantities), jnp.asarray(weight))
        return {name: float(value) for name, value in found.items()}


def born_label(name: str) -> str:
    """Key of the Born terms of an observable among the quantities."""
    return f"born:{name}"


def reference(
    potential: Potential,
    parameters: Parameters,
    trajectory: Trajectory,
    requests: Sequence[ObservableRequest],
    *,
    temperature: float,
    machine: Machine,
    pressure: float | None = None,
    elsewhere: bool = False,
    among: int = 1,
) -> Reference:
    """Prepare a trajectory that was sampled with these parameters.

    Args:
        potential: the potential.
        parameters: those that sampled.
        trajectory: the snapshots.
        requests: observables.
        temperature: of the state point, K.
        machine: precision and batches.
        pressure: of the state point, GPa; None for that of the trajectory.
        elsewhere: whether the state point may differ from the sampled one, and is then reached by reweighting.
        among: references that share the memory for what is kept of their snapshots.

    Raises:
        EngineError: with status INVALID_INPUT, for a repeated label, an observable that fits neither the system nor the
            ensemble, or a trajectory of another state point or potential; SELF_CHECK_FAILED, where JAX miscompiles.
    """
    pressure = _check_state_point(trajectory, temperature, pressure, elsewhere)
    try:
        check_requests(requests, trajectory.ensemble)
    except ValueError as error:
        raise EngineError(ExitStatus.INVALID_INPUT, str(error)) from None
    cell, count = trajectory.cell, len(trajectory.positions)
    scales = float(trajectory.scales.min()), float(trajectory.scales.max())
    made = [observables.make(request, trajectory.species, cell, scales, trajectory.masses) for request in requests]
    # What follows from the system, such as scattering lengths, is then part of what results report.
    requests = [request.for_system(trajectory.species, trajectory.masses)[0] for request in requests]
    directions = {
        born_label(request.name): implementation.directions(count)
        for request, implementation in zip(requests, made, strict=True)
        if "born" in implementation.quantities
    }
    snapshots = Snapshots(
        potential,
        trajectory.positions,
        cell,
        trajectory.species,
        precision=machine.precision,
        scales=trajectory.scales,
        stress=any("stress" in implementation.quantities for implementation in made),
        directions=directions,
        batch_size=machine.batch_size,
        cache_bytes=int(machine.snapshot_cache_mib * (1 << 20)) // among,
    )
    # Weights take energies in double precision, so that a JAX that miscompiles them is refused first.
    device.self_check(potential, parameters, snapshots.environment(), "float64")
    features = {
        request.name: static_features(implementation, trajectory, request.name, machine.batch_size)
        for request, implementation in zip(requests, made, strict=True)
        if implementation.static
    }
    energies = snapshots.energies(parameters)
    _check_potential(trajectory, energies)
    return Reference(
        tuple(requests),
        tuple(made),
        snapshots,
        features,
        energies,
        snapshots.volumes,
        trajectory.walkers,
        state_shift(energies, trajectory, temperature, pressure),
        StatePoint(
            temperature,
            float(snapshots.volumes.mean()),
            len(trajectory.species),
            pressure=pressure,
            mass=float((masses(trajectory.species) if trajectory.masses is None else trajectory.masses).sum()),
        ),
    )


def _check_state_point(
    trajectory: Trajectory, temperature: float, pressure: float | None, elsewhere: bool
) -> float | None:
    """The pressure of the state point; refuse one that the trajectory does not stand for."""
    if not (elsewhere or np.isclose(temperature, trajectory.temperature, rtol=1e-6)):
        raise EngineError(
            ExitStatus.INVALID_INPUT,
            f"the trajectory was sampled at {trajectory.temperature:g} K, but the state point is at {temperature:g} K; "
            "sample it at that temperature",
        )
    if pressure is None:
        return trajectory.pressure
    if trajectory.pressure is None:
        raise EngineError(
            ExitStatus.INVALID_INPUT,
            f"the trajectory was sampled at constant volume, but the state point is at a pressure of {pressure:g} GPa; "
            "sample it with a barostat, or leave out the pressure",
        )
    if not (elsewhere or np.isclose(pressure, trajectory.pressure, rtol=1e-6, atol=1e-12)):
        raise EngineError(
            ExitStatus.INVALID_INPUT,
            f"the trajectory was sampled at {trajectory.pressure:g} GPa, but the state point is at {pressure:g} GPa; "
            "sample it at that pressure",
        )
    return pressure


def _check_potential(trajectory: Trajectory, energies: NDArray[np.float64]) -> None:
    """Refuse a trajectory that another potential sampled: its stored energies differ by more than a constant."""
    spread = float(np.ptp(trajectory.energies - energies))
    if spread > 1e-3 * float(np.ptp(energies)) + 1e-3:
        raise EngineError(
            ExitStatus.INVALID_INPUT,
            f"the trajectory was not sampled with this potential: its stored energies deviate by {spread:.3g} eV; give "
            "the potential that sampled it",
        )


def static_features(
    implementation: Observable, trajectory: Trajectory, name: str, batch_size: int = 0
) -> NDArray[np.float64]:
    """Features of all snapshots that depend on positions only, batch by batch.

    Args:
        implementation: of the observable.
        trajectory: its snapshots.
        name: of the observable, in messages.
        batch_size: snapshots per batch; 0 to choose.

    Raises:
        EngineError: with status INVALID_INPUT, where the snapshots do not have what is observed.
    """
    cell = jnp.asarray(trajectory.cell)
    batch = batch_size or snapshots_at_once(len(trajectory.species))
    compute = jax.jit(
        lambda *snapshots: jax.lax.map(
            lambda x: implementation.features(x[0].astype(jnp.float64), x[1] * cell),
            snapshots,
            batch_size=batch,
        )
    )
    features = np.asarray(compute(jnp.asarray(trajectory.positions), jnp.asarray(trajectory.scales)))
    if not isinstance(implementation, observables.Adaptive):
        return features
    try:
        larger = implementation.enlarged(features)
    except ValueError as error:
        raise EngineError(ExitStatus.INVALID_INPUT, f"observable {name!r}: {error}") from None
    return features if larger is None else static_features(larger, trajectory, name, batch_size)


def snapshots_at_once(atoms: int) -> int:
    """Snapshots whose static features are computed together, where the job does not say: these may look at all pairs.

    Args:
        atoms: in a snapshot.
    """
    pairs = atoms**2
    return min(max(SNAPSHOTS_AT_ONCE, ATOMS_PER_BATCH // pairs), max(1, PAIRS_AT_ONCE // pairs))


def thermal_columns(trajectory: Trajectory) -> NDArray[np.float64]:
    """Energy and volume of each snapshot, (snapshots, 2), for the statistical inefficiency."""
    return np.stack([trajectory.energies, trajectory.volumes], 1)


def inefficiency(ref: Reference, quantities: Mapping[str, NDArray[np.float64]]) -> float:
    """Statistical inefficiency g of a reference: the largest of energy, volume and stress components."""
    columns = [quantities["energy"][:, None], ref.volumes[:, None]]
    if "stress" in quantities:
        columns.append(quantities["stress"])
    return float(np.max(statistics.statistical_inefficiency(np.concatenate(columns, 1), ref.walkers)))


def statistical_errors(
    ref: Reference,
    quantities: Mapping[str, NDArray[np.float64]],
    weight: NDArray[np.float64],
    *,
    replicates: int,
    seed: int,
) -> list[NDArray[np.float64]]:
    r"""Standard errors of all observables of the weighted snapshots.

    To first order an observable is the mean of its influences :math:`N \partial A/\partial \ln w_i`, whose variance is
    known without bias (:func:`aiida_difftre.engine.reweighting.statistics.mean_variance`). By which factor the
    observable itself scatters more or less than that mean is seen in a block bootstrap, in the same draws for both.

    Args:
        ref: the reference.
        quantities: of all snapshots.
        weight: (snapshots,).
        replicates: of the bootstrap.
        seed: of the draws.

    Returns:
        A standard error for each value of each observable.
    """
    g = inefficiency(ref, quantities)
    for values in ref.features.values():
        g = max(g, float(np.max(statistics.statistical_inefficiency(values, ref.walkers))))
    counts = statistics.block_bootstrap_counts(ref.walkers, g, replicates, seed)
    counts /= (counts @ weight)[:, None]

    # Features are arguments and no constants: trajectories of one size share the compiled program.
    @jax.jit
    def resampled(
        arrays: Quantities, features: Quantities, weight: Array, factors: Array
    ) -> tuple[list[Array], list[Array]]:
        held = replace(ref, features=features)

        def averages(factor: Array) -> list[Array]:
            drawn = factor * weight
            return held.averages(arrays, drawn / drawn.sum())

        return jax.lax.map(averages, factors, batch_size=20), jax.jacrev(averages)(jnp.ones(len(weight)))

    errors = []
    for values, slopes in zip(*resampled(dict(quantities), ref.features, jnp.asarray(weight), counts), strict=True):
        influences = np.asarray(slopes).T
        scatter, linear = (np.std(array, axis=0, ddof=1) for array in (np.asarray(values), counts @ influences))
        known = np.sqrt(statistics.mean_variance(len(weight) * influences, ref.walkers).variance)
        is_linear = linear > 0
        errors.append(np.where(is_linear, known / np.where(is_linear, linear, 1.0), 1.0) * scatter)
    return errors


def predictions(
    ref: Reference, parameters: Parameters, *, replicates: int, seed: int
) -> tuple[list[Prediction], dict[str, NDArray[np.float64]]]:
    """Predictions of a potential on a reference with errors, and the quantities behind them.

    Errors of what is reweighted are widened (:mod:`aiida_difftre.engine.reweighting.extrapolation`).
    """
    quantities = ref.snapshots.evaluate(parameters)
    weight = np.asarray(ref.weights(jax.device_put(quantities["energy"])))
    arrays = {key: jax.device_put(value) for key, value in quantities.items()}
    values = jax.jit(ref.averages)(arrays, weight)
    errors = statistical_errors(ref, quantities, weight, replicates=replicates, seed=seed)
    size, g = reliable_size(weight), inefficiency(ref, quantities)
    factor = extrapolation.widening(size, len(weight), g)
    made = [
        observables.prediction(request, np.asarray(value), factor * error, ref.fitted(number, arrays, weight), size / g)
        for number, (request, value, error) in enumerate(zip(ref.requests, values, errors, strict=True))
    ]
    return made, quantities


def predict_trajectory(
    potential: Potential,
    parameters: Parameters,
    trajectory: Trajectory,
    requests: Sequence[ObservableRequest],
    *,
    machine: Machine,
    seed: int,
    replicates: int = 200,
) -> list[Prediction]:
    """Observables of a trajectory with the potential that sampled it, at its state point, with bootstrap errors."""
    if not requests:
        return []
    ref = reference(potential, parameters, trajectory, requests, temperature=trajectory.temperature, machine=machine)
    return predictions(ref, parameters, replicates=replicates, seed=seed)[0]
