r"""Errors of a measurement that its points share: correlated noise, and systematic errors with Gaussian priors.

.. math::
    C = C_\mathrm{noise} + \sum_k \sigma_k^2\, s_k s_k^\mathsf{T}, \qquad
    \chi^2 = \tfrac1n\, r^\mathsf{T} (C + C_\mathrm{sim})^{-1} r

A systematic error shifts all points along s_k by an amount that nobody knows; its prior has the standard deviation
σ_k, and to average over it (or to take its likeliest value) is to add its outer product to the covariance: for the
scale s is the measured curve, for an offset 1 and for a slope a straight line. Residuals are rotated to the principal
axes of C, where they are independent. The errors of the simulation, which are independent between points, are rotated
along, and what they share between axes is left out: exact where all are equal, or small beside those of the experiment.
Free of JAX.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, NamedTuple

import numpy as np
from numpy.typing import NDArray

from aiida_difftre.engine.contract.base import Strict
from aiida_difftre.engine.contract.bounds import Limits

LEAST_EIGENVALUE = 1e-12
"""Of a covariance, over its largest one; below it a matrix is not positive definite in double precision."""

Prior = Annotated[float, Limits(above=0, most=1e9, reason="a prior that wide leaves the points nothing to tell")]


class Systematic(Strict):
    """Systematic errors of a measurement: standard deviations of their Gaussian priors.

    Args:
        scale: Of the factor on all values, relative; None for a scale that is known.
        offset: Of a constant that is added to all values, in the unit of the target.
        slope: Of a straight line that is added to a curve, in the unit of the target from one end of the grid to the
            other.
    """

    scale: Prior | None = None
    offset: Prior | None = None
    slope: Prior | None = None


class Axes(NamedTuple):
    """Principal axes of a covariance.

    Args:
        rows: The axes, (points, points).
        errors: Standard errors along them, (points,).
    """

    rows: NDArray[np.float64]
    errors: NDArray[np.float64]

    def errors_along(self, errors: NDArray[np.float64]) -> NDArray[np.float64]:
        """Standard errors along the axes of independent errors of the points, (points,)."""
        along: NDArray[np.float64] = np.sqrt(self.rows**2 @ errors**2)
        return along


def covariance(
    values: Sequence[float],
    errors: Sequence[float],
    grid: Sequence[float] | None,
    *,
    length: float | None = None,
    systematic: Systematic | None = None,
    given: Sequence[Sequence[float]] | None = None,
) -> NDArray[np.float64]:
    r"""Compute the covariance of the errors of a measurement.

    Args:
        values: Measured values, (points,).
        errors: Standard errors of their noise, (points,).
        grid: Grid of a curve, (points,); None without one.
        length: Distance on the grid within which noise is correlated, as exp(-|x - x'|/length); None for none.
        systematic: Systematic errors.
        given: Covariance of the noise, (points, points); None for that of ``errors`` and ``length``.

    Returns:
        The covariance, (points, points), in the unit of the values squared.

    Raises:
        ValueError: For a covariance that does not fit the points, or is not positive definite.

    Example:
        >>> from aiida_difftre.engine.contract.correlations import Systematic, covariance
        >>> covariance([1.0, 2.0], [0.1, 0.1], None, systematic=Systematic(scale=0.1)).round(4).tolist()
        [[0.02, 0.02], [0.02, 0.05]]
    """
    found, sigma = np.diag(np.square(errors)), np.asarray(errors)
    if given is not None:
        found = _checked(given, sigma)
    elif length is not None:
        if grid is None:
            raise ValueError("correlation_length is a distance on the grid of a curve; give covariance instead")
        found = np.outer(sigma, sigma) * np.exp(-np.abs(np.subtract.outer(grid, grid)) / length)
    if systematic is not None:
        found = found + sum(
            np.outer(shape, shape) * prior**2 for shape, prior in _shapes(values, grid, systematic) if prior is not None
        )
    squares = np.linalg.eigvalsh(found)
    least, most = float(squares[0]), float(squares[-1])
    if least < LEAST_EIGENVALUE * most:
        raise ValueError(
            f"the covariance is not positive definite: its smallest eigenvalue is {least:.3g}, its largest {most:.3g}; "
            "give that of all errors, the noise of single points included"
        )
    return found


def _shapes(
    values: Sequence[float], grid: Sequence[float] | None, systematic: Systematic
) -> list[tuple[NDArray[np.float64], float | None]]:
    """What systematic errors add to the points, and the standard deviations of how much of it."""
    line = np.zeros(len(values))
    if systematic.slope is not None:
        if grid is None or len(set(grid)) < 2:
            raise ValueError("systematic.slope is along the grid of a curve; this target has none")
        line = (np.asarray(grid) - np.mean(grid)) / (np.max(grid) - np.min(grid))
    return [
        (np.asarray(values), systematic.scale),
        (np.ones(len(values)), systematic.offset),
        (line, systematic.slope),
    ]


def _checked(given: Sequence[Sequence[float]], errors: NDArray[np.float64]) -> NDArray[np.float64]:
    """A covariance that a target brings with it; refuse one that is not of its points and errors."""
    if len(given) != len(errors) or any(len(row) != len(errors) for row in given):
        raise ValueError(f"covariance must have {len(errors)} rows of {len(errors)} numbers, one for each point")
    found = np.asarray(given, float)
    if not np.allclose(found, found.T, rtol=1e-6, atol=1e-9 * float(np.abs(found).max())):
        raise ValueError("covariance is not symmetric")
    if not np.allclose(np.diag(found), errors**2, rtol=1e-2):
        raise ValueError("errors are not the square roots of the diagonal of covariance; give the same numbers")
    return (found + found.T) / 2


def principal_axes(matrix: NDArray[np.float64]) -> Axes:
    """Principal axes of a covariance.

    Args:
        matrix: The covariance, (points, points).

    Returns:
        The axes, and the standard errors along them.
    """
    squares, columns = np.linalg.eigh(matrix)
    return Axes(columns.T, np.sqrt(squares))
