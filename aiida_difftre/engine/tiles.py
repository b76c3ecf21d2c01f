"""Work on the rows of large neighbour lists in tiles whose arrays stay in a processor's caches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

PLACES = 1 << 14
"""Places of neighbour lists in a tile."""

PLACES_AT_ONCE = 1 << 19
"""Lists of fewer places are not cut up."""


def rows_of(atoms: int, neighbors: int, walkers: int = 1) -> int:
    """Rows of a tile; all where tiles do not pay, as for short lists and on a GPU."""
    if jax.default_backend() != "cpu" or walkers * atoms * neighbors < PLACES_AT_ONCE:
        return atoms
    return min(atoms, max(8, PLACES // (walkers * neighbors)))


def by_tiles(function: Callable[[Any], Any], arrays: Any, rows: int) -> Any:
    """What a function makes of arrays, some rows at a time; each row of the result comes of one row of each array.

    Args:
        function: of a pytree of arrays, to another one.
        arrays: all with as many rows.
        rows: of a tile; the last one reaches back, and computes some rows again.
    """
    total = len(jax.tree.leaves(arrays)[0])
    if rows >= total:
        return function(arrays)

    def add(tile: jax.Array, done: Any) -> Any:
        first = jnp.minimum(tile * rows, total - rows)
        some = function(jax.tree.map(lambda array: jax.lax.dynamic_slice_in_dim(array, first, rows), arrays))
        return jax.tree.map(lambda all_, part: jax.lax.dynamic_update_slice_in_dim(all_, part, first, 0), done, some)

    shapes = jax.eval_shape(function, jax.tree.map(lambda array: array[:rows], arrays))
    nothing = jax.tree.map(lambda shape: jnp.zeros((total, *shape.shape[1:]), shape.dtype), shapes)
    return jax.lax.fori_loop(0, -(-total // rows), add, nothing)
