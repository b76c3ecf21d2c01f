"""Facts for questions, where no run is needed; what a run leaves is checked where one is made."""

from __future__ import annotations

from typing import Any

import pytest
from aiida.common.links import LinkType
from aiida.manage import get_manager
from click.testing import CliRunner

from aiida_difftre import query
from aiida_difftre.cli import cli
from aiida_difftre.data.stored import the_same
from aiida_difftre.data.target import TargetData
from aiida_difftre.workchains import facts


def test_several_state_points_keep_their_values_apart() -> None:
    def item(value: float) -> dict[str, Any]:
        return {"labels": ["C44"], "values": [value], "errors": [1.0], "experiment": [50.0], "grid": None}

    found = facts.scalars({"cold": {"stiffness": item(51.0)}, "hot": {"stiffness": item(48.0)}})
    assert found["C44_at_cold"] == 51.0
    assert found["C44_deviation"] == pytest.approx(0.04)


def test_what_is_not_indexed_is_said(finished_job: Any, potential: Any) -> None:
    assert query.experiments_behind(potential.clone().store()).count() == 0
    potential.base.links.add_incoming(finished_job("pretrain"), LinkType.CREATE, "potential")
    with pytest.raises(ValueError, match="query index"):
        query.experiments_behind(potential.store())


def test_the_same_measurement_is_the_same_node(target: TargetData) -> None:
    content = {**target.target.model_dump(), "values": [0.777]}
    first = the_same(TargetData(content, label="p"))
    assert not first.is_stored
    first.store()
    assert the_same(TargetData(content, label="other name")).pk == first.pk
    assert not the_same(TargetData({**content, "values": [0.123]})).is_stored


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["near-experiment", "P", "--within", "little"], "--within is 'little'"),
        (["near-experiment", "P", "--within", "2,5%"], "write it with a decimal point: 2.5"),
        (["trajectories", "--temperature", "85:98,5"], "write it with a decimal point: 98.5"),
        (["near-experiment", "P", "--within", "2"], "--within 2 would be 200%; give a fraction such as 0.02, or 2%"),
        (["trajectories", "--temperature", "hot"], "--temperature is 'hot'"),
        (["influenced-by", "1000000"], "is no node"),
    ],
)
def test_questions_that_make_no_sense(words: list[str], told: str) -> None:
    answer = CliRunner().invoke(cli, ["-p", get_manager().get_profile().name, "query", *words])
    assert answer.exit_code == 1
    assert told in answer.output
    assert len(answer.output.splitlines()) == 1
