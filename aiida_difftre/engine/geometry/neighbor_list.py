"""Periodic space: neighbour lists by explicit lattice shifts, displacements, strains.

A neighbour is an atom index and an integer lattice shift, not a minimum image, so that any cell works, from cubic to
triclinic, also one that is smaller than twice the cutoff (an atom then neighbours several images of another, or of
itself). Positions are fractional and unwrapped: a shift stays valid when an atom leaves the cell.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from numpy.typing import ArrayLike, NDArray

from aiida_difftre.engine.geometry import linked_cells
from aiida_difftre.engine.geometry.lattice import images

Search: TypeAlias = linked_cells.Grid | NDArray[np.int32]
Triple: TypeAlias = tuple[Array, Array, Array]

GRID_COST, NARROW_GRID_COST = 0.8, 1.2
"""What testing a candidate of a grid costs, in units of that of an image; a narrow one has one bin along an axis."""


class NeighborList(NamedTuple):
    """A list of the neighbours of every atom, padded to the same length.

    A neighbour is the index of an atom and a lattice shift, so that any cell works, also one that is smaller than twice
    the cutoff.

    Args:
        index: Index of each neighbour, (atoms, neighbors); that of the atom itself where ``mask`` is False.
        shift: Numbers of lattice vectors to add to the neighbour's fractional position, (atoms, neighbors, 3).
        mask: Whether an entry is a real neighbour, (atoms, neighbors).
        needed: The largest number of neighbours that an atom has; the list is incomplete where this exceeds its length.
        occupancy: The largest number of atoms in a bin of the search; the list is incomplete where this exceeds the
            room of the bins. Zero where the search has no bins.

    Example:
        >>> import numpy as np
        >>> from aiida_difftre.engine.geometry.neighbor_list import build_batch
        >>> lists = build_batch(np.array([[[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]]], np.float32), 4 * np.eye(3), 3.6)
        >>> int(lists.needed[0]), int(lists.mask.sum())  # eight neighbours of each atom, in a cell of two
        (8, 16)
    """

    index: Int[Array, "*batch atoms neighbors"]  # type: ignore[assignment]  # hides tuple.index, which nobody calls
    shift: Int[Array, "*batch atoms neighbors 3"]
    mask: Bool[Array, "*batch atoms neighbors"]
    needed: Int[Array, "*batch"]
    occupancy: Int[Array, "*batch"]


class Capacity(NamedTuple):
    """What neighbour lists can hold.

    Args:
        neighbors: Number of neighbours of an atom.
        room: atoms in a bin of the search; zero where there are no bins.
    """

    neighbors: int
    room: int

    def exceeded(self, needed: ArrayLike) -> bool:
        """Whether lists that need this, (..., 2) as in :func:`requirements`, are incomplete."""
        return bool(np.any(np.asarray(needed) > self))

    def scaled(self, factor: float) -> Capacity:
        """Room for so many times as many."""
        return Capacity(*(rounded(math.ceil(factor * number)) for number in self))

    def enlarged(self, needed: ArrayLike) -> Capacity:
        """Room for what is needed and some more; no less than before."""
        largest = np.max(np.asarray(needed).reshape(-1, 2), 0)
        grown = (rounded(int(1.05 * new) + 1) if new > old else old for old, new in zip(self, largest, strict=True))
        return Capacity(*grown)


def rounded(count: int) -> int:
    """The next number with three binary digits after the first, such as 80, 88, 96, 104, 112, 120, 128, 144.

    What fluctuates from trajectory to trajectory by less than this then has one compiled program, in all jobs.
    """
    step = 1 << max(0, count.bit_length() - 4)
    return -(-count // step) * step


def requirements(lists: NeighborList) -> Int[Array, "*batch 2"]:
    """Tell what lists need, for :class:`Capacity`.

    Args:
        lists: Lists of neighbours, of one or several configurations.

    Returns:
        Neighbours of an atom and atoms of a bin, (..., 2).
    """
    return jnp.stack([lists.needed, lists.occupancy], -1)


def search(cell: ArrayLike, cutoff: float, atoms: int, room: int = 0) -> Search:
    """Choose the faster search for neighbours: all images of all atoms, or a grid of bins.

    Args:
        cell: Lattice vectors in rows, (3, 3), Å.
        cutoff: The largest cutoff that will be asked for, Å.
        atoms: Number of atoms in the cell.
        room: Number of atoms that a bin can hold; 0 to choose. Which search it is does not depend on it.

    Returns:
        Lattice shifts of images, (images, 3), or the bins.

    Example:
        >>> import numpy as np
        >>> from aiida_difftre.engine.geometry.neighbor_list import search
        >>> search(10 * np.eye(3), 4.0, 64).tolist()
        [[0, 0, 0]]
        >>> search(60 * np.eye(3), 4.0, 8000).bins
        (14, 14, 14)
    """
    shifts, bins = images(cell, cutoff), linked_cells.grid(cell, cutoff, atoms)
    tested = np.prod(bins.bins) * bins.room / atoms * bins.candidates
    cost = GRID_COST if min(bins.bins) > 1 else NARROW_GRID_COST
    if cost * tested >= len(shifts) * atoms:
        return shifts
    return dataclasses.replace(bins, room=room) if room else bins


def build(
    positions: Float[Array, "atoms 3"],
    cell: Float[Array, "3 3"],
    cutoff: float | Float[Array, ""],
    capacity: int,
    search: Search,
) -> NeighborList:
    """List all pairs of atoms that are closer than a cutoff; JAX can compile it.

    Args:
        positions: Fractional coordinates, unwrapped, (atoms, 3).
        cell: Lattice vectors in rows, (3, 3), Å.
        cutoff: Cutoff, Å.
        capacity: Number of neighbours per atom that the list can hold.
        search: What :func:`search` chose for this cell and at least this cutoff.

    Returns:
        The list; complete unless ``needed`` exceeds the capacity or ``occupancy`` the room of the bins.

    Example:
        >>> import jax.numpy as jnp
        >>> from aiida_difftre.engine.geometry.neighbor_list import build, search
        >>> cell = 10 * jnp.eye(3)
        >>> found = build(jnp.array([[0.0, 0.0, 0.0], [0.9, 0.0, 0.0]]), cell, 3.0, 1, search(cell, 3.0, 2))
        >>> found.index.tolist(), found.shift[0, 0].tolist()
        ([[1], [0]], [-1, 0, 0])
    """
    index, mask, shift, *counts = _found(positions, cell, cutoff, capacity, search, _whole)
    return NeighborList(index, jnp.stack(shift, -1), mask, *counts)


def build_ready(
    positions: Float[Array, "atoms 3"],
    cell: Float[Array, "3 3"],
    cutoff: float | Float[Array, ""],
    capacity: int,
    search: Search,
) -> tuple[Neighbors, Int[Array, " 2"]]:
    """The list of :func:`build` made ready, :func:`neighbors`, without what lies between; and its requirements."""
    index, mask, offset, *counts = _found(positions, cell, cutoff, capacity, search, lambda x: _offset(x, cell))
    return Neighbors(index, mask, offset), jnp.stack(counts)


def _found(
    positions: Array,
    cell: Array,
    cutoff: float | Array,
    capacity: int,
    search: Search,
    finish: Callable[[Triple], Triple],
) -> tuple[Array, Array, Triple, Array, Array]:
    """Index, mask, what ``finish`` makes of the three columns of shifts, needed, occupancy."""
    atoms = len(positions)
    if isinstance(search, linked_cells.Grid):
        candidates = linked_cells.search(positions, cell, cutoff, search)
        words, occupancy = candidates.words, candidates.occupancy
        # With two bins or more along each lattice vector the cell is at least twice as wide as the cutoff.
        unique = min(search.bins) > 1
    else:
        words, occupancy = _all_images(positions, cell, cutoff, search), jnp.zeros((), jnp.int32)
        unique = len(search) == 1
    padded = atoms + -atoms % 32

    place, mask, counts = linked_cells.ones(words, capacity)
    needed, itself = jnp.max(counts), jnp.arange(atoms, dtype=jnp.int32)[:, None]
    if isinstance(search, linked_cells.Grid):
        home = candidates.row[:, None]
        index = jnp.where(mask, candidates.atom[home, place], itself).astype(jnp.int32)
        if not unique:
            code = candidates.shift[home, place // search.room] + candidates.wrap[:, None]
            shift = linked_cells.decoded(jnp.where(mask, code - candidates.wrap[index], 0))
            return index, mask, finish((shift[..., 0], shift[..., 1], shift[..., 2])), needed, occupancy
    else:
        index = jnp.where(mask, place if unique else place % padded, itself)
    parts = [-jnp.round(column[index] - column[:, None]) for column in positions.T]
    if not unique:
        images = jnp.asarray(search, positions.dtype).T[:, place // padded]
        parts = [jnp.where(mask, part + image, 0) for part, image in zip(parts, images, strict=True)]
    return index, mask, finish((parts[0], parts[1], parts[2])), needed, occupancy


def _all_images(positions: Array, cell: Array, cutoff: Array | float, shifts: NDArray[np.int32]) -> Array:
    """One bit for each image of each atom, atoms filled up to a multiple of 32: whether it is a neighbour."""
    atoms = positions.shape[0]
    offsets = jnp.asarray(shifts, positions.dtype) @ cell
    home = np.logical_not(shifts.any(1)).reshape(-1, 1)
    points = linked_cells.nowhere(positions.T)

    def row(i: Array) -> Array:
        difference = points - positions[i][:, None]
        difference = difference - jnp.round(difference)
        squared = jnp.zeros((), positions.dtype)
        for axis in range(3):
            near = sum(difference[k] * cell[k, axis] for k in range(3))
            squared = squared + (near + offsets[:, axis, None]) ** 2
        within = (squared < cutoff**2) & ~(home & (jnp.arange(points.shape[1]) == i))
        return linked_cells.pack(within.reshape(-1))

    batch = max(1, min(atoms, linked_cells.CANDIDATES_AT_ONCE // (atoms * len(shifts))))
    rows = jnp.arange(atoms)
    return jax.vmap(row)(rows) if batch == atoms else jax.lax.map(row, rows, batch_size=batch)


@functools.partial(jax.jit, static_argnames=("capacity", "search", "batch"))
def _build_batch(
    positions: Array,
    cell: Array,
    cutoffs: Array,
    *,
    capacity: int,
    search: linked_cells.Grid | tuple[Any, ...],
    batch: int,
) -> NeighborList:
    how = search if isinstance(search, linked_cells.Grid) else np.array(search, np.int32)
    return jax.lax.map(lambda x: build(x[0], cell, x[1], capacity, how), (positions, cutoffs), batch_size=batch)


@functools.partial(jax.jit, static_argnames="capacity")
def _shortened(lists: NeighborList, capacity: int) -> NeighborList:
    index, shift, mask, *counts = lists
    return NeighborList(index[..., :capacity], shift[..., :capacity, :], mask[..., :capacity], *counts)


def build_batch(
    positions: ArrayLike, cell: ArrayLike, cutoff: float | NDArray[np.float64], capacity: int | None = None
) -> NeighborList:
    """List the neighbours in many snapshots of one cell, with a length that holds them all.

    Args:
        positions: Fractional coordinates, (snapshots, atoms, 3).
        cell: Lattice vectors in rows, (3, 3), Å.
        cutoff: Cutoff, Å; one for all snapshots, or one for each, (snapshots,). In a cell scaled by s the cutoff r is
            r/s in the cell unscaled.
        capacity: A first guess of the number of neighbours per atom; None takes that at the mean density.

    Returns:
        Complete lists, with the snapshots as their first axis.

    Example:
        >>> import numpy as np
        >>> from aiida_difftre.engine.geometry.neighbor_list import build_batch
        >>> positions = np.array([[[0.0, 0.0, 0.0], [0.2, 0.0, 0.0]], [[0.0, 0.0, 0.0], [0.5, 0.0, 0.0]]], np.float32)
        >>> build_batch(positions, 10 * np.eye(3), 3.0).mask.sum((1, 2)).tolist()  # only the first pair is close
        [2, 0]
    """
    positions = jnp.asarray(positions)
    atoms, longest = positions.shape[1], float(np.max(cutoff))
    how = search(cell, longest, atoms)
    guess = capacity or capacity_for(atoms, cell, longest)
    # On the host: each operation outside of a compiled function is a program of its own.
    cutoffs = np.broadcast_to(np.asarray(cutoff, positions.dtype), positions.shape[:1])
    while True:
        tested = how.candidates if isinstance(how, linked_cells.Grid) else atoms * len(how)
        lists = _build_batch(
            positions, np.asarray(cell, positions.dtype), cutoffs, capacity=guess,
            search=how if isinstance(how, linked_cells.Grid) else tuple(map(tuple, how.tolist())),
            batch=max(1, min(max(16, 1024 // atoms), linked_cells.CANDIDATES_AT_ONCE // (atoms * tested))),
        )  # fmt: skip
        needed, occupancy = np.max(np.asarray(requirements(lists)), 0).tolist()
        needed = rounded(max(1, needed))
        if isinstance(how, linked_cells.Grid) and occupancy > how.room:
            how = dataclasses.replace(how, room=rounded(occupancy))
        elif needed <= guess:
            return lists if needed == guess else _shortened(lists, needed)
        else:
            guess = needed


def capacity_for(atoms: int, cell: ArrayLike, cutoff: float, margin: float = 1.3) -> int:
    """Neighbours within ``cutoff`` at the mean density, times a margin, :func:`rounded`."""
    density = atoms / abs(np.linalg.det(np.asarray(cell)))
    return rounded(int(np.ceil(margin * density * 4 / 3 * np.pi * cutoff**3)) + 2)


def displacements(
    positions: Float[Array, "atoms 3"], cell: Float[Array, "3 3"], neighbors: NeighborList
) -> Float[Array, "atoms neighbors 3"]:
    """Compute the vectors from each atom to its neighbours.

    Args:
        positions: Fractional coordinates, unwrapped, (atoms, 3).
        cell: Lattice vectors in rows, (3, 3), Å.
        neighbors: The list of one configuration.

    Returns:
        Vectors r_j - r_i, (atoms, neighbors, 3), Å; zero where the list is padded.

    Example:
        >>> import jax.numpy as jnp
        >>> from aiida_difftre.engine.geometry.neighbor_list import build, displacements, search
        >>> positions, cell = jnp.array([[0.0, 0.0, 0.0], [0.75, 0.0, 0.0]]), 10 * jnp.eye(3)
        >>> displacements(positions, cell, build(positions, cell, 3.0, 1, search(cell, 3.0, 2)))[0].tolist()
        [[-2.5, 0.0, 0.0]]
    """
    difference = positions[neighbors.index] - positions[:, None] + neighbors.shift.astype(positions.dtype)
    return difference @ cell


class Neighbors(NamedTuple):
    """A neighbour list made ready for many evaluations: what does not change while atoms move is done once.

    Args:
        index: neighbour of each atom.
        mask: True for real neighbours.
        offset: x, y and z of the lattice vectors to add to the neighbour's position, Å.
    """

    index: Int[Array, "*batch atoms neighbors"]  # type: ignore[assignment]  # hides tuple.index, which nobody calls
    mask: Bool[Array, "*batch atoms neighbors"]
    offset: tuple[Array, Array, Array]


def neighbors(lists: NeighborList, cell: Float[Array, "3 3"]) -> Neighbors:
    """Make a list of one configuration ready."""
    offset = _offset((lists.shift[..., 0], lists.shift[..., 1], lists.shift[..., 2]), cell)
    return Neighbors(lists.index, lists.mask, offset)


def enlarged(lists: NeighborList, capacity: int) -> NeighborList:
    """Lists with empty places added up to a capacity; on the host."""
    index, shift, mask, *counts = (np.asarray(array) for array in lists)
    more = (*index.shape[:-1], capacity - index.shape[-1])
    itself = np.broadcast_to(np.arange(index.shape[-2], dtype=index.dtype)[:, None], more)
    nothing = np.zeros((*more, 3), shift.dtype)
    filled = (
        np.concatenate([index, itself], -1),
        np.concatenate([shift, nothing], -2),
        np.concatenate([mask, np.zeros(more, bool)], -1),
    )
    return NeighborList(*filled, *counts)  # type: ignore[arg-type]  # NumPy arrays


def _whole(shift: Triple) -> Triple:
    a, b, c = (part.astype(jnp.int16) for part in shift)
    return a, b, c


def _offset(shift: Triple, cell: Array) -> Triple:
    a, b, c = (part.astype(cell.dtype) for part in shift)
    x, y, z = (a * cell[0, k] + b * cell[1, k] + c * cell[2, k] for k in range(3))
    return x, y, z


def components(
    positions: Float[Array, "atoms 3"], cell: Float[Array, "3 3"], listed: Neighbors
) -> list[Float[Array, "atoms neighbors"]]:
    """x, y and z of the vectors from each atom to its neighbours, Å."""
    points = (positions @ cell).T
    return [points[k][listed.index] - points[k][:, None] + listed.offset[k] for k in range(3)]
