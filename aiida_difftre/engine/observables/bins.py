"""Bins of histograms on a grid of their centres, sharp or smeared. Free of JAX."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

SUBDIVISIONS = 8
"""Fine bins over a bin, or over the smearing where that is narrower, in a smeared histogram."""

SMEARING_REACH = 6.0
"""Standard deviations beyond the last bin from which smeared values still count."""


def equal_width(grid: Sequence[float], name: str, unit: str = "") -> float:
    """Width of the equal bins that have their centres on ``grid``, in its unit.

    Raises:
        ValueError: for a grid that is not equally spaced.
    """
    centres = np.array(grid, np.float64)
    width = float(centres[-1] - centres[0]) / (len(centres) - 1)
    equal = centres[0] + width * np.arange(len(centres))
    worst = int(np.argmax(np.abs(centres - equal)))
    if abs(centres[worst] - equal[worst]) > 1e-3 * width:
        raise ValueError(
            f"grid of {name!r} must hold the centres of equal bins: value {centres[worst]:g} at index {worst} "
            f"should be {equal[worst]:g} {unit}".rstrip()
        )
    return width


def edges(grid: Sequence[float], name: str, unit: str = "Å") -> NDArray[np.float64]:
    """Compute the edges of equal bins from their centres.

    Args:
        grid: Centres of the bins, in equal steps.
        name: Name of the observable, for messages.
        unit: Unit of the grid, for messages.

    Returns:
        The edges, (bins + 1,), in the unit of the grid.

    Raises:
        ValueError: For a grid that is not equally spaced, or whose first bin begins below zero.

    Example:
        >>> from aiida_difftre.engine.observables.bins import edges
        >>> edges([0.5, 1.5, 2.5], "rdf").tolist()
        [0.0, 1.0, 2.0, 3.0]
    """
    centres, width = np.array(grid, np.float64), equal_width(grid, name, unit)
    if centres[0] < width / 2 * (1 - 1e-6):
        raise ValueError(
            f"grid of {name!r} holds the centres of bins {width:g} {unit} wide: the first, {centres[0]:g} {unit}, must "
            f"be at least {width / 2:g} {unit}"
        )
    return np.maximum(centres[0] - width / 2 + width * np.arange(len(centres) + 1), 0.0)


def fractional_edges(grid: Sequence[float], name: str) -> NDArray[np.float64]:
    """Compute the edges of equal bins of a fractional coordinate from their centres.

    Args:
        grid: Centres of the bins, in equal steps.
        name: Name of the observable, for messages.

    Returns:
        The edges, (bins + 1,), between 0 and 1.

    Raises:
        ValueError: For a grid that is not equally spaced, or reaches beyond the cell.

    Example:
        >>> from aiida_difftre.engine.observables.bins import fractional_edges
        >>> fractional_edges([0.125, 0.375, 0.625, 0.875], "density_profile").tolist()
        [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    width = equal_width(grid, name)
    limits = grid[0] - width / 2 + width * np.arange(len(grid) + 1)
    if limits[0] < -1e-6 or limits[-1] > 1 + 1e-6:
        raise ValueError(
            f"grid of {name!r} holds the centres of bins {width:g} wide, which reach from {limits[0]:g} to "
            f"{limits[-1]:g}; fractional coordinates lie between 0 and 1"
        )
    return np.clip(limits, 0.0, 1.0)


def fine_width(width: float, deviation: float) -> float:
    """Largest width of the fine bins of a histogram that is smeared afterwards."""
    return min(width, deviation) / SUBDIVISIONS


def shares(bin_edges: ArrayLike, points: ArrayLike, deviation: float, width: float) -> NDArray[np.float64]:
    """Share of a Gaussian at each point of a fine histogram in each bin, (bins, points).

    A value is shared between the two nearest points of the fine histogram. The variance that this adds on average, a
    sixth of the squared ``width`` between points, is taken off that of the Gaussian.
    """
    from scipy.special import ndtr  # a fifth of the imports of a job that smears nothing

    spread = math.sqrt(deviation**2 - width**2 / 6)
    return np.diff(ndtr((np.asarray(bin_edges)[:, None] - np.asarray(points)) / spread), axis=0)
