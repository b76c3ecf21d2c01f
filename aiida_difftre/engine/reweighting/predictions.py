"""Predictions of observables by reweighting, with their statistical errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from numpy.typing import NDArray

from aiida_difftre.engine.contract.dynamic_requests import is_dynamic
from aiida_difftre.engine.contract.jobs import Machine
from aiida_difftre.engine.contract.observables import ObservableRequest
from aiida_difftre.engine.contract.predictions import Prediction
from aiida_difftre.engine.contract.trajectories import Trajectory
from aiida_difftre.engine.errors import EngineError, ExitStatus
from aiida_difftre.engine.observables import protocol
from aiida_difftre.engine.potentials.potential import Potential
from aiida_difftre.engine.potentials.term import Parameters, masses
from aiida_difftre.engine.reweighting import extrapolation, statistics
from aiida_difftre.engine.reweighting.reference import Quantities, Reference, prepare_reference
from aiida_difftre.engine.reweighting.weights import reliable_size

Resampled = Callable[..., tuple[list[Array], list[Array]]]
"""Of quantities, features, volumes, arrays of the base, weights and factors of these (draws, snapshots): the values of
each observable in each draw, and their slopes with the factors."""

REPLICATES = 200
"""Of the bootstrap, where no settings say how many."""

SECOND_ORDER = 4.0
"""Of the squared bias of second order in squared errors: see :func:`statistical_errors`."""


def resampling(ref: Reference) -> Resampled:
    """Compile what :func:`statistical_errors` takes: one program for all trajectories of one size.

    Args:
        ref: Observables and state point; the snapshots are arguments of the program.

    Returns:
        The program.
    """

    @jax.jit
    def resampled(
        quantities: Quantities, features: Any, volumes: Any, base: Any, weight: Array, factors: Array
    ) -> tuple[list[Array], list[Array]]:
        held = replace(ref, features=features, volumes=volumes, base=base)

        def averages(factor: Array) -> list[Array]:
            drawn = factor * weight
            return held.averages(quantities, drawn / drawn.sum())

        return jax.lax.map(averages, factors, batch_size=20), jax.jacrev(averages)(jnp.ones(len(weight)))

    return resampled


def statistical_errors(
    ref: Reference,
    quantities: Mapping[str, NDArray[np.float64]],
    weight: NDArray[np.float64],
    *,
    replicates: int,
    seed: int,
    resampled: Resampled | None = None,
) -> list[NDArray[np.float64]]:
    r"""Standard errors of all observables of the weighted snapshots.

    To first order an observable is the mean of its influences :math:`N \partial A/\partial \ln w_i`, whose variance is
    known without bias (:func:`aiida_difftre.engine.reweighting.statistics.mean_variance`). By which factor the
    observable itself scatters more or less than that mean is seen in a block bootstrap, in the same draws for both.
    What the bootstrap changes beyond first order is on average the bias b of fluctuations, such as heat capacities.
    Their deviations are from the mean of the same data, by which s² is too small by some 3b² for normal samples; with
    b itself the squared error is :math:`s^2 + 4b^2`.

    Args:
        ref: the reference.
        quantities: Quantities of all snapshots.
        weight: (snapshots,).
        replicates: Number of replicates of the bootstrap.
        seed: Seed of the draws.
        resampled: Program of :func:`resampling`, to share it among trajectories of one size; compiled anew without.

    Returns:
        A standard error for each value of each observable.
    """
    parts, g = ref.parts, ref.inefficiencies(quantities)
    for values in ref.features.values():
        g = np.maximum(g, ref.slowest(np.asarray(values)))
    # Each of several trajectories stands for its own ensemble: as many snapshots of it are in each draw.
    counts = np.empty((replicates, len(weight)))
    for number, (part, slowest) in enumerate(zip(parts, g.tolist(), strict=True)):
        counts[:, part] = statistics.block_bootstrap_counts(ref.walkers[part], slowest, replicates, seed + number)
    counts /= (counts @ weight)[:, None]

    factors = np.concatenate([np.ones((1, len(weight))), counts])
    arrays = dict(quantities), ref.features, jnp.asarray(ref.volumes), ref.base, jnp.asarray(weight), factors
    errors = []
    for drawn, slopes in zip(*(resampled or resampling(ref))(*arrays), strict=True):
        influences = np.asarray(slopes).T
        changes, first = np.asarray(drawn[1:] - drawn[0]), counts @ influences
        scatter, linear = (np.std(array, axis=0, ddof=1) for array in (changes, first))
        known = np.sqrt(
            sum(
                statistics.mean_variance(len(part) * influences[part], ref.walkers[part], slowest).variance
                for part, slowest in zip(parts, g.tolist(), strict=True)
            )
        )
        is_linear = linear > 0
        stated = np.where(is_linear, known / np.where(is_linear, linear, 1.0), 1.0) * scatter
        errors.append(np.sqrt(stated**2 + SECOND_ORDER * np.mean(changes - first, axis=0) ** 2))
    return errors


def reweighted_predictions(
    ref: Reference, parameters: Parameters, *, replicates: int, seed: int
) -> tuple[list[Prediction], dict[str, NDArray[np.float64]]]:
    """Predictions of a potential on a reference with errors, and the quantities behind them.

    Errors of what is reweighted are widened (:mod:`aiida_difftre.engine.reweighting.extrapolation`).
    """
    quantities = ref.snapshots.evaluate(parameters)
    return predictions_from(ref, quantities, replicates=replicates, seed=seed), quantities


def predictions_from(
    ref: Reference, quantities: Mapping[str, NDArray[np.float64]], *, replicates: int, seed: int
) -> list[Prediction]:
    """Predictions with errors, from quantities that are known.

    Args:
        ref: The reference.
        quantities: Quantities of all its snapshots at the parameters of the potential that is asked for.
        replicates: Number of replicates of the bootstrap.
        seed: Seed of its draws.

    Returns:
        The predictions, one for each observable.
    """
    weight = np.asarray(ref.weights(jax.device_put(quantities["energy"])))
    arrays = {key: jax.device_put(value) for key, value in quantities.items()}
    values = jax.jit(ref.averages)(arrays, weight)
    errors = statistical_errors(ref, quantities, weight, replicates=replicates, seed=seed)
    size, g = reliable_size(weight, ref.shares), ref.inefficiency(quantities)
    factor = extrapolation.widening(size, ref.whole_size, g)
    return [
        protocol.prediction(request, np.asarray(value), factor * error, ref.fitted(number, arrays, weight), size / g)
        for number, (request, value, error) in enumerate(zip(ref.requests, values, errors, strict=True))
    ]


def predict_trajectory(
    potential: Potential,
    parameters: Parameters,
    trajectory: Trajectory,
    requests: Sequence[ObservableRequest],
    *,
    machine: Machine,
    seed: int,
) -> list[Prediction]:
    """Predict observables of a trajectory with the potential that sampled it, at its state point.

    Args:
        potential: The potential.
        parameters: Its parameters.
        trajectory: The trajectory.
        requests: The observables.
        machine: Precision, batches and memory.
        seed: Seed of the draws of the bootstrap.

    Returns:
        The predictions with bootstrap errors, one for each request.
    """
    found = {request.name: of_dynamics(trajectory, request) for request in requests if is_dynamic(request)}
    if averages := [request for request in requests if not is_dynamic(request)]:
        ref = prepare_reference(potential, parameters, trajectory, averages, machine)
        predictions = reweighted_predictions(ref, parameters, replicates=REPLICATES, seed=seed)[0]
        found |= {prediction.label: prediction for prediction in predictions}
    return [found[request.name] for request in requests]


def of_dynamics(trajectory: Trajectory, request: ObservableRequest) -> Prediction:
    """Predict a property of the dynamics from the paths of a trajectory.

    Args:
        trajectory: The trajectory; what moved its atoms has to be known to whoever calls.
        request: The property.

    Returns:
        The prediction, with an error from independent walkers.

    Raises:
        EngineError: With status INVALID_INPUT, where the system or the paths cannot give it.
    """
    implementation = protocol.make(request, trajectory.species, trajectory.cell, masses=trajectory.masses)
    if not isinstance(implementation, protocol.Dynamic):
        raise TypeError(f"{type(implementation).__name__} has no method of_trajectory, as a dynamic observable has")
    try:
        observed = implementation.of_trajectory(trajectory, masses(trajectory.species, trajectory.masses))
    except ValueError as error:
        raise EngineError(ExitStatus.INVALID_INPUT, f"observable {request.name!r}: {error}") from None
    return protocol.prediction(request, observed.values, observed.errors, observed.told, observed.samples)
