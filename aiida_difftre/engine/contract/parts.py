"""A part of a trajectory, which is kept where the whole is too large: every so many snapshots of each walker.

Walkers go on from it as from the whole, for it has the state in which they end. Weights, effective samples and errors
of a part would be others than those of the whole, so that whoever needs these refuses it. Free of JAX.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray

from aiida_difftre.engine.contract.bounds import Limits

if TYPE_CHECKING:
    from aiida_difftre.engine.contract.trajectories import Trajectory

KeepEvery = Annotated[int, Limits(least=1, most=1_000_000, reason="1 keeps all, and no trajectory has more snapshots")]

PART_ARRAYS = ("part_every", "part_of", "part_digest")
"""Arrays that only a part has."""

_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Part:
    """Of what some snapshots are a part.

    Args:
        every: Every so many snapshots of each walker are there, the last one among them.
        of: Number of snapshots of the whole trajectory.
        digest: SHA-256 of its file.

    Example:
        >>> from aiida_difftre.engine.contract.parts import Part
        >>> Part(every=50, of=1000, digest="0" * 64).refusal(20)[:64]
        'it holds 20 of the 1000 snapshots of a trajectory, every 50th of'
    """

    every: int
    of: int
    digest: str

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> Part | None:
        """What named arrays say of a whole trajectory; None where they are one.

        Args:
            arrays: Arrays by the names of ``PART_ARRAYS``, among others.

        Returns:
            Of what they are a part.

        Raises:
            KeyError: For an array that is missing beside others.
        """
        if not any(name in arrays for name in PART_ARRAYS):
            return None
        every, of, digest = (arrays[name] for name in PART_ARRAYS)
        return cls(int(every), int(of), str(digest))

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays by name, as files hold them."""
        values = (np.array(self.every, np.int64), np.array(self.of, np.int64), np.array(self.digest, np.str_))
        return dict(zip(PART_ARRAYS, values, strict=True))

    def check(self, snapshots: int) -> None:
        """Refuse numbers that do not belong to a part of so many snapshots.

        Raises:
            ValueError: naming the array.
        """
        if self.every < 2:
            raise ValueError(f"part_every is {self.every}")
        if self.of < snapshots:
            raise ValueError(f"part_of is {self.of}, and it has {snapshots} snapshots")
        if not _SHA256.fullmatch(self.digest):
            raise ValueError("part_digest is no SHA-256")

    def refusal(self, snapshots: int) -> str:
        """Why a part is no trajectory to average over, and what is.

        Args:
            snapshots: Number of snapshots of the part.

        Returns:
            A sentence.
        """
        return (
            f"it holds {snapshots} of the {self.of} snapshots of a trajectory, every {ordinal(self.every)} of each "
            f"walker; give the whole trajectory.npz (SHA-256 {self.digest}), which is in the folder of its job"
        )


def ordinal(number: int) -> str:
    """A number as one counts: 1st, 2nd, 3rd, 11th, 50th."""
    last = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{'th' if number % 100 in (11, 12, 13) else last}"


def part_of(trajectory: Trajectory, every: int, digest: str) -> Trajectory:
    """The part of a trajectory that is kept: every so many snapshots of each walker, back from its last one.

    Args:
        trajectory: The whole trajectory.
        every: Every so many are kept; of a walker with fewer, the last one.
        digest: SHA-256 of the file of the whole.

    Returns:
        The part, with the state in which the walkers end, and without what a base gave, which averages alone need.

    Example:
        >>> import numpy as np
        >>> from aiida_difftre.engine.contract.parts import part_of
        >>> from aiida_difftre.engine.contract.trajectories import Trajectory
        >>> arrays = {
        ...     "positions": np.zeros((5, 1, 3), np.float32), "cell": 4.0 * np.eye(3), "energies": np.zeros(5),
        ...     "walkers": np.zeros(5, np.int32), "times": 50.0 * np.arange(5), "temperatures": np.full(5, 90.0),
        ...     "last_positions": np.zeros((1, 1, 3)), "last_velocities": np.zeros((1, 1, 3)),
        ... }
        >>> argon = Trajectory.from_arrays(arrays, species=("Ar",), temperature=90.0, pressure=None)
        >>> part_of(argon, 2, "0" * 64).times.tolist()
        [0.0, 100.0, 200.0]
    """
    order = np.argsort(trajectory.walkers, kind="stable")
    ends = np.cumsum(np.bincount(trajectory.walkers))
    before_last = ends[trajectory.walkers[order]] - 1 - np.arange(len(order))
    kept = np.sort(order[before_last % every == 0])
    names = ("positions", "energies", "walkers", "times", "temperatures", "scales")
    changes: dict[str, Any] = {name: getattr(trajectory, name)[kept] for name in names}
    if trajectory.reference_energies is not None:
        changes["reference_energies"] = trajectory.reference_energies[kept]
    return replace(trajectory, base=None, part=Part(every, len(trajectory.energies), digest), **changes)
