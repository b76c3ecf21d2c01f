"""How a dataset is divided."""

from __future__ import annotations

import numpy as np
import pytest

from aiida_difftre.engine.matching.fit import split


def test_atoms_alone_are_never_held_out() -> None:
    alone = np.array([False, True, False, False, True, False])
    for seed in range(20):
        training, validation = split(alone, 0.5, seed)
        assert {1, 4} <= set(training.tolist())
        assert len(validation) == 2


@pytest.mark.parametrize(
    ("count", "fraction", "held_out"), [(80, 0.1, 8), (2, 0.1, 1), (1, 0.5, 0), (5, 0.0, 0), (4, 0.99, 3)]
)
def test_split(count: int, fraction: float, held_out: int) -> None:
    training, validation = split(np.zeros(count, bool), fraction, 0)
    assert len(validation) == held_out
    assert sorted([*training, *validation]) == list(range(count))
