"""What the jobs of the engine share: the job file, its checks, options, files to bring back, and exit codes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, NamedTuple

import ase.io
from aiida import orm
from aiida.common import datastructures
from aiida.common.folders import Folder
from aiida.engine import CalcJob, CalcJobProcessSpec, Process
from aiida.engine.processes.calcjobs.calcjob import validate_calc_job
from ase import Atoms

from aiida_difftre.calculations import ports
from aiida_difftre.calculations.checks import check_base, check_computer, check_scheduler
from aiida_difftre.calculations.played import StaysPlayedMixin
from aiida_difftre.calculations.scheduler import SchedulerStatus
from aiida_difftre.data import places
from aiida_difftre.data.base import BasePotentialData
from aiida_difftre.data.trajectory import TrajectoryEnsembleData
from aiida_difftre.engine.contract.bases import BaseSpec
from aiida_difftre.engine.contract.files import write_npz
from aiida_difftre.engine.contract.jobs import CHECKPOINT, ERROR, JOB, PROGRESS, RESULTS, Job
from aiida_difftre.engine.contract.known_bases import check_potential
from aiida_difftre.engine.contract.memory_events import MEMORY_EVENTS, RECORD
from aiida_difftre.engine.contract.validation import validate
from aiida_difftre.engine.contract.writing import write_json
from aiida_difftre.engine.errors import ExitStatus

MARGIN_FRACTION, LEAST_MARGIN_S, MARGIN_MOST_FRACTION = 0.05, 60.0, 0.5
"""Left of the scheduler's walltime by the engine: a part, no less than what starting and writing take, at most half."""

DEFAULT_WALLTIME_S = 12 * 3600

EXIT_MESSAGES: dict[ExitStatus | SchedulerStatus, str] = {
    ExitStatus.INVALID_INPUT: "The engine refuses its input: {message}",
    ExitStatus.CORRUPT_FILE: "An input file cannot be read: {message}",
    ExitStatus.WALLTIME: "Stopped before the walltime: {message}",
    ExitStatus.INTERRUPTED: "Interrupted: {message}",
    ExitStatus.NO_ACCELERATOR: "The job asks for an accelerator that JAX does not see: {message}",
    ExitStatus.SELF_CHECK_FAILED: "JAX computes wrong energies on this machine: {message}",
    ExitStatus.OUT_OF_MEMORY: "Out of memory: {message}",
    ExitStatus.DISK_FULL: "Disk full: {message}",
    ExitStatus.NOT_FINITE: "Not finite: {message}",
    ExitStatus.ATOMS_TOO_CLOSE: "Atoms too close: {message}",
    ExitStatus.TEMPERATURE_OUT_OF_BOUNDS: "Temperature out of bounds: {message}",
    ExitStatus.VOLUME_OUT_OF_BOUNDS: "Volume out of bounds: {message}",
    ExitStatus.TOO_FEW_EFFECTIVE_SAMPLES: "Too few effective samples: {message}",
}


SCHEDULER_MESSAGES: dict[ExitStatus | SchedulerStatus, str] = {
    SchedulerStatus.NODE_FAILURE: "The node of the job was lost: {message}",
    SchedulerStatus.PREEMPTED: "The scheduler took the job from its node: {message}",
    SchedulerStatus.CANCELLED_BY_OWNER: "The job was cancelled by its owner: {message}",
    SchedulerStatus.CANCELLED: "The job was cancelled, by whom is not known: {message}",
}


def engine_walltime(seconds: float) -> float:
    """When the engine stops itself, s after its start, so that it comes before the signal of the scheduler.

    Args:
        seconds: Walltime of the job, s.
    """
    margin = max(MARGIN_FRACTION * seconds, LEAST_MARGIN_S)
    return seconds - min(margin, MARGIN_MOST_FRACTION * seconds)


class LinkedTrajectory(NamedTuple):
    """A trajectory that a job takes.

    Args:
        name: Its file in the folder of the job.
        node: The trajectory.
        remote: The folder where it was made, which the user gave; None for none.
        ends: True where the state in which its walkers end is all that is needed.
    """

    name: str
    node: TrajectoryEnsembleData
    remote: orm.RemoteData | None
    ends: bool = False

    def place_on(self, computer: orm.Computer) -> places.Place | None:
        """Where its file should be on a computer; None for one that has to be sent there."""
        if self.takes_all:
            found = places.of(self.node, self.remote)
        else:
            found = [] if self.remote is None else [place for place in [places.folder_of(self.remote)] if place]
        return next((place for place in found if place.computer.uuid == computer.uuid), None)

    @property
    def takes_all(self) -> bool:
        """Whether it takes the whole, of which the repository keeps a part; without velocities also to go on from."""
        return self.node.is_part and not (self.ends and self.node.get_array("last_velocities").any())

    def refusal(self, computer: orm.Computer | None) -> str | None:
        """Why a job on a computer cannot have it; None where it can, or the computer is not known yet."""
        if computer is None or not self.takes_all or self.place_on(computer) is not None:
            return None
        return (
            f"{self.name} needs a whole trajectory, and {self.node.told_of_part()}, out of reach of a job on "
            f"{computer.label}: run the job where it is, or store the whole (`aiida-difftre trajectory fetch "
            f"{self.node.pk}`, then TrajectoryEnsembleData.from_file), or sample it again, and not from the cache"
        )


