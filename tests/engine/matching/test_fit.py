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


def test_labels_that_hardly_count_are_not_held_out() -> None:
    """Held out, they would call any fit good."""
    alone, counts = np.zeros(40, bool), np.where(np.arange(40) < 6, 0.9, 0.01)
    alone[0] = True
    for seed in range(20):
        training, validation = split(alone, 0.2, seed, counts)
        assert len(validation) == 1
        assert 1 <= validation[0] < 6
        assert sorted([*training, *validation]) == list(range(40))
    training, validation = split(alone, 0.2, 0, np.where(np.arange(40) == 7, 1.0, 0.1))
    assert (len(training), len(validation)) == (40, 0), "the only one that counts trains"
    training, validation = split(alone, 0.2, 0, np.full(40, 0.3))
    assert (len(training), len(validation)) == (40, 0)
