"""What the provenance graph of a refinement answers: experiment -> targets -> trajectories -> parameter sets."""

import itertools
import json
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiida import orm
from aiida.manage import get_manager
from click.testing import CliRunner, Result

from aiida_difftre.cli.lineage import generations, lines
from aiida_difftre.data.potential import PotentialData
from aiida_difftre.data.target import TargetData
from aiida_difftre.data.trajectory import TrajectoryEnsembleData

from .conftest import ITERATIONS

pytestmark = pytest.mark.slow


def updates_below(run: orm.WorkChainNode) -> list[str]:
    """The updates of a run, by UUID, first to last; asked of the graph."""
    query = orm.QueryBuilder().append(orm.WorkChainNode, filters={"uuid": run.uuid}, tag="run")
    query.append(orm.WorkChainNode, with_incoming="run", edge_filters={"label": {"like": "update%"}}, tag="chain")
    query.append(orm.CalcJobNode, with_incoming="chain", project=["uuid", "id"])
    return [uuid for uuid, _ in sorted(query.all(), key=lambda row: row[1])]


def test_the_graph_tells_how_each_potential_was_made(refined: orm.WorkChainNode) -> None:
    updates = updates_below(refined)
    assert len(updates) >= ITERATIONS
    current = refined.inputs.potential
    for uuid in updates:
        query = orm.QueryBuilder().append(orm.CalcJobNode, filters={"uuid": uuid}, tag="update")
        query.append(PotentialData, with_outgoing="update", edge_filters={"label": "potential"}, project="uuid")
        query.append(PotentialData, with_incoming="update", edge_filters={"label": "potential"}, project="uuid")
        query.append(TrajectoryEnsembleData, with_outgoing="update", tag="trajectory")
        query.append(
            orm.CalcJobNode, with_outgoing="trajectory", filters={"attributes.process_label": "SampleCalculation"},
            tag="sampling",
        )  # fmt: skip
        query.append(PotentialData, with_outgoing="sampling", project="uuid")
        assert query.count() == 1
        parent, child, sampled_with = query.first()
        # The reference trajectory was sampled with the very potential that the update moved.
        assert parent == sampled_with == current.uuid
        assert child != parent

        query = orm.QueryBuilder().append(orm.CalcJobNode, filters={"uuid": uuid}, tag="update")
        query.append(
            TargetData, with_outgoing="update", project=["uuid", "attributes.observable", "attributes.citation"]
        )
        used = query.all()
        given = refined.inputs.state_points.solid.targets
        assert {row[0] for row in used} == {given.pressure.uuid, given.energy.uuid}
        assert {row[1] for row in used} == {"pressure", "potential_energy"}
        assert all("Yarnell" in row[2] for row in used)
        current = orm.load_node(child)


def test_all_potentials_descend_from_the_experiment(refined: orm.WorkChainNode) -> None:
    # What the same targets and the same first potential gave other runs of this profile descends from them, too.
    jobs = [job.uuid for job in refined.called_descendants if isinstance(job, orm.CalcJobNode)]
    own = {"filters": {"uuid": {"in": jobs}}}
    target = refined.inputs.state_points.solid.targets.pressure
    query = orm.QueryBuilder().append(TargetData, filters={"uuid": target.uuid}, tag="target")
    query.append(PotentialData, with_ancestors="target", project="uuid", tag="made")
    query.append(orm.CalcJobNode, with_outgoing="made", **own)
    made = {uuid for (uuid,) in query.distinct().all()}
    assert made == {orm.load_node(uuid).outputs.potential.uuid for uuid in updates_below(refined)}
    query = orm.QueryBuilder().append(PotentialData, filters={"uuid": refined.inputs.potential.uuid}, tag="first")
    query.append(TrajectoryEnsembleData, with_ancestors="first", project="uuid", tag="sampled")
    query.append(orm.CalcJobNode, with_outgoing="sampled", **own)
    assert len(query.distinct().all()) == len(updates_below(refined)) + 1


