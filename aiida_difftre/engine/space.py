"""Periodic space: neighbour lists by explicit lattice shifts, displacements, strains.

A neighbour is an atom index and an integer lattice shift, not a minimum image, so that any cell works, from cubic to
triclinic, also one that is smaller than twice the cutoff (an atom then neighbours several images of another, or of
itself). Positions are fractional and unwrapped: a shift stays valid when an atom leaves the cell.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from numpy.typing import ArrayLike, NDArray

from aiida_difftre.engine.errors import EngineError, ExitStatus

ROW_CANDIDATES = 2_000_000
"""Candidate pairs examined at once while a list is built; bounds its memory."""


class NeighborList(NamedTuple):
    """Dense neighbour list.

    Args:
        index: neighbour of each atom; the atom itself where ``mask`` is False.
        shift: lattice vectors to add to the neighbour's fractional position.
        mask: True for real neighbours.
        needed: the largest number of neighbours of an atom; the list overflows when it exceeds the capacity.
    """

    index: Int[Array, "*batch atoms neighbors"]  # type: ignore[assignment]  # hides tuple.index, which nobody calls
    shift: Int[Array, "*batch atoms neighbors 3"]
    mask: Bool[Array, "*batch atoms neighbors"]
    needed: Int[Array, "*batch"]


def heights(cell: ArrayLike) -> NDArray[np.float64]:
    """Distances between opposite faces of a cell whose rows are lattice vectors, Å."""
    return 1.0 / np.linalg.norm(np.linalg.inv(np.asarray(cell, np.float64)), axis=0)


def images(cell: ArrayLike, cutoff: float) -> NDArray[np.int32]:
    """Lattice shifts that can bring a nearest image within ``cutoff``, besides the shift to that nearest image.

    With fractional differences reduced to [-1/2, 1/2], a shift n_k matters only if |n_k| <= cutoff/h_k + 1/2, with
    h_k the heights of the cell.
    """
    limits = np.floor(cutoff / heights(cell) + 0.5).astype(int)
    axes = [np.arange(-n, n + 1) for n in limits]
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3).astype(np.int32)


def build(
    positions: Float[Array, "atoms 3"],
    cell: Float[Array, "3 3"],
    cutoff: float | Float[Array, ""],
    capacity: int,
    shifts: NDArray[np.int32],
) -> NeighborList:
    """Build the list of all pairs closer than ``cutoff``; traceable.

    Args:
        positions: fractional, unwrapped.
        cell: rows are lattice vectors, Å.
        cutoff: Å.
        capacity: neighbours per atom that the list can hold.
        shifts: from :func:`images`, for this cell and at least this cutoff.

    Returns:
        The list; complete unless ``needed > capacity``.
    """
    atoms = positions.shape[0]
    offsets = jnp.asarray(shifts, positions.dtype) @ cell
    home = int(np.flatnonzero(~shifts.any(1))[0])

    def row(i: Int[Array, ""]) -> tuple[Array, Array, Array, Array]:
        difference = positions - positions[i]
        nearest = -jnp.round(difference)
        near = (difference + nearest) @ cell
        squared = jnp.sum((near[None] + offsets[:, None]) ** 2, -1)
        within = (squared < cutoff**2).at[home, i].set(False).reshape(-1)
        chosen = jnp.nonzero(within, size=capacity, fill_value=len(shifts) * atoms)[0]
        mask = chosen < len(shifts) * atoms
        image, atom = jnp.where(mask, chosen // atoms, home), jnp.where(mask, chosen % atoms, i)
        shift = (jnp.asarray(shifts)[image] + nearest[atom].astype(jnp.int32)) * mask[:, None]
        return atom.astype(jnp.int32), shift.astype(jnp.int16), mask, jnp.sum(within)

    batch = max(1, min(atoms, ROW_CANDIDATES // (atoms * len(shifts))))
    index, shift, mask, counts = jax.lax.map(row, jnp.arange(atoms), batch_size=batch)
    return NeighborList(index, shift, mask, jnp.max(counts))


@functools.partial(jax.jit, static_argnames=("capacity", "shifts", "batch"))
def _build_batch(
    positions: Array, cell: Array, cutoff: Array, *, capacity: int, shifts: tuple, batch: int
) -> NeighborList:
    table = np.array(shifts, np.int32)
    return jax.lax.map(lambda x: build(x, cell, cutoff, capacity, table), positions, batch_size=batch)


def build_batch(positions: ArrayLike, cell: ArrayLike, cutoff: float, capacity: int | None = None) -> NeighborList:
    """Lists of many snapshots in one cell, with a capacity that holds them all; repeats on overflow.

    Args:
        positions: (snapshots, atoms, 3), fractional.
        cell: (3, 3), Å.
        cutoff: Å.
        capacity: a first guess; the number of neighbours at the mean density by default.

    Returns:
        Lists with a leading snapshot axis and a capacity that is exactly what they need.
    """
    positions = jnp.asarray(positions)
    shifts = tuple(map(tuple, images(cell, cutoff).tolist()))
    atoms = positions.shape[1]
    guess = capacity or capacity_for(atoms, cell, cutoff)
    batch = max(1, min(16, ROW_CANDIDATES // (atoms * atoms * len(shifts))))
    while True:
        lists = _build_batch(
            positions, jnp.asarray(cell, positions.dtype), jnp.asarray(cutoff, positions.dtype),
            capacity=guess, shifts=shifts, batch=batch,
        )  # fmt: skip
        needed = max(1, int(jnp.max(lists.needed)))
        if needed <= guess:
            index, shift, mask, count = lists
            return NeighborList(index[..., :needed], shift[..., :needed, :], mask[..., :needed], count)
        guess = needed


def capacity_for(atoms: int, cell: ArrayLike, cutoff: float, margin: float = 1.3) -> int:
    """Neighbours within ``cutoff`` at the mean density, times a margin."""
    density = atoms / abs(np.linalg.det(np.asarray(cell)))
    return int(np.ceil(margin * density * 4 / 3 * np.pi * cutoff**3)) + 2


def displacements(
    positions: Float[Array, "atoms 3"], cell: Float[Array, "3 3"], neighbors: NeighborList
) -> Float[Array, "atoms neighbors 3"]:
    """Vectors from each atom to its neighbours, Å; zero where the list is padded."""
    difference = positions[neighbors.index] - positions[:, None] + neighbors.shift.astype(positions.dtype)
    return difference @ cell


def voigt_matrix(voigt: Float[Array, " 6"]) -> Float[Array, "3 3"]:
    """Symmetric strain matrix from engineering strains (e1, e2, e3, e4 = 2 η_yz, e5 = 2 η_xz, e6 = 2 η_xy)."""
    e1, e2, e3, e4, e5, e6 = (voigt[..., k] for k in range(6))
    rows = [[e1, e6 / 2, e5 / 2], [e6 / 2, e2, e4 / 2], [e5 / 2, e4 / 2, e3]]
    return jnp.stack([jnp.stack(row, -1) for row in rows], -2)


def deformation(voigt: Float[Array, " 6"]) -> Float[Array, "3 3"]:
    """Symmetric deformation gradient F with Lagrangian strain η = (FᵀF - 1)/2, to second order: F = 1 + η - η²/2.

    Second derivatives of the energy with respect to η at η = 0 are those of the exact square root of 1 + 2η.
    """
    strain = voigt_matrix(voigt)
    return jnp.eye(3, dtype=strain.dtype) + strain - strain @ strain / 2


def species_index(symbols: tuple[str, ...] | list[str], species: list[str]) -> NDArray[np.int32]:
    """Index of each atom's element in the potential's species.

    Raises:
        EngineError: naming the elements that the potential does not know.
    """
    unknown = sorted(set(symbols) - set(species))
    if unknown:
        raise EngineError(
            ExitStatus.INVALID_INPUT,
            f"the structure contains {', '.join(unknown)}, but the potential is for {', '.join(species)} only",
        )
    return np.array([species.index(symbol) for symbol in symbols], np.int32)
