"""Forces and distances of molecular dynamics: of all atoms at once, or of tiles that stay in a processor's caches.

What the forces of many atoms need on the way is some ten arrays of the size of the neighbour list. Where they leave the
caches the time of a force is that of memory, three times as long for 32 000 atoms.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from aiida_difftre.engine import space, tiles
from aiida_difftre.engine.potentials import Environment, Parameters, Potential


def forces_and_virial(
    potential: Potential,
    parameters: Parameters,
    positions: Float[Array, "atoms 3"],
    lists: space.Neighbors,
    *,
    cell: Float[Array, "3 3"],
    scale: Float[Array, ""],
    species: Int[Array, " atoms"],
    rows: int,
) -> tuple[Float[Array, "atoms 3"], Float[Array, ""]]:
    """Forces, eV/Å, and the trace of the virial, eV.

    Args:
        potential: the potential.
        parameters: its parameters.
        positions: fractional, unwrapped.
        lists: neighbours.
        cell: rows are lattice vectors, Å.
        scale: of the cell.
        species: index of each atom's species.
        rows: atoms of a tile; fewer than all atoms for sums over pairs only.
    """
    atoms = len(positions)
    if rows >= atoms:
        vectors = [scale * part for part in space.components(positions, cell, lists)]
        environment = Environment(jnp.stack(vectors, -1), lists.mask, species, species[lists.index], positions)
        between, work = potential.forces_and_virial(parameters, vectors, environment, lists.index)
        if not potential.has_external:
            return between, work
        return between + potential.external_forces(parameters, environment, cell), work
    points = (positions @ cell).T

    def add(tile: Array, done: tuple[Array, Array]) -> tuple[Array, Array]:
        force, work = done
        first = jnp.minimum(tile * rows, atoms - rows)

        def cut(values: Array) -> Array:
            return jax.lax.dynamic_slice_in_dim(values, first, rows)

        # The last tile reaches back, and leaves out what is done.
        fresh = first + jnp.arange(rows) >= tile * rows
        index, mask = cut(lists.index), cut(lists.mask) & fresh[:, None]
        own = [cut(points[k])[:, None] for k in range(3)]
        vectors = [scale * (points[k][index] - own[k] + cut(lists.offset[k])) for k in range(3)]
        environment = Environment(jnp.stack(vectors, -1), mask, cut(species), species[index], positions)
        some, part = potential.forces_and_virial(parameters, vectors, environment, index)
        return jax.lax.dynamic_update_slice_in_dim(force, cut(force) + some, first, 0), work + part

    nothing = jnp.zeros_like(positions), jnp.zeros((), positions.dtype)
    return jax.lax.fori_loop(0, -(-atoms // rows), add, nothing)


def min_distance(
    positions: Float[Array, "atoms 3"],
    lists: space.Neighbors,
    *,
    cell: Float[Array, "3 3"],
    scale: Float[Array, ""],
    rows: int,
) -> Float[Array, ""]:
    """The shortest distance between two atoms, Å; infinite where there are no neighbours."""
    points = positions @ cell

    def nearest(some: tuple[space.Neighbors, Array]) -> Array:
        listed, own = some
        parts = [points[:, k][listed.index] - own[:, k, None] + listed.offset[k] for k in range(3)]
        return jnp.min(jnp.where(listed.mask, sum(part * part for part in parts), jnp.inf), -1)

    return scale * jnp.sqrt(jnp.min(tiles.by_tiles(nearest, (lists, points), rows)))
