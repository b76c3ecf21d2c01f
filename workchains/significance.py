"""By how many combined errors a prediction came nearer to experiment. Pure functions."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from aiida_difftre.workchains.comparison import Comparison, shared_errors

Values = Float[np.ndarray, " points"]


class _Side(NamedTuple):
    """A prediction, before or after.

    Args:
        deviations: Prediction minus experiment, d.
        variances: Squared errors of the simulation, s².
    """

    deviations: Values
    variances: Values

    def excess(self, inverse: Float[np.ndarray, "points points"]) -> float:
        """Squared distance from experiment, without what the errors of the simulation add to it."""
        return float(self.deviations @ inverse @ self.deviations - np.diag(inverse) @ self.variances)

    def spread(self, inverse: Float[np.ndarray, "points points"]) -> Values:
        """What the error of the simulation of each point does to that, as a variance."""
        pull, own = inverse @ self.deviations, inverse**2 @ self.variances
        # Of the square of a normal number with the mean m the variance is 4 m² s² + 2 s⁴, and m² is some d² - s².
        return self.variances * np.maximum(4 * pull**2 - 2 * own, 2 * own)


def significance(before: Comparison, after: Comparison) -> float:
    r"""By how many combined errors a prediction came nearer to experiment; negative where it went away.

    .. math:: z = \frac{T}{\sigma(T)}, \qquad
        T = d_b^\mathsf{T} V^{-1} d_b - d_a^\mathsf{T} V^{-1} d_a - \mathrm{tr}\,V^{-1} (S_b - S_a), \qquad
        V = C + (S_b + S_a)/2

    with the deviations d from experiment, its covariance C and the squared errors S of the simulations. The error of
    the experiment is the same before and after: for two predictions on one side of it, it cancels. Errors of the points
    of a curve are taken to be the same throughout, which is careful; where the target says what its points share, those
    of the experiment are what it says.

    Args:
        before: The prediction before.
        after: The prediction after, of the same target.

    Returns:
        The number of combined errors.
    """
    measured, shared = np.array(after["experiment"]), shared_errors(after)
    matrix = np.diag(np.square(after["experiment_errors"])) if shared is None else shared
    first, second = (_Side(np.array(one["values"]) - measured, np.square(one["errors"])) for one in (before, after))
    variances = first.variances + second.variances
    inverse = np.linalg.inv(matrix + np.diag(variances) / 2)
    simulated = first.spread(inverse) + second.spread(inverse)
    apart, added = inverse @ (first.deviations - second.deviations), _summed if after["grid"] is None else _alike
    if shared is None:
        single = np.maximum(apart**2 - inverse**2 @ variances, 0.0) * np.diag(matrix)
        variance = added(simulated + 4 * single)
    else:
        noise = np.diag(inverse @ matrix @ inverse) @ variances
        variance = added(simulated) + 4 * max(float(apart @ matrix @ apart - noise), 0.0)
    gained = first.excess(inverse) - second.excess(inverse)
    return float(gained / np.sqrt(variance)) if variance > 0 else 0.0


def _summed(variances: Values) -> float:
    """Variance of a sum whose terms are independent."""
    return float(np.sum(variances))


def _alike(variances: Values) -> float:
    """Variance of a sum whose terms all err the same way."""
    return float(np.sum(np.sqrt(variances)) ** 2)
