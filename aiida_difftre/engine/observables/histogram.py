"""Histograms of one snapshot: traceable, sharp, or with each value shared between the two nearest points."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float
from numpy.typing import NDArray


def deposit(
    counts: Float[Array, " points"], coordinate: Float[Array, " n"], wanted: Bool[Array, " n"], *, shared: bool
) -> Float[Array, " points"]:
    """Add values to the counts in bins, or at the edges of bins.

    Args:
        counts: at the edges of the bins; a sharp histogram has the bin that follows an edge there, and leaves the last.
        coordinate: values, in bins from the first edge.
        wanted: which of them count; those beyond the bins do not.
        shared: between the two nearest edges; a value then keeps its place and smears by a hair more.
    """
    bins = len(counts) - 1
    index = jnp.floor(coordinate).astype(jnp.int32)
    index = jnp.where(wanted & (index >= 0) & (index < bins), index, bins + 1)
    if not shared:
        return counts.at[index].add(1, mode="drop")
    upper = coordinate - index
    return counts.at[index].add(1 - upper, mode="drop").at[index + 1].add(upper, mode="drop")


def distances(
    positions: Float[Array, "atoms 3"],
    cell: Float[Array, "3 3"],
    pairs: tuple[NDArray, NDArray],
    shifts: NDArray,
    bins: tuple[float, float, int],
    *,
    shared: bool,
) -> Float[Array, " points"]:
    """Histogram of the distances of all pairs and their periodic images; no atom pairs with itself.

    Args:
        positions: fractional.
        cell: rows are the lattice vectors, Å.
        pairs: atoms of the first and of the second kind; pairs are ordered.
        shifts: lattice shifts besides the one to the nearest image, from
            :func:`aiida_difftre.engine.lattice.images`.
        bins: first edge (Å), width (Å) and number.
        shared: see :func:`deposit`.

    Returns:
        Counts as in :func:`deposit`, one more than there are bins.
    """
    rows, columns = pairs
    difference = positions[columns][None] - positions[rows][:, None]
    nearest = difference - jnp.round(difference)
    start, width, count = bins
    itself = jnp.asarray(rows[:, None] == columns[None])

    def add(counts: Array, shift: Array) -> tuple[Array, None]:
        squared = jnp.sum(((nearest + shift) @ cell) ** 2, -1)
        coordinate = ((jnp.sqrt(squared) - start) / width).reshape(-1)
        other = ~(itself & jnp.all(shift == 0)).reshape(-1)
        return deposit(counts, coordinate, other, shared=shared), None

    counts: Array = jax.lax.scan(add, jnp.zeros(count + 1, positions.dtype), jnp.asarray(shifts, positions.dtype))[0]
    return counts
