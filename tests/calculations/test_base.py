"""The base of a potential as an input of every job: its files reach the job, and another one is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiida import orm

from aiida_difftre.data.base import BasePotentialData
from aiida_difftre.data.potential import PotentialData
from aiida_difftre.engine.contract.bases import BaseSpec
from aiida_difftre.engine.contract.files import write_potential
from aiida_difftre.engine.contract.kinds import read_job
from aiida_difftre.engine.contract.settings import PotentialSpec
from tests.fixtures.nodes import argon, potential_file


@pytest.fixture
def base(tmp_path: Path) -> BasePotentialData:
    path = potential_file(tmp_path / "base.safetensors")
    return BasePotentialData.from_name("potential", files={"potential": path})


def correction(path: Path, base: BaseSpec | None) -> PotentialData:
    terms = [{"architecture": "lennard_jones", "cutoff": 6.0, "hyperparameters": {"epsilon": 1e-4, "sigma": 3.4}}]
    parameters = {
        "atomic_energies": np.zeros(1),
        "terms/0_lennard_jones/epsilon": np.array([1e-4]),
        "terms/0_lennard_jones/sigma": np.array([3.4]),
    }
    write_potential(path, PotentialSpec(species=["Ar"], terms=terms, base=base), parameters)
    return PotentialData.from_file(path)


@pytest.fixture
def inputs(tmp_path: Path, base: BasePotentialData) -> dict[str, Any]:
    return {
        "parameters": orm.Dict({"temperature": 85.0}),
        "potential": correction(tmp_path / "correction.safetensors", base.spec).store(),
        "structure": orm.StructureData(ase=argon()),
        "base": base.store(),
    }


def test_the_files_of_a_base_go_with_the_job(prepare: Any, inputs: dict[str, Any]) -> None:
    info, folder = prepare("sample", inputs)
    base = inputs["base"]
    assert read_job(folder / "job.json", "sample").base_files == {"potential": "base_potential"}
    assert (base.uuid, "base_potential", "base_potential") in info.local_copy_list
    described = inputs["potential"].base.attributes.get("base")
    assert described == {"model": "potential", "version": None, "digest": base.digest}


def test_weights_that_stay_on_the_computer_are_read_there(
    prepare: Any, inputs: dict[str, Any], aiida_localhost: orm.Computer, aiida_computer_local: Any
) -> None:
    sha256 = inputs["base"].spec.files["potential"].sha256
    given = {"files": {"potential": "/data/base"}, "digests": {"potential": sha256}}
    there = BasePotentialData.from_name("potential", computer=aiida_localhost, **given)
    info, folder = prepare("sample", {**inputs, "base": there})
    assert read_job(folder / "job.json", "sample").base_files == {"potential": "/data/base"}
    assert len(info.local_copy_list) == 1
    elsewhere = BasePotentialData.from_name("potential", computer=aiida_computer_local(label="other"), **given)
    with pytest.raises(ValueError, match=r"files of the base are on 'other', and the job is to run on 'localhost'"):
        prepare("sample", {**inputs, "base": elsewhere})


def test_another_base_and_a_missing_one_are_refused(prepare: Any, inputs: dict[str, Any], tmp_path: Path) -> None:
    for changes, message in (
        ({"base": BasePotentialData.from_name("emt")}, "base is 'emt' with the digest .* correction to 'potential'"),
        ({"base": None}, r"correction to 'potential', whose weights \(potential\) are missing; give base"),
        (
            {"potential": correction(tmp_path / "alone.safetensors", None)},
            "base is 'potential', but the potential has no base; leave it out",
        ),
        (
            {"potential": correction(tmp_path / "emt.safetensors", BaseSpec(engine="ase", name="emt"))},
            "base 'emt' does not know Ar; it is for Al, Cu",
        ),
        ({"parameters": orm.Dict({"temperature": 85.0, "base_files": {"potential": "/x"}})}, "base_files"),
    ):
        given = {name: node for name, node in {**inputs, **changes}.items() if node is not None}
        with pytest.raises(ValueError, match=message):
            prepare("sample", given)
