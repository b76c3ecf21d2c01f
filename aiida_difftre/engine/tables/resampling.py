r"""Averages of a tabulated curve over equal bins: no aliasing where bins are wide, interpolation where they are narrow.

Between its points a curve y(x) is a piecewise cubic. Over a bin it has the average

    Y = ∫ y(x) v(x) dx / ∫ v(x) dx,

with v = x² for what is counted in spherical shells and v = 1 otherwise. Wide bins average all points that lie in them;
narrow ones follow the interpolating curve. To first order Y_b = Σ_j W_bj y_j with the weights of linear interpolation,
so that independent errors σ_j give

    σ_b² = Σ_j W_bj² σ_j²,

and errors that are common to neighbours give σ_b = Σ_j W_bj σ_j. The latter is used as well for bins narrower than the
distance of the points: interpolation adds no information. Free of JAX.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.polynomial.legendre import leggauss
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline, PchipInterpolator

Interpolation = Literal["monotone", "cubic"]

INTERPOLATIONS: tuple[Interpolation, ...] = ("monotone", "cubic")

MINIMUM_POINTS = 4
"""Of a table that is to be averaged or interpolated."""

NODES = 4
"""Of the quadrature between two points, exact for a cubic times x²."""


class Curve(NamedTuple):
    """A table of a curve.

    Args:
        grid: where it is known, increasing.
        values: Values at these places.
        errors: standard errors of the values; None where they are not known.
    """

    grid: NDArray[np.float64]
    values: NDArray[np.float64]
    errors: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Resampled:
    """A curve on equal bins.

    Args:
        values: averages over the bins.
        errors: their standard errors; None where the table has none.
        points_per_bin: points of the table in a bin, on average.
        narrow: number of bins that are narrower than the distance of the points around them.
        smoothing: average less the curve at the centre, of each bin.
    """

    values: NDArray[np.float64]
    errors: NDArray[np.float64] | None
    points_per_bin: float
    narrow: int
    smoothing: NDArray[np.float64]


MOST_BINS = 2000
"""Of a grid: each is an average with propagated errors over all points of the table."""


def equal_bins(start: float, stop: float, count: int) -> NDArray[np.float64]:
    """Make the edges of equal bins.

    Args:
        start: Where the first bin begins.
        stop: Where the last one ends.
        count: Number of bins.

    Returns:
        The edges, (count + 1,).

    Raises:
        ValueError: For a range that is empty or begins below zero, or fewer than two bins.

    Example:
        >>> from aiida_difftre.engine.tables.resampling import equal_bins
        >>> equal_bins(0.0, 2.0, 4).tolist()
        [0.0, 0.5, 1.0, 1.5, 2.0]
    """
    if not 0 <= start < stop:
        raise ValueError(f"a grid from {start:g} to {stop:g} has no room; give start:stop:n with 0 <= start < stop")
    if count < 2:
        raise ValueError(f"a grid of {count} bins is none; give at least 2")
    if count > MOST_BINS:
        raise ValueError(f"a grid of {count} bins is finer than any data; give at most {MOST_BINS}")
    return np.linspace(start, stop, count + 1)


def check_curve(x: NDArray[np.float64], lines: tuple[int, ...] = (), name: str = "grid") -> None:
    """Refuse a grid that does not increase.

    Args:
        x: the grid.
        lines: where each value stands in its file.
        name: Name of the column, for the message.

    Raises:
        ValueError: naming the first duplicate or step back.
    """
    for index in np.flatnonzero(np.diff(x) <= 0):
        what = "repeats" if x[index + 1] == x[index] else "is below"
        place = f"line {lines[index + 1]}: " if lines else f"index {index + 1}: "
        raise ValueError(
            f"{place}{name} {x[index + 1]:g} {what} {x[index]:g} before it; sort the table and give each point once"
        )


def resample(
    curve: Curve,
    edges: NDArray[np.float64],
    *,
    shells: bool = False,
    correlated: bool = False,
    length: float | None = None,
    interpolation: Interpolation = "monotone",
    zero_below: bool = False,
) -> Resampled:
    """Average a curve over equal bins.

    Args:
        curve: the table.
        edges: Edges of the bins, increasing, in the unit of the grid.
        shells: average over spherical shells (v = x²).
        correlated: the errors of the points within a bin are one and the same, as after a Fourier transform.
        length: Distance over which errors are correlated, as exp(-|x - x'|/length); None for independent points.
        interpolation: ``monotone`` (no overshoot) or ``cubic`` (smoother) between the points.
        zero_below: a curve that begins with zero is zero below its first point, as a distribution is.

    Returns:
        Averages over the bins and their errors.

    Raises:
        ValueError: for a grid that does not increase, too few points, a negative error, or bins beyond the data.
    """
    _check_points(curve)
    if interpolation not in INTERPOLATIONS:
        raise ValueError(f"interpolation {interpolation!r} is unknown; choose {' or '.join(INTERPOLATIONS)}")
    if zero_below:
        curve = _with_zero(curve, edges)
    _check_covered(curve, edges)
    x = curve.grid
    interpolated = (PchipInterpolator if interpolation == "monotone" else CubicSpline)(x, curve.values)
    nodes = _quadrature(x, edges, shells)
    values = np.bincount(nodes.bins, nodes.weights * interpolated(nodes.places), len(edges) - 1) / nodes.volumes

    centres = np.clip((edges[1:] + edges[:-1]) / 2, x[0], x[-1])
    spacing = np.diff(x)[np.clip(np.searchsorted(x, centres, "right") - 1, 0, len(x) - 2)]
    narrow = np.diff(edges) < spacing * (1 - 1e-6)
    propagated = None
    if curve.errors is not None:
        matrix = _linear_weights(x, nodes)
        common = matrix @ curve.errors
        if length is None:
            averaged = np.sqrt(matrix**2 @ curve.errors**2)
        else:
            shares = np.exp(-np.abs(x[:, None] - x) / length)
            weighted = matrix * curve.errors
            averaged = np.sqrt(np.sum((weighted @ shares) * weighted, axis=1))
        propagated = np.where(narrow | correlated, common, averaged)
    return Resampled(
        values=values,
        errors=propagated,
        points_per_bin=float(np.mean(np.diff(edges) / spacing)),
        narrow=int(narrow.sum()),
        smoothing=values - interpolated(centres),
    )


def _check_points(curve: Curve) -> None:
    """Refuse a table that is no curve."""
    check_curve(curve.grid)
    if len(curve.grid) < MINIMUM_POINTS:
        raise ValueError(f"the table has {len(curve.grid)} points; at least {MINIMUM_POINTS} are needed")
    if curve.errors is not None and (curve.errors < 0).any():
        index = int(np.argmax(curve.errors < 0))
        raise ValueError(f"error {curve.errors[index]:g} at index {index} is negative")


def _with_zero(curve: Curve, edges: NDArray[np.float64]) -> Curve:
    """With a zero at the first edge, where the curve begins with zero above it."""
    if curve.values[0] != 0 or edges[0] >= curve.grid[0]:
        return curve
    errors = None if curve.errors is None else np.concatenate([curve.errors[:1], curve.errors])
    return Curve(np.concatenate([[edges[0]], curve.grid]), np.concatenate([[0.0], curve.values]), errors)


def _check_covered(curve: Curve, edges: NDArray[np.float64]) -> None:
    """Refuse bins beyond the data: a table of averages over bins ends half a distance after its last point."""
    x = curve.grid
    low, high = x[0] - (x[1] - x[0]) / 2, x[-1] + (x[-1] - x[-2]) / 2
    slack = 1e-6 * (edges[-1] - edges[0])
    if edges[0] < low - slack or edges[-1] > high + slack:
        raise ValueError(
            f"bins from {edges[0]:g} to {edges[-1]:g} reach beyond the data, which go from {x[0]:g} to {x[-1]:g}"
        )


class _Nodes(NamedTuple):
    """All nodes of a quadrature over bins.

    Args:
        places: (nodes,), within the table.
        weights: (nodes,).
        bins: (nodes,), the bin of each.
        volumes: (bins,), ∫ v(x) dx.
    """

    places: NDArray[np.float64]
    weights: NDArray[np.float64]
    bins: NDArray[np.intp]
    volumes: NDArray[np.float64]


def _quadrature(x: NDArray[np.float64], edges: NDArray[np.float64], shells: bool) -> _Nodes:
    """Between neighbours of all edges and points of the table, so that the curve is a cubic around each node."""
    breaks = np.unique(np.concatenate([edges, x[(x > edges[0]) & (x < edges[-1])]]))
    nodes, shares = leggauss(NODES)
    width = np.diff(breaks)
    places = (breaks[:-1, None] + breaks[1:, None]) / 2 + width[:, None] / 2 * nodes
    weights = (width[:, None] / 2 * shares * (places**2 if shells else 1.0)).ravel()
    bins = np.clip(np.searchsorted(edges, places.mean(1), "right") - 1, 0, len(edges) - 2)
    bins = np.repeat(bins, NODES)
    volumes = np.bincount(bins, weights, len(edges) - 1).astype(np.float64)
    return _Nodes(np.clip(places.ravel(), x[0], x[-1]), weights, bins, volumes)


def _linear_weights(x: NDArray[np.float64], nodes: _Nodes) -> NDArray[np.float64]:
    """W of linear interpolation, (bins, points)."""
    matrix = np.zeros((len(nodes.volumes), len(x)))
    left = np.clip(np.searchsorted(x, nodes.places, "right") - 1, 0, len(x) - 2)
    share = (nodes.places - x[left]) / (x[left + 1] - x[left])
    np.add.at(matrix, (nodes.bins, left), nodes.weights * (1 - share) / nodes.volumes[nodes.bins])
    np.add.at(matrix, (nodes.bins, left + 1), nodes.weights * share / nodes.volumes[nodes.bins])
    return matrix
