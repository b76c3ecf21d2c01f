"""TrajectoryEnsembleData: the engine's file and this node hold the same."""

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


def test_trajectory_data(trajectory: TrajectoryEnsembleData) -> None:
    other = trajectory.to_trajectory_data(walker=1)
    assert other.numsteps == 3
    np.testing.assert_array_equal(other.get_stepids(), [1, 3, 5])
    np.testing.assert_allclose(other.get_times(), [0.0, 0.02, 0.04])
    other.store()


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
