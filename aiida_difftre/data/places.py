"""Where the whole of a trajectory lies of which the repository keeps a part: the folder of its job, or its stash."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any, NamedTuple

from aiida import orm

from aiida_difftre.engine.contract.jobs import TRAJECTORY


class Place(NamedTuple):
    """A file on a computer.

    Args:
        computer: The computer.
        path: Absolute path of the file.
    """

    computer: orm.Computer
    path: str


def stash_of(trajectory: orm.Data) -> Place | None:
    """Where the job of a trajectory put its file for good; None where it was not told to.

    Args:
        trajectory: Output of a sampling job.
    """
    stash = _output(trajectory, "remote_stash")
    if (
        not isinstance(stash, orm.RemoteStashFolderData)
        or stash.computer is None
        or TRAJECTORY not in stash.source_list
    ):
        return None
    return Place(stash.computer, str(PurePosixPath(stash.target_basepath, TRAJECTORY)))


def folder_of(remote: orm.RemoteData) -> Place | None:
    """The trajectory in the folder of a job; None where the folder was deleted.

    Args:
        remote: The folder.
    """
    if remote.is_cleaned or remote.computer is None:
        return None
    return Place(remote.computer, str(PurePosixPath(remote.get_remote_path(), TRAJECTORY)))


def of(trajectory: orm.Data, remote: orm.RemoteData | None = None) -> list[Place]:
    """The places where the file of a trajectory should be, the best first.

    Args:
        trajectory: The trajectory.
        remote: The folder that a user names; None for none.
    """
    own = _output(trajectory, "remote_folder")
    folder = folder_of(own) if isinstance(own, orm.RemoteData) else None
    found: list[Place] = []
    for place in (None if remote is None else folder_of(remote), stash_of(trajectory), folder):
        if place is not None and place not in found:
            found.append(place)
    return found


def is_nowhere_else(trajectory: Any) -> bool:
    """Whether the whole of a trajectory is in the folder of its job alone: not in the repository, and not stashed.

    Args:
        trajectory: The trajectory; None for none.
    """
    return trajectory is not None and trajectory.is_part and stash_of(trajectory) is None


def is_needed(folder: orm.RemoteData | None, trajectory: Any) -> bool:
    """Whether the whole of a trajectory is in a folder alone, as far as is known: that of its job, or a named one.

    Args:
        folder: The folder; None for none.
        trajectory: The trajectory; None for none.
    """
    if folder is None or not is_nowhere_else(trajectory):
        return False
    others = of(trajectory)
    return not others or folder_of(folder) in others


def told(trajectory: orm.Data) -> str:
    """Where the file of a trajectory should be, in words."""
    found = [f"{place.path} on {place.computer.label}" for place in of(trajectory)]
    own = _output(trajectory, "remote_folder")
    if not found and isinstance(own, orm.RemoteData):
        return f"gone: {own.get_remote_path()} was deleted"
    return " or ".join(found) or "unknown: its job is not in this profile"


def _output(trajectory: orm.Data, name: str) -> orm.Node | None:
    """An output of the job that made a trajectory."""
    job = trajectory.creator
    link = None if job is None else job.base.links.get_outgoing(link_label_filter=name).first()
    return None if link is None else link.node
