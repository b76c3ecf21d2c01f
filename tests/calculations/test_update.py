"""UpdateCalculation: state points become files and entries of the job, and what is refused."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiida import orm
from ase import Atoms

from aiida_difftre.data.dataset import DatasetData
from aiida_difftre.data.potential import PotentialData
from aiida_difftre.data.target import TargetData
from aiida_difftre.data.trajectory import TrajectoryEnsembleData
from aiida_difftre.engine.contract import files
from aiida_difftre.engine.contract.base_arrays import BASE_LABEL_ARRAYS
from aiida_difftre.engine.contract.bases import BaseSpec
from aiida_difftre.engine.contract.jobs import UpdateJob
from aiida_difftre.engine.contract.kinds import read_job
from aiida_difftre.engine.contract.trajectories import write_trajectory
from tests.fixtures.nodes import make_trajectory, potential_file, target_content

EMT = BaseSpec(engine="ase", name="emt")


@pytest.fixture
def inputs(potential: PotentialData, trajectory: TrajectoryEnsembleData, target: TargetData) -> dict[str, Any]:
    return {
        "parameters": {"update": {"max_steps": 3}},
        "potential": potential,
        "state_points": {"t85": {"trajectory": trajectory, "targets": {"pressure": target}}},
    }


def test_files(prepare: Any, inputs: dict[str, Any]) -> None:
    info, folder = prepare("update", inputs)
    job = read_job(folder / "job.json", "update")
    assert isinstance(job, UpdateJob)
    assert job.update.max_steps == 3
    assert (job.optimizer_state, job.dataset) == (None, None)
    (point,) = job.state_points
    assert (point.label, point.temperature, point.targets[0].errors) == ("t85", 85.0, [0.1])
    assert (folder / point.trajectory).exists()
    assert info.provenance_exclude_list == [point.trajectory]
    assert info.retrieve_temporary_list == ["potential_out.safetensors", "optimizer_out.safetensors"]


def test_trajectories_are_linked(prepare: Any, inputs: dict[str, Any], aiida_localhost: orm.Computer) -> None:
    remote = orm.RemoteData(computer=aiida_localhost, remote_path="/scratch/job").store()
    inputs["state_points"]["t85"]["remote"] = remote
    info, folder = prepare("update", inputs)
    name = "trajectory_t85.npz"
    assert info.remote_symlink_list == [(aiida_localhost.uuid, "/scratch/job/trajectory.npz", name)]
    assert not (folder / name).exists()
    assert read_job(folder / "job.json", "update").digests == {}, "of a trajectory that came from no file"


def test_what_is_linked_must_be_what_was_parsed(
    prepare: Any, inputs: dict[str, Any], aiida_localhost: orm.Computer, tmp_path: Path
) -> None:
    write_trajectory(tmp_path / "trajectory.npz", make_trajectory())
    trajectory = TrajectoryEnsembleData.from_file(tmp_path / "trajectory.npz")
    inputs["state_points"]["t85"] |= {"trajectory": trajectory}
    _, folder = prepare("update", inputs)
    assert read_job(folder / "job.json", "update").digests == {}, "a copy needs none"
    inputs["state_points"]["t85"]["remote"] = orm.RemoteData(computer=aiida_localhost, remote_path="/scratch").store()
    _, folder = prepare("update", inputs)
    assert read_job(folder / "job.json", "update").digests == {"trajectory_t85.npz": trajectory.digest}


def test_digests_are_not_the_users_to_give(prepare: Any, inputs: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="digests"):
        prepare("update", {**inputs, "parameters": {"digests": {"trajectory_t85.npz": "0" * 64}}})


def test_optional_files(prepare: Any, inputs: dict[str, Any], dataset: DatasetData) -> None:
    state = orm.SinglefileData(io.BytesIO(b"state"), "optimizer_out.safetensors")
    info, folder = prepare("update", {**inputs, "optimizer_state": state, "dataset": dataset})
    job = read_job(folder / "job.json", "update")
    assert isinstance(job, UpdateJob)
    assert (state.uuid, "optimizer_out.safetensors", job.optimizer_state) in info.local_copy_list
    assert (dataset.uuid, "dataset.extxyz", job.dataset) in info.local_copy_list


def test_links_of_a_stored_job(prepare: Any, inputs: dict[str, Any]) -> None:
    # Nested dynamic namespaces must survive the way into the database.
    from aiida.engine.utils import instantiate_process
    from aiida.manage import get_manager
    from aiida.plugins import CalculationFactory

    code = orm.load_code("difftre-fake")
    process = instantiate_process(get_manager().get_runner(), CalculationFactory("difftre.update"), code=code, **inputs)
    labels = {link.link_label for link in process.node.base.links.get_incoming().all()}
    assert {"state_points__t85__trajectory", "state_points__t85__targets__pressure"} <= labels


def test_weight_without_a_dataset(prepare: Any, inputs: dict[str, Any]) -> None:
    parameters = {"update": {"loss": {"dataset_weight": 1.0}}}
    with pytest.raises(ValueError, match=r"dataset_weight is 1\.0, but there is no dataset"):
        prepare("update", {**inputs, "parameters": parameters})


def of_base(*, count: int = 3, digest: str | None = None, leave_out: str = "") -> orm.ArrayData:
    """What predictions for a dataset hold of a base."""
    arrays = {
        "base_digest": np.array(digest or EMT.digest, np.str_),
        "base_energies": np.ones(count),
        "base_forces": np.ones((4 * count, 3)),
        "base_stresses": np.ones((count, 6)),
        "base_positions": np.ones((4 * count, 3)),
        "energies": np.ones(count),
    }
    node = orm.ArrayData()
    for name, array in arrays.items():
        if name != leave_out:
            node.set_array(name, array)
    return node


def test_labels_are_matched_without_what_a_base_gives(
    prepare: Any, inputs: dict[str, Any], tmp_path: Path, dataset: DatasetData
) -> None:
    frames = [
        Atoms("Cu4", atoms.positions, cell=atoms.cell, pbc=True, calculator=atoms.calc) for atoms in dataset.get_ase()
    ]
    path = potential_file(tmp_path / "copper.safetensors", ("Cu",))
    spec, parameters = files.read_potential(path)
    files.write_potential(path, spec.model_copy(update={"base": EMT}), parameters)
    inputs |= {
        "parameters": {"update": {"loss": {"dataset_weight": 1.0}}},
        "potential": PotentialData.from_file(path),
        "dataset": DatasetData.from_ase(frames),
    }
    inputs["state_points"]["t85"]["trajectory"] = TrajectoryEnsembleData.from_trajectory(make_trajectory("Cu"))
    info, folder = prepare("update", {**inputs, "base_labels": of_base()})
    assert read_job(folder / "job.json", "update").base_labels == "base_labels.npz"
    assert sorted(files.read_npz(folder / "base_labels.npz")) == sorted(BASE_LABEL_ARRAYS)
    assert "base_labels.npz" in info.provenance_exclude_list
    for labels, message in (
        (None, r"on top of the base 'emt', which no update evaluates; predict the dataset .* as base_labels"),
        (
            of_base(digest="0" * 64),
            "base_labels are of a base with the digest 000000000000, but the potential is a cor",
        ),
        (of_base(count=2), "base_labels are of 2 configurations, and the dataset has 3; predict this dataset"),
        (of_base(leave_out="base_forces"), "have no base_forces; give the predictions of a difftre.predict job"),
    ):
        with pytest.raises(ValueError, match=message):
            prepare("update", {**inputs, **({} if labels is None else {"base_labels": labels})})


def test_nothing_to_refine_towards(prepare: Any, inputs: dict[str, Any]) -> None:
    inputs["state_points"]["t85"]["targets"] = {"pressure": TargetData(target_content(role="test"))}
    with pytest.raises(ValueError, match="no training target with a positive weight"):
        prepare("update", inputs)


@pytest.mark.parametrize(
    ("point", "message"),
    [
        ({"targets": None}, "state point 't85' needs targets"),
        ({"trajectory": None}, "state point 't85' needs a trajectory"),
        ({"target": 1}, "state point 't85' has target; it takes trajectory, remote, targets, potential"),
    ],
)
def test_incomplete_state_point(
    prepare: Any, inputs: dict[str, Any], target: TargetData, point: dict, message: str
) -> None:
    merged = {**inputs["state_points"]["t85"], **point}
    merged = {name: target if value == 1 else value for name, value in merged.items() if value is not None}
    with pytest.raises(ValueError, match=message):
        prepare("update", {**inputs, "state_points": {"t85": merged}})


def test_label_that_is_no_name(prepare: Any, inputs: dict[str, Any]) -> None:
    points = {"85_": inputs["state_points"]["t85"]}
    with pytest.raises(ValueError, match="the state point label '85_' is no valid name"):
        prepare("update", {**inputs, "state_points": points})


def test_target_that_the_trajectory_cannot_give(prepare: Any, inputs: dict[str, Any]) -> None:
    grid = [0.5, 1.5, 2.5, 3.5]
    content = target_content(observable="rdf", unit="1", grid=grid, values=[0.0, 1.0, 1.0, 1.0], errors=[0.1] * 4)
    inputs["state_points"]["t85"]["targets"] = {"rdf": TargetData(content)}
    with pytest.raises(ValueError, match=r"the trajectory of state point 't85' cannot give 'rdf': .* beyond half"):
        prepare("update", inputs)


def test_two_targets_of_one_name(prepare: Any, inputs: dict[str, Any]) -> None:
    targets = {"one": TargetData(target_content()), "two": TargetData(target_content())}
    inputs["state_points"]["t85"]["targets"] = targets
    with pytest.raises(ValueError, match="state point 't85': the target label 'pressure' is used twice"):
        prepare("update", inputs)


def test_species(prepare: Any, inputs: dict[str, Any], tmp_path: Path) -> None:
    krypton = PotentialData.from_file(potential_file(tmp_path / "kr.safetensors", ("Kr",)))
    with pytest.raises(ValueError, match="trajectory of state point 't85' contains Ar, but the potential knows Kr"):
        prepare("update", {**inputs, "potential": krypton})
