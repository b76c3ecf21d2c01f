"""Labels that a run makes: how many of them count is known before they are made."""

from __future__ import annotations

from typing import Any

from aiida import orm
from ase.build import bulk

from aiida_difftre.workchains.dataset import DftDatasetWorkChain
from aiida_difftre.workchains.label_counts import check_counts, lines


def test_cells_to_label_have_to_count(pw_code: Any, aluminium_family: Any) -> None:
    cell = bulk("Al", "fcc", a=4.0496, cubic=True)
    labels = DftDatasetWorkChain.get_builder_from_protocol(pw_code, orm.StructureData(ase=cell), kpoints=(2, 2, 2))
    generation = {"equilibrium": True, "elastic": False, "isotropic": [-0.03], "rattles": [], "strains": []}
    labels.generation = orm.Dict(generation)

    def inputs(volume: float) -> dict[str, Any]:
        parameters = orm.Dict({"widths": {"energy": 0.05, "volumes": [volume]}})
        return {"pretrain": {"calc": {"parameters": parameters}}, "dataset_inputs": labels, "refine": {}}

    volume = cell.get_volume() / 4
    assert lines(inputs(volume)) == ["labels that count in widths: energy 1.19 of 2"]  # 1 + exp(-(3 ln 0.97 / 0.05)²/2)
    assert check_counts(inputs(volume)) is None
    assert "widths.energy = 0.05 leaves" in str(check_counts(inputs(1.2 * volume)))
