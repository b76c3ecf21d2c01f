"""A run whose validation asks for hot runs by one line: what blows up is told, and kept."""

from __future__ import annotations

from typing import Any

import pytest
from aiida.common.links import LinkType
from aiida.engine import run_get_node

from aiida_difftre.workchains.from_input import read_builder
from aiida_difftre.workchains.validate import ValidateWorkChain
from aiida_difftre.workchains.verdict import of_report
from tests.fixtures.chains import explain

pytestmark = pytest.mark.slow


def test_hot_runs_of_a_validation(argon_input: Any) -> None:
    """At forty times the temperature atoms come closer than a limit that they keep at the state point."""

    def change(content: dict[str, Any]) -> None:
        content["validation"]["settings"]["hot"] = {"factors": [1.1, 40.0], "walkers": 2, "time_fs": 200.0}
        content["validation"]["settings"]["verdict"] = True
        content["validation"]["sampling"]["min_distance"] = 2.9

    _, validation = run_get_node(read_builder(argon_input(change), ValidateWorkChain))
    assert validation.is_finished_ok, explain(validation)
    found = of_report(validation.outputs.report.get_dict())
    calm, hot = found.hot["solid"]
    assert (calm.blown_up, len(hot.blown_up)) == ([], 2)
    assert "where 2 of 2 walkers blew up" in found.line
    assert not found.is_sound
    kept = validation.outputs.blown_up["solid"]
    assert 2 <= len(kept.get_ase()) <= 6
    assert not kept.labelled
    samples = [job for job in validation.called_descendants if job.process_label == "SampleCalculation"]
    hot_jobs = [job for job in samples if "hot" in job.inputs.parameters.get_dict()]
    called = [job.caller.base.links.get_incoming(link_type=LinkType.CALL_WORK).one() for job in hot_jobs]
    assert [link.link_label for link in called] == ["sample_after_solid"]
