r"""Scattering: weights of the elements, and g(r) <-> S(q) by sine transforms. Free of JAX.

With ρ the number density and W a window that ends the integral smoothly,

    S(q) = 1 + 4πρ/q ∫ r [g(r) - 1] W(r) sin(qr) dr
    g(r) = 1 + 1/(2π²ρr) ∫ q [S(q) - 1] W(q) sin(qr) dq

These hold for one element, for each Faber-Ziman partial, and for a total that is normalised to 1 at large q (Faber &
Ziman, Philos. Mag. 11, 153 (1965)). The integrands are linear between the points of a table, and the sine is integrated
exactly (Filon), so that a coarse table loses nothing at large q or r. Below its first point a table keeps its value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aiida_difftre.engine.contract import isotopes

Window = Literal["lorch", "none"]

WINDOWS: tuple[Window, ...] = ("lorch", "none")

RADIATIONS = ("neutron", "xray")

BHATIA_THORNTON = ("NN", "NC", "CC")
"""Partial structure factors of numbers and concentrations."""

SMALLEST = 1e-8
"""Stands for q = 0 or r = 0, where only the limit of sin(qr)/q is defined."""


def weights(
    species: Sequence[str], q: ArrayLike, radiation: str, lengths: Mapping[str, float] | None = None
) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """How strongly the elements scatter.

    Args:
        species: chemical symbol of each atom, or name of its isotope.
        q: 1/Å.
        radiation: ``neutron``: bound coherent scattering lengths, fm, the same at all q; ``xray``: form factors of
            neutral atoms, electrons.
        lengths: scattering lengths to use instead of the tabulated ones, fm, by species: of an isotope, or 1 and 0 to
            single out a partial.

    Returns:
        The elements, and their weights, (q, elements).

    Raises:
        ValueError: for an element without a weight, ``lengths`` of one that is not there, or a mean weight of zero.

    References:
        Sears, Neutron News 3, 26 (1992), and Waasmaier & Kirfel, Acta Cryst. A 51, 416 (1995), from ``periodictable``.
    """
    grid = np.asarray(q, np.float64)
    elements, counts = np.unique(np.array(species), return_counts=True)
    given = dict(lengths or {})
    for symbol in given:
        if symbol not in elements:
            raise ValueError(f"scattering_lengths names {symbol!r}; the structure has {', '.join(elements)}")
    columns = [
        np.full(grid.shape, given[symbol]) if symbol in given else _tabulated(str(symbol), grid, radiation)
        for symbol in elements
    ]
    table = np.stack(columns, -1)
    mean = table @ (counts / counts.sum())
    if (np.abs(mean) <= 1e-6 * np.abs(table).max(-1)).any():
        raise ValueError(
            f"the mean {radiation} weight of {', '.join(elements)} vanishes, by which a total S(q) is normalised; give "
            "other scattering_lengths"
        )
    return tuple(str(symbol) for symbol in elements), table


class Weighting(NamedTuple):
    r"""How a structure factor adds up what elements scatter: with ρ_a(q) the sum of exp(iqr) over the atoms of a,

    .. math:: \text{offset} + \text{mean}^{-2} \left[\tfrac1N \mathrm{Re} \sum_{ab} v_a w_b \rho_a \rho_b^* -
        \sum_a c_a v_a w_a\right]

    Args:
        first: v of each element, (q, elements).
        second: w of each element, (q, elements).
        offset: Limit at large q.
        mean: what the pairs of distinct atoms are normalised by, (q,); linear in the weights, where it depends on them.
        shares: Mole fraction of each element.
    """

    first: NDArray[np.float64]
    second: NDArray[np.float64]
    offset: float
    mean: NDArray[np.float64]
    shares: NDArray[np.float64]


def weighting(
    species: Sequence[str],
    q: ArrayLike,
    radiation: str,
    lengths: Mapping[str, float] | None = None,
    *,
    partial: str | Sequence[str] | None = None,
) -> tuple[tuple[str, ...], Weighting]:
    """The weights of a total structure factor, or of a partial one.

    Args:
        species: chemical symbol of each atom, or name of its isotope.
        q: 1/Å.
        radiation: see :func:`weights`; a partial one has none.
        lengths: see :func:`weights`.
        partial: None for the total; two species for that of Faber and Ziman; ``NN``, ``NC`` or ``CC`` for those of
            Bhatia and Thornton, of two species in the order of their symbols.

    Returns:
        The elements, and the weighting.

    Raises:
        ValueError: as :func:`weights` does, or for a species that is not there.

    References:
        Faber & Ziman, Philos. Mag. 11, 153 (1965); Bhatia & Thornton, Phys. Rev. B 2, 3004 (1970).
    """
    grid = np.asarray(q, np.float64)
    if partial is None:
        elements, table = weights(species, grid, radiation, lengths)
        shares = np.array([np.mean(np.array(species) == element) for element in elements])
        return elements, Weighting(table, table, 1.0, table @ shares, shares)
    elements = tuple(sorted(set(species)))
    shares = np.array([np.mean(np.array(species) == element) for element in elements])
    ones = np.ones((*grid.shape, 1))
    if isinstance(partial, str):
        if len(elements) != 2:
            raise ValueError(
                f"structure factors of Bhatia and Thornton are of two species; the structure has {', '.join(elements)}"
            )
        number, contrast = ones * [1.0, 1.0], ones * [shares[1], -shares[0]]
        first, second = contrast if partial == "CC" else number, number if partial == "NN" else contrast
        offset = float(np.sum(shares * first[0] * second[0]))
        return elements, Weighting(first, second, offset, np.ones(grid.shape), shares)
    for symbol in partial:
        if symbol not in elements:
            raise ValueError(f"option 'partial' names {symbol!r}; the structure has {', '.join(elements)}")
    place = [elements.index(symbol) for symbol in partial]
    first, second = (ones * np.eye(len(elements))[index] for index in place)
    return elements, Weighting(first, second, 1.0, np.full(grid.shape, float(np.prod(shares[place])) ** 0.5), shares)


def _tabulated(symbol: str, q: NDArray[np.float64], radiation: str) -> NDArray[np.float64]:
    if radiation == "neutron":
        length = isotopes.scattering_length(symbol)
        if length is None:
            raise ValueError(f"there is no neutron weight for the species {symbol!r}; give one in scattering_lengths")
        return np.full(q.shape, length)
    # Reading the tables takes a while, and few processes need them.
    from periodictable import cromermann

    try:
        return np.asarray(cromermann.fxrayatq(symbol, q), np.float64)
    except (KeyError, ValueError):
        raise ValueError(f"there is no xray weight for the species {symbol!r}; X-rays need real elements") from None


def structure_factor_from_rdf(
    r: ArrayLike, g: ArrayLike, q: ArrayLike, density: float, window: str = "lorch"
) -> NDArray[np.float64]:
    """S(q) of a radial distribution function.

    Args:
        r: Å, increasing; the last value is where the window ends.
        g: Values of g(r) on ``r``; 1 at large r.
        q: where S is wanted, 1/Å.
        density: atoms per Å³.
        window: ``lorch``, or ``none`` for a sharp end.

    Returns:
        S on ``q``; 1 at large q.

    Raises:
        ValueError: for a grid that does not increase, a length that does not fit, or a density that is not positive.

    References:
        Lorch, J. Phys. C 2, 229 (1969), for the window.
    """
    return 1 + structure_factor_matrix(r, q, density, window) @ (_values(g, r, "g(r)") - 1)


def rdf_from_structure_factor(
    q: ArrayLike, s: ArrayLike, r: ArrayLike, density: float, window: str = "lorch"
) -> NDArray[np.float64]:
    """Radial distribution function of an S(q).

    Args:
        q: 1/Å, increasing; the last value is where the window ends.
        s: Values of S(q) on ``q``; 1 at large q.
        r: where g is wanted, Å.
        density: atoms per Å³.
        window: ``lorch``, or ``none`` for a sharp end.

    Returns:
        g on ``r``; 1 at large r.

    Raises:
        ValueError: for a grid that does not increase, a length that does not fit, or a density that is not positive.
    """
    return 1 + rdf_matrix(q, r, density, window) @ (_values(s, q, "S(q)") - 1)


def structure_factor_matrix(r: ArrayLike, q: ArrayLike, density: float, window: str = "lorch") -> NDArray[np.float64]:
    """M with S - 1 = M (g - 1), (q, r); independent errors e of g make errors sqrt(M² e²) of S.

    Arguments and errors as in :func:`structure_factor_from_rdf`.
    """
    return 4 * np.pi * _density(density) * _sine_transform(r, q, window)


def rdf_matrix(q: ArrayLike, r: ArrayLike, density: float, window: str = "lorch") -> NDArray[np.float64]:
    """M with g - 1 = M (S - 1), (r, q); arguments and errors as in :func:`rdf_from_structure_factor`."""
    return _sine_transform(q, r, window) / (2 * np.pi**2 * _density(density))


def _sine_transform(x: ArrayLike, y: ArrayLike, window: str) -> NDArray[np.float64]:
    """M with M h = 1/y ∫ x h(x) W(x) sin(yx) dx, from 0 to the last x, (y, x)."""
    from scipy.special import spherical_jn  # late: SciPy is a third of what a short job imports

    points, wanted = np.asarray(x, np.float64), np.asarray(y, np.float64)
    _increasing(points)
    if not (wanted.ndim == 1 and np.isfinite(wanted).all() and (wanted >= 0).all()):
        raise ValueError("the grid on which a transform is wanted must be one-dimensional, finite and not negative")
    if window not in WINDOWS:
        raise ValueError(f"window {window!r} is unknown; choose {' or '.join(WINDOWS)}")
    wanted = np.maximum(wanted, SMALLEST)[:, None]
    amplitude = points * (np.sinc(points / points[-1]) if window == "lorch" else 1.0)
    nodes = np.concatenate([[0.0], points]) if points[0] > 0 else points
    width, middle = np.diff(nodes), (nodes[1:] + nodes[:-1]) / 2
    half = wanted * width / 2
    # ∫ sin(yx) dx over an interval, and ∫ (x - middle) sin(yx) dx over its width.
    even = width * spherical_jn(0, half) * np.sin(wanted * middle) / wanted
    odd = width / 2 * spherical_jn(1, half) * np.cos(wanted * middle) / wanted
    matrix = np.zeros((len(wanted), len(nodes)))
    matrix[:, :-1] += even / 2 - odd
    matrix[:, 1:] += even / 2 + odd
    # x h(x) is zero at x = 0, whatever h is there.
    return matrix[:, len(nodes) - len(points) :] * amplitude


def _increasing(points: NDArray[np.float64]) -> None:
    if points.ndim != 1 or len(points) < 2 or not np.isfinite(points).all() or points[0] < 0:
        raise ValueError("the grid of a transform must hold at least two finite values, none of them negative")
    steps = np.diff(points)
    if (steps <= 0).any():
        index = int(np.argmax(steps <= 0)) + 1
        raise ValueError(
            f"the grid of a transform must increase strictly: value {points[index]:g} at index {index} follows "
            f"{points[index - 1]:g}"
        )


def _values(values: ArrayLike, grid: ArrayLike, name: str) -> NDArray[np.float64]:
    array = np.asarray(values, np.float64)
    if array.shape != np.shape(grid):
        raise ValueError(f"{name} has {array.size} values on a grid of {np.size(grid)}")
    if not np.isfinite(array).all():
        index = int(np.argmin(np.isfinite(array)))
        raise ValueError(f"{name} has {array[index]} at index {index}; remove the point or give a number")
    return array


def _density(density: float) -> float:
    if not (np.isfinite(density) and density > 0):
        raise ValueError(f"density {density!r} must be positive, in atoms per Å³")
    return density
