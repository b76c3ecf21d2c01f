"""DatasetData: labels survive the file, sources and kinds are kept, bad frames are named."""

from pathlib import Path

import ase.io
import numpy as np
import pytest
from aiida import orm
from aiida.common.exceptions import ValidationError
from ase import Atoms

from aiida_difftre.data.dataset import DatasetData
from tests.fixtures.nodes import argon, labelled_frames


def test_round_trip() -> None:
    frames = labelled_frames()
    node = orm.load_node(DatasetData.from_ase(frames).store().pk)
    assert len(node) == node.base.attributes.get("number_of_configurations") == 3
    assert node.species == ["Ar"]
    assert node.labelled
    assert node.base.attributes.get("has_stress")
    assert node.base.attributes.get("kinds") == {"rattled": 3}
    assert node.base.attributes.get("sources") == [atoms.info["source"] for atoms in frames]
    for before, after in zip(frames, node.get_ase(), strict=True):
        assert after.get_potential_energy() == pytest.approx(before.get_potential_energy(), abs=1e-8)
        np.testing.assert_allclose(after.get_forces(), before.get_forces(), atol=1e-8)
        np.testing.assert_allclose(after.get_stress(), before.get_stress(), atol=1e-8)
        np.testing.assert_allclose(after.positions, before.positions, atol=1e-7)
        assert after.info["source"] == before.info["source"]


def test_without_labels() -> None:
    node = DatasetData.from_ase([argon(1)])
    assert not node.labelled
    assert node.base.attributes.get("kinds") == {"given": 1}
    assert node.base.attributes.get("sources") == [None]


def test_from_file(tmp_path: Path) -> None:
    ase.io.write(tmp_path / "set.extxyz", labelled_frames(2))
    assert len(DatasetData.from_file(tmp_path / "set.extxyz")) == 2


def test_unreadable_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.extxyz").write_text("two\natoms")
    with pytest.raises(ValueError, match=r"cannot use .*bad\.extxyz"):
        DatasetData.from_file(tmp_path / "bad.extxyz")


def test_partly_labelled() -> None:
    with pytest.raises(ValueError, match=r"configurations \[3\] carry no energy"):
        DatasetData.from_ase([*labelled_frames(), argon(1)])


def test_empty() -> None:
    with pytest.raises(ValueError, match="at least one"):
        DatasetData.from_ase([])


def test_not_finite() -> None:
    frames = labelled_frames(2)
    frames[1].calc.results["energy"] = np.nan
    with pytest.raises(ValueError, match="configuration 1: its energy is not finite"):
        DatasetData.from_ase(frames)


def test_unknown_kind() -> None:
    frames = labelled_frames(1)
    frames[0].info["kind"] = "shaken"
    with pytest.raises(ValueError, match="of kind 'shaken'; known kinds: equilibrium"):
        DatasetData.from_ase(frames)


def test_molecule_without_a_box() -> None:
    with pytest.raises(ValueError, match="volume 0"):
        DatasetData.from_ase([Atoms("Ar")])


def test_empty_node_is_not_stored() -> None:
    with pytest.raises(ValidationError):
        DatasetData().store()
