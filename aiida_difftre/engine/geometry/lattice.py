"""Geometry of a periodic cell whose rows are lattice vectors. Free of JAX."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import product

import numpy as np
from numpy.typing import ArrayLike, NDArray

MOST_IMAGES = 1_000_000
"""Of a neighbour; each takes part in every distance."""


def heights(cell: ArrayLike) -> NDArray[np.float64]:
    """Compute the distances between the opposite faces of a cell.

    Args:
        cell: Lattice vectors in rows, (3, 3), Å.

    Returns:
        The height along each lattice vector, (3,), Å.

    Example:
        >>> from aiida_difftre.engine.geometry.lattice import heights
        >>> heights([[4.0, 0.0, 0.0], [3.0, 4.0, 0.0], [0.0, 0.0, 5.0]]).round(6).tolist()
        [3.2, 4.0, 5.0]
    """
    return 1.0 / np.linalg.norm(np.linalg.inv(np.asarray(cell, np.float64)), axis=0)


def images(cell: ArrayLike, cutoff: float) -> NDArray[np.int32]:
    r"""List the periodic images of a neighbour that can lie within a cutoff, besides its nearest image.

    With fractional differences reduced to [-1/2, 1/2], shifts by n_k lattice vectors matter only if

    .. math:: (|n_k| - \tfrac12)\, h_k < r_c

    with the heights h of the cell.

    Args:
        cell: Lattice vectors in rows, (3, 3), Å.
        cutoff: Cutoff, Å.

    Returns:
        Numbers of lattice vectors to add to the nearest image, (images, 3); the nearest image itself is one of them.

    Raises:
        ValueError: for a cell so thin that millions of images lie within the cutoff.

    Example:
        A cell wider than twice the cutoff needs nearest images alone:

        >>> import numpy as np
        >>> from aiida_difftre.engine.geometry.lattice import images
        >>> images(10 * np.eye(3), 4.0).tolist(), len(images(10 * np.eye(3), 6.0))
        ([[0, 0, 0]], 27)
    """
    limits = np.maximum(np.ceil(cutoff / heights(cell) - 0.5), 0).astype(int)
    if (number := np.prod(2.0 * limits + 1)) > MOST_IMAGES:
        raise ValueError(
            f"a cell {heights(cell).min():.3g} Å thick has {number:.3g} images within a cutoff of {cutoff:g} Å; at "
            f"most {MOST_IMAGES} are kept: repeat the cell, or choose shorter cell vectors"
        )
    axes = [np.arange(-n, n + 1) for n in limits]
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3).astype(np.int32)


def reciprocal(cell: ArrayLike) -> NDArray[np.float64]:
    r"""Compute the reciprocal lattice vectors of a cell.

    .. math:: \mathbf{a}_i \cdot \mathbf{b}_j = 2\pi\, \delta_{ij}

    Args:
        cell: Lattice vectors a in rows, (3, 3), Å.

    Returns:
        Reciprocal lattice vectors b in rows, (3, 3), 1/Å.

    Example:
        >>> import numpy as np
        >>> from aiida_difftre.engine.geometry.lattice import reciprocal
        >>> reciprocal(2 * np.pi * np.diag([1.0, 2.0, 4.0])).diagonal().round(6).tolist()
        [1.0, 0.5, 0.25]
    """
    inverse: NDArray[np.float64] = np.linalg.inv(np.asarray(cell, np.float64))
    return 2 * np.pi * inverse.T


def shortest_wave_vector(cell: ArrayLike) -> float:
    """Compute the length of the shortest reciprocal lattice vector: 2π/L for a cube of edge L.

    Args:
        cell: Lattice vectors in rows, (3, 3), Å.

    Returns:
        The length, 1/Å; a structure factor cannot be computed below it.

    Example:
        >>> import numpy as np
        >>> from aiida_difftre.engine.geometry.lattice import shortest_wave_vector
        >>> round(shortest_wave_vector(20 * np.eye(3)), 4)
        0.3142
    """
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


def strained(cell: ArrayLike, strain: Sequence[float]) -> NDArray[np.float64]:
    r"""Strain a cell: its vectors times 1 + ε, without rotation.

    Args:
        cell: Lattice vectors in rows, (3, 3), Å.
        strain: ε in Voigt order xx yy zz yz xz xy, with engineering shears, (6,).

    Returns:
        Lattice vectors in rows, (3, 3), Å.

    Example:
        >>> import numpy as np
        >>> from aiida_difftre.engine.geometry.lattice import strained
        >>> strained(5 * np.eye(3), [0.01, -0.01, 0.0, 0.0, 0.0, 0.02]).tolist()
        [[5.05, 0.05, 0.0], [0.05, 4.95, 0.0], [0.0, 0.0, 5.0]]
    """
    return np.asarray(cell, np.float64) @ (np.eye(3) + strain_matrix(strain))


def strain_matrix(strain: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn the six components of a strain into its matrix.

    Args:
        strain: Components in Voigt order xx yy zz yz xz xy, with engineering shears, (6,).

    Returns:
        The symmetric matrix, (3, 3).

    Example:
        >>> from aiida_difftre.engine.geometry.lattice import strain_matrix
        >>> strain_matrix([0.01, 0.0, 0.0, 0.0, 0.0, 0.02]).tolist()
        [[0.01, 0.01, 0.0], [0.01, 0.0, 0.0], [0.0, 0.0, 0.0]]
    """
    xx, yy, zz, yz, xz, xy = strain
    return np.array([[xx, xy / 2, xz / 2], [xy / 2, yy, yz / 2], [xz / 2, yz / 2, zz]])


def is_strained_cube(cell: ArrayLike, strain: Sequence[float], most: int = 16) -> bool:
    """Whether a cell without a strain repeats a cubic cell along the axes.

    Args:
        cell: Lattice vectors in rows, (3, 3), Å.
        strain: Strain in it, Voigt order, with engineering shears, (6,).
        most: Repetitions along an edge.
    """
    free = np.asarray(cell, np.float64) @ np.linalg.inv(np.eye(3) + strain_matrix(strain))
    edges, tolerance = np.diagonal(free), 0.1 * max(map(abs, strain))
    if edges.min() <= 0 or np.abs(free - np.diag(edges)).max() > tolerance * edges.min():
        return False
    ratios = edges / edges.min()
    return all(abs(float(Fraction(ratio).limit_denominator(most)) - ratio) < tolerance for ratio in ratios)
