"""Stages in smaller cells: what of them is refused, what they change, and that the run goes on with their potential."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from aiida import orm
from ase.build import bulk

from aiida_difftre.workchains import stages
from aiida_difftre.workchains.from_input import read_plan
from aiida_difftre.workchains.inputs import example, read_input


def with_stages(tmp_path: Any, content: dict[str, Any], *found: dict[str, Any]) -> Any:
    content.setdefault("refinement", {})["stages"] = list(found)
    path = tmp_path / "staged.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def diamond() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(example("diamond/quick.yaml").read_text())
    return content


def test_the_estimate_knows_the_stages(tmp_path: Any) -> None:
    content = diamond()
    (label,) = content["state_points"]
    stage = {"state_points": {label: {"repeat": [1, 1, 1]}}, "settings": {"max_iterations": 3}}
    plain = read_plan(with_stages(tmp_path, content))
    found = read_plan(with_stages(tmp_path, content, stage))
    assert found[1:] == plain
    assert found[0].label == f"stage 0, refinement at {label}"
    assert found[0].atoms == 8
    assert found[0].times < plain[0].times


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ({"state_points": {"mars": {"repeat": [1, 1, 1]}}}, "names the state point 'mars'; there are: "),
        ({"sampling": {"walker": 3}}, "stages.0.sampling: unknown setting 'walker'"),
        ({"update": {"gates": 3}}, "stages.0.update: unknown setting 'gates'"),
        ({"state_points": {"ambient": {}}}, "give either repeat or structure of the cell of the stage"),
    ],
)
def test_stages_that_do_not_fit_the_input(tmp_path: Any, stage: dict[str, Any], message: str) -> None:
    content = diamond()
    (label,) = content["state_points"]
    content["state_points"] = {"ambient": content["state_points"][label]}
    with pytest.raises(ValueError, match=message):
        read_input(with_stages(tmp_path, content, stage))


def staged(structure: Any, **changes: Any) -> dict[str, Any]:
    cell = orm.StructureData(ase=bulk("Ar", "fcc", 5.4, cubic=True) * (2, 1, 1))
    sampling = {"calc": {"parameters": orm.Dict({"sampling": {"walkers": 4, "production_fs": 100.0}})}}
    return {
        "stages": {"stage_0": {"structures": {"solid": structure}, "changes": orm.Dict(changes)}},
        "state_points": {"solid": {"structure": cell}},
        "refine": {
            "settings": orm.Dict({"max_iterations": 9}),
            "sample": sampling,
            "update": {"calc": {"parameters": orm.Dict({"update": {"gate": 0.4}})}},
        },
    }


@pytest.mark.usefixtures("aiida_profile")
def test_cells_and_settings_of_stages() -> None:
    def structure(element: str = "Ar", constant: float = 5.4) -> orm.StructureData:
        return orm.StructureData(ase=bulk(element, "fcc", constant, cubic=True))

    def refused(*given: Any, **changes: Any) -> str:
        return str(stages.check_stages_with(staged(structure(*given), **changes), has_dataset=False))

    assert refused() == "None"
    assert "take the same density" in refused("Ar", 5.5)
    assert "take the same composition" in refused("Ne")
    assert "walkers" in refused(sampling={"walkers": 0})
    weight = {"loss": {"dataset_weight": 1.0}}
    assert "stage 'stage_0': loss.dataset_weight is 1.0, but there is no dataset" in refused(update=weight)
    grown = {
        "settings": {"growth": {"factor": 100.0, "thresholds": [9.0], "against_noise": 2}},
        "sampling": {"stride_fs": 10.0},
    }
    assert "growth makes production_fs 1e+08 fs: " in refused(**grown)
    assert "no StructureData" in str(stages.check_stages({"stage_0": {"structures": {"solid": orm.Dict({})}}}, None))
    assert "unknown key" in str(stages.check_stages({"stage_0": {"changes": orm.Dict({"setting": {}})}}, None))

    inputs = staged(structure(), settings={"max_iterations": 2}, sampling={"walkers": 8})
    refine = {**inputs["refine"], "state_points": {"solid": dict(inputs["state_points"]["solid"])}}
    stages.apply_stage(refine, inputs["stages"]["stage_0"])
    assert refine["settings"]["max_iterations"] == 2
    assert refine["sample"]["calc"]["parameters"]["sampling"] == {"walkers": 8, "production_fs": 100.0}
    assert refine["update"]["calc"]["parameters"]["update"] == {"gate": 0.4}
    assert len(refine["state_points"]["solid"]["structure"].get_ase()) == 4
