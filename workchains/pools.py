"""Trajectories that a refinement remembers for its updates: by state point, the latest first, with what sampled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aiida import orm

from aiida_difftre.data.potential import PotentialData
from aiida_difftre.engine.contract.neighbours import is_neighbour, is_same_model, neighbour_name

GIVEN = ("potential", "trajectory", "remote")
"""What an update takes of a remembered trajectory."""


def remember(
    pool: Sequence[Mapping[str, Any]], name: str, potential: PotentialData, node: orm.WorkChainNode, *, most: int
) -> list[Mapping[str, Any]]:
    """The trajectories of a state point after a sampling.

    Args:
        pool: Those before it.
        name: Name of the sampling, by which results tell of its trajectory.
        potential: What was sampled.
        node: The restart chain that sampled.
        most: Number of earlier trajectories to keep.

    Returns:
        The new one, and the latest of the others.
    """
    latest = {
        "name": name,
        "potential": potential,
        "trajectory": node.outputs.trajectory,
        "remote": node.outputs.remote_folder,
        "chain": node,
    }
    return [latest, *pool][: 1 + most]


def left_out(of_runs: Mapping[str, Mapping[str, Any]], potential: PotentialData) -> str:
    """Which trajectories of earlier runs updates do not take, whatever they are; empty where there are none."""
    others = sorted(name for name, one in of_runs.items() if not is_same_model(one["potential"].spec, potential.spec))
    return f"{', '.join(others)} are of other species or another base, and left out of the pool" if others else ""


def trajectories(
    pools: Mapping[str, Sequence[Mapping[str, Any]]],
    label: str,
    potential: PotentialData,
    *,
    neighbours: bool,
    of_runs: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """Inputs of an update for one state point, but for its targets.

    Args:
        pools: Remembered trajectories of all state points.
        label: Label of the state point.
        potential: The potential that the update starts from.
        neighbours: Whether trajectories of other state points serve this one as well.
        of_runs: Trajectories of earlier runs there, by name; those with another base are left out.

    Returns:
        The newest trajectory, with its potential where that is an earlier one, and the others as ``earlier``.
    """
    newest, *earlier = pools[label]
    given = {key: newest[key] for key in GIVEN if key != "potential" or newest[key].uuid != potential.uuid}
    others = {one["name"]: one for one in earlier}
    if neighbours:
        others |= {
            neighbour_name(other, one["name"]): one
            for other, pool in pools.items()
            for one in pool
            if other != label and is_neighbour(one["trajectory"], newest["trajectory"])
        }
    others |= {name: one for name, one in of_runs.items() if is_same_model(one["potential"].spec, potential.spec)}
    if others:
        given["earlier"] = {name: {key: one[key] for key in GIVEN if key in one} for name, one in others.items()}
    return given
