"""Trajectories of which the repository keeps a part: their wholes have to stay, where those can read them who must."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiida import orm
from aiida.common.datastructures import StashMode

from aiida_difftre.calculations.engine import LinkedTrajectory
from aiida_difftre.engine.contract.jobs import TRAJECTORY
from aiida_difftre.engine.contract.parts import ordinal


def stash_options(folder: str) -> dict[str, Any]:
    """Options of a sampling job that copy its whole trajectory into a folder of the machine.

    Args:
        folder: Absolute path; each job gets a folder of its own below it.
    """
    return {"target_base": folder, "source_list": [TRAJECTORY], "stash_mode": StashMode.COPY.value}


def keep_every(sample: Mapping[str, Any]) -> int:
    """Every so many snapshots that are kept of a trajectory; 1 for all.

    Args:
        sample: Inputs of a restart chain of sampling.
    """
    parameters = sample["calc"].get("parameters")
    return 1 if parameters is None else int(parameters.get_dict().get("keep_every", 1))


def check_cleaning(sample: Mapping[str, Any], _: Any = None) -> str | None:
    """The whole trajectory must outlive the folder of its job.

    Args:
        sample: Inputs of a restart chain of sampling.

    Returns:
        A message, or None.
    """
    if "calc" not in sample or (every := keep_every(sample)) == 1:
        return None
    cleans = sample.get("clean_workdir")
    if cleans is None or not cleans.value or _is_stashed(sample):
        return None
    return (
        f"keep_every is {every}, and clean_workdir deletes the folders in which alone the whole trajectories are; give "
        "a folder to stash them (stash), or leave out one of the two"
    )


def _is_stashed(sample: Mapping[str, Any]) -> bool:
    """Whether the whole trajectory is copied to where nothing deletes it."""
    stash = sample["calc"].get("metadata", {}).get("options", {}).get("stash") or {}
    return stash.get("stash_mode") == StashMode.COPY.value and TRAJECTORY in (stash.get("source_list") or ())


def check_kept(sample: Mapping[str, Any], takers: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Jobs that average over the whole of a trajectory must run where it stays.

    Args:
        sample: Inputs of a restart chain of sampling.
        takers: Inputs of the restart chains of these jobs, by what they are.

    Returns:
        A message, or None.
    """
    if message := check_cleaning(sample):
        return message
    here = _computer(sample)
    if (every := keep_every(sample)) == 1 or here is None:
        return None
    for name, chain in takers.items():
        there = _computer(chain)
        if there is not None and there.uuid != here.uuid:
            return (
                f"keep_every is {every}: the whole trajectories, of which the repository would keep every "
                f"{ordinal(every)} snapshot, stay on {here.label}, and the {name} on {there.label} needs them; give it "
                f"a code on {here.label}, or leave out keep_every"
            )
    return None


def check_reach(state_points: Mapping[str, Any], sample: Mapping[str, Any], update: Mapping[str, Any]) -> str | None:
    """The wholes of trajectories that a refinement is given must be where its jobs run.

    Args:
        state_points: State points, with ``trajectory`` and ``earlier``.
        sample: Inputs of the restart chain of sampling, which takes the given trajectories.
        update: Inputs of the restart chain of updates, which takes the earlier ones.

    Returns:
        A message, or None.
    """
    for label, point in state_points.items():
        given = [("trajectory", point.get("trajectory"), sample)]
        given += [(f"earlier.{name}", one["trajectory"], update) for name, one in (point.get("earlier") or {}).items()]
        for name, trajectory, chain in given:
            if trajectory is not None:
                link = LinkedTrajectory(name, trajectory, None)
                if message := link.refusal(_computer(chain)):
                    return f"state point {label!r}: {message}"
    return None


def _computer(chain: Mapping[str, Any]) -> orm.Computer | None:
    """Where the jobs of a chain run; None where that is not known."""
    calc = chain.get("calc", {})
    code = calc.get("code")
    found: orm.Computer | None = calc.get("metadata", {}).get("computer") or getattr(code, "computer", None)
    return found
