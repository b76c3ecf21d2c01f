"""Atoms at random in a periodic box, none close to another: where a liquid starts."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.spatial import cKDTree

DEFAULT_SPACING = 0.9
"""Of the edge of the volume per atom: spheres of this diameter fill 0.38 of the box, which is a fluid."""

LARGEST_SPACING = 1.05
"""Spheres of this diameter fill 0.61 of the box: more than this is no longer random."""

SLACK = 1.02
"""Spheres are pushed apart a little further than asked for, so that the last overlaps end above it."""


@functools.lru_cache(maxsize=4)
def _relaxed(number: int, box: float, diameter: float, seed: int) -> NDArray[np.float64]:
    """Positions pushed apart; remembered, since an input is looked at several times before it is submitted."""

    def overlap(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        positions = flat.reshape(-1, 3) % box
        positions[positions >= box] = 0.0  # what rounds up to the edge
        pairs = cKDTree(positions, boxsize=box).query_pairs(diameter, output_type="ndarray")
        vectors = positions[pairs[:, 0]] - positions[pairs[:, 1]]
        vectors -= box * np.round(vectors / box)
        lengths = np.maximum(np.linalg.norm(vectors, axis=1), 1e-9)
        depths = diameter - lengths
        forces = (2 * depths / lengths)[:, None] * vectors
        gradient = np.zeros_like(positions)
        np.add.at(gradient, pairs[:, 0], -forces)
        np.add.at(gradient, pairs[:, 1], forces)
        return float((depths**2).sum()), gradient.ravel()

    start = np.random.default_rng(seed).uniform(0, box, 3 * number)
    return np.asarray(minimize(overlap, start, jac=True, method="L-BFGS-B", options={"maxiter": 5000, "gtol": 1e-8}).x)


def packed(number: int, box: float, *, min_distance: float | None = None, seed: int = 0) -> NDArray[np.float64]:
    """Place atoms at random in a periodic box, none close to another: where a simulation of a liquid starts.

    Random positions are relaxed as soft spheres, in the energy Σ_(i<j) (d - r_ij)² of the pairs that are closer than d,
    until no pair is closer than the minimum distance.

    Args:
        number: Number of atoms.
        box: Edge of the cube, Å.
        min_distance: Smallest distance between two atoms, Å; None takes 0.9 of the edge of the volume per atom.
        seed: Seed of the random numbers; the same seed gives the same positions.

    Returns:
        Positions inside the box, (number, 3), Å.

    Raises:
        ValueError: Where the atoms do not fit.

    Example:
        >>> from scipy.spatial import cKDTree
        >>> from aiida_difftre.data.packing import packed
        >>> positions = packed(50, 14.0, min_distance=3.0, seed=1)
        >>> len(cKDTree(positions, boxsize=14.0).query_pairs(3.0))
        0
    """
    edge = box / number ** (1 / 3)
    distance = DEFAULT_SPACING * edge if min_distance is None else min_distance
    if distance > LARGEST_SPACING * edge:
        raise ValueError(
            f"{number} atoms {distance:.2f} Å apart do not fit at random into a box of {box:.2f} Å; lower min_distance "
            f"to at most {LARGEST_SPACING * edge:.2f} Å, or the density"
        )
    diameter = SLACK * distance
    if number == 1:
        return np.random.default_rng(seed).uniform(0, box, (1, 3))
    if diameter > box / 2:
        raise ValueError(
            f"a box of {box:.2f} Å is too small for atoms {distance:.2f} Å apart from their images; take more atoms"
        )

    positions = _relaxed(number, box, diameter, seed).reshape(-1, 3) % box
    positions[positions >= box] = 0.0
    if cKDTree(positions, boxsize=box).query_pairs(distance):
        raise ValueError(
            f"{number} atoms could not be put {distance:.2f} Å apart into a box of {box:.2f} Å; lower min_distance or "
            "the density, or take another seed"
        )
    return np.asarray(positions, dtype=np.float64)