class EngineCalculation(StaysPlayedMixin, CalcJob):
    """A job of the engine; the subclasses say which."""

    JOB_MODEL: ClassVar[type[Job]]
    KIND: ClassVar[str]
    NEEDED: ClassVar[tuple[str, ...]]
    """Inputs without which a job cannot be checked as a whole (a work chain may supply them later)."""
    RETRIEVE: ClassVar[tuple[str, ...]] = ()
    RETRIEVE_TEMPORARY: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:  # type: ignore[override]
        """Ports, options and exit codes of every job."""
        super().define(spec)
        spec.inputs.validator = cls.validate_inputs  # type: ignore[assignment]
        ports.options(
            spec,
            parser=f"difftre.{cls.KIND}",
            walltime_s=DEFAULT_WALLTIME_S,
            input_filename=JOB,
            output_filename=RESULTS,
        )
        ports.base(spec)
        spec.output(
            "output_parameters",
            valid_type=orm.Dict,
            help="What results.json says but for predictions: versions, device, timings (s), statistics, history; for "
            "a job that failed, why.",
        )
        spec.default_output_node = "output_parameters"
        for status, message in (EXIT_MESSAGES | SCHEDULER_MESSAGES).items():
            # What the machine did to one run says nothing about the next one.
            invalidates_cache = status // 10 in (34, 35)
            spec.exit_code(status, f"ERROR_{status.name}", message, invalidates_cache=invalidates_cache)
        spec.exit_code(
            303, "ERROR_NO_RESULTS", "The job left neither results nor a reason: {message}", invalidates_cache=True
        )
        spec.exit_code(304, "ERROR_OUTPUT_MISSING", message="The job finished, but a file is missing: {message}")
        spec.exit_code(312, "ERROR_OUTPUT_UNREADABLE", message="An output file cannot be read: {message}")

    @classmethod
    def validate_inputs(cls, inputs: Mapping[str, Any], port: Any) -> str | None:
        """Check the inputs together; what a work chain supplies later is checked when it launches the job."""
        message = validate_calc_job(inputs, port) or check_scheduler(inputs, port) or check_computer(inputs)
        if message or any(inputs.get(name) is None for name in cls.NEEDED):
            return message
        code = inputs.get("code")
        computer = inputs.get("metadata", {}).get("computer") or (code.computer if code is not None else None)
        try:
            message = (
                check_base(inputs.get("base"), cls.base_of(inputs), computer)
                or (cls.check_reach(inputs, computer) if Process.current() is None else None)  # a chain ends by itself
                or cls.check(inputs)
            )
        except ValueError as error:
            return str(error)
        if message:
            return message
        try:
            cls.make_job(inputs)
        except ValueError as error:
            return str(error)
        return None

    @classmethod
    def check(cls, inputs: Mapping[str, Any]) -> str | None:
        """Checks of this kind of job that need several inputs."""
        return None

    @classmethod
    def trajectories(cls, inputs: Mapping[str, Any]) -> Iterator[LinkedTrajectory]:
        """The trajectories that a job takes."""
        yield from ()

    @classmethod
    def check_reach(cls, inputs: Mapping[str, Any], computer: orm.Computer | None) -> str | None:
        """Whole trajectories that stayed where they were made must be on the computer of the job."""
        return next((message for one in cls.trajectories(inputs) if (message := one.refusal(computer))), None)

    @classmethod
    def base_of(cls, inputs: Mapping[str, Any]) -> BaseSpec | None:
        """The base of the potential that goes in; None where it has none.

        Raises:
            ValueError: for a base that this version does not take.
        """
        potential = inputs.get("potential")
        return None if potential is None else check_potential(potential.spec).base

    @classmethod
    def content(cls, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of the job that input nodes fill."""
        raise NotImplementedError

    @classmethod
    def make_job(cls, inputs: Mapping[str, Any]) -> Job:
        """The job as the engine will read it.

        Raises:
            ValueError: naming each offending value.
        """
        parameters = inputs["parameters"].get_dict() if inputs.get("parameters") is not None else {}
        base = inputs.get("base")
        base_files = {} if base is None else {"base_files": base.job_files()}
        job = validate(cls.JOB_MODEL, {**parameters, **cls.content(inputs), **base_files})
        seconds = inputs.get("metadata", {}).get("options", {}).get("max_wallclock_seconds")
        if job.machine.walltime_s is None and seconds:
            job.machine.walltime_s = engine_walltime(seconds)
        return job

    def prepare_for_submission(self, folder: Folder) -> datastructures.CalcInfo:
        """Write the job file, and say which files go to the machine and which come back."""
        job = self.make_job(self.inputs)
        submission = Submission(folder, self.inputs.metadata.get("computer") or self.inputs.code.computer)
        self.add_files(submission)
        for one in self.trajectories(self.inputs):
            submission.trajectory(one)
        if "base" in self.inputs:
            submission.base(self.inputs.base)
        job.digests = submission.digests
        write_json(Path(folder.get_abs_path(JOB)), job.model_dump(mode="json"))
        code = datastructures.CodeInfo()
        code.code_uuid = self.inputs.code.uuid
        code.cmdline_params = [self.KIND, JOB]
        info = submission.info()
        info.codes_info = [code]
        info.retrieve_list = [RESULTS, ERROR, PROGRESS, MEMORY_EVENTS, *self.RETRIEVE]
        info.prepend_text = info.append_text = RECORD
        info.retrieve_temporary_list = [*self.brought_back(job)]
        return info

    @classmethod
    def brought_back(cls, job: Job) -> list[str]:
        """The files that come back to be parsed, and are not kept as files."""
        return list(cls.RETRIEVE_TEMPORARY)

    def add_files(self, submission: Submission) -> None:
        """Add the files that the job refers to, but for trajectories."""
        raise NotImplementedError


class Submission:
    """The files of one job: what is copied from nodes, written, or linked on the machine.

    Args:
        folder: sandbox whose content goes to the machine.
        computer: Computer on which the job will run.
    """

    def __init__(self, folder: Folder, computer: orm.Computer) -> None:
        self._folder = folder
        self._computer = computer
        self._copies: list[tuple[str, str, str]] = []
        self._remote_copies: list[tuple[str, str, str]] = []
        self._links: list[tuple[str, str, str]] = []
        self._excluded: list[str] = []
        self.digests: dict[str, str] = {}
        """SHA-256 of the files that are linked, by name: what lies on the machine may have changed since."""

    def info(self) -> datastructures.CalcInfo:
        """What was added, as the engine of AiiDA wants it."""
        info = datastructures.CalcInfo()
        info.local_copy_list = self._copies
        info.remote_copy_list = self._remote_copies
        info.remote_symlink_list = self._links
        info.provenance_exclude_list = self._excluded
        return info

    def copy(self, node: orm.SinglefileData, name: str) -> None:
        """Copy the file of a node; the job's own node keeps no second copy of it."""
        self._copies.append((node.uuid, node.filename, name))

    def base(self, node: BasePotentialData) -> None:
        """Copy the weights of a base that are in the repository; those on the machine are read where they are."""
        self._copies += [(node.uuid, name, name) for name in node.kept_files()]

    def structure(self, node: orm.StructureData, name: str) -> None:
        """Write a structure, with the masses of its kinds, as extended XYZ; it is not stored again with the job."""
        atoms = node.get_ase()
        bare = Atoms(atoms.symbols, atoms.positions, cell=atoms.cell, pbc=True, masses=atoms.get_masses())
        ase.io.write(self._folder.get_abs_path(name), bare)
        self._excluded.append(name)

    def trajectory(self, given: LinkedTrajectory) -> None:
        """Link to the trajectory where it lies on the same computer; else write it from the node's arrays.

        Raises:
            ValueError: for one of which the node has a part, where the whole is out of reach.
        """
        if (place := given.place_on(self._computer)) is not None:
            self._links.append((self._computer.uuid, place.path, given.name))
            if given.node.digest is not None:
                self.digests[given.name] = given.node.digest
            return
        if (message := given.refusal(self._computer)) is not None:
            raise ValueError(message)
        given.node.to_file(Path(self._folder.get_abs_path(given.name)), may_be_part=True)
        self._excluded.append(given.name)

    def arrays(self, node: orm.ArrayData, names: Sequence[str], name: str) -> None:
        """Write some arrays of a node as a file; they are not stored again with the job."""
        write_npz(Path(self._folder.get_abs_path(name)), {one: node.get_array(one) for one in names})
        self._excluded.append(name)

    def checkpoint(self, remote: orm.RemoteData) -> None:
        """Copy the checkpoint of a job that was stopped; a job that left none is simply begun again."""
        if self._is_here(remote):
            path = str(PurePosixPath(remote.get_remote_path(), CHECKPOINT))
            self._remote_copies.append((self._computer.uuid, path, CHECKPOINT))

    def _is_here(self, remote: orm.RemoteData) -> bool:
        return remote.computer is not None and remote.computer.uuid == self._computer.uuid
