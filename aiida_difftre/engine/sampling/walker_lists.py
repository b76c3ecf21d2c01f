"""Neighbour lists of walkers: built where their atoms are, worn as atoms move and cells shrink, and built anew.

A cell that changes its size is a scale s times the reference cell; lists are built in the latter with the cutoff r/s.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from aiida_difftre.engine.geometry import neighbor_list
from aiida_difftre.engine.sampling.system import System, worn_at
from aiida_difftre.engine.sampling.walkers import Walkers, each_walker, scale_of


class Listing(NamedTuple):
    """How lists are built and when they are worn.

    Args:
        cell: Lattice vectors of the reference cell as rows, (3, 3), Å.
        cutoff: Cutoff of the lists, in a cell of the size that it has, Å.
        capacity: Numbers of neighbours and of atoms in a bin that the lists hold.
        search: Bins or images among which neighbours are searched, enough for the smallest cell.
        worn_beyond: Half of what two atoms may come nearer before their list is built anew, Å.
    """

    cell: Float[Array, "3 3"]
    cutoff: float
    capacity: neighbor_list.Capacity
    search: neighbor_list.Search
    worn_beyond: float


class Built(NamedTuple):
    """Lists of all walkers, and where they were built; fields as of :class:`Walkers`."""

    lists: neighbor_list.Neighbors
    built: Float[Array, "walkers atoms 3"]
    built_scale: Float[Array, " walkers"]
    needed: Int[Array, "devices 2"]


def listing(system: System, capacity: neighbor_list.Capacity, cell: Float[Array, "3 3"]) -> Listing:
    """How the lists of a system are built.

    Args:
        system: The simulated system.
        capacity: Numbers of neighbours and of atoms in a bin that the lists hold.
        cell: Lattice vectors of the reference cell on the device, Å.

    Returns:
        The rule by which all lists of the system are built.
    """
    longest = system.list_cutoff / system.smallest_scale
    search = neighbor_list.search(system.cell, longest, len(system.symbols), capacity.room)
    return Listing(cell, system.list_cutoff, capacity, search, float(worn_at(system, system.skin)))


def list_of(rule: Listing, positions: Float[Array, "atoms 3"], scale: Array) -> tuple[neighbor_list.Neighbors, Array]:
    """The list of one walker, and what it needed: neighbours, and atoms in a bin."""
    return neighbor_list.build_ready(positions, rule.cell, rule.cutoff / scale, rule.capacity.neighbors, rule.search)


def lists_of(
    rule: Listing, positions: Float[Array, "walkers atoms 3"], scales: Float[Array, " walkers"]
) -> tuple[neighbor_list.Neighbors, Int[Array, "1 2"]]:
    """The lists of all walkers of a device, and what the fullest needed."""
    lists, needed = each_walker(lambda x, scale: list_of(rule, x, scale), positions, scales)
    return lists, jnp.max(needed, 0, keepdims=True)


def nearer(
    rule: Listing, positions: Float[Array, "walkers atoms 3"], scales: Float[Array, " walkers"], since: Built
) -> Float[Array, " walkers"]:
    """Bound on how much nearer two atoms may have come since their walker's list was built; half of it.

    Args:
        rule: Rule by which the lists are built.
        positions: Fractional positions.
        scales: Scales of the walkers' cells.
        since: The lists, with the positions and scales for which they were built.

    Returns:
        Half of the largest possible approach of two atoms, of each walker, Å.
    """
    moved = jnp.sqrt(jnp.max(jnp.sum(((positions - since.built) @ rule.cell) ** 2, -1), -1))
    # Two atoms that were at least the list's cutoff apart are nearer by at most twice this.
    return scales * moved + rule.cutoff * (1 - scales / since.built_scale) / 2


def built_of(walkers: Walkers) -> Built:
    """The lists of walkers."""
    return Built(walkers.lists, walkers.built, walkers.built_scale, walkers.needed)


def renewed(rule: Listing, walkers: Walkers, worn: Bool[Array, " walkers"]) -> Walkers:
    """Build the worn lists of walkers anew.

    Args:
        rule: Rule by which the lists are built.
        walkers: All walkers of a device, at their present positions.
        worn: True for each walker whose list is worn.

    Returns:
        The walkers with fresh lists where these were worn.
    """
    positions, scales = walkers.md.position, scale_of(walkers.md)
    renew = _worn_ones if jax.default_backend() == "cpu" else _all_at_once
    return walkers._replace(**renew(rule, positions, scales, built_of(walkers), worn)._asdict())


def _all_at_once(rule: Listing, positions: Array, scales: Array, held: Built, worn: Array) -> Built:
    """All lists together as soon as one is worn: on a GPU as cheap as one of them."""

    def anew(_: None) -> Built:
        lists, needed = lists_of(rule, positions, scales)
        return Built(lists, positions, scales, jnp.maximum(held.needed, needed))

    renewed: Built = jax.lax.cond(jnp.any(worn), anew, lambda _: held, None)
    return renewed


def _worn_ones(rule: Listing, positions: Array, scales: Array, held: Built, worn: Array) -> Built:
    """Worn lists one by one: on a CPU lists of several walkers cost as much together."""

    def next_one(state: tuple[Array, Built]) -> tuple[Array, Built]:
        worn, held = state
        walker = jnp.argmax(worn)
        one, requirement = list_of(rule, positions[walker], scales[walker])
        lists = jax.tree.map(lambda every, new: every.at[walker].set(new), held.lists, one)
        built = held.built.at[walker].set(positions[walker])
        built_scale = held.built_scale.at[walker].set(scales[walker])
        return worn.at[walker].set(False), Built(lists, built, built_scale, jnp.maximum(held.needed, requirement))

    renewed: Built = jax.lax.while_loop(lambda state: jnp.any(state[0]), next_one, (worn, held))[1]
    return renewed
