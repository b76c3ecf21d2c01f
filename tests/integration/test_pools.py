"""Updates that take trajectories of other state points, and those of an earlier run, as an input file asks for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from aiida import orm
from aiida.engine import run_get_node

from aiida_difftre.workchains.from_input import read_builder
from aiida_difftre.workchains.refine import RefineWorkChain
from tests.fixtures.chains import explain
from tests.fixtures.nodes import target_content

pytestmark = pytest.mark.slow

PLACES = {"cold": 85.0, "warm": 88.0}
"""Temperatures, K, so near that trajectories of the one serve the other."""


def jobs(run: orm.WorkChainNode, kind: str) -> list[orm.CalcJobNode]:
    """Of a kind, the earliest first."""
    return sorted((job for job in run.called_descendants if job.process_label == kind), key=lambda job: job.pk)


def check_pool(update: orm.CalcJobNode, label: str, expected: Mapping[str, tuple[Any, Any]]) -> None:
    """Which trajectories an update took besides the newest one, by their links and by what it tells of them.

    Args:
        update: The update.
        label: Label of the state point.
        expected: Trajectory and potential by name.
    """
    point = update.inputs.state_points[label]
    assert {
        name: (one["trajectory"].uuid, one["potential"].uuid) for name, one in point["earlier"].items()
    } == {name: tuple(node.uuid for node in nodes) for name, nodes in expected.items()}  # fmt: skip
    told = update.outputs.output_parameters["state_points"][label]
    assert {one["label"]: one["is_used"] for one in told["pool"]} == dict.fromkeys(expected, True)
    taken = [point["trajectory"], *(trajectory for trajectory, _ in expected.values())]
    assert told["snapshots"] == sum(trajectory.number_of_snapshots for trajectory in taken)


def test_trajectories_of_neighbours_and_of_an_earlier_run(argon_input: Any) -> None:
    def change(content: dict[str, Any]) -> None:
        cell = content["state_points"]["solid"]
        content["state_points"] = {
            label: {
                **cell, "temperature": temperature,
                "targets": {"pressure": target_content(
                    values=[-0.05], errors=[0.05], conditions={"temperature": temperature}
                )},
            }
            for label, temperature in PLACES.items()
        }  # fmt: skip
        for sampling in (content["sampling"], content["validation"]["sampling"]):
            sampling["production_fs"] = 400.0
        content["refinement"]["settings"] |= {"max_iterations": 1, "pool_neighbours": True}
        content["refinement"]["update"]["max_steps"] = 1

    _, first = run_get_node(read_builder(argon_input(change), RefineWorkChain))
    assert first.is_finished_ok, explain(first)
    (update,) = jobs(first, "UpdateCalculation")
    sampled = {
        label: [
            link.node.outputs.trajectory
            for link in sorted(
                first.base.links.get_outgoing(node_class=orm.WorkChainNode).all(), key=lambda one: one.link_label
            )
            if link.link_label.startswith("sample") and link.link_label.endswith(label)
        ]
        for label in PLACES
    }
    assert [len(trajectories) for trajectories in sampled.values()] == [2, 2]
    start = first.inputs.potential
    for label, other in (("cold", "warm"), ("warm", "cold")):
        check_pool(update, label, {f"neighbour_{other}_sampling000": (sampled[other][0], start)})

    def again(content: dict[str, Any]) -> None:
        change(content)
        content["seed"] = 4
        del content["state_points"]["warm"]
        content["refinement"]["settings"]["pool_neighbours"] = False
        content["refinement"]["pool"] = {"runs": [str(first.pk)]}

    _, second = run_get_node(read_builder(argon_input(again)))
    assert second.is_finished_ok, explain(second)
    (update,) = jobs(second, "UpdateCalculation")
    # Those at its own temperature alone, of four.
    potentials = (start, jobs(first, "UpdateCalculation")[0].outputs.potential)
    names = (f"run{first.pk}_{number:04d}" for number in range(2))
    check_pool(update, "cold", dict(zip(names, zip(sampled["cold"], potentials, strict=True), strict=True)))
    newest = update.inputs.state_points["cold"]["trajectory"]
    assert newest.uuid not in {one.uuid for one in sampled["cold"]}
    assert newest.creator in second.called_descendants
