"""The folders of jobs on their machines, deleted where no later job needs them."""

from __future__ import annotations

from collections.abc import Iterable

from aiida import orm
from aiida.engine import BaseRestartWorkChain

from aiida_difftre.data import places


def clean(chains: Iterable[orm.ProcessNode]) -> int:
    """Delete the folders of all jobs of chains, over one connection to each machine.

    What is not reached stays: no result depends on it, and ``verdi calcjob cleanworkdir`` deletes it later. So does a
    folder that alone has the whole of a trajectory, as of a job that was taken from the cache and had no stash.

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
                trajectory = job.outputs.trajectory if "trajectory" in job.outputs else None
                if not folder.is_cleaned and not places.is_nowhere_else(trajectory):
                    folders.setdefault(folder.computer.uuid, []).append(folder)
    deleted = 0
    for group in folders.values():
        try:
            with group[0].get_authinfo().get_transport() as transport:
                for folder in group:
                    folder._clean(transport)  # AiiDA has no public name for it
                    deleted += 1
        except Exception:  # each plug-in for transport has its own
            continue
    return deleted


class CleansMixin:
    """A restart chain that deletes the folders of its jobs where ``clean_workdir`` says so, as :func:`clean` does.

    It stands before AiiDA's restart chain, which would delete all of them.
    """

    def on_terminated(self) -> None:
        """Delete the folders of the jobs, where the input says so."""
        super(BaseRestartWorkChain, self).on_terminated()  # type: ignore[misc] # of the chain, past AiiDA's deletion
        if self.inputs.clean_workdir.value:  # type: ignore[attr-defined]
            self.report(f"deleted the folders of {clean([self.node])} jobs")  # type: ignore[attr-defined]
