"""The repository keeps a part of each trajectory: the same results, from wholes that stay where they were made."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiida import orm
from aiida.common.datastructures import StashMode
from aiida.common.links import LinkType
from aiida.engine import run_get_node
from aiida.engine.utils import instantiate_process
from aiida.manage import get_manager
from click.testing import CliRunner

from aiida_difftre.calculations.sample import SampleCalculation
from aiida_difftre.cli import cli
from aiida_difftre.data.trajectory import TrajectoryEnsembleData
from aiida_difftre.engine.contract.files import digest
from aiida_difftre.engine.contract.kinds import read_job
from aiida_difftre.engine.contract.parts import part_of
from aiida_difftre.engine.contract.trajectories import TRAJECTORY_ARRAYS, read_trajectory, write_trajectory
from aiida_difftre.workchains.engine import without_remotes
from aiida_difftre.workchains.refine import RefineWorkChain
from aiida_difftre.workchains.sample import SampleBaseWorkChain
from aiida_difftre.workchains.update import UpdateBaseWorkChain
from tests.fixtures.chains import SHORT_SAMPLING, explain
from tests.fixtures.nodes import argon, make_trajectory

MACHINE = {"threads": 1}
PRESSURE = {"observable": "pressure"}
EVERY = 8
"""Of twenty snapshots of each of four walkers: three of each are kept."""


@pytest.fixture
def refine(
    engine: orm.InstalledCode, argon_potential: Any, argon_state_points: Any, job_options: Any
) -> Callable[..., orm.WorkChainNode]:
    """A function (inputs of sampling) -> node of a refinement with one update and two samplings."""

    def run(options: dict[str, Any] | None = None, **sample: Any) -> orm.WorkChainNode:
        clean = sample.pop("clean_workdir", False)
        parameters = {"sampling": SHORT_SAMPLING, "machine": MACHINE, **sample}
        update = {"bootstrap": 20, "max_steps": 2, "gate": 0.2}
        builder = RefineWorkChain.get_builder_from_protocol(
            potential=argon_potential(),
            state_points=argon_state_points(values=[-0.3], errors=[0.01]),
            sample_code=engine,
            overrides={
                "settings": {
                    "max_iterations": 1, "growth": {"thresholds": []}, "continued_equilibration_fs": 50.0, "seed": 3
                },
                "sample": {"clean_workdir": clean, "calc": {"parameters": parameters}},
                "update": {"calc": {"parameters": {"update": update, "machine": MACHINE}}},
            },
            options={"sample": {**job_options, **(options or {})}, "update": job_options},
        )  # fmt: skip
        return run_get_node(builder)[1]

    return run


def jobs(node: orm.WorkChainNode, kind: str) -> list[orm.CalcJobNode]:
    return sorted((child for child in node.called_descendants if child.process_label == kind), key=lambda one: one.pk)


def file_of(job: orm.CalcJobNode) -> Path:
    return Path(job.outputs.remote_folder.get_remote_path(), "trajectory.npz")


@pytest.mark.slow
def test_a_part_is_kept_and_nothing_changes(refine: Any, tmp_path: Path) -> None:
    """Potentials and chi² bit for bit; the stash serves where the folder is gone, and nothing where both are."""
    archive = tmp_path / "archive"
    stash = {"target_base": str(archive), "source_list": ["trajectory.npz"], "stash_mode": "copy"}
    whole, part = refine(), refine({"stash": stash}, keep_every=EVERY)
    assert whole.is_finished_ok, explain(whole)
    assert part.is_finished_ok, explain(part)
    (plain,), (update,) = jobs(whole, "UpdateCalculation"), jobs(part, "UpdateCalculation")
    assert update.outputs.potential.digest == plain.outputs.potential.digest
    assert update.outputs.output_parameters["history"] == plain.outputs.output_parameters["history"]
    assert part.outputs.potential.digest == whole.outputs.potential.digest
    courses = [[item["chi2"] for item in node.outputs.history["iterations"]] for node in (whole, part)]
    assert courses[0] == courses[1]

    samplings = list(zip(jobs(whole, "SampleCalculation"), jobs(part, "SampleCalculation"), strict=True))
    for all_of_it, some in samplings:
        kept, complete = some.outputs.trajectory, all_of_it.outputs.trajectory
        assert kept.is_part
        assert kept.digest == complete.digest == digest(file_of(some))
        assert (kept.number_of_snapshots, len(kept.get_array("positions"))) == (complete.number_of_snapshots, 12)
        told = some.outputs.output_parameters["kept"]
        assert told == {"every": EVERY, "snapshots": 12, "digest": kept.digest}
        assert "every 8th is kept" in kept.get_description()
        assert str(file_of(some)) in kept._repr_html_()
        with pytest.raises(ValueError, match=f"keeps 12 of 80 snapshots, every 8th .*{file_of(some)} on localhost"):
            kept.to_file(tmp_path / "copy.npz")
        words = ["trajectory", "fetch", str(kept.pk), "-o", str(tmp_path / "copy.npz"), "--force"]
        assert CliRunner().invoke(cli, ["-p", get_manager().get_profile().name, *words]).exit_code == 0
        np.testing.assert_array_equal(read_trajectory(tmp_path / "copy.npz").positions, complete.get_array("positions"))

    # The second sampling once more, from the state that the node has.
    first, second = (some for _, some in samplings)
    shutil.rmtree(file_of(first).parent)
    again = second.get_builder_restart()
    del again["start_folder"]
    _, node = run_get_node(again)
    assert node.is_finished_ok, node.exit_message
    for name in TRAJECTORY_ARRAYS:
        np.testing.assert_array_equal(
            node.outputs.trajectory.get_array(name), second.outputs.trajectory.get_array(name)
        )

    # The update once more: its trajectory is in the stash alone, and then nowhere.
    (chain,) = (child for child in part.called if child.process_label == "UpdateBaseWorkChain")
    _, node = run_get_node(chain.get_builder_restart())
    assert node.is_finished_ok, explain(node)
    assert [job.exit_status for job in sorted(node.called, key=lambda job: job.pk)] == [311, 0]
    assert node.outputs.potential.digest == update.outputs.potential.digest
    shutil.rmtree(archive)
    _, node = run_get_node(chain.get_builder_restart())
    assert node.exit_status == 311
    for word in ("trajectory_solid.npz", str(archive), str(file_of(first)), "localhost", "keeps 12 of 80", "again"):
        assert word in node.exit_message, node.exit_message
    with pytest.raises(ValueError, match="no file with the SHA-256"):
        first.outputs.trajectory.fetch(tmp_path / "copy.npz")


@pytest.fixture
def kept(engine: orm.InstalledCode, finished_job: Any) -> tuple[TrajectoryEnsembleData, orm.RemoteData]:
    """A part of a trajectory, and the folder of its job."""
    job = finished_job("sample")
    folder = orm.RemoteData(computer=job.computer, remote_path="/scratch/job")
    node = TrajectoryEnsembleData.from_trajectory(part_of(make_trajectory(), 2, "ab" * 32))
    for label, output in (("remote_folder", folder), ("trajectory", node)):
        output.base.links.add_incoming(job, LinkType.CREATE, label)
        output.store()
    return node, folder


def test_jobs_read_the_whole_where_it_is(
    prepare: Any, kept: Any, potential: Any, target: Any, aiida_computer_local: Any
) -> None:
    """Whoever averages links to it, also where nobody names the folder; else there is no job."""
    node, folder = kept
    point = {"trajectory": node, "targets": {"pressure": target}}
    earlier = {"before": {"trajectory": node, "potential": potential}}
    structure = orm.StructureData(ase=argon(1))
    sampling = {"structure": structure, "parameters": {"temperature": 85.0}}
    takers = {
        "update": ({"state_points": {"t85": {**point, "earlier": earlier}}}, "trajectory_t85.npz", 2),
        "assess": ({"state_points": {"t85": point}}, "trajectory_t85.npz", 1),
        "predict": ({"trajectory": node, "parameters": {"observables": [PRESSURE]}}, "trajectory.npz", 1),
        "sample": ({**sampling, "trajectory": node}, "given.npz", 1),
    }
    for kind, (inputs, name, number) in takers.items():
        info, files = prepare(kind, {"potential": potential, **inputs})
        assert {path for _, path, _ in info.remote_symlink_list} == {"/scratch/job/trajectory.npz"}, kind
        job = read_job(files / "job.json", kind)
        assert (job.digests[name], len(job.digests)) == (node.digest, number), kind

    # Walkers go on from the part, unless their velocities are not known.
    info, _ = prepare("sample", {"potential": potential, **sampling, "start_trajectory": node})
    assert info.remote_symlink_list
    moving = dataclasses.replace(make_trajectory(), last_velocities=np.ones((2, 4, 3)))
    moved = TrajectoryEnsembleData.from_trajectory(part_of(moving, 2, "ab" * 32))
    info, files = prepare("sample", {"potential": potential, **sampling, "start_trajectory": moved})
    assert not info.remote_symlink_list
    assert read_trajectory(files / "start.npz", may_be_part=True).part.of == 6

    elsewhere = aiida_computer_local(label="elsewhere")
    other = orm.InstalledCode(label="other", computer=elsewhere, filepath_executable="/bin/true").store()
    message = "needs a whole trajectory.*keeps 4 of 6.* /scratch/job/trajectory.npz on localhost.*a job on elsewhere"
    for kind, (inputs, _, _) in takers.items():
        with pytest.raises(ValueError, match=message):
            prepare(kind, {"potential": potential, **inputs, "code": other})
    assert SampleCalculation.is_valid_cache(node.creator)
    folder.base.extras.set(orm.RemoteData.KEY_EXTRA_CLEANED, True)
    assert not SampleCalculation.is_valid_cache(node.creator)
    for kind, (inputs, _, _) in takers.items():
        with pytest.raises(ValueError, match=r"needs a whole trajectory.*gone: /scratch/job was deleted"):
            prepare(kind, {"potential": potential, **inputs})


def test_folders_that_were_mixed_up_are_dropped(kept: Any) -> None:
    """A job that failed with the folder of another trajectory takes the one of its own."""
    node, folder = kept
    other = orm.RemoteData(computer=folder.computer, remote_path="/scratch/another").store()
    left, dropped = without_remotes({"t85": {"trajectory": node, "remote": other}})
    assert (left, dropped) == ({"t85": {"trajectory": node}}, [other])
    for named in (folder, other):
        inputs = {"t85": {"trajectory": node, "remote": named}}
        assert without_remotes(inputs) == (inputs, []), "no other is known"
        folder.base.extras.set(orm.RemoteData.KEY_EXTRA_CLEANED, True)


def stored_part(job: orm.CalcJobNode, place: Path, *, stash: Path | None = None, **kwargs: Any) -> Any:
    """A part of a trajectory whose whole lies in the folder of a job, and in its stash where there is one."""
    for folder in filter(None, (place, stash)):
        folder.mkdir()
        write_trajectory(folder / "trajectory.npz", make_trajectory())
    whole = digest(place / "trajectory.npz")
    node = TrajectoryEnsembleData.from_trajectory(part_of(make_trajectory(), 2, whole), **kwargs)
    outputs = {"remote_folder": orm.RemoteData(computer=job.computer, remote_path=str(place)), "trajectory": node}
    if stash is not None:
        outputs["remote_stash"] = orm.RemoteStashFolderData(
            computer=job.computer, stash_mode=StashMode.COPY, target_basepath=str(stash), source_list=["trajectory.npz"]
        )
    for label, output in outputs.items():
        output.base.links.add_incoming(job, LinkType.CREATE, label)
        output.store()
    return node


def test_what_somebody_else_sampled_is_fetched(finished_job: Any, tmp_path: Path) -> None:
    """As from an archive; where it cannot be had, it is said of each place why."""
    other = orm.User(email="other@example.org").store()
    node = stored_part(finished_job("sample"), tmp_path / "job", stash=tmp_path / "stash", user=other)
    assert node.user.pk != orm.User.collection.get_default().pk
    node.fetch(tmp_path / "copy.npz")
    assert digest(tmp_path / "copy.npz") == node.digest
    (tmp_path / "stash" / "trajectory.npz").write_bytes((tmp_path / "copy.npz").read_bytes()[:-1])
    node.fetch(tmp_path / "again.npz")
    shutil.rmtree(tmp_path / "job")
    with pytest.raises(
        ValueError, match=r"stash/trajectory\.npz on localhost is another file, .*job/trajectory\.npz on l"
    ):
        node.fetch(tmp_path / "never.npz")
    with pytest.raises(ValueError, match=r"there is no folder .*nowhere for x\.npz; make it"):
        node.fetch(tmp_path / "nowhere" / "x.npz")
    assert {path.name for path in tmp_path.iterdir()} == {"stash", "copy.npz", "again.npz"}


def test_the_only_whole_is_not_deleted(finished_job: Any, code: Any, potential: Any, tmp_path: Path) -> None:
    """A job that is taken from the cache has the stash of that one, or none, whatever the options say now."""
    stash = {"target_base": "/archive", "source_list": ["trajectory.npz"], "stash_mode": "copy"}
    options = {"resources": {"num_machines": 1}, "stash": stash}
    sampling = {
        "code": code, "potential": potential, "structure": orm.StructureData(ase=argon(1)),
        "parameters": orm.Dict({"temperature": 85.0, "keep_every": 2}), "metadata": {"options": options},
    }  # fmt: skip
    process = instantiate_process(
        get_manager().get_runner(), SampleBaseWorkChain, calc=sampling, clean_workdir=orm.Bool(True)
    )
    jobs = [finished_job("sample", caller=process.node) for _ in range(2)]
    stored_part(jobs[0], tmp_path / "only")
    stored_part(jobs[1], tmp_path / "again", stash=tmp_path / "stash")
    process.kill()
    assert not (tmp_path / "again").exists()
    assert (tmp_path / "only" / "trajectory.npz").is_file()
    assert not jobs[0].outputs.remote_folder.is_cleaned
    assert "deleted the folders of 1 jobs" in "".join(
        log.message for log in orm.Log.collection.get_logs_for(process.node)
    )


def test_a_chain_ends_where_the_whole_is_gone(prepare: Any, kept: Any, code: Any, potential: Any, target: Any) -> None:
    """In a run, as its own end with a status, and not as an exception."""
    node, folder = kept
    point = {"trajectory": node, "remote": folder, "targets": {"pressure": target}}
    inputs = {"calc": {"code": code, "potential": potential, "state_points": {"t85": point}}}
    process = instantiate_process(get_manager().get_runner(), UpdateBaseWorkChain, **inputs)
    folder.base.extras.set(orm.RemoteData.KEY_EXTRA_CLEANED, True)
    ended = process.setup()
    assert ended.status == 311
    assert "/scratch/job was deleted" in ended.message


def test_a_part_is_no_first_reference_by_its_file(kept: Any, tmp_path: Path) -> None:
    """A file that travelled still says that it is a part."""
    node, _ = kept
    node.to_file(tmp_path / "part.npz", may_be_part=True)
    with pytest.raises(ValueError, match="it holds 4 of the 6 snapshots of a trajectory"):
        TrajectoryEnsembleData.from_file(tmp_path / "part.npz")
