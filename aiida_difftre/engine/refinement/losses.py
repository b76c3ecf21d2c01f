r"""Losses of predictions against targets.

χ²_k = mean over points of (prediction - experiment)²/(σ_exp² + σ_sim²),    L = Σ_k γ_k χ²_k
MSE_k = mean over points of (prediction - experiment)²,                    L = Σ_k γ_k MSE_k
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray

from aiida_difftre.engine.contract import agreement
from aiida_difftre.engine.contract.agreement import Compared, Role
from aiida_difftre.engine.contract.targets import Target


@dataclass(frozen=True)
class TargetTerm:
    """A target of the loss with the statistical errors of its prediction.

    Args:
        target: What was measured.
        simulation_errors: Standard errors of the prediction, (points,), in the target's unit.

    Example:
        >>> import numpy as np
        >>> from aiida_difftre.engine.contract.targets import Target
        >>> from aiida_difftre.engine.refinement.losses import TargetTerm
        >>> target = Target(
        ...     observable="density", values=[1374.0], errors=[3.0], unit="kg/m3", conditions={"temperature": 90.0},
        ...     citation="a paper",
        ... )
        >>> TargetTerm(target, np.array([4.0])).whitened(np.array([10.0])).tolist()
        [2.0]
    """

    target: Target
    simulation_errors: NDArray[np.float64]

    @cached_property
    def _inverse_root(self) -> NDArray[np.float64] | None:
        """L⁻¹ with L Lᵀ the covariance of the differences between prediction and experiment; None if it is diagonal."""
        shared = self.target.shared_errors()
        if shared is None:
            return None
        root = np.linalg.cholesky(shared + np.diag(self.simulation_errors**2))
        return np.asarray(np.linalg.solve(root, np.eye(len(root))))

    def whitened(self, deviations: Any) -> Any:
        """Deviations, or columns of derivatives, in units of independent standard errors, (points, ...)."""
        if self._inverse_root is not None:
            return self._inverse_root @ deviations
        errors = np.sqrt(np.square(self.target.errors) + self.simulation_errors**2)
        return deviations / errors.reshape(-1, *(1,) * (deviations.ndim - 1))

    def noise(self) -> float:
        """The share of the simulation in the errors, see :class:`~aiida_difftre.engine.contract.agreement.Points`."""
        return self.target.points(np.asarray(self.target.values), self.simulation_errors).noise()


def chi2(prediction: Float[Array | np.ndarray, " points"], term: TargetTerm) -> Float[Array | np.ndarray, ""] | float:
    r"""Compute the reduced chi² of one target.

    .. math:: \chi^2 = \frac{1}{n} \sum_i \frac{(y_i - y_i^\mathrm{exp})^2}{\sigma_{\mathrm{exp},i}^2 +
        \sigma_{\mathrm{sim},i}^2}

    Where points of the measurement share errors, it is rᵀ (C_exp + C_sim)⁻¹ r/n with the covariance of these.

    Args:
        prediction: Predicted values y, (points,), in the target's unit.
        term: The target, and the statistical errors.

    Returns:
        The reduced chi²; about one where the prediction agrees within its errors.

    Example:
        >>> import numpy as np
        >>> from aiida_difftre.engine.contract.targets import Target
        >>> from aiida_difftre.engine.refinement.losses import TargetTerm, chi2
        >>> target = Target(
        ...     observable="density", values=[1374.0], errors=[3.0], unit="kg/m3", conditions={"temperature": 90.0},
        ...     citation="a paper",
        ... )
        >>> float(chi2(np.array([1384.0]), TargetTerm(target, np.array([4.0]))))
        4.0
    """
    return (term.whitened(prediction - np.asarray(term.target.values)) ** 2).mean()


def mse(prediction: Float[Array | np.ndarray, " points"], term: TargetTerm) -> Float[Array | np.ndarray, ""] | float:
    """Compute the mean squared error of one target.

    Args:
        prediction: Predicted values, (points,), in the target's unit.
        term: The target; its errors do not count.

    Returns:
        The mean squared error, in the target's unit squared.

    Example:
        >>> import numpy as np
        >>> from aiida_difftre.engine.contract.targets import Target
        >>> from aiida_difftre.engine.refinement.losses import TargetTerm, mse
        >>> target = Target(
        ...     observable="density", values=[1374.0], errors=[3.0], unit="kg/m3", conditions={"temperature": 90.0},
        ...     citation="a paper",
        ... )
        >>> float(mse(np.array([1384.0]), TargetTerm(target, np.array([4.0]))))
        100.0
    """
    return ((prediction - np.asarray(term.target.values)) ** 2).mean()


def target_loss(
    predictions: Sequence[Float[Array | np.ndarray, " _"]],
    terms: Sequence[TargetTerm],
    kind: Literal["chi2", "mse"],
) -> Float[Array | np.ndarray, ""] | float:
    r"""Compute the loss of predictions: the weighted sum over the training targets.

    .. math:: L = \sum_k \gamma_k\, \chi^2_k

    Args:
        predictions: Predicted values of each target, (points,), in its unit.
        terms: The targets in the same order; only those that a refinement trains on count.
        kind: ``chi2``, or ``mse`` for mean squared errors in place of chi².

    Returns:
        The loss; of NumPy arrays without a compiled program.

    Example:
        >>> import numpy as np
        >>> from aiida_difftre.engine.contract.targets import Target
        >>> from aiida_difftre.engine.refinement.losses import TargetTerm, target_loss
        >>> target = Target(
        ...     observable="density", values=[1374.0], errors=[3.0], unit="kg/m3", conditions={"temperature": 90.0},
        ...     citation="a paper", weight=0.5,
        ... )
        >>> float(target_loss([np.array([1384.0])], [TargetTerm(target, np.array([4.0]))], "chi2"))
        2.0
    """
    measure = {"chi2": chi2, "mse": mse}[kind]
    total = np.zeros(())
    for prediction, term in zip(predictions, terms, strict=True):
        if term.target.is_in_loss:
            total = total + term.target.weight * measure(prediction, term)
    return total


def noise(terms: Sequence[TargetTerm], kind: Literal["chi2", "mse"]) -> float:
    """Compute what the statistical errors of the predictions contribute to the loss where all targets are met.

    Args:
        terms: The targets with the errors of their predictions.
        kind: ``chi2``, or ``mse`` for mean squared errors in place of chi².

    Returns:
        The expected loss of a potential that is right.

    Example:
        >>> import numpy as np
        >>> from aiida_difftre.engine.contract.targets import Target
        >>> from aiida_difftre.engine.refinement.losses import TargetTerm, noise
        >>> target = Target(
        ...     observable="density", values=[1374.0], errors=[3.0], unit="kg/m3", conditions={"temperature": 90.0},
        ...     citation="a paper",
        ... )
        >>> round(noise([TargetTerm(target, np.array([4.0]))], "chi2"), 2)
        0.64
    """
    trained = [term for term in terms if term.target.is_in_loss]
    if kind == "chi2":
        return sum(term.target.weight * term.noise() for term in trained)
    return float(sum(term.target.weight * np.mean(term.simulation_errors**2) for term in trained))


def residuals(
    predictions: Sequence[Float[Array, " _"]], terms: Sequence[TargetTerm], kind: Literal["chi2", "mse"]
) -> Float[Array, " residuals"]:
    """Compute the residuals of all points of the training targets, whose squares add up to the loss.

    Args:
        predictions: Predicted values of each target, (points,), in its unit.
        terms: The targets in the same order; only those that a refinement trains on count.
        kind: ``chi2``, or ``mse`` for mean squared errors in place of chi².

    Returns:
        Residuals, (residuals,); the sum of their squares is :func:`target_loss`.

    Example:
        >>> import jax.numpy as jnp
        >>> import numpy as np
        >>> from aiida_difftre.engine.contract.targets import Target
        >>> from aiida_difftre.engine.refinement.losses import TargetTerm, residuals
        >>> target = Target(
        ...     observable="density", values=[1374.0], errors=[3.0], unit="kg/m3", conditions={"temperature": 90.0},
        ...     citation="a paper",
        ... )
        >>> residuals([jnp.array([1384.0])], [TargetTerm(target, np.array([4.0]))], "chi2").tolist()
        [2.0]
    """
    parts = []
    for prediction, term in zip(predictions, terms, strict=True):
        if term.target.is_in_loss:
            values = jnp.asarray(term.target.values)
            off = term.whitened(prediction - values) if kind == "chi2" else prediction - values
            parts.append(off * (term.target.weight / len(values)) ** 0.5)
    return jnp.concatenate(parts) if parts else jnp.zeros(0)


def compared(prediction: NDArray[np.float64], term: TargetTerm, effective_samples: float | None = None) -> Compared:
    """A target beside a prediction of it, with the errors of the term and the independent snapshots behind it."""
    target = term.target
    points = target.points(prediction, term.simulation_errors)
    return Compared(target.role, target.weight, points, effective_samples)


def reduced_chi2(predictions: Sequence[NDArray[np.float64]], terms: Sequence[TargetTerm], role: Role) -> float | None:
    """chi² per point of all targets of a role, the training ones with a weight; None where there is none."""
    return agreement.reduced_chi2([compared(p, t) for p, t in zip(predictions, terms, strict=True)], role)
