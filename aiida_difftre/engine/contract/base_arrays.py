"""What a base potential gave on the snapshots of a trajectory: energies, stresses, Born terms. Free of JAX."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BASE_ARRAYS = ("base_digest", "base_energies", "base_stresses", "base_born", "base_born_stride")
"""Arrays of a trajectory of a potential with a base; the last two are there where Born terms are."""

BASE_LABEL_ARRAYS = ("base_digest", "base_energies", "base_forces", "base_stresses", "base_positions")
"""Arrays of predictions for configurations by a potential with a base."""


@dataclass(frozen=True)
class BaseArrays:
    """What a base potential gave on all snapshots of a trajectory, of the positions as they are stored.

    Updates and predictions by reweighting take these numbers and never evaluate the base.

    Args:
        digest: Digest of the base (:attr:`aiida_difftre.engine.contract.bases.BaseSpec.digest`).
        energies: Energy of each snapshot, (snapshots,), eV, float64.
        stresses: Stress dU/dε/V of each snapshot without its kinetic term, positive in tension, in Voigt order xx, yy,
            zz, yz, xz, xy, (snapshots, 6), GPa.
        born: Second derivatives d²U/dη²/V by the Lagrangian strain, (snapshots with Born terms, 6, 6), GPa; None where
            nothing asked for them.
        born_stride: Every so many snapshots have one, from the first on; 0 without Born terms.

    Example:
        >>> import numpy as np
        >>> from aiida_difftre.engine.contract.base_arrays import BaseArrays
        >>> base = BaseArrays("0" * 64, np.zeros(5), np.zeros((5, 6)), np.zeros((3, 6, 6)), 2)
        >>> base.born_for(4).shape
        (2, 6, 6)
    """

    digest: str
    energies: NDArray[np.float64]
    stresses: NDArray[np.float64]
    born: NDArray[np.float64] | None = None
    born_stride: int = 0

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> BaseArrays | None:
        """What named arrays hold of a base; None where they hold nothing of one.

        Args:
            arrays: Arrays by the names of ``BASE_ARRAYS``, among others.

        Returns:
            The arrays of the base.

        Raises:
            KeyError: For an array that is missing beside others.
        """
        if not any(name in arrays for name in BASE_ARRAYS):
            return None
        has_born = "base_born" in arrays
        return cls(
            str(arrays["base_digest"]),
            arrays["base_energies"],
            arrays["base_stresses"],
            arrays["base_born"] if has_born else None,
            int(arrays["base_born_stride"]) if has_born else 0,
        )

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays by name, as files hold them."""
        arrays: dict[str, NDArray[Any]] = {
            "base_digest": np.array(self.digest, np.str_),
            "base_energies": self.energies,
            "base_stresses": self.stresses,
        }
        if self.born is not None:
            arrays |= {"base_born": self.born, "base_born_stride": np.array(self.born_stride, np.int64)}
        return arrays

    def check(self, snapshots: int) -> None:
        """Refuse arrays that do not belong to so many snapshots, or numbers that are not finite.

        Raises:
            ValueError: naming the array.
        """
        shapes: dict[str, tuple[NDArray[np.float64], tuple[int, ...]]] = {
            "base_energies": (self.energies, (snapshots,)),
            "base_stresses": (self.stresses, (snapshots, 6)),
        }
        if self.born is not None:
            if self.born_stride < 1:
                raise ValueError(f"base_born_stride is {self.born_stride}")
            shapes["base_born"] = (self.born, (-(-snapshots // self.born_stride), 6, 6))
        for name, (array, shape) in shapes.items():
            if array.shape != shape:
                raise ValueError(f"{name} has the shape {array.shape} where {shape} is expected")
            if array.dtype.kind not in "fiu" or not np.isfinite(array).all():
                raise ValueError(f"{name} holds what is no finite number")

    def born_for(self, stride: int) -> NDArray[np.float64] | None:
        """Born terms of every ``stride``-th snapshot.

        Args:
            stride: Number of snapshots from one Born term to the next.

        Returns:
            Born terms, (snapshots with Born terms, 6, 6), GPa; None where the base was not evaluated for all of them.
        """
        if self.born is None or stride % self.born_stride:
            return None
        return self.born[:: stride // self.born_stride]
