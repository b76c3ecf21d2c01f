"""PretrainCalculation: the job file that it writes, and what it refuses."""

from pathlib import Path
from typing import Any

import ase.io
import pytest
from aiida import orm

from aiida_difftre.data.dataset import DatasetData
from aiida_difftre.data.potential import PotentialData
from aiida_difftre.engine.contract.jobs import PretrainJob
from aiida_difftre.engine.contract.kinds import read_job
from aiida_difftre.engine.contract.label_names import LabelKeys
from tests.fixtures.nodes import argon, potential_file

SPEC = {"species": ["Ar"], "terms": [{"architecture": "moment_network", "cutoff": 4.0}]}


def test_files(prepare: Any, dataset: DatasetData) -> None:
    info, folder = prepare("pretrain", {"parameters": {"potential": SPEC, "steps": 7}, "dataset": dataset})
    job = read_job(folder / "job.json", "pretrain")
    assert isinstance(job, PretrainJob)
    assert job.steps == 7
    assert job.initial_potential is None
    assert info.local_copy_list == [(dataset.uuid, "dataset.extxyz", job.dataset)]
    assert info.retrieve_temporary_list == ["potential_out.safetensors"]


def test_continue_from_a_potential(prepare: Any, dataset: DatasetData, potential: PotentialData) -> None:
    info, folder = prepare("pretrain", {"parameters": {}, "dataset": dataset, "potential": potential})
    job = read_job(folder / "job.json", "pretrain")
    assert isinstance(job, PretrainJob)
    assert (potential.uuid, "potential.safetensors", job.initial_potential) in info.local_copy_list


def test_neither_spec_nor_potential(prepare: Any, dataset: DatasetData) -> None:
    with pytest.raises(ValueError, match=r"give either potential .* or initial_potential"):
        prepare("pretrain", {"parameters": {}, "dataset": dataset})


def test_dataset_without_labels(prepare: Any) -> None:
    with pytest.raises(ValueError, match="carries no energies and forces"):
        prepare("pretrain", {"parameters": {"potential": SPEC}, "dataset": DatasetData.from_ase([argon(1)])})
    _, folder = prepare(
        "pretrain", {"parameters": {"potential": SPEC, "steps": 0}, "dataset": DatasetData.from_ase([argon(1)])}
    )
    assert read_job(folder / "job.json", "pretrain").steps == 0


def test_no_steps_from_a_potential(prepare: Any, dataset: DatasetData, potential: PotentialData) -> None:
    with pytest.raises(ValueError, match="would leave initial_potential as it is"):
        prepare("pretrain", {"parameters": {"steps": 0}, "dataset": dataset, "potential": potential})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"potential": {**SPEC, "species": ["Kr"]}}, r"contains Ar, which potential\.species = \['Kr'\] leaves out"),
        ({"atomic_energies": {"Kr": -1.0}}, r"atomic_energies = \{'Kr': -1.0\} gives no reference energy for Ar"),
        ({"potential": {**SPEC, "species": ["Ar", "Xe"]}}, "species Xe of the potential is in no configuration of the"),
        ({"potential": {"species": ["Ar"], "terms": []}}, r"potential\.terms"),
        ({"potential": {**SPEC, "terms": [{"architecture": "moment_network", "cutoff": -1}]}}, r"cutoff.*got -1"),
        ({"weights": {"force": -1.0}}, r"weights\.force.*got -1"),
    ],
)
def test_refused(prepare: Any, dataset: DatasetData, changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prepare("pretrain", {"parameters": {"potential": SPEC, **changes}, "dataset": dataset})


def test_forces_that_were_allowed_to_be_missing(prepare: Any, dataset: DatasetData) -> None:
    frames = dataset.get_ase()
    for atoms in frames:
        del atoms.calc.results["forces"]
    without = DatasetData.from_ase(frames, keys=LabelKeys(missing_forces=True))
    for node, allowed in ((dataset, False), (without, True)):
        _, folder = prepare("pretrain", {"parameters": {"potential": SPEC}, "dataset": node})
        job = read_job(folder / "job.json", "pretrain")
        assert isinstance(job, PretrainJob)
        assert job.keys.missing_forces == allowed


def test_potential_of_other_species(prepare: Any, dataset: DatasetData, tmp_path: Path) -> None:
    krypton = PotentialData.from_file(potential_file(tmp_path / "kr.safetensors", ("Kr",)))
    with pytest.raises(ValueError, match="the dataset contains Ar, but the potential knows Kr only"):
        prepare("pretrain", {"parameters": orm.Dict({}), "dataset": dataset, "potential": krypton})


def test_dataset_is_what_the_engine_reads(dataset: DatasetData, tmp_path: Path) -> None:
    (tmp_path / "dataset.extxyz").write_text(dataset.get_content())
    assert len(ase.io.read(tmp_path / "dataset.extxyz", index=":")) == 3
