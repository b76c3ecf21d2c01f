"""The folders of jobs on their machines, deleted where no later job needs them."""

from __future__ import annotations

from collections.abc import Iterable

from aiida import orm
from aiida.common import AiidaException


def clean(chains: Iterable[orm.ProcessNode]) -> int:
    """Delete the folders of all jobs of chains, over one connection to each machine.

    What is not reached stays: no result depends on it, and ``verdi calcjob cleanworkdir`` deletes it later.

    Args:
        chains: Restart chains that have ended.

    Returns:
        Number of the folders that were deleted.
    """
    folders: dict[str, list[orm.RemoteData]] = {}
    for chain in chains:
        for job in chain.called_descendants:
            if isinstance(job, orm.CalcJobNode) and "remote_folder" in job.outputs:
                folder = job.outputs.remote_folder
                if not folder.is_cleaned:
                    folders.setdefault(folder.computer.uuid, []).append(folder)
    deleted = 0
    for group in folders.values():
        try:
            with group[0].get_authinfo().get_transport() as transport:
                for folder in group:
                    folder._clean(transport)  # AiiDA has no public name for it
                    deleted += 1
        except (OSError, AiidaException):
            continue
    return deleted
