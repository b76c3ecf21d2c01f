"""Parts of trajectories: which snapshots they keep, and that nothing takes them for the whole."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from aiida_difftre.engine.contract.base_arrays import BaseArrays
from aiida_difftre.engine.contract.files import digest
from aiida_difftre.engine.contract.parts import ordinal, part_of
from aiida_difftre.engine.contract.trajectories import read_trajectory, write_trajectory
from aiida_difftre.engine.errors import UnreadableFileError
from tests.fixtures.nodes import make_trajectory

DIGEST = "ab" * 32


@pytest.mark.parametrize("every", [2, 3, 5, 1000])
def test_each_walker_keeps_its_last_snapshot_and_those_before(every: int) -> None:
    """Of walkers that are mixed and of different lengths, with what belongs to a snapshot."""
    walkers = np.array([0, 1, 2, 0, 1, 0, 0, 1, 0, 1, 0], np.int32)
    count = len(walkers)
    whole = dataclasses.replace(
        make_trajectory(snapshots=count, walkers=3),
        walkers=walkers, times=np.arange(count) * 20.0, scales=1.0 + 0.01 * np.arange(count),
        reference_energies=np.arange(count) * 1.0, base=BaseArrays(DIGEST, np.zeros(count), np.zeros((count, 6))),
    )  # fmt: skip
    part = part_of(whole, every, DIGEST)
    expected = sorted(
        index for walker in range(3) for index in np.flatnonzero(walkers == walker)[::-1][::every].tolist()
    )
    for name in ("positions", "energies", "walkers", "times", "temperatures", "scales", "reference_energies"):
        np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[expected], err_msg=name)
    for name in ("last_positions", "last_velocities", "last_scales", "cell"):
        np.testing.assert_array_equal(getattr(part, name), getattr(whole, name), err_msg=name)
    assert (part.part.every, part.part.of, part.part.digest, part.base) == (every, count, DIGEST, None)


def test_a_part_is_read_where_one_will_do(tmp_path: Path) -> None:
    write_trajectory(tmp_path / "whole.npz", make_trajectory())
    whole = digest(tmp_path / "whole.npz")
    part = part_of(read_trajectory(tmp_path / "whole.npz"), 2, whole)
    write_trajectory(tmp_path / "part.npz", part)
    found = read_trajectory(tmp_path / "part.npz", may_be_part=True)
    assert found.part == part.part
    np.testing.assert_array_equal(found.positions, part.positions)
    message = f"it holds 4 of the 6 snapshots of a trajectory, every 2nd of each walker; give the whole .*{whole}"
    with pytest.raises(UnreadableFileError, match=message):
        read_trajectory(tmp_path / "part.npz")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("part_every", np.array(1), "part_every is 1"),
        ("part_of", np.array(3), "part_of is 3, and it has 4 snapshots"),
        ("part_digest", np.array("0" * 63), "part_digest is no SHA-256"),
        ("part_every", np.array("many"), "invalid literal"),
        ("part_of", None, "part_of"),
    ],
)
def test_parts_of_nothing(tmp_path: Path, name: str, value: np.ndarray | None, message: str) -> None:
    write_trajectory(tmp_path / "part.npz", part_of(make_trajectory(), 2, DIGEST))
    with np.load(tmp_path / "part.npz") as archive:
        arrays = {**archive, name: value}
    np.savez(tmp_path / "part.npz", **{key: array for key, array in arrays.items() if array is not None})
    with pytest.raises(UnreadableFileError, match=message):
        read_trajectory(tmp_path / "part.npz", may_be_part=True)


def test_ordinals() -> None:
    assert [ordinal(number) for number in (1, 2, 3, 4, 11, 12, 13, 21, 50, 111, 102)] == [
        "1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "50th", "111th", "102nd"
    ]  # fmt: skip
