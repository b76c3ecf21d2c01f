"""What all contract tests share: the failure, comparisons, and sizes."""

from __future__ import annotations

from typing import Any

import numpy as np

STEP = 1e-4
"""Of finite differences: Å, or a strain, or a fraction of a quantity."""


class ContractError(AssertionError):
    """What the engine relies on does not hold."""


def require(holds: Any, message: str) -> None:
    """Raise a :class:`ContractError` with a message unless something holds."""
    if not bool(holds):
        raise ContractError(message)


def close(found: Any, expected: Any, tolerance: float, message: str, floor: float = 1e-9) -> None:
    """Require that two arrays differ by at most a fraction of the largest expected value, and a floor.

    Args:
        found: Array.
        expected: Array of the same shape.
        tolerance: The fraction.
        message: What is wrong where they differ by more.
        floor: In units of the values.

    Raises:
        ContractError: With the message and the deviation.
    """
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    allowed = tolerance * float(np.max(np.abs(expected), initial=0.0)) + floor
    deviation = float(np.max(np.abs(found - expected), initial=0.0))
    # A deviation that is not a number is not close, either.
    require(deviation <= allowed, f"{message}: they differ by {deviation:.3g}, where {allowed:.3g} is allowed")
