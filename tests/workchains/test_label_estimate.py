"""What labels will take of pw.x: how many cells, on which mesh, and a time that is right to a factor of three."""

from __future__ import annotations

from typing import Any

import pytest
from aiida import orm
from ase.build import bulk

from aiida_difftre.workchains.dataset import DftDatasetWorkChain
from aiida_difftre.workchains.label_estimate import labels

SMEARING = {"SYSTEM": {"occupations": "smearing", "smearing": "mv", "degauss": 0.1}}


def builder(pw_code: Any, **changes: Any) -> Any:
    return DftDatasetWorkChain.get_builder_from_protocol(
        pw_code,
        orm.StructureData(ase=bulk("Al", "fcc", a=4.0496, cubic=True)),
        overrides={"pw": {"pw": {"parameters": SMEARING}}},
        **changes,
    )


def test_labels_of_aluminium(pw_code: Any, aluminium_family: Any) -> None:
    """Measured: 12 s of one core each, on this mesh (docs/systems/aluminium.md)."""
    found = labels(builder(pw_code, kpoints=(8, 8, 8)))
    assert found is not None
    assert (found.cells, found.atoms, found.mesh) == (52, 4, (8, 8, 8))
    assert 1 / 3 < found.seconds / found.cells / 12 < 3
    by_distance = labels(builder(pw_code, kpoints_distance=0.2))
    assert by_distance is not None
    assert by_distance.mesh == (8, 8, 8)
    assert str(by_distance).startswith("labels by pw.x: 52 cells of up to 4 atoms, 8 × 8 × 8 k-points: some ")


def test_nothing_is_told_of_what_is_not_labelled() -> None:
    assert labels({}) is None


@pytest.mark.parametrize(("repeat", "least", "most"), [(1, 0.9, 1.1), (2, 1.2, 8.0)])
def test_supercells_take_longer(pw_code: Any, aluminium_family: Any, repeat: int, least: float, most: float) -> None:
    """A mesh that is thinner by the number of cells leaves the square of the atoms: bands and plane waves."""
    cells: dict[str, Any] = {"elastic": False, "equilibrium": False, "isotropic": [], "strains": []}
    times = []
    for times_repeated in (1, repeat):
        made = builder(pw_code, kpoints=(4, 4, 4))
        rattles = [{"standard_deviation": 0.02, "count": 2, "repeat": [times_repeated, 1, 1]}]
        made.generation = orm.Dict({**cells, "rattles": rattles})
        found = labels(made)
        assert found is not None
        times.append(found.seconds)
    assert least < times[1] / times[0] < most
