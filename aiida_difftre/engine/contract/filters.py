"""A linear operator on the values of a curve, and what it does not let pass. Free of JAX."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

NOTHING_LOST = 0.02
"""Largest part of filtered values that may lie outside of what a filter lets pass, in the norm."""

PASSES = 1e-3
"""Singular vectors pass a filter with more than this of the largest singular value."""


@dataclass(frozen=True)
class Filter:
    """A linear operator whose results an observable compares.

    Args:
        matrix: Matrix that acts on the values at the points of a grid.
        description: what it does, in words.
    """

    matrix: Floats
    description: str

    def lost(self, values: Floats) -> float:
        """The part of values that the filter gives for no input, in the norm: 0 for what is filtered, to 1."""
        left, sizes, _ = np.linalg.svd(self.matrix)
        passing = left[:, sizes > PASSES * sizes[0]]
        rest = values - passing @ (passing.T @ values)
        return float(np.linalg.norm(rest) / (np.linalg.norm(values) or 1.0))
