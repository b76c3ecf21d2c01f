"""TrajectoryEnsembleData: the engine's file and this node hold the same."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from aiida import orm
from aiida.common.exceptions import ValidationError

from aiida_difftre.data.trajectory import TrajectoryEnsembleData
from aiida_difftre.engine import files
from tests.fixtures.nodes import make_trajectory


def test_round_trip(tmp_path: Path) -> None:
    before = make_trajectory()
    files.write_trajectory(tmp_path / "trajectory.npz", before)
    node = orm.load_node(TrajectoryEnsembleData.from_file(tmp_path / "trajectory.npz").store().pk)
    assert node.species == ["Ar"]
    assert node.temperature == 85.0
    assert node.number_of_snapshots == 6
    assert node.base.attributes.get("number_of_walkers") == 2
    node.to_file(tmp_path / "copy.npz")
    after = files.read_trajectory(tmp_path / "copy.npz")
    assert after.species == before.species
    for name in files.TRAJECTORY_ARRAYS:
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))
        assert getattr(after, name).dtype == getattr(before, name).dtype


def test_ase(trajectory: TrajectoryEnsembleData) -> None:
    atoms = trajectory.get_ase(2)
    assert atoms.get_chemical_symbols() == ["Ar"] * 4
    expected = make_trajectory().positions[2] % 1
    np.testing.assert_allclose(atoms.get_scaled_positions() % 1, expected, atol=1e-6)


def test_masses(tmp_path: Path) -> None:
    plain = TrajectoryEnsembleData.from_trajectory(make_trajectory())
    assert plain.get_trajectory().masses is None
    before = dataclasses.replace(make_trajectory(), masses=np.full(4, 36.0))
    node = TrajectoryEnsembleData.from_trajectory(before).store()
    assert (node.get_ase().get_masses() == 36.0).all()
    node.to_file(tmp_path / "copy.npz")
    np.testing.assert_array_equal(files.read_trajectory(tmp_path / "copy.npz").masses, before.masses)


def test_trajectory_data(trajectory: TrajectoryEnsembleData) -> None:
    other = trajectory.to_trajectory_data(walker=1)
    assert other.numsteps == 3
    np.testing.assert_array_equal(other.get_stepids(), [1, 3, 5])
    np.testing.assert_allclose(other.get_times(), [0.0, 0.02, 0.04])
    other.store()


def test_cells_of_a_trajectory_at_constant_pressure(tmp_path: Path) -> None:
    scales = np.array([1.0, 1.1, 0.9, 1.0, 1.05, 0.95])
    before = dataclasses.replace(make_trajectory(), scales=scales, pressure=0.2)
    node = TrajectoryEnsembleData.from_trajectory(before).store()
    assert (node.pressure, node.base.attributes.get("ensemble")) == (0.2, "NPT")
    assert node.get_trajectory().pressure == 0.2
    np.testing.assert_allclose(node.get_ase(1).cell.array, 1.1 * before.cell)
    other = node.to_trajectory_data(walker=1)
    np.testing.assert_allclose(other.get_cells(), scales[[1, 3, 5], None, None] * before.cell)
    expected = before.positions[1].astype(float) @ before.cell * 1.1
    np.testing.assert_allclose(other.get_positions()[0], expected, rtol=1e-6)
    node.to_file(tmp_path / "copy.npz")
    np.testing.assert_allclose(files.read_trajectory(tmp_path / "copy.npz").volumes, before.volumes)


def test_a_file_without_scales_is_of_one_volume(tmp_path: Path) -> None:
    before = make_trajectory()
    arrays = {name: getattr(before, name) for name in files.TRAJECTORY_ARRAYS if name not in files.SCALES}
    np.savez(tmp_path / "old.npz", species=np.array(before.species), temperature=np.float64(85.0), **arrays)
    after = files.read_trajectory(tmp_path / "old.npz")
    assert after.pressure is None
    np.testing.assert_array_equal(after.scales, np.ones(6))
    np.testing.assert_array_equal(after.last_scales, np.ones(2))


def test_unknown_walker(trajectory: TrajectoryEnsembleData) -> None:
    with pytest.raises(ValueError, match="no walker 7 with snapshots; walkers are numbered from 0 to 1"):
        trajectory.to_trajectory_data(walker=7)


def test_corrupt_file(tmp_path: Path) -> None:
    (tmp_path / "trajectory.npz").write_bytes(b"PK broken")
    with pytest.raises(ValueError, match=r"trajectory\.npz is not a readable trajectory"):
        TrajectoryEnsembleData.from_file(tmp_path / "trajectory.npz")


def test_incomplete_node_is_not_stored() -> None:
    node = TrajectoryEnsembleData()
    node.set_array("positions", np.zeros((1, 1, 3)))
    with pytest.raises(ValidationError, match="lacks cell, energies"):
        node.store()
