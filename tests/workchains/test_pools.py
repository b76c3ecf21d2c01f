"""What an update is given of the trajectories that a refinement remembers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from aiida_difftre.data.trajectory import TrajectoryEnsembleData
from aiida_difftre.engine.contract.settings import PotentialSpec, TermSpec
from aiida_difftre.engine.contract.trajectories import Trajectory
from aiida_difftre.workchains import pools

TERM = TermSpec(architecture="lennard_jones", cutoff=5.0)


def trajectory(temperature: float, size: float = 10.0) -> TrajectoryEnsembleData:
    arrays = {
        "positions": np.zeros((2, 1, 3), np.float32), "cell": size * np.eye(3), "energies": np.zeros(2),
        "walkers": np.zeros(2, np.int32), "times": np.arange(2.0), "temperatures": np.full(2, temperature),
        "last_positions": np.zeros((1, 1, 3)), "last_velocities": np.zeros((1, 1, 3)),
    }  # fmt: skip
    made = Trajectory.from_arrays(arrays, species=("Ar",), temperature=temperature, pressure=None)
    return TrajectoryEnsembleData.from_trajectory(made)


def remembered(pool: list[Any], number: int, potential: Any, node: TrajectoryEnsembleData, most: int = 1) -> list[Any]:
    chain = SimpleNamespace(outputs=SimpleNamespace(trajectory=node, remote_folder=f"folder{number}"))
    return pools.remember(pool, f"sampling{number:03d}", potential, chain, most=most)


def test_own_trajectories_and_those_of_neighbours(aiida_profile: Any) -> None:
    first, second = (SimpleNamespace(uuid=name) for name in ("first", "second"))
    cold, warm, warmer, large = trajectory(80.0), trajectory(90.0), trajectory(90.0), trajectory(80.0, 11.0)
    held = {
        "cold": remembered([], 0, first, cold),
        "warm": remembered(remembered([], 0, first, warm), 1, second, warmer),
        "large": remembered([], 0, first, large),
    }
    alone = pools.trajectories(held, "cold", second, neighbours=False, of_runs={})
    assert alone == {"trajectory": cold, "remote": "folder0", "potential": first}
    found = pools.trajectories(held, "cold", second, neighbours=True, of_runs={})
    assert {name: one["trajectory"] for name, one in found["earlier"].items()} == {
        "neighbour_warm_sampling001": warmer, "neighbour_warm_sampling000": warm,
    }  # fmt: skip
    newest = pools.trajectories(held, "warm", second, neighbours=False, of_runs={})
    assert "potential" not in newest
    assert newest["earlier"] == {"sampling000": {"trajectory": warm, "remote": "folder0", "potential": first}}
    # The names, from the last one on, are in the order of a pool.
    both = pools.trajectories(held, "warm", second, neighbours=True, of_runs={})["earlier"]
    assert sorted(both, reverse=True) == ["sampling000", "neighbour_cold_sampling000"]
    # Of an earlier run, where its potential is of the same form.
    alike, unlike = (SimpleNamespace(spec=PotentialSpec(species=[name], terms=[TERM])) for name in ("Ar", "Kr"))
    of_runs = {"run7_0000": {"potential": alike, "trajectory": cold}, "run7_0001": {"potential": unlike}}
    present = SimpleNamespace(uuid="second", spec=alike.spec)
    given = pools.trajectories(held, "cold", present, neighbours=False, of_runs=of_runs)
    assert pools.left_out(of_runs, present).startswith("run7_0001 are of other species")
    assert given["earlier"] == {"run7_0000": {"potential": alike, "trajectory": cold}}
    assert [one["name"] for one in remembered(held["warm"], 2, second, warm)] == ["sampling002", "sampling001"]
