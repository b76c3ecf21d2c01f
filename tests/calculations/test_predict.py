"""PredictCalculation: for structures, for a trajectory, and for neither."""

from typing import Any

import pytest

from aiida_difftre.data.dataset import DatasetData
from aiida_difftre.data.potential import PotentialData
from aiida_difftre.data.trajectory import TrajectoryEnsembleData
from aiida_difftre.engine.contract.jobs import PredictJob
from aiida_difftre.engine.contract.kinds import read_job


def test_structures(prepare: Any, potential: PotentialData, dataset: DatasetData) -> None:
    inputs = {"parameters": {"static_stiffness": True}, "potential": potential, "structures": dataset}
    info, folder = prepare("predict", inputs)
    job = read_job(folder / "job.json", "predict")
    assert isinstance(job, PredictJob)
    assert (job.static_stiffness, job.trajectory, job.temperature) == (True, None, None)
    assert (dataset.uuid, "dataset.extxyz", job.structures) in info.local_copy_list
    assert info.retrieve_temporary_list == ["predictions.npz"]


def test_trajectory(prepare: Any, potential: PotentialData, trajectory: TrajectoryEnsembleData) -> None:
    parameters = {"observables": [{"observable": "pressure"}]}
    _, folder = prepare("predict", {"parameters": parameters, "potential": potential, "trajectory": trajectory})
    job = read_job(folder / "job.json", "predict")
    assert isinstance(job, PredictJob)
    assert (job.temperature, job.trajectory) == (None, "trajectory.npz")


def test_another_state_point(prepare: Any, potential: PotentialData, trajectory: TrajectoryEnsembleData) -> None:
    parameters = {"observables": [{"observable": "pressure"}], "temperature": 90.0}
    _, folder = prepare("predict", {"parameters": parameters, "potential": potential, "trajectory": trajectory})
    job = read_job(folder / "job.json", "predict")
    assert isinstance(job, PredictJob)
    assert (job.temperature, job.pressure) == (90.0, None)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"observable": "density"}, "'density' needs an NPT trajectory, not NVT"),
        ({"observable": "rdf", "grid": [0.5, 1.5, 2.5, 3.5]}, "the trajectory cannot give 'rdf': .* beyond half"),
        ({"observable": "rdf", "grid": [0.5, 1.5], "options": {"pair": ["Ar", "Ne"]}}, "cannot give 'rdf'.*Ne"),
    ],
)
def test_observables_that_the_trajectory_cannot_give(
    prepare: Any, potential: PotentialData, trajectory: TrajectoryEnsembleData, asked: dict[str, Any], message: str
) -> None:
    inputs = {"parameters": {"observables": [asked]}, "potential": potential, "trajectory": trajectory}
    with pytest.raises(ValueError, match=message):
        prepare("predict", inputs)


@pytest.mark.parametrize("given", [{"observables": [{"observable": "pressure"}]}, {"temperature": 90.0}])
def test_observables_without_a_trajectory(
    prepare: Any, potential: PotentialData, dataset: DatasetData, given: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match="averages over a trajectory, and none is given"):
        prepare("predict", {"parameters": given, "potential": potential, "structures": dataset})


def test_nothing_to_predict_for(prepare: Any, potential: PotentialData) -> None:
    with pytest.raises(ValueError, match="give structures or a trajectory"):
        prepare("predict", {"potential": potential})