def test_lineage_agrees_with_the_graph(refined: orm.WorkChainNode, cli: Any) -> None:
    updates = [orm.load_node(uuid) for uuid in updates_below(refined)]
    last = updates[-1].outputs.potential
    found = list(generations(last))
    assert [one.made_by.uuid for one in found if one.made_by is not None] == [job.uuid for job in reversed(updates)]
    assert found[-1].potential.uuid == refined.inputs.potential.uuid
    for one, before in itertools.pairwise(found):
        assert one.trajectories["solid"].creator.inputs.potential.uuid == before.potential.uuid
        assert set(one.targets["solid"]) == {"pressure", "energy"}
    assert refined.outputs.potential.uuid in {one.potential.uuid for one in found}
    text = "\n".join(lines(last))
    result = cli("lineage", last.pk)
    assert result.exit_code == 0, result.output
    assert result.output.rstrip("\n") == text
    assert text.count("Yarnell") == 2 * len(updates)
    assert "imported" in text


def figures_in(page: str) -> dict[str, Any]:
    (text,) = re.findall(r'<script type="application/json" id="figures">(.*?)</script>', page, re.DOTALL)
    return json.loads(text)


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    """The report of a run, by its UUID: its energies take the engine seconds."""
    return {}


@pytest.fixture
def page(refined: orm.WorkChainNode, cli: Any, tmp_path: Path, pages: dict[str, str]) -> Path:
    """The report of a run whose label and description would do harm."""
    path = tmp_path / "report.html"
    if refined.uuid not in pages:
        label, refined.label = refined.label, "<script>alert(1)</script>"
        result = cli("report", refined.pk, "--html", path)
        refined.label = label
        assert result.exit_code == 0, result.output
        pages[refined.uuid] = path.read_text(encoding="utf-8")
        again = cli("report", refined.pk, "--html", path)
        assert again.exit_code == 1
        assert "exists" in again.output
    path.write_text(pages[refined.uuid], encoding="utf-8")
    return path


