"""Neighbour lists of many snapshots within a budget of memory: kept on the host as far as it goes, built anew beyond.

What is kept of a neighbour is its number and which of its periodic images it is, counted from the nearest one: two
bytes, or three where a cell is so small that there are several. Lattice shifts follow from the positions.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Int, UInt
from numpy.typing import NDArray

from aiida_difftre.engine.geometry import lattice, linked_cells, neighbor_list
from aiida_difftre.engine.runtime import device

Images: TypeAlias = tuple[tuple[int, int, int], ...]
"""Lattice shifts from the nearest image to others, see :func:`~aiida_difftre.engine.geometry.lattice.images`."""

MARGIN = 1 + 1e-6
"""Lists reach beyond the cutoff by this factor, since distances are rounded; terms of a potential end by themselves."""

BLOCK_BYTES = 48 << 20
"""Lists are gathered in blocks of this size, which the allocator hands back to the system once they are dropped."""


class Compact(NamedTuple):
    """Neighbours and their images, in the narrowest integers.

    Args:
        index: neighbour of each atom; the atom itself, as it is, where a place is empty.
        image: which of the images; None where there is only one.
    """

    index: UInt[Array, "*batch atoms neighbors"]  # type: ignore[assignment]  # hides tuple.index, which nobody calls
    image: UInt[Array, "*batch atoms neighbors"] | None


class Surroundings(NamedTuple):
    """Neighbours of each atom of one snapshot.

    Args:
        index: neighbour of each atom; the atom itself where ``mask`` is False.
        mask: True for real neighbours.
        components: x, y and z of the vectors to them, Å; zero where ``mask`` is False.
    """

    index: Int[Array, "atoms neighbors"]  # type: ignore[assignment]  # hides tuple.index, which nobody calls
    mask: Bool[Array, "atoms neighbors"]
    components: tuple[Array, Array, Array]


def narrowest(largest: int) -> type[np.unsignedinteger[Any]]:
    """The shortest unsigned integer that holds a number."""
    return np.uint8 if largest < 1 << 8 else np.uint16 if largest < 1 << 16 else np.uint32


def compact(lists: neighbor_list.NeighborList, positions: Float[Array, "atoms 3"], images: Images) -> Compact:
    """A list of one snapshot in its compact form; traceable.

    Args:
        lists: Lists for these positions.
        positions: fractional, in the precision in which vectors will be wanted.
        images: those that can be neighbours. A neighbour at the end of the list whose image is none of them for the
            rounding of positions is left out.

    Returns:
        The compact list.
    """
    atoms = len(positions)
    itself = jnp.arange(atoms, dtype=lists.index.dtype)[:, None]
    if len(images) == 1:
        return Compact(jnp.where(lists.mask, lists.index, itself).astype(narrowest(atoms - 1)), None)
    limits = np.max(images, 0)
    kept, code = lists.mask, jnp.zeros_like(lists.index)
    for axis, column in enumerate(positions.T):
        beyond = lists.shift[..., axis] + jnp.round(column[lists.index] - column[:, None]).astype(jnp.int32)
        kept = kept & (jnp.abs(beyond) <= limits[axis])
        code = code * (2 * limits[axis] + 1) + beyond + limits[axis]
    code = jnp.where(kept, code, len(images) // 2).astype(narrowest(len(images) - 1))
    return Compact(jnp.where(kept, lists.index, itself).astype(narrowest(atoms - 1)), code)


def surroundings(
    lists: Compact, positions: Float[Array, "atoms 3"], cell: Float[Array, "3 3"], images: Int[Array, "images 3"]
) -> Surroundings:
    """Vectors to the neighbours of one snapshot; traceable. The arguments are those of :func:`compact`."""
    index = lists.index.astype(jnp.int32)
    mask = index != jnp.arange(len(positions))[:, None]
    if lists.image is not None:
        mask = mask | (lists.image != len(images) // 2)
    steps = []
    for axis, column in enumerate(positions.T):
        step = column[index] - column[:, None]
        step = step - jnp.round(step)
        if lists.image is not None:
            step = step + images[:, axis].astype(step.dtype)[lists.image]
        steps.append(step)
    # Axis by axis: several times faster, on CPUs, than a product with vectors of three.
    x, y, z = (steps[0] * cell[0, k] + steps[1] * cell[1, k] + steps[2] * cell[2, k] for k in range(3))
    return Surroundings(index, mask, (x, y, z))


class Recipe(NamedTuple):
    """How lists are built; hashable, since each needs a compiled program of its own.

    Args:
        capacity: Number of neighbours of an atom that a list holds.
        search: Linked cells or lattice shifts among which neighbours are searched.
        images: Lattice shifts by their number in a list.
        at_once: Number of snapshots whose lists a device builds together.
    """

    capacity: int
    search: linked_cells.Grid | Images
    images: Images
    at_once: int


@functools.partial(jax.jit, static_argnames=("recipe",))
def _build(positions: Array, cell: Array, cutoffs: Array, *, recipe: Recipe) -> tuple[Compact, Array]:
    """Compact lists and what they needed, (snapshots, 2); snapshots are spread over the devices."""
    search = recipe.search
    how = search if isinstance(search, linked_cells.Grid) else np.array(search, np.int32)

    def one(snapshot: tuple[Array, Array]) -> tuple[Compact, Array]:
        fractional, cutoff = snapshot[0].astype(cell.dtype), snapshot[1]
        lists = neighbor_list.build(fractional, cell, cutoff, recipe.capacity, how)
        return compact(lists, fractional, recipe.images), neighbor_list.requirements(lists)

    def several(positions: Array, cutoffs: Array) -> tuple[Compact, Array]:
        found: tuple[Compact, Array] = jax.lax.map(one, (positions, cutoffs), batch_size=recipe.at_once)
        return found

    each = P("device")
    spread = jax.shard_map(several, mesh=device.mesh(), in_specs=(each, each), out_specs=each, check_vma=False)
    built: tuple[Compact, Array] = spread(positions, cutoffs)
    return built


class Lists:
    """Neighbour lists of all snapshots of a trajectory.

    All are built once, which tells how much room they need. The first ones are kept as far as the budget goes, the
    others built anew when they are asked for.

    Args:
        positions: Fractional positions as stored, (snapshots, atoms, 3).
        cell: Lattice vectors as rows, (3, 3), Å.
        cutoffs: Cutoffs of each snapshot, Å. In a cell scaled by s the cutoff r is r/s in the cell unscaled.
        precision: Precision in which distances are evaluated, also by those who ask for lists.
        batch: Number of snapshots that are asked for together; a multiple of the number of devices.
        budget: Memory for the lists that are kept, bytes.
    """

    def __init__(
        self,
        positions: NDArray[Any],
        cell: NDArray[np.float64],
        cutoffs: NDArray[np.float64],
        *,
        precision: str,
        batch: int,
        budget: int,
    ) -> None:
        dtype = np.dtype(precision)
        self._positions, self._cell = positions, np.asarray(cell, dtype)
        self._cutoffs = (MARGIN * cutoffs).astype(dtype)
        longest, atoms = MARGIN * float(np.max(cutoffs)), positions.shape[1]
        self.images: Images = _shifts(lattice.images(cell, longest))
        search = neighbor_list.search(cell, longest, atoms)
        self._grid = search if isinstance(search, linked_cells.Grid) else None
        self._capacity = neighbor_list.Capacity(
            neighbor_list.capacity_for(atoms, cell, longest), 0 if self._grid is None else self._grid.room
        )
        tested = len(self.images) * atoms if self._grid is None else self._grid.candidates
        self._at_once = max(1, min(max(16, 1024 // atoms), linked_cells.CANDIDATES_AT_ONCE // (atoms * tested)))
        self._kept: Compact = self._survey(batch, budget)

    @property
    def nbytes(self) -> int:
        """Bytes of what is kept."""
        return _nbytes(self._kept)

    def _survey(self, batch: int, budget: int) -> Compact:
        """Find the capacity that holds all lists, and keep the first ones, cut to it."""
        blocks: list[Compact] = []
        parts: list[Compact] = []
        needed, held, count = np.zeros(2, int), 0, len(self._positions)
        for start in range(0, count, batch):
            rows = np.arange(start, min(start + batch, count))
            lists, needs = self._built(np.resize(rows, batch))
            needed = np.maximum(needed, needs)
            if held > budget:
                continue
            parts.append(jax.tree.map(functools.partial(_cut, rows=len(rows), places=max(1, int(needs[0]))), lists))
            held += _nbytes(parts[-1])
            if _nbytes(parts) > BLOCK_BYTES:
                blocks.append(self._joined(parts, _length(parts), max(part.index.shape[-1] for part in parts)))
        self._capacity = neighbor_list.Capacity(
            neighbor_list.rounded(max(1, int(needed[0]))), neighbor_list.rounded(int(needed[1]))
        )
        each = (
            self._positions.shape[1] * self._capacity.neighbors * sum(np.dtype(kind).itemsize for kind in self._types)
        )
        blocks += parts
        return self._joined(blocks, min(_length(blocks), budget // each), self._capacity.neighbors)

    def _joined(self, parts: list[Compact], count: int, places: int) -> Compact:
        """The first lists of some parts, in one array with so many places; takes the parts out of their list."""
        atoms = self._positions.shape[1]
        index, *image = (np.empty((count, atoms, places), kind) for kind in self._types)
        start = 0
        while parts:
            # Dropped one by one, so that no list is there twice.
            part = parts.pop(0)
            rows, filled = slice(start, min(count, start + len(part.index))), part.index.shape[-1]
            taken = rows.stop - rows.start
            index[rows, :, :filled] = part.index[:taken]
            index[rows, :, filled:] = np.arange(atoms)[:, None]
            for codes in image:
                codes[rows, :, :filled] = part.image[:taken]  # type: ignore[index]  # there are several
                codes[rows, :, filled:] = len(self.images) // 2
            start = rows.stop
        return Compact(index, image[0] if image else None)  # type: ignore[arg-type]  # NumPy arrays on the host

    @property
    def _types(self) -> list[type[np.unsignedinteger[Any]]]:
        """Integer types of the arrays of a compact list."""
        several = [narrowest(len(self.images) - 1)] if len(self.images) > 1 else []
        return [narrowest(self._positions.shape[1] - 1), *several]

    def limit(self, budget: int) -> None:
        """Keep no more than this, bytes."""
        kept = self._kept
        each = self.nbytes // max(1, len(kept.index))
        count = min(len(kept.index), budget // each) if each else 0
        for array in jax.tree.leaves(kept):
            # In place, where a copy would take the memory that is to be given back.
            array.resize((count, *array.shape[1:]), refcheck=False)

    def take(self, index: NDArray[np.intp]) -> Compact:
        """Lists of some snapshots."""
        if index.max() < len(self._kept.index):
            taken: Compact = jax.tree.map(lambda x: x[index], self._kept)
            return taken
        return self._built(index)[0]

    def _built(self, index: NDArray[np.intp]) -> tuple[Compact, NDArray[np.int64]]:
        """Lists of some snapshots, complete, and what they needed."""
        while True:
            if self._grid is None:
                search: linked_cells.Grid | Images = self.images
            else:
                search = linked_cells.Grid(self._grid.bins, self._grid.reach, self._capacity.room, self._grid.cutoff)
            recipe = Recipe(self._capacity.neighbors, search, self.images, self._at_once)
            lists, needs = _build(self._positions[index], self._cell, self._cutoffs[index], recipe=recipe)
            needed = np.max(np.asarray(needs), 0).astype(int)
            if not self._capacity.exceeded(needed):
                return lists, needed
            self._capacity = self._capacity.enlarged(needed)


def _nbytes(tree: Any) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def _length(parts: list[Compact]) -> int:
    """Snapshots in all parts."""
    return sum(len(part.index) for part in parts)


def _cut(array: Array, rows: int, places: int) -> NDArray[Any]:
    """The filled part of a list, on the host."""
    return np.ascontiguousarray(np.asarray(array)[:rows, :, :places])


def _shifts(images: NDArray[np.int32]) -> Images:
    """Lattice shifts, hashable."""
    return tuple((int(a), int(b), int(c)) for a, b, c in images)
