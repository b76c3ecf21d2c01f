"""Base potentials: what is named, what is refused where an input is read, and what does not change without one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aiida_difftre.engine.contract import known_bases
from aiida_difftre.engine.contract.base_arrays import BaseArrays
from aiida_difftre.engine.contract.bases import BaseSpec
from aiida_difftre.engine.contract.jobs import PretrainJob
from aiida_difftre.engine.contract.settings import PotentialSpec
from aiida_difftre.engine.contract.trajectories import read_trajectory, write_trajectory
from aiida_difftre.engine.contract.validation import validate
from aiida_difftre.engine.errors import UnreadableFileError
from tests.fixtures.nodes import make_trajectory

ZEROS = "0" * 64
TERM = {"architecture": "pair_spline", "cutoff": 4.0}
WEIGHTS = {"model": {"path": "/models/mace.model", "sha256": ZEROS}}


def potential(base: dict[str, Any], *species: str) -> dict[str, Any]:
    return {"species": list(species or ("Cu",)), "terms": [TERM], "base": base}


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ({"name": "chgnt"}, r"unknown base 'chgnt'; known: chgnet, emt, .*installed here"),
        ({"name": "os.system"}, r"unknown base 'os.system'"),
        ({"engine": "jax", "name": "emt"}, r"base 'emt' is not evaluated by 'jax'; give engine: ase"),
        ({"name": "emt", "arguments": {"sigma": 1}}, r"base 'emt' has no setting 'sigma'; it takes: none"),
        ({"name": "chgnet"}, r"weights in the package chgnet: give its version, such as 0\.4\.2"),
        ({"name": "emt", "version": "1"}, r"base 'emt' has no weights in a package; leave out version = '1'"),
        ({"name": "mace"}, r"base 'mace' needs the file 'model'.*give it"),
        ({"name": "mace", "files": {**WEIGHTS, "head": WEIGHTS["model"]}}, r"has no file 'head'; it takes: model"),
        ({"name": "mace", "files": {"model": {"path": "../x", "sha256": ZEROS}}}, r"without '\.\.'"),
        ({"name": "mace", "files": {"model": {"path": "models/x", "sha256": ZEROS}}}, r"is a relative path"),
        ({"name": "mace", "files": {"model": {"path": "x", "sha256": "0"}}}, r"sha256"),
        ({"name": "emt", "arguments": {"a": float("nan")}}, r"finite"),
        (
            {"engine": "jax", "name": "lennard_jones", "arguments": {"cutoff": 5}},
            r"epsilon is missing",
        ),
        ({"engine": "jax", "name": "stillinger_weber", "arguments": {"cutoff": 50}}, r"cutoff = 50 must be .* 20 Å"),
    ],
)
def test_a_bad_base_is_refused_where_an_input_is_read(base: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        validate(PretrainJob, {"potential": potential({"engine": "ase", **base})})


def test_a_base_is_refused_for_species_that_it_does_not_know() -> None:
    emt = {"engine": "ase", "name": "emt"}
    validate(PretrainJob, {"potential": potential(emt, "Cu", "Au")})
    with pytest.raises(ValueError, match=r"base 'emt' does not know Si, Xe; it is for Al, Cu"):
        validate(PretrainJob, {"potential": potential(emt, "Si", "Cu", "Xe")})


def test_packages_are_asked_for_in_the_version_whose_weights_are_meant() -> None:
    with pytest.raises(ValueError, match=r"needs the package nequip, .*: pip install nequip"):
        known_bases.check_installed(known_bases.known("ase", "nequip").spec())
    known_bases.check_installed(BaseSpec(engine="ase", name="emt"))


def test_the_digest_tells_models_apart_and_not_where_they_lie() -> None:
    spec = BaseSpec.model_validate({"engine": "ase", "name": "mace", "files": WEIGHTS})
    assert spec.at({"model": "mace.model"}).digest == spec.digest
    assert spec.at({"model": "mace.model"}).files["model"].path == "mace.model"
    others = [
        {"name": "uma"},
        {"engine": "torch_sim"},
        {"arguments": {"head": "a"}},
        {"files": {"model": {"path": "/models/mace.model", "sha256": "1" * 64}}},
    ]
    digests = {BaseSpec.model_validate({**spec.model_dump(), **other}).digest for other in others}
    assert len(digests | {spec.digest}) == 5
    with pytest.raises(ValueError, match="has no file 'weights'; its files: model"):
        spec.at({"weights": "x"})


def test_a_potential_without_a_base_is_written_as_before() -> None:
    spec = validate(PotentialSpec, {"species": ["Cu"], "terms": [TERM]})
    assert "base" not in spec.model_dump()
    assert "base" not in spec.model_dump_json()
    with_base = validate(PotentialSpec, potential({"engine": "ase", "name": "emt"}))
    assert validate(PotentialSpec, with_base.model_dump(mode="json")) == with_base


def test_a_trajectory_keeps_what_the_base_gave(tmp_path: Path) -> None:
    plain = make_trajectory()
    count, path = len(plain.energies), tmp_path / "trajectory.npz"
    base = BaseArrays(ZEROS, np.arange(count) / 7, np.ones((count, 6)), np.ones((-(-count // 2), 6, 6)), 2)
    write_trajectory(path, replace(plain, base=base))
    found = read_trajectory(path).base
    assert found is not None
    assert found.digest == ZEROS
    assert found.born is not None
    np.testing.assert_array_equal(found.energies, base.energies)
    assert found.born_for(3) is None
    assert len(found.born_for(4)) == -(-count // 4)  # type: ignore[arg-type]  # there are some

    for damaged, message in (
        (replace(base, energies=base.energies[1:]), "base_energies has the shape"),
        (replace(base, stresses=np.full((count, 6), np.nan)), "base_stresses holds what is no finite number"),
        (replace(base, born_stride=1), "base_born has the shape"),
    ):
        write_trajectory(path, replace(plain, base=damaged))
        with pytest.raises(UnreadableFileError, match=message):
            read_trajectory(path)
