r"""Errors of a measurement that its points share: correlated noise, and systematic errors with Gaussian priors.

.. math::
    C = C_\mathrm{noise} + \sum_k \sigma_k^2\, s_k s_k^\mathsf{T}, \qquad
    \chi^2 = \tfrac1n\, r^\mathsf{T} (C + C_\mathrm{sim})^{-1} r

A systematic error shifts all points along s_k by an amount that nobody knows; its prior has the standard deviation
σ_k, and to average over it (or to take its likeliest value) is to add its outer product to the covariance: for the
scale s is the measured curve, for an offset 1 and for a slope a straight line. The errors of the simulation are taken
to be independent between points. Combinations of the points in which both are independent make chi² a sum of squares.
Free of JAX.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from aiida_difftre.engine.contract.agreement import Points
from aiida_difftre.engine.contract.base import Strict
from aiida_difftre.engine.contract.bounds import Limits

LEAST_EIGENVALUE = 1e-12
"""Of a matrix of correlations; below it a covariance is not positive definite in double precision."""

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
        if length > (extent := float(np.ptp(grid))):
            raise ValueError(
                f"correlation_length {length:g} is longer than the grid, {extent:g}; an error that all of a curve "
                "shares is systematic: {offset: ...} or {scale: ...}"
            )
        found = np.outer(sigma, sigma) * np.exp(-np.abs(np.subtract.outer(grid, grid)) / length)
    if systematic is not None:
        found = found + sum(
            np.outer(shape, shape) * prior**2 for shape, prior in _shapes(values, grid, systematic) if prior is not None
        )
    _check_definite(found, systematic is not None)
    return found


def _check_definite(matrix: NDArray[np.float64], has_systematic: bool) -> None:
    """Refuse a covariance that is singular. Errors of different sizes are none: that of correlations is looked at."""
    deviations = np.sqrt(np.diag(matrix))
    least = float(np.linalg.eigvalsh(matrix / np.outer(deviations, deviations))[0])
    if least < LEAST_EIGENVALUE:
        remedy = "give that of all errors, the noise of single points included"
        if has_systematic:
            remedy += ", and priors of systematic errors that are at most ten thousand times as wide as that"
        raise ValueError(
            f"the covariance is not positive definite: its correlations have the eigenvalue {least:.3g}; {remedy}"
        )


def _shapes(
    values: Sequence[float], grid: Sequence[float] | None, systematic: Systematic
) -> list[tuple[NDArray[np.float64], float | None]]:
    """What systematic errors add to the points, and the standard deviations of how much of it."""
    line = np.zeros(len(values))
    if systematic.slope is not None:
        if grid is None or len(set(grid)) < 2:
            raise ValueError("systematic.slope is along the grid of a curve; this target has none")
        line = (np.asarray(grid) - np.mean(grid)) / np.ptp(grid)
    if systematic.scale is not None and not np.any(values):
        raise ValueError("systematic.scale is relative, and all values are zero; give systematic.offset instead")
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


def independent(deviations: NDArray[np.float64], matrix: NDArray[np.float64], errors: NDArray[np.float64]) -> Points:
    r"""Combine points so that the errors of experiment and simulation are both independent: chi² is then exact.

    The combinations are the rows of W with :math:`W C W^\mathsf{T} = 1` and :math:`W C_\mathrm{sim} W^\mathsf{T}`
    diagonal.

    Args:
        deviations: Prediction minus experiment, (points,).
        matrix: Covariance C of the experiment, (points, points).
        errors: Standard errors of the simulation, independent between points, (points,).

    Returns:
        The combinations, as many as there are points, in units of the error of the experiment.
    """
    inverse_root = np.linalg.solve(np.linalg.cholesky(matrix), np.eye(len(matrix)))
    squares, columns = np.linalg.eigh((inverse_root * errors**2) @ inverse_root.T)
    combined = columns.T @ (inverse_root @ deviations)
    return Points(combined, np.ones(len(matrix)), np.sqrt(np.maximum(squares, 0.0)))
