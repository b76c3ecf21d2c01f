r"""Losses of predictions against targets.

χ²_k = mean over points of (prediction - experiment)²/(σ_exp² + σ_sim²),    L = Σ_k γ_k χ²_k
MSE_k = mean over points of (prediction - experiment)²,                    L = Σ_k γ_k MSE_k
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray

from aiida_difftre.engine.contract import agreement
from aiida_difftre.engine.contract.agreement import Compared, Points, Role
from aiida_difftre.engine.contract.targets import Target


@dataclass(frozen=True)
class TargetTerm:
    """A target with the statistical errors of its prediction.

    Args:
        target: the experiment.
        simulation_errors: standard errors of the prediction, in the target's unit.
    """

    target: Target
    simulation_errors: NDArray[np.float64]

    @property
    def variance(self) -> NDArray[np.float64]:
        """σ_exp² + σ_sim²."""
        return np.asarray(self.target.errors) ** 2 + self.simulation_errors**2


def chi2(prediction: Float[Array | np.ndarray, " points"], term: TargetTerm) -> Float[Array | np.ndarray, ""] | float:
    """Reduced chi² of one target."""
    return ((prediction - np.asarray(term.target.values)) ** 2 / term.variance).mean()


def mse(prediction: Float[Array | np.ndarray, " points"], term: TargetTerm) -> Float[Array | np.ndarray, ""] | float:
    """Mean squared error of one target."""
    return ((prediction - np.asarray(term.target.values)) ** 2).mean()


def target_loss(
    predictions: Sequence[Float[Array | np.ndarray, " _"]],
    terms: Sequence[TargetTerm],
    kind: Literal["chi2", "mse"],
) -> Float[Array | np.ndarray, ""] | float:
    """Weighted sum over the training targets; of NumPy arrays without a compiled program."""
    measure = {"chi2": chi2, "mse": mse}[kind]
    total = np.zeros(())
    for prediction, term in zip(predictions, terms, strict=True):
        if term.target.is_in_loss:
            total = total + term.target.weight * measure(prediction, term)
    return total


def noise(terms: Sequence[TargetTerm], kind: Literal["chi2", "mse"]) -> float:
    """What the statistical errors of the predictions contribute to :func:`target_loss`, where all targets are met."""
    off = [np.asarray(term.target.values) + term.simulation_errors for term in terms]
    return float(target_loss(off, terms, kind))


def residuals(
    predictions: Sequence[Float[Array, " _"]], terms: Sequence[TargetTerm], kind: Literal["chi2", "mse"]
) -> Float[Array, " residuals"]:
    """Of all points of the training targets, scaled such that the sum of their squares is :func:`target_loss`."""
    parts = []
    for prediction, term in zip(predictions, terms, strict=True):
        if term.target.is_in_loss:
            values = jnp.asarray(term.target.values)
            scale = jnp.sqrt(jnp.asarray(term.variance)) if kind == "chi2" else jnp.ones(values.shape)
            parts.append((prediction - values) / scale * (term.target.weight / len(values)) ** 0.5)
    return jnp.concatenate(parts) if parts else jnp.zeros(0)


def compared(prediction: NDArray[np.float64], term: TargetTerm) -> Compared:
    """A target beside a prediction of it, with the errors of the term."""
    target = term.target
    deviations = np.subtract(prediction, target.values)
    return Compared(target.role, target.weight, Points(deviations, np.asarray(target.errors), term.simulation_errors))


def reduced_chi2(predictions: Sequence[NDArray[np.float64]], terms: Sequence[TargetTerm], role: Role) -> float | None:
    """chi² per point of all targets of a role, the training ones with a weight; None where there is none."""
    return agreement.reduced_chi2([compared(p, t) for p, t in zip(predictions, terms, strict=True)], role)
