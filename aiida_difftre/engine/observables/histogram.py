"""Histograms of one snapshot: traceable, sharp, or with each value shared between the two nearest points."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from numpy.typing import NDArray

PAIRS_AT_ONCE = 1 << 20
"""Pairs of atoms whose vectors are held together: 24 MiB for each array of them, of which there are a few."""


def deposit(
    counts: Float[Array, " points"], coordinate: Float[Array, " n"], wanted: Bool[Array, " n"], *, shared: bool
) -> Float[Array, " points"]:
    """Add values to the counts in bins, or at the edges of bins.

    Args:
        counts: Counts at the edges of the bins; a sharp histogram has the bin that follows an edge there, and leaves
            the last.
        coordinate: values, in bins from the first edge.
        wanted: which of them count; those beyond the bins do not.
        shared: Whether a value is shared between the two nearest edges; it then keeps its place and smears by a hair
            more.

    Returns:
        The counts with the values added, (points,).
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

    Where there are more pairs than :data:`PAIRS_AT_ONCE`, atoms of the first kind are taken block by block.

    Args:
        positions: fractional.
        cell: rows are the lattice vectors, Å.
        pairs: atoms of the first and of the second kind; pairs are ordered.
        shifts: lattice shifts besides the one to the nearest image, from
            :func:`aiida_difftre.engine.geometry.lattice.images`.
        bins: first edge (Å), width (Å) and number.
        shared: see :func:`deposit`.

    Returns:
        Counts as in :func:`deposit`, one more than there are bins.
    """
    rows, columns = pairs
    start, width, number = bins
    images = jnp.asarray(shifts, positions.dtype)

    def add_block(counts: Array, block: Int[Array, " rows"]) -> tuple[Array, None]:
        difference = positions[columns][None] - positions[block][:, None]
        nearest = difference - jnp.round(difference)
        itself, is_atom = block[:, None] == columns[None], block[:, None] >= 0

        def add_image(counts: Array, shift: Array) -> tuple[Array, None]:
            squared = jnp.sum(((nearest + shift) @ cell) ** 2, -1)
            coordinate = ((jnp.sqrt(squared) - start) / width).reshape(-1)
            wanted = (is_atom & ~(itself & jnp.all(shift == 0))).reshape(-1)
            return deposit(counts, coordinate, wanted, shared=shared), None

        return jax.lax.scan(add_image, counts, images)[0], None

    counts = jnp.zeros(number + 1, positions.dtype)
    size = max(1, PAIRS_AT_ONCE // max(1, len(columns)))
    if size >= len(rows):
        return add_block(counts, jnp.asarray(rows))[0]
    blocks = np.full((-(-len(rows) // size), size), -1)
    blocks.flat[: len(rows)] = rows
    total: Array = jax.lax.scan(add_block, counts, jnp.asarray(blocks))[0]
    return total