def test_the_report_is_one_file_that_holds_everything(refined: orm.WorkChainNode, page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert not re.findall(r"<(?:script|link|img|iframe)[^>]*(?:src|href)=\"(?!data:)", text), "loads nothing"
    assert len(text) < 3e6
    for shown in ("Yarnell", refined.uuid, refined.outputs.potential.digest, "sampling", "updates", "jax "):
        assert shown in text, shown
    figures = figures_in(text)
    assert {"loss", "n-eff", "chi2", "observable-0", "learned-0"} <= set(figures)
    before = figures["learned-0"]["data"][0]
    energy, distance = min(zip(before["y"], before["x"], strict=True))
    # The textbook's well of argon, on a grid of 0.05 Å.
    assert energy == pytest.approx(-10.3, rel=0.01)
    assert distance == pytest.approx(3.4 * 2 ** (1 / 6), abs=0.05)
    boxes = set(re.findall(r'href="#(box-\d+)"', text))
    assert len(boxes) >= 2 + 2 * ITERATIONS - 1
    assert boxes == set(re.findall(r'id="(box-\d+)"', text)), "each box leads to its nodes"


def test_a_browser_draws_the_report(page: Path, tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium, which would show the page, is installed")
    command = [
        browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--dump-dom",
        "--virtual-time-budget=10000", "--enable-logging=stderr", f"--user-data-dir={tmp_path}", page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "CONSOLE" not in done.stderr, done.stderr
    assert 'data-ready="yes"' in done.stdout
    drawn = done.stdout.count('class="plot js-plotly-plot"')
    assert drawn == len(figures_in(page.read_text(encoding="utf-8")))


def arrays_in(node: orm.ArrayData) -> dict[str, np.ndarray]:
    return {name: node.get_array(name) for name in node.get_arraynames()}


def test_no_stored_array_is_duplicated(refined: orm.WorkChainNode) -> None:
    binary = (".npz", ".npy", ".safetensors", ".extxyz")
    holders: dict[str, Counter[str]] = {"arrays": Counter(), "files": Counter()}
    for process in refined.called_descendants:
        if not isinstance(process, orm.CalcJobNode):
            continue
        # What a job sent is in its inputs, what it brought back in its outputs: its own folders hold no second copy.
        for folder in (process, process.outputs.retrieved):
            names = folder.base.repository.list_object_names()
            assert not [name for name in names if name.endswith(binary)], (process, names)
        for node in process.base.links.get_outgoing().all_nodes():
            if isinstance(node, orm.ArrayData):
                for name, array in arrays_in(node).items():
                    # Times and walker numbers are the same in all trajectories; positions and energies never are.
                    if name in {"positions", "energies", "last_positions", "last_velocities"}:
                        holders["arrays"][f"{array.tobytes()!r}"] += 1
            if isinstance(node, orm.SinglefileData):
                holders["files"][node.get_content(mode="rb").hex()] += 1
    for what, found in holders.items():
        assert found, what
        assert set(found.values()) == {1}, what


@pytest.fixture
def verdi(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Result]]:
    """A function (arguments) -> what ``verdi`` answers; the logging, which verdi takes for itself, is put back."""
    from aiida.cmdline.commands.cmd_verdi import verdi as command
    from aiida.common import log

    monkeypatch.setattr(log, "CLI_ACTIVE", log.CLI_ACTIVE)

    def invoke(*arguments: Any) -> Result:
        profile = get_manager().get_profile()
        assert profile is not None
        return CliRunner().invoke(command, ["-p", profile.name, *map(str, arguments)])

    yield invoke
    monkeypatch.undo()
    log.configure_logging(with_orm=True)


def test_node_graph_shows_the_way_from_experiment_to_potential(
    refined: orm.WorkChainNode, tmp_path: Path, verdi: Callable[..., Result]
) -> None:
    if shutil.which("dot") is None:
        pytest.skip("graphviz's program `dot`, which verdi needs to draw, is not installed")
    path = tmp_path / "graph.svg"
    result = verdi("node", "graph", "generate", "-f", "svg", "-O", path, refined.pk)
    assert result.exit_code == 0, result.output
    drawing = path.read_text()
    for shown in ("TargetData", "TrajectoryEnsembleData", "PotentialData", "UpdateCalculation", "SampleCalculation"):
        assert shown in drawing, shown
    for uuid in updates_below(refined):
        job = orm.load_node(uuid)
        for node in (job.outputs.potential, job.inputs.state_points.solid.trajectory):
            assert node.uuid.split("-")[0] in drawing  # what verdi calls a node


def test_bytes_of_the_jobs_are_counted(refined: orm.WorkChainNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command of docs/howto/scratch.md: a trajectory is brought back once, and linked to where it lies."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    import traffic

    found = traffic.by_kind([refined])
    sampled, updated = found["SampleCalculation"], found["UpdateCalculation"]
    jobs = [job for job in refined.called_descendants if job.process_label == "SampleCalculation"]
    sizes = [Path(job.outputs.remote_folder.get_remote_path(), "trajectory.npz").stat().st_size for job in jobs]
    assert sum(sizes) < sampled["retrieved"] < sampled["left"] < sum(sizes) + 1e5 * len(jobs)
    # Each job but the first links to a trajectory, and none is sent.
    assert sampled["linked"] + updated["linked"] == 2 * sum(sizes[:-1])
    assert max(kind["sent"] / kind["jobs"] for kind in (sampled, updated)) < 0.5 * min(sizes)
    # Arrays are kept once; their headers and the rest are small.
    assert 0.9 * sum(sizes) < sampled["kept"] < 1.3 * sampled["retrieved"]
    assert f"| SampleCalculation | {len(jobs)} |" in traffic.table(found)
