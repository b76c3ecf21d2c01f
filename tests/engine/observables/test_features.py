"""Static features, batch by batch."""

from __future__ import annotations

import pytest

from aiida_difftre.engine.observables.features import snapshots_at_once


@pytest.mark.parametrize(
    ("atoms", "snapshots"), [(1, 1024), (10, 10), (32, 8), (362, 8), (512, 4), (1024, 1), (4000, 1)]
)
def test_snapshots_of_large_systems_come_one_by_one(atoms: int, snapshots: int) -> None:
    assert snapshots_at_once(atoms) == snapshots
