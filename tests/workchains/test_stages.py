"""Stages in smaller cells: what of them is refused, what they change, and that the run goes on with their potential."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from aiida import orm
from ase.build import bulk

from aiida_difftre.data.target import TargetData
from aiida_difftre.workchains import nodes, stages
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


def pressure(*, temperature: float = 298.15, **changes: Any) -> dict[str, Any]:
    return {
        "observable": "pressure", "values": [0.0], "errors": [0.1], "unit": "GPa", "error_source": "assumed",
        "conditions": {"temperature": temperature}, "citation": "1 bar", **changes,
    }  # fmt: skip


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
        ({"state_points": {"ambient": {}}}, "give repeat or structure of the cell of the stage, or its targets"),
        ({"state_points": {"ambient": {"repeat": [1, 1, 1], "structure": "a.xyz"}}}, "either repeat or structure"),
        (
            {"state_points": {"ambient": {"targets": {"stres": None}}}},
            "name 'stres'; what they replace are those of the run: stiffness, stress",
        ),
        (
            {"state_points": {"ambient": {"targets": {"stress": None, "stiffness": None}}}},
            "stages.0: no training target with a positive weight",
        ),
        (
            {"state_points": {"ambient": {"targets": {"stress": pressure(role="test")}}}},
            "stages.0: ambient.targets.stress has the role test",
        ),
        (
            {"state_points": {"ambient": {"targets": {"stress": pressure(temperature=900.0)}}}},
            "stages.0: state point 'ambient' is at 298.15 K, but its target 'stress' was measured at 900.0 K",
        ),
    ],
)
def test_stages_that_do_not_fit_the_input(tmp_path: Any, stage: dict[str, Any], message: str) -> None:
    content = diamond()
    (label,) = content["state_points"]
    content["state_points"] = {"ambient": content["state_points"][label]}
    with pytest.raises(ValueError, match=message):
        read_input(with_stages(tmp_path, content, stage))


def curve(*centres: float, **changes: Any) -> TargetData:
    return TargetData({
        "observable": "rdf", "grid": list(centres), "values": [0.0, 0.0, 0.1], "errors": [0.1] * 3, "unit": "1",
        "conditions": {"temperature": 300.0}, "citation": "made up", **changes,
    })  # fmt: skip


def staged(structure: Any, **changes: Any) -> dict[str, Any]:
    cell = orm.StructureData(ase=bulk("Ar", "fcc", 5.4, cubic=True) * (2, 1, 1))
    measured = TargetData(pressure(temperature=300.0))
    point = {"structure": cell, "temperature": orm.Float(300.0), "targets": {"pressure": measured}}
    sampling = {"calc": {"parameters": orm.Dict({"sampling": {"walkers": 4, "production_fs": 100.0}})}}
    return {
        "stages": {"stage_0": {"structures": {"solid": structure}, "changes": orm.Dict(changes)}},
        "state_points": {"solid": point},
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
    refine = {**inputs["refine"], "state_points": inputs["state_points"]}
    stages.apply_stage(refine, inputs["stages"]["stage_0"])
    assert refine["settings"]["max_iterations"] == 2
    assert refine["sample"]["calc"]["parameters"]["sampling"] == {"walkers": 8, "production_fs": 100.0}
    assert refine["update"]["calc"]["parameters"]["update"] == {"gate": 0.4}
    assert len(refine["state_points"]["solid"]["structure"].get_ase()) == 4


@pytest.mark.usefixtures("aiida_profile")
def test_targets_of_stages() -> None:
    """A g(r) that the cell of the run holds, and that of the stage does not; test targets are for the validation."""
    far, near, tested = curve(1.0, 2.0, 3.0), curve(0.5, 1.0, 1.5), curve(1.0, 2.0, 3.0, role="test", label="tested")
    small, large = (orm.StructureData(ase=bulk("Ar", "fcc", 5.4, cubic=True) * number) for number in (1, 2))

    def inputs_with(replaced: dict[str, Any], **changes: Any) -> dict[str, Any]:
        inputs = staged(small, **changes)
        point = inputs["state_points"]["solid"]
        point |= {"structure": large, "targets": {**point["targets"], "rdf": far, "tested": tested}}
        inputs["stages"]["stage_0"]["targets"] = replaced
        return inputs

    def told(replaced: dict[str, Any], **changes: Any) -> str:
        inputs = inputs_with(replaced, **changes)
        problem = stages.check_stages(inputs["stages"], None)
        return str(problem or stages.check_stages_with(inputs, has_dataset=False))

    assert "half of the smallest height of the cell, 5.4 Å" in (problem := told({}))
    assert "or give the stage a target of the same label that its cell holds" in problem
    assert told({"solid": {"rdf": near}}) == told({}, without={"solid": ["rdf"]}) == "None"
    assert "no training target" in told({}, without={"solid": ["rdf", "pressure"]})
    assert "no target 'rdff' that it could change; there are pressure, rdf, tested" in told({"solid": {"rdff": near}})
    assert "targets of the state point 'mars'; there are solid" in told({"mars": {"rdf": near}})
    for label, node in (("rdf", curve(0.5, 1.0, 1.5, role="test")), ("tested", near)):
        assert f"target {label!r} of 'solid' is of role test" in told({"solid": {label: node}})
    assert "must be TargetData" in told({"solid": {"rdf": small}})

    inputs = inputs_with({"solid": {"rdf": near}}, without={"solid": ["pressure"]})
    kept = {"solid": inputs["state_points"]["solid"], "held_out": {"structure": large, "targets": {"tested": tested}}}
    refine = {**inputs["refine"], "state_points": kept}
    stages.apply_stage(refine, inputs["stages"]["stage_0"])
    assert {name: point["targets"] for name, point in refine["state_points"].items()} == {"solid": {"rdf": near}}


@pytest.mark.usefixtures("aiida_profile")
def test_the_stage_of_water_becomes_nodes() -> None:
    """The short curve for the long one, in a box whose half holds it, and a pressure with the error of its noise."""
    path = example("water/paper.yaml")
    run = read_input(path)
    stage = nodes.stages_of(run, path.parent)["stage_0"]
    targets = {name: node.target for name, node in stage["targets"]["liquid"].items()}
    final = run.state_points["liquid"].targets
    assert {name: target.name for name, target in targets.items()} == {"rdf": "rdf", "pressure": "pressure"}
    assert targets["pressure"].errors[0] > final["pressure"].errors[0]  # type: ignore[index, union-attr]
    assert len(stage["structures"]["liquid"].sites) == 108
