"""A run whose potential is first refined in a small cell: the refinement of the run goes on from there."""

from __future__ import annotations

from typing import Any

import pytest
from aiida.engine import run_get_node

from aiida_difftre.workchains.from_input import read_builder
from tests.fixtures.chains import explain

pytestmark = pytest.mark.slow


def test_stages(argon_input: Any) -> None:
    def change(content: dict[str, Any]) -> None:
        content["sampling"]["production_fs"] = 400.0
        content["refinement"]["settings"]["max_iterations"] = 1
        stage = {"state_points": {"solid": {"repeat": [2, 2, 1]}}, "settings": {"max_iterations": 1}}
        content["refinement"]["stages"] = [stage]
        content["validation"] = {
            "sampling": content["sampling"],
            "settings": {"static_stiffness": False, "verdict": False},
        }

    _, run = run_get_node(read_builder(argon_input(change)))
    assert run.is_finished_ok, explain(run)
    links = {link.link_label: link.node for link in run.base.links.get_outgoing().all()}
    stage, refine = links["stage_0"], links["refine"]
    assert len(stage.inputs.state_points["solid"]["structure"].sites) == 16
    assert len(refine.inputs.state_points["solid"]["structure"].sites) == 32
    assert stage.inputs.potential.uuid != refine.inputs.potential.uuid == stage.outputs.potential.uuid
    assert links["validate"].inputs.before.uuid == stage.inputs.potential.uuid
