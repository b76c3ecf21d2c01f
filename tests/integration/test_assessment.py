"""A run that assesses its potential by one line of its input, and advice on its trajectories afterwards."""

from __future__ import annotations

from typing import Any

import pytest
from aiida.engine import run_get_node

from aiida_difftre.engine.contract.assessment import AssessResults
from aiida_difftre.engine.contract.records import read
from aiida_difftre.workchains.from_input import read_builder
from aiida_difftre.workchains.validate import ValidateWorkChain
from tests.fixtures.chains import explain

pytestmark = pytest.mark.slow


def test_assessment(argon_input: Any, cli: Any) -> None:
    def change(content: dict[str, Any]) -> None:
        content["validation"]["settings"] |= {"assessment": True, "members": 3}

    _, validation = run_get_node(read_builder(argon_input(change), ValidateWorkChain))
    assert validation.is_finished_ok, explain(validation)
    found = read(AssessResults, validation.outputs.assessment.get_dict())
    assert found.parameters == 2
    assert len(found.members) == 3
    members = dict(validation.outputs.members)
    assert sorted(members) == ["member_000", "member_001", "member_002"]
    assert all(member.spec == validation.inputs.after.spec for member in members.values())
    assert {one.label for one in found.state_points["solid"]} == {"pressure", "energy"}
    assert any("determine" in sentence for sentence in found.sentences)

    answer = cli("advise", validation.pk, "-c", "potential_energy@solid:0.01", "-c", "pressure@solid:0.001")
    assert answer.exit_code == 0, answer.output
    assert "would tell most" in answer.output
    assert "pressure at solid" in answer.output
    # The advice is in the graph: it hangs on the trajectories of the validation.
    trajectory = validation.outputs.trajectories["after"]["solid"]
    jobs = [
        node.process_label
        for node in trajectory.base.links.get_outgoing().all_nodes()
        if hasattr(node, "process_label")
    ]
    assert jobs.count("AssessCalculation") == 2

    for arguments, message in (
        (("-c", "pressure@liquid:0.1"), "there is no state point 'liquid'; there are solid"),
        (("--candidates", "missing.yaml"), "missing.yaml"),
    ):
        answer = cli("advise", validation.pk, *arguments)
        assert answer.exit_code != 0
        assert message in answer.output
    answer = cli("advise", validation.outputs.report.pk)
    assert "has no finished validation" in answer.output
