"""PotentialData: what it tells, and what it refuses."""

import io
from pathlib import Path

import numpy as np
import pytest
from aiida import orm

from aiida_difftre.calculations.checks import check_species
from aiida_difftre.data.potential import PotentialData
from aiida_difftre.engine.contract import files
from aiida_difftre.engine.contract.jobs import PotentialSpec
from tests.fixtures.nodes import potential_file


def test_round_trip_and_attributes(tmp_path: Path) -> None:
    path = potential_file(tmp_path / "mine.safetensors", ("Ar", "Kr"))
    node = PotentialData.from_file(path, label="mine").store()
    loaded = orm.load_node(node.pk)
    assert loaded.filename == "potential.safetensors"
    assert loaded.species == ["Ar", "Kr"]
    assert loaded.cutoff == 8.0
    assert loaded.digest == files.digest(path)
    assert loaded.base.attributes.get("architecture") == "lennard_jones"
    assert loaded.base.attributes.get("number_of_parameters") == 8
    assert loaded.spec == files.read_potential(path)[0]
    loaded.to_file(tmp_path / "copy.safetensors")
    assert (tmp_path / "copy.safetensors").read_bytes() == path.read_bytes()
    np.testing.assert_array_equal(
        loaded.get_parameters()["terms/0_lennard_jones/sigma"],
        files.read_potential(path)[1]["terms/0_lennard_jones/sigma"],
    )
    found = orm.QueryBuilder().append(PotentialData, filters={"attributes.digest": loaded.digest}).all(flat=True)
    assert [one.pk for one in found] == [node.pk]


def test_stream(tmp_path: Path) -> None:
    content = potential_file(tmp_path / "p.safetensors").read_bytes()
    assert PotentialData(io.BytesIO(content)).species == ["Ar"]


def test_corrupt_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.safetensors"
    path.write_bytes(potential_file(tmp_path / "whole.safetensors").read_bytes()[:-5])
    with pytest.raises(ValueError, match=r"broken\.safetensors.*not a readable safetensors file"):
        PotentialData.from_file(path)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no potential file .*absent\.safetensors"):
        PotentialData.from_file(tmp_path / "absent.safetensors")


def test_other_safetensors_file(tmp_path: Path) -> None:
    files.write_arrays(tmp_path / "checkpoint.safetensors", {"x": np.zeros(2)})
    with pytest.raises(ValueError, match="is no potential"):
        PotentialData.from_file(tmp_path / "checkpoint.safetensors")


def test_parameters_must_be_finite(tmp_path: Path) -> None:
    path = potential_file(tmp_path / "p.safetensors")
    spec, parameters = files.read_potential(path)
    assert isinstance(spec, PotentialSpec)
    files.write_potential(path, spec, {**parameters, "terms/0_lennard_jones/sigma": np.array([np.nan])})
    with pytest.raises(ValueError, match=r"'terms/0_lennard_jones/sigma'.*not finite"):
        PotentialData.from_file(path)


def test_empty_node_is_not_stored() -> None:
    with pytest.raises(Exception, match="expected exactly one repository file"):
        PotentialData().store()


def test_a_stored_potential_is_read_whatever_later_bounds_say(potential: PotentialData) -> None:
    spec = potential.base.attributes.get("spec")
    spec["terms"][0]["cutoff"] = 1e3
    potential.base.attributes.set("spec", spec)
    loaded = orm.load_node(potential.store().pk)
    assert loaded.spec.terms[0].cutoff == 1e3
    message = check_species(loaded, ["Ar"], "the structure")
    assert message is not None
    assert "is of an earlier version: terms.0.cutoff: must be above 0 and at most 20" in message
