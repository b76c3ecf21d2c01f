from collections import Counter
from typing import Any

import pytest
from aiida import orm
from aiida.common.links import LinkType
from aiida.manage import get_manager
from click.testing import CliRunner, Result

from aiida_difftre.cli import cli as command
from aiida_difftre.cli.lineage import generations, lines, potential_of
from aiida_difftre.cli.skeleton import _shown, skeleton
from aiida_difftre.data.potential import PotentialData


@pytest.fixture
def cli() -> Any:
    """A function (arguments) -> what ``aiida-difftre`` answers in the profile of the tests."""

    def invoke(*arguments: Any) -> Result:
        return CliRunner().invoke(command, ["-p", get_manager().get_profile().name, *map(str, arguments)])

    return invoke


@pytest.fixture
def refined(
    finished_job: Any, potential: PotentialData, dataset: Any, trajectory: Any, target: Any, tmp_path: Any
) -> PotentialData:
    """Pretrained, then updated twice, each time on a trajectory of its own."""

    def made_by(job: orm.CalcJobNode, node: Any, label: str) -> Any:
        job.set_process_label(label)
        node.base.links.add_incoming(job, LinkType.CREATE, "made")
        return node.store()

    def copy(node: PotentialData) -> PotentialData:
        node.to_file(tmp_path / "copy.safetensors")
        return PotentialData.from_file(tmp_path / "copy.safetensors")

    current = made_by(finished_job("pretrain", inputs={"dataset": dataset}), potential, "PretrainCalculation")
    for _ in range(2):
        sampled = finished_job("sample", inputs={"potential": current})
        fresh = made_by(sampled, trajectory.clone(), "SampleCalculation")
        inputs = {
            "potential": current,
            "state_points__liquid__trajectory": fresh,
            "state_points__liquid__targets__p": target,
        }
        current = made_by(finished_job("update", inputs=inputs), copy(current), "UpdateCalculation")
    return current


def test_chain_of_potentials(refined: PotentialData, dataset: Any, target: Any) -> None:
    found = list(generations(refined))
    assert [item.made_by.process_label for item in found if item.made_by] == [
        "UpdateCalculation",
        "UpdateCalculation",
        "PretrainCalculation",
    ]
    trajectories = [item.trajectories["liquid"] for item in found[:2]]
    assert trajectories[0].pk != trajectories[1].pk
    # Each trajectory was sampled with the potential of the generation before.
    for index in range(2):
        assert trajectories[index].creator.inputs.potential.pk == found[index + 1].potential.pk
        assert found[index].targets["liquid"]["p"].pk == target.pk
    assert found[2].dataset is not None
    assert found[2].dataset.pk == dataset.pk


def test_lines_name_the_experiment(refined: PotentialData) -> None:
    text = "\n".join(lines(refined))
    assert "Yarnell" in text
    assert text.count("made by UpdateCalculation") == 2
    assert "3 configurations" in text


def test_imported_potential_ends_the_lineage(potential: PotentialData) -> None:
    assert "imported" in "\n".join(lines(potential.store()))


def test_other_nodes_are_refused() -> None:
    with pytest.raises(ValueError, match="is no potential"):
        potential_of(orm.Int(1).store())
    run = orm.WorkChainNode().store()
    with pytest.raises(ValueError, match=f"run {run.pk} is not over and has no potential yet; `aiida-difftre status"):
        potential_of(run)


def test_the_graph_of_a_lineage(refined: PotentialData, cli: Any, tmp_path: Any) -> None:
    graph = skeleton(refined)
    kinds = Counter(box.kind for box in graph.boxes)
    assert kinds == {"dataset": 1, "potential": 3, "trajectory": 2, "experiment": 1}
    (last,) = (index for index, box in enumerate(graph.boxes) if box.nodes == (refined,))
    into = sorted(graph.boxes[start].kind for start, end in graph.arrows if end == last)
    assert into == ["experiment", "potential", "trajectory"]
    places = [(box.row, box.column) for box in graph.boxes]
    assert len(set(places)) == len(places)
    path = tmp_path / "lineage.svg"
    assert cli("lineage", refined.pk, "--graph", path).exit_code == 0
    drawing = path.read_text(encoding="utf-8")
    for shown in (f"potential {refined.pk}", "experiment", "3 configurations"):
        assert shown in drawing
    assert "give --force" in cli("lineage", refined.pk, "--graph", path).output
    assert "ends with '.gif'" in cli("lineage", refined.pk, "--graph", tmp_path / "lineage.gif").output


def test_many_updates_are_drawn_as_a_stack() -> None:
    updates = list(range(12))
    assert _shown(updates) == [[0], updates[1:-2], [10], [11]]
    assert _shown(updates[:4]) == [[0], [1], [2], [3]]
