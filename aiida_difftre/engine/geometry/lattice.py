"""Geometry of a periodic cell whose rows are lattice vectors. Free of JAX."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import numpy as np
from numpy.typing import ArrayLike, NDArray


def heights(cell: ArrayLike) -> NDArray[np.float64]:
    """Distances between opposite faces, Å."""
    return 1.0 / np.linalg.norm(np.linalg.inv(np.asarray(cell, np.float64)), axis=0)


def images(cell: ArrayLike, cutoff: float) -> NDArray[np.int32]:
    """Lattice shifts that can bring a nearest image within ``cutoff``, besides the shift to that nearest image.

    With fractional differences reduced to [-1/2, 1/2], a shift n_k matters only if (|n_k| - 1/2) h_k < cutoff, with
    h_k the heights of the cell.
    """
    limits = np.maximum(np.ceil(cutoff / heights(cell) - 0.5), 0).astype(int)
    axes = [np.arange(-n, n + 1) for n in limits]
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3).astype(np.int32)


def reciprocal(cell: ArrayLike) -> NDArray[np.float64]:
    """Reciprocal lattice vectors in rows, 1/Å, with the factor 2π."""
    inverse: NDArray[np.float64] = np.linalg.inv(np.asarray(cell, np.float64))
    return 2 * np.pi * inverse.T


def shortest_wave_vector(cell: ArrayLike) -> float:
    """Length of the shortest reciprocal lattice vector, 1/Å: 2π/L for a cube of edge L."""
    vectors = reciprocal(cell)
    # No vector shorter than the shortest row has an index beyond this.
    bound = np.floor(np.linalg.norm(vectors, axis=1).min() / heights(vectors) + 1e-9).astype(int)
    indices = np.array([n for n in product(*(range(-k, k + 1) for k in bound)) if any(n)])
    return float(np.linalg.norm(indices @ vectors, axis=1).min())


def has_hexagonal_axis(cell: ArrayLike, tolerance: float = 2e-4) -> bool:
    """Whether a cell can repeat a hexagonal crystal whose c axis is along z.

    The third lattice vector must be along z and the others in the xy plane, where they must be sums of integer numbers
    of the two vectors of a triangular lattice: for the first, a, and the second, b, 2 a·b/a·a and |a x b|/a·a / (√3/2)
    are then fractions with the same small denominators.
    """
    matrix = np.asarray(cell, np.float64)
    edges = np.linalg.norm(matrix, axis=1)
    outside = np.array([matrix[0, 2] / edges[0], matrix[1, 2] / edges[1], *(matrix[2, :2] / edges[2])])
    if np.abs(outside).max() > tolerance:
        return False
    a, b = matrix[:2, :2]
    ratios = (2 * (a @ b) / (a @ a), abs(a[0] * b[1] - a[1] * b[0]) / (a @ a) / (np.sqrt(3) / 2))
    return all(abs(ratio - float(Fraction(ratio).limit_denominator(12))) < tolerance for ratio in ratios)
