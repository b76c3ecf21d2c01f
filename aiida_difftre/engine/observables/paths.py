"""The paths of walkers, of which properties of the dynamics are taken, and the error of their mean."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, t

from aiida_difftre.engine.contract.trajectories import Trajectory

ONE_SIGMA: Final = norm.cdf(1.0)


@dataclass(frozen=True)
class Paths:
    """The walkers of a trajectory at constant volume, each followed in the order of time.

    Args:
        trajectory: The trajectory.
    """

    trajectory: Trajectory

    @property
    def walkers(self) -> int:
        """Number of walkers."""
        return int(self.trajectory.walkers.max()) + 1

    @property
    def times(self) -> NDArray[np.float64]:
        """Times of the snapshots of the first walker, (snapshots,), fs."""
        return self.trajectory.times[self.trajectory.walkers == 0]

    @property
    def stride(self) -> float:
        """Time between two snapshots, fs; infinite for a single one."""
        return float(np.min(np.diff(self.times))) if len(self.times) > 1 else math.inf

    @property
    def are_regular(self) -> bool:
        """Whether there are several walkers, all with snapshots at the same times, which are equally far apart."""
        counts = np.bincount(self.trajectory.walkers)
        return (
            self.walkers > 1
            and bool((counts == counts[0]).all())
            and all(
                np.allclose(np.diff(self.trajectory.times[self.trajectory.walkers == walker]), self.stride, rtol=1e-6)
                for walker in range(self.walkers)
            )
        )

    def positions(self) -> Iterator[NDArray[np.float64]]:
        """Unwrapped Cartesian positions of one walker after the other, (snapshots, atoms, 3), Å."""
        for walker in range(self.walkers):
            chosen = self.trajectory.walkers == walker
            yield self.trajectory.positions[chosen].astype(np.float64) @ self.trajectory.cell


def atoms_of(species: str | None, symbols: tuple[str, ...]) -> NDArray[np.intp]:
    """Indices of the atoms of a species; of all for None."""
    return np.flatnonzero([species in (None, symbol) for symbol in symbols])


def squared_error_of_mean(values: NDArray[np.float64]) -> float:
    """Squared standard error of the mean of independent values, widened as their number asks for (Student)."""
    factor = float(t.ppf(ONE_SIGMA, len(values) - 1))
    return factor**2 * float(np.var(values, ddof=1)) / len(values)
