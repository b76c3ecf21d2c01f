"""Which mesh of k-points each kind of cell takes, for the calculation and for the estimate before it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from aiida import orm

from aiida_difftre.workchains.kpoints import mesh_of

SEED = np.diag([2.0, 3.0, 4.0])


def inputs(**given: Any) -> dict[str, Any]:
    mesh = orm.KpointsData()
    mesh.set_kpoints_mesh([8, 6, 5], offset=[0.0, 0.0, 0.5])
    return {"kpoints": mesh, **given}


@pytest.mark.parametrize(
    ("name", "repeat", "expected"),
    [
        ("equilibrium_0", (1, 1, 1), (8, 6, 5)),
        ("rattled_0", (2, 1, 2), (4, 6, 3)),  # never thinner than the mesh of the seed
        ("elastic_sheared", (1, 1, 1), (8, 6, 5)),
        ("given_file_0", (2, 2, 2), (8, 6, 5)),
    ],
)
def test_a_mesh_is_that_of_the_seed(
    aiida_profile: Any, name: str, repeat: tuple[int, int, int], expected: tuple[int, int, int]
) -> None:
    found = mesh_of(name, SEED * repeat, inputs(), SEED)
    assert found == (expected, (0.0, 0.0, 0.5))


def test_a_dimer_takes_gamma_and_a_distance_is_left_to_pw(aiida_profile: Any) -> None:
    by_distance = {"kpoints_distance": orm.Float(0.2)}
    assert mesh_of("dimer_0", SEED, inputs(), SEED) == mesh_of("dimer_0", SEED, by_distance, SEED)
    assert mesh_of("dimer_0", SEED, inputs(), SEED) == ((1, 1, 1), (0.0, 0.0, 0.0))
    assert mesh_of("rattled_0", SEED, by_distance, SEED) is None
    assert mesh_of("given_0", SEED, inputs(), None) == ((8, 6, 5), (0.0, 0.0, 0.5))
