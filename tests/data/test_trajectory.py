"""TrajectoryEnsembleData: the engine's file and this node hold the same."""

import dataclasses
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiida import orm
from aiida.common.exceptions import ValidationError

from aiida_difftre.data.trajectory import TrajectoryEnsembleData
from aiida_difftre.engine.contract import files
from aiida_difftre.engine.contract.trajectories import SCALES, TRAJECTORY_ARRAYS, read_trajectory, write_trajectory
from tests.fixtures.nodes import make_trajectory


def test_round_trip(tmp_path: Path) -> None:
    before = make_trajectory()
    write_trajectory(tmp_path / "trajectory.npz", before)
    node = orm.load_node(TrajectoryEnsembleData.from_file(tmp_path / "trajectory.npz").store().pk)
    assert node.species == ["Ar"]
    assert node.temperature == 85.0
    assert node.number_of_snapshots == 6
    assert node.base.attributes.get("number_of_walkers") == 2
    node.to_file(tmp_path / "copy.npz")
    after = read_trajectory(tmp_path / "copy.npz")
    assert after.species == before.species
    for name in TRAJECTORY_ARRAYS:
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))
        assert getattr(after, name).dtype == getattr(before, name).dtype
    assert node.digest == files.digest(tmp_path / "trajectory.npz") == files.digest(tmp_path / "copy.npz")
    assert TrajectoryEnsembleData.from_trajectory(before).digest is None


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
    np.testing.assert_array_equal(read_trajectory(tmp_path / "copy.npz").masses, before.masses)


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
    np.testing.assert_allclose(read_trajectory(tmp_path / "copy.npz").volumes, before.volumes)


def test_a_file_without_scales_is_of_one_volume(tmp_path: Path) -> None:
    before = make_trajectory()
    arrays = {name: getattr(before, name) for name in TRAJECTORY_ARRAYS if name not in SCALES}
    np.savez(tmp_path / "old.npz", species=np.array(before.species), temperature=np.float64(85.0), **arrays)
    after = read_trajectory(tmp_path / "old.npz")
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


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("positions", lambda x: x[:, :3], r"positions has the shape \(6, 3, 3\) where \(6, 4, 3\) is expected"),
        ("energies", lambda x: x * np.nan, "it was imported without energies"),
        ("walkers", lambda x: x.astype(str), "walkers holds what is no finite number"),
        ("cell", lambda x: 0 * x, "its cell has a volume of 0"),
        ("scales", lambda x: -x, "its cell has a volume of .*, and scales from -1"),
        ("temperature", lambda x: -x, "its temperature is -85 K"),
        ("last_velocities", lambda x: x[:1], "last_velocities has the shape"),
    ],
)
def test_arrays_that_are_no_trajectory(tmp_path: Path, name: str, change: Any, message: str) -> None:
    path = tmp_path / "trajectory.npz"
    write_trajectory(path, make_trajectory())
    with np.load(path) as archive:
        arrays = dict(archive)
    arrays[name] = change(arrays[name])
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=rf"trajectory\.npz is not a readable trajectory: {message}"):
        TrajectoryEnsembleData.from_file(path)


def test_header_that_asks_for_too_much_memory(tmp_path: Path) -> None:
    path = tmp_path / "trajectory.npz"
    write_trajectory(path, make_trajectory())
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000, 1000000, 3), }"
    array = b"\x93NUMPY\x01\x00" + (len(header) + 1).to_bytes(2, "little") + header + b"\n"
    with np.load(path) as archive:
        arrays = dict(archive)
    del arrays["positions"]
    np.savez(path, **arrays)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("positions.npy", array)
    with pytest.raises(
        ValueError, match=r"is not a readable trajectory: positions\.npy of shape .* needs 24000000000000088 bytes"
    ):
        TrajectoryEnsembleData.from_file(path)


def test_incomplete_node_is_not_stored() -> None:
    node = TrajectoryEnsembleData()
    node.set_array("positions", np.zeros((1, 1, 3)))
    with pytest.raises(ValidationError, match="lacks cell, energies"):
        node.store()
