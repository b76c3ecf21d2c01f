"""Where the atoms of a trajectory are: how close they come to each other, how far they are from where they began."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from aiida_difftre.engine.contract.trajectories import Trajectory
from aiida_difftre.engine.contract.verdict import Arrangement

MOST_DISTANCES = 5_000_000
"""That are looked at: of a long trajectory snapshots at equal steps."""

CHUNK = 2_000_000
"""Distances at once."""


def arrangement(trajectory: Trajectory, start: Float[np.ndarray, "atoms 3"]) -> Arrangement:
    """Tell how close the atoms of a trajectory come, and how far from a structure they are.

    Args:
        trajectory: The trajectory.
        start: Fractional coordinates of the structure.

    Returns:
        The closest approaches and the displacement.

    Example:
        >>> import numpy as np
        >>> from aiida_difftre.engine.contract.trajectories import Trajectory
        >>> from aiida_difftre.engine.reweighting.arrangement import arrangement
        >>> places = np.array([[[0.0, 0.0, 0.0], [0.5, 0.0, 0.0]], [[0.0, 0.0, 0.0], [0.4, 0.0, 0.0]]], np.float32)
        >>> trajectory = Trajectory(
        ...     positions=places, cell=10.0 * np.eye(3), species=("Na", "Cl"), energies=np.zeros(2),
        ...     walkers=np.zeros(2, np.int32), times=np.array([0.0, 50.0]), temperatures=np.full(2, 90.0),
        ...     last_positions=np.zeros((1, 2, 3)), last_velocities=np.zeros((1, 2, 3)), temperature=90.0,
        ...     scales=np.ones(2), last_scales=np.ones(1),
        ... )
        >>> found = arrangement(trajectory, places[0])
        >>> {pair: round(distance, 4) for pair, distance in found.closest.items()}, round(found.displacement, 4)
        ({'Cl-Na': 4.0}, 0.5)
    """
    half = len(trajectory.positions) // 2
    moved = trajectory.positions[half:] - start
    moved = moved - moved.mean(axis=1, keepdims=True)  # the centre of mass may drift
    moved = (moved - np.round(moved)) @ trajectory.cell * trajectory.scales[half:, None, None]
    return Arrangement(
        closest=_closest(trajectory),
        displacement=float(np.sqrt(np.mean(np.sum(moved.astype(np.float64) ** 2, axis=-1)))),
        spacing=float((trajectory.volumes.mean() / len(trajectory.species)) ** (1 / 3)),
    )


def _closest(trajectory: Trajectory) -> dict[str, float]:
    """The closest approach of each pair of species, by nearest images, Å."""
    species = np.array(trajectory.species)
    first, second = np.triu_indices(len(species), 1)
    if not len(first):
        return {}
    wanted = max(1, MOST_DISTANCES // len(first))
    chosen = np.unique(np.linspace(0, len(trajectory.positions) - 1, wanted).round().astype(int))
    shortest = np.full(len(first), np.inf, np.float32)
    size = max(1, CHUNK // len(first))
    for begin in range(0, len(chosen), size):
        part = chosen[begin : begin + size]
        positions = trajectory.positions[part]
        apart = positions[:, first] - positions[:, second]
        apart = (apart - np.round(apart)) @ trajectory.cell.astype(np.float32)
        squares = np.sum(apart**2, axis=-1) * trajectory.scales[part, None].astype(np.float32) ** 2
        shortest = np.minimum(shortest, squares.min(axis=0))
    # Within half the thickness of the cell the nearest image is found by rounding, whatever the angles.
    reach = float(trajectory.scales.min()) / np.linalg.norm(np.linalg.inv(trajectory.cell), axis=0).max() / 2
    found = {}
    for pair in itertools.combinations_with_replacement(sorted(set(trajectory.species)), 2):
        among: NDArray[np.bool_] = _is_pair(species[first], species[second], pair)
        distance = float(np.sqrt(shortest[among].min(initial=np.inf)))
        if distance < reach:
            found["-".join(pair)] = distance
    return found


def _is_pair(one: NDArray[Any], other: NDArray[Any], pair: tuple[str, str]) -> NDArray[np.bool_]:
    a, b = pair
    return ((one == a) & (other == b)) | ((one == b) & (other == a))
