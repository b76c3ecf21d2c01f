"""Where the jobs of a run run: the section ``machines`` of an input."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from aiida_difftre.engine.contract.base import Strict
from aiida_difftre.engine.contract.bounds import Limits
from aiida_difftre.engine.contract.jobs import Machine
from aiida_difftre.engine.contract.parts import KeepEvery
from aiida_difftre.workchains.kept import stash_options

MaxJobs = Annotated[int, Limits(least=1, most=1000, reason="a job that never ends well should be noticed")]

MaxLost = Annotated[int, Limits(least=0, most=100, reason="what is lost so often has another cause")]


class JobMachine(Strict):
    """Where a kind of job runs.

    Args:
        code: label (``pw@localhost``), PK or UUID of the code; that of ``aiida-difftre setup`` by default.
        options: Options of the job: resources, max_wallclock_seconds, queue_name, account, custom_scheduler_commands,
            ...
        engine: how the engine uses the machine: platform, precision, threads, ...; not for DFT.
        max_jobs: Number of jobs that may follow each other until one ends well, after a walltime, a preemption or a
            failure that another try may cure; None takes that of the protocol.
        max_lost: how many of them may leave neither results nor a reason, as jobs on lost nodes do; None takes 3.
        on_cancelled: what follows when a job was cancelled past AiiDA (scancel, qdel, bkill): ``resubmit`` (the
            default), from its checkpoint; ``end_if_own``, the end of the run where the accounting of the scheduler says
            that the owner of the job did it; ``end``.
        clean_workdir: whether the folders of the jobs on the machine are deleted as soon as no later job needs them;
            None takes that of the protocol: those of DFT are, those of the engine are not.
        keep_every: of sampling: the repository keeps every so many snapshots of each walker, and the whole trajectory
            stays in the folder of its job, where later jobs read it; None keeps all in the repository.
        stash: of sampling: a folder of the machine (absolute path) to which the whole trajectories are copied, which
            later jobs read where the folder of a job is gone; None for none.
    """

    code: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    engine: Machine | None = None
    max_jobs: MaxJobs | None = None
    max_lost: MaxLost | None = None
    on_cancelled: Literal["resubmit", "end_if_own", "end"] | None = None
    clean_workdir: bool | None = None
    keep_every: KeepEvery | None = None
    stash: str | None = None

    @field_validator("stash")
    @classmethod
    def _absolute(cls, folder: str | None) -> str | None:
        if folder is not None and not PurePosixPath(folder).is_absolute():
            raise ValueError(f"{folder!r} is no absolute path of a folder of the machine, such as /archive/me/difftre")
        return folder

    @property
    def job_options(self) -> dict[str, Any]:
        """Options of the job, with what becomes of its trajectory."""
        return self.options | ({} if self.stash is None else {"stash": stash_options(self.stash)})

    def restarts(self) -> dict[str, Any]:
        """What is given of the inputs of a restart chain, by their names there."""
        given = {
            "max_iterations": self.max_jobs,
            "max_lost": self.max_lost,
            "on_cancelled": self.on_cancelled,
            "clean_workdir": self.clean_workdir,
        }
        return {name: value for name, value in given.items() if value is not None}


class Machines(Strict):
    """A machine for each kind of job."""

    dft: JobMachine = Field(default_factory=JobMachine)
    feff: JobMachine = Field(default_factory=JobMachine)
    pretraining: JobMachine = Field(default_factory=JobMachine)
    sampling: JobMachine = Field(default_factory=JobMachine)
    update: JobMachine = Field(default_factory=JobMachine)
    prediction: JobMachine = Field(default_factory=JobMachine)

    @model_validator(mode="after")
    def _engine(self) -> Machines:
        for name in ("dft", "feff"):
            if getattr(self, name).engine is not None:
                raise ValueError(f"machines.{name}.engine: {name.upper()} does not run in the engine; use options")
        for name in type(self).model_fields:
            given = [key for key in ("keep_every", "stash") if getattr(getattr(self, name), key) is not None]
            if given and name != "sampling":
                raise ValueError(
                    f"machines.{name}.{given[0]} is of trajectories, which jobs of sampling make; move it there"
                )
        sampling = self.sampling
        if sampling.stash is not None and "stash" in sampling.options:
            raise ValueError("machines.sampling has both stash and options.stash; give one of them")
        for name, known in (("dft", ("max_iterations", "clean_workdir")), ("feff", ())):
            if unknown := [key for key in getattr(self, name).restarts() if key not in known]:
                raise ValueError(
                    f"machines.{name}.{unknown[0].replace('max_iterations', 'max_jobs')}: {name.upper()} does not take "
                    "it; jobs of the engine do"
                )
        return self
