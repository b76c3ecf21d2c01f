"""DatasetData: labels survive the file, sources and kinds are kept, bad frames are named."""

from pathlib import Path

import ase.io
import numpy as np
import pytest
from aiida import orm
from aiida.common.exceptions import ValidationError
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from aiida_difftre.data.dataset import DatasetData
from aiida_difftre.engine.contract.label_names import LabelKeys
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
    with pytest.raises(ValueError, match="configuration 3 has no energy; label or drop it"):
        DatasetData.from_ase([*labelled_frames(), argon(1)])


def test_empty() -> None:
    with pytest.raises(ValueError, match="at least one"):
        DatasetData.from_ase([])


def test_not_finite() -> None:
    frames = labelled_frames(2)
    frames[1].calc.results["energy"] = np.nan
    with pytest.raises(ValueError, match="configuration 1: its energy is nan, which is not finite"):
        DatasetData.from_ase(frames)


@pytest.mark.parametrize("kind", ["md", "bulk", 3, True])
@pytest.mark.parametrize("source", ["VASP 6.4", "https://example.org", 5])
def test_what_others_mean_by_kind_and_source(kind: object, source: object) -> None:
    frames = labelled_frames(2)
    frames[1].info.update(kind=kind, source=source)
    node = DatasetData.from_ase(frames)
    assert node.base.attributes.get("kinds") == {"rattled": 1, "given": 1}
    assert node.base.attributes.get("sources") == [frames[0].info["source"], None]


def test_molecule_without_a_box() -> None:
    pair = Atoms("Ar2", [[0, 0, 0], [0, 0, 3.8]])
    pair.calc = SinglePointCalculator(pair, energy=-0.01, forces=np.zeros((2, 3)))
    node = DatasetData.from_ase([*labelled_frames(1), pair])
    assert [atoms.pbc.any() for atoms in node.get_ase()] == [True, False]
    assert not node.base.attributes.get("has_stress")


@pytest.mark.parametrize("box", [None, [15.0, 15.0, 15.0]])
def test_atoms_alone_are_reference_energies(box: list[float] | None) -> None:
    atom = Atoms("Ar", cell=box, pbc=box is not None)
    atom.calc = SinglePointCalculator(atom, energy=-0.25)
    node = orm.load_node(DatasetData.from_ase([*labelled_frames(2), atom]).store().pk)
    assert node.references == {"Ar": -0.25}
    assert node.base.attributes.get("kinds") == {"rattled": 2, "isolated": 1}
    assert node.base.attributes.get("has_stress")
    assert node.description == (
        "energies from energy; forces from forces in 2 frames; stresses from stress in 2 frames; "
        "reference energies of Ar from atoms alone"
    )


def test_names_and_frames_of_a_file(tmp_path: Path) -> None:
    frames = labelled_frames(5)
    for number, atoms in enumerate(frames):
        atoms.info["REF_energy"] = -1.0 - number
        atoms.info["REF_virial"] = -atoms.get_volume() * atoms.get_stress(voigt=False)
        atoms.arrays["REF_forces"] = 2 * atoms.get_forces()
        atoms.calc = None
    ase.io.write(tmp_path / "set.extxyz", frames)
    node = DatasetData.from_file(tmp_path / "set.extxyz@1::2")
    assert node.base.attributes.get("origins") == {
        "energy": {"REF_energy": 2}, "forces": {"REF_forces": 2}, "virial": {"REF_virial": 2}
    }  # fmt: skip
    read = node.get_ase()
    assert [atoms.get_potential_energy() for atoms in read] == [-2.0, -4.0]
    np.testing.assert_allclose(read[0].get_forces(), 0.02)
    np.testing.assert_allclose(read[0].get_stress(), 1e-3, atol=1e-8)
    chosen = DatasetData.from_file(tmp_path / "set.extxyz", keys=LabelKeys(forces="none", virial="none"))
    assert chosen.labelled
    assert chosen.job_keys == {"missing_forces": True, "trust_stress": True}
    assert chosen.base.attributes.get("origins") == {"energy": {"REF_energy": 5}}


def test_empty_node_is_not_stored() -> None:
    with pytest.raises(ValidationError):
        DatasetData().store()
