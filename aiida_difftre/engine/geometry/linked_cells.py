"""Linked cells: which atoms can be neighbours, in time proportional to their number; and what compacts the answer.

Space is divided into bins along the lattice vectors. The candidates of an atom are the atoms of its bin and of the bins
around it; a bin beyond the boundary is that of a periodic image, with an explicit lattice shift, so that nothing
depends on how many bins there are. Answers are bits, 32 to a word: to find the k-th neighbour is to count ones.

References:
    Hockney & Eastwood, Computer Simulation Using Particles (McGraw-Hill, 1981), section 8.4 (linked cells).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num, UInt
from numpy.typing import ArrayLike, NDArray

from aiida_difftre.engine.geometry import lattice

CANDIDATES_AT_ONCE = 1 << 23
"""Candidate pairs examined at once; bounds the memory of a search."""

COUNTED_WORDS = 96
"""Rows of more words than this are searched by bisection, shorter ones by comparison with all."""

SLACK = 1 + 1e-5
"""Bins are larger than the cutoff by this factor: fractional coordinates are rounded."""

FARTHEST = float(1 << 20)
"""Cells from the origin, beyond which single precision no longer tells where in its cell an atom is."""

OFFSET = 0.382
"""Where the first atom of a cell, often at its corner, is in its bin."""


@dataclass(frozen=True)
class Grid:
    """Bins of a cell; hashable.

    Args:
        bins: Number of bins along each lattice vector.
        reach: bins to look at in each direction.
        room: atoms that a bin can hold.
        cutoff: the largest cutoff that the bins are for, Å.
    """

    bins: tuple[int, int, int]
    reach: tuple[int, int, int]
    room: int
    cutoff: float

    @property
    def candidates(self) -> int:
        """Places around an atom, empty ones included."""
        return int(np.prod([2 * reach + 1 for reach in self.reach])) * self.room

    def around(self) -> tuple[NDArray[np.int32], NDArray[np.int8]]:
        """Bins around each bin, (bins, around), and their lattice shifts, (bins, around, 3); opposite ones mirror."""
        homes = np.stack(np.meshgrid(*map(np.arange, self.bins), indexing="ij"), -1).reshape(-1, 1, 3)
        steps = np.array(list(itertools.product(*(range(-reach, reach + 1) for reach in self.reach))))
        shifts, places = np.divmod(homes + steps, self.bins)
        return np.ravel_multi_index(tuple(np.moveaxis(places, -1, 0)), self.bins).astype(np.int32), shifts.astype(
            np.int8
        )


class Candidates(NamedTuple):
    """Which candidates of each atom are its neighbours, and who they are.

    Args:
        words: one bit for each candidate.
        row: the row of ``atom`` and ``shift`` that an atom's candidates are in.
        atom: the atom in each place.
        shift: lattice shift of each block of ``room`` places, :func:`coded`.
        room: places in a block.
        wrap: lattice vectors from the atom in the cell to the atom, :func:`coded`.
        occupancy: the largest number of atoms in a bin; some are missing when it exceeds the room.
    """

    words: UInt[Array, "atoms words"]
    row: Int[Array, " atoms"]
    atom: Int[Array, "rows places"]
    shift: Int[Array, "rows blocks"]
    room: int
    wrap: Int[Array, " atoms"]
    occupancy: Int[Array, ""]


def coded(vectors: Num[Array, "*rows 3"]) -> Int[Array, "*rows"]:
    """Three integers, of any type, in one, which can be added and looked up at a third of the cost."""
    vectors = vectors.astype(jnp.int64)
    return vectors[..., 0] + (vectors[..., 1] << 16) + (vectors[..., 2] << 32)


def decoded(codes: Int[Array, "*rows"]) -> Int[Array, "*rows 3"]:
    """The inverse of :func:`coded`, for integers of 16 bits."""
    first = codes.astype(jnp.int16)
    codes = (codes - first) >> 16
    second = codes.astype(jnp.int16)
    return jnp.stack([first, second, ((codes - second) >> 16).astype(jnp.int16)], -1)


def grid(cell: ArrayLike, cutoff: float, atoms: int) -> Grid:
    """The bins of a cell: as large as the cutoff, so that only those next to each other matter.

    Room is for the mean density and some more.

    Args:
        cell: rows are lattice vectors, Å.
        cutoff: Å; the largest that will be asked for.
        atoms: Number of atoms in the cell.

    Returns:
        The bins.
    """
    heights = lattice.heights(cell)
    bins = np.maximum(1, np.floor(heights / (cutoff * SLACK))).astype(int)
    reach = np.ceil(cutoff * SLACK * bins / heights - 1e-9).astype(int)
    mean = atoms / np.prod(bins)
    room = min(atoms, int(np.ceil(mean + 2 * np.sqrt(mean) + 2)))
    return Grid(tuple(bins.tolist()), tuple(reach.tolist()), room, float(cutoff))


def pack(within: Bool[Array, "*rows places"]) -> UInt[Array, "*rows words"]:
    """Booleans, a multiple of 32, to bits."""
    words = within.reshape(*within.shape[:-1], -1, 32)
    return jnp.sum(jnp.where(words, jnp.uint32(1) << jnp.arange(32, dtype=jnp.uint32), 0), -1, dtype=jnp.uint32)


def nowhere(points: Float[Array, "*rows places"]) -> Float[Array, "*rows padded"]:
    """Fill coordinates up to a multiple of 32 with nan, which is near to nothing: comparisons with it are False."""
    fill = [(0, 0)] * (points.ndim - 1) + [(0, -points.shape[-1] % 32)]
    return jnp.pad(points, fill, constant_values=jnp.nan)


def ones(
    words: UInt[Array, "rows words"], capacity: int
) -> tuple[Int[Array, "rows capacity"], Bool[Array, "rows capacity"], Int[Array, " rows"]]:
    """Places of the ones of each row, in order, as many as fit; where there is one; and how many there are."""
    number = words.shape[1]
    counts = jax.lax.population_count(words).astype(jnp.int32)
    upto = jnp.cumsum(counts, -1, dtype=jnp.int32)
    wanted = jnp.arange(capacity, dtype=jnp.int32)
    holder = jnp.zeros((len(words), capacity), jnp.int32)
    if number <= COUNTED_WORDS:
        for column in range(number - 1):
            holder = holder + (upto[:, column, None] <= wanted)
    else:
        half = 1 << (number - 1).bit_length() >> 1
        filled = jnp.pad(upto, ((0, 0), (0, 2 * half - number)), constant_values=np.iinfo(np.int32).max)
        while half:
            below = jnp.take_along_axis(filled, holder + half - 1, 1) <= wanted
            holder, half = jnp.where(below, holder + half, holder), half // 2
        holder = jnp.minimum(holder, number - 1)
    rank = wanted - jnp.take_along_axis(upto - counts, holder, 1)
    word, place = jnp.take_along_axis(words, holder, 1), 32 * holder
    for size in (16, 8, 4, 2, 1):
        low = jax.lax.population_count(word & jnp.uint32((1 << size) - 1)).astype(jnp.int32)
        above = rank >= low
        rank, word = jnp.where(above, rank - low, rank), jnp.where(above, word >> size, word)
        place = place + size * above
    return place, wanted < upto[:, -1:], upto[:, -1]


def _by_bin(home: Int[Array, " atoms"], total: int) -> tuple[Int[Array, " atoms"], Int[Array, " atoms"]]:
    """Atoms in the order of their bins, and their bins; one integer for both, which CPUs sort five times as fast."""
    digits = (len(home) - 1).bit_length()
    dtype = jnp.int32 if (total + 1) << digits < 1 << 31 else jnp.int64
    keys = jnp.sort((home.astype(dtype) << digits) + jnp.arange(len(home), dtype=dtype))
    return (keys & ((1 << digits) - 1)).astype(jnp.int32), (keys >> digits).astype(jnp.int32)


def search(
    positions: Float[Array, "atoms 3"], cell: Float[Array, "3 3"], cutoff: Float[Array, ""] | float, bins: Grid
) -> Candidates:
    """Sort atoms into bins and test the candidates around each."""
    atoms, room = len(positions), bins.room
    shape = np.array(bins.bins)
    # Planes of a crystal must not lie between two bins, where rounding puts them into the same ones.
    positions = positions + jnp.asarray(OFFSET / shape, positions.dtype)
    wrap = jnp.floor(positions)
    inside = positions - wrap
    place = jnp.clip((inside * shape).astype(jnp.int32), 0, shape - 1)
    around, shifts = bins.around()
    total = len(around)
    # An atom of a walker that has gone bad is in no bin: all of them in one would make lists without end.
    home = (place[:, 0] * bins.bins[1] + place[:, 1]) * bins.bins[2] + place[:, 2]
    home = jnp.where(jnp.all(jnp.abs(positions) < FARTHEST, -1), home, total)
    order, ordered = _by_bin(home, total)
    first = jnp.searchsorted(ordered, jnp.arange(total + 1, dtype=ordered.dtype))
    seat = jnp.arange(atoms) - first[ordered]
    # A seat beyond the room is outside of the table, and dropped.
    table = jnp.full((total, room), atoms, jnp.int32).at[ordered, seat].set(order, mode="drop")
    seated = jnp.zeros(atoms, jnp.int32).at[order].set(jnp.minimum(seat, room - 1).astype(jnp.int32))

    # An empty seat is nowhere.
    points = jnp.pad(inside @ cell, ((0, 1), (0, 0)), constant_values=jnp.nan)
    seats = jnp.moveaxis(points[table], -1, 1)
    offsets = jnp.asarray(shifts, points.dtype) @ cell
    itself = around.shape[1] // 2 * room + jnp.arange(room)

    def bits(argument: tuple[Array, Array, Array]) -> Array:
        mine, nearby, offset = argument
        theirs = nowhere((jnp.moveaxis(seats[nearby], 0, 1) + offset.T[..., None]).reshape(3, -1))
        squared = sum((theirs[axis] - mine[axis, :, None]) ** 2 for axis in range(3))
        return pack((squared < cutoff**2) & (jnp.arange(theirs.shape[1]) != itself[:, None]))

    batch = max(1, min(total, CANDIDATES_AT_ONCE // (room * bins.candidates)))
    arguments = (seats, jnp.asarray(around), offsets)
    words = jax.vmap(bits)(arguments) if batch == total else jax.lax.map(bits, arguments, batch_size=batch)
    occupancy = jnp.max(jnp.where(ordered < total, seat, -1)) + 1
    return Candidates(
        words[home, seated], home, table[around].reshape(total, -1), coded(jnp.asarray(shifts)), room,
        coded(wrap), occupancy.astype(jnp.int32),
    )  # fmt: skip
