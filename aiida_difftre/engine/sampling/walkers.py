"""Many independent walkers of one system: their state, and what is recorded of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from aiida_difftre.engine.geometry import neighbor_list
from aiida_difftre.engine.sampling import barostat


class Walkers(NamedTuple):
    """The state of all walkers; every leaf has a leading walkers (or devices) axis.

    Args:
        md: jax-md's integrator state, or that of the barostat.
        lists: neighbour lists.
        built: fractional positions for which the lists were built.
        built_scale: scales of the cell for which they were built.
        needed: what the fullest list of each device has needed so far: neighbours, and atoms in a bin.
        farthest: the longest way of an atom since its list was built, at any step so far, Å; half of what a cell that
            shrinks brings two atoms nearer is added. Beyond half the skin neighbours may have been missed.
    """

    md: Any
    lists: neighbor_list.Neighbors
    built: Float[Array, "walkers atoms 3"]
    built_scale: Float[Array, " walkers"]
    needed: Int[Array, "devices 2"]
    farthest: Float[Array, " walkers"]


class Snapshot(NamedTuple):
    """What is recorded of all walkers.

    Args:
        positions: Fractional positions, unwrapped.
        temperature: Instantaneous temperature, K.
        min_distance: Shortest distance between two atoms, Å.
        finite: True if all positions and forces are finite.
        scale: Edges of the cell over those of the reference cell.
    """

    positions: Float[Array, "snapshots walkers atoms 3"]
    temperature: Float[Array, "snapshots walkers"]
    min_distance: Float[Array, "snapshots walkers"]
    finite: Array
    scale: Float[Array, "snapshots walkers"]


def each_walker(function: Callable[..., Any], *arguments: Any) -> Any:
    """Apply a function to each walker; a single one is not batched, since batched look-ups are slower on CPUs.

    Args:
        function: Function of the arguments of one walker.
        *arguments: Arguments of all walkers, with a leading walkers axis.

    Returns:
        The results, with a leading walkers axis.
    """
    if len(jax.tree.leaves(arguments)[0]) > 1:
        return jax.vmap(function)(*arguments)
    found = function(*jax.tree.map(lambda array: array[0], arguments))
    return jax.tree.map(lambda array: array[None], found)


def scale_of(md: Any) -> Float[Array, " walkers"]:
    """Edges of the cells of walkers over those of the reference cell.

    Args:
        md: States of the integrator, with a leading walkers axis.

    Returns:
        The scale of each cell; ones where the cell is fixed.
    """
    if isinstance(md, barostat.State):
        return jnp.exp(md.strain)
    return jnp.ones(md.position.shape[:-2], md.position.dtype)
