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
from aiida_difftre.engine.contract.correlations import Axes
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
        >>> TargetTerm(target, np.array([4.0])).variance.tolist()
        [25.0]
    """

    target: Target
    simulation_errors: NDArray[np.float64]

    @cached_property
    def axes(self) -> Axes | None:
        """Principal axes of the errors of the measurement; None where points are independent."""
        return self.target.axes()

    @property
    def noise(self) -> NDArray[np.float64]:
        """Variances σ_sim² of the prediction, along the principal axes where there are some, (points,)."""
        errors = self.simulation_errors if self.axes is None else self.axes.errors_along(self.simulation_errors)
        return errors**2

    @property
    def variance(self) -> NDArray[np.float64]:
        """Variances σ_exp² + σ_sim² of the differences between prediction and experiment, likewise, (points,)."""
        errors = np.asarray(self.target.errors) if self.axes is None else self.axes.errors
        return errors**2 + self.noise

    def whitened(self, deviations: Any) -> Any:
        """Deviations, or columns of derivatives, in units of independent standard errors, (points, ...)."""
        along = deviations if self.axes is None else self.axes.rows @ deviations
        return along / np.sqrt(self.variance).reshape(-1, *(1,) * (along.ndim - 1))


def chi2(prediction: Float[Array | np.ndarray, " points"], term: TargetTerm) -> Float[Array | np.ndarray, ""] | float:
    r"""Compute the reduced chi² of one target.

    .. math:: \chi^2 = \frac{1}{n} \sum_i \frac{(y_i - y_i^\mathrm{exp})^2}{\sigma_{\mathrm{exp},i}^2 +
        \sigma_{\mathrm{sim},i}^2}

    Where points of the measurement share errors, the sum is over the principal axes of their covariance.

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
    parts = {"chi2": lambda term: term.noise / term.variance, "mse": lambda term: term.noise}[kind]
    return float(sum(term.target.weight * parts(term).mean() for term in terms if term.target.is_in_loss))


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


def compared(prediction: NDArray[np.float64], term: TargetTerm) -> Compared:
    """A target beside a prediction of it, with the errors of the term."""
    target = term.target
    return Compared(target.role, target.weight, target.points(prediction, term.simulation_errors))


def reduced_chi2(predictions: Sequence[NDArray[np.float64]], terms: Sequence[TargetTerm], role: Role) -> float | None:
    """chi² per point of all targets of a role, the training ones with a weight; None where there is none."""
    return agreement.reduced_chi2([compared(p, t) for p, t in zip(predictions, terms, strict=True)], role)
