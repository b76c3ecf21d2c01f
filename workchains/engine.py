"""What the restart chains of the engine's jobs share: ports, handlers of failures, builders from protocols."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiida import orm
from aiida.common import AttributeDict
from aiida.engine import (
    BaseRestartWorkChain,
    ExitCode,
    ProcessBuilder,
    ProcessHandlerReport,
    process_handler,
    while_,
)
from aiida.engine.processes.workchains.workchain import WorkChainSpec

from aiida_difftre.calculations.engine import EngineCalculation
from aiida_difftre.calculations.scheduler import SchedulerStatus
from aiida_difftre.data import places
from aiida_difftre.engine.contract.jobs import Machine
from aiida_difftre.engine.errors import ExitStatus, shown
from aiida_difftre.workchains.builders import ProtocolMixin, load_code, refuse_unknown
from aiida_difftre.workchains.facts import IndexedMixin
from aiida_difftre.workchains.once import SubmitOnceMixin
from aiida_difftre.workchains.protocols import deep_merge
from aiida_difftre.workchains.scratch import CleansMixin

FIRST_ENGINE_STATUS = 303
"""Exit statuses below this one are AiiDA's own."""

SCHEDULER_OUT_OF_MEMORY, SCHEDULER_OUT_OF_WALLTIME, SCHEDULER_NODE_FAILURE = 110, 120, 140
"""Exit statuses that AiiDA gives from what the scheduler says."""

TAKEN_AWAY: set[int] = {ExitStatus.INTERRUPTED, SCHEDULER_NODE_FAILURE, *SchedulerStatus}
"""Stopped by what need not happen to the next job, which may have all of its time."""

STOPPED = {*TAKEN_AWAY, ExitStatus.WALLTIME, SCHEDULER_OUT_OF_WALLTIME}
OUT_OF_MEMORY = {ExitStatus.OUT_OF_MEMORY, SCHEDULER_OUT_OF_MEMORY}
UNSTABLE = {
    ExitStatus.NOT_FINITE,
    ExitStatus.ATOMS_TOO_CLOSE,
    ExitStatus.TEMPERATURE_OUT_OF_BOUNDS,
    ExitStatus.VOLUME_OUT_OF_BOUNDS,
}
LOST_FILES = {ExitStatus.INVALID_INPUT, ExitStatus.CORRUPT_FILE}
LOST_OUTPUTS = {303, 304, 312}
"""No results and no reason, a file that is missing, or one that is damaged: what a machine does to a job."""

ENDS_WHEN_CANCELLED: dict[str, set[int]] = {
    "resubmit": set(),
    "end_if_own": {SchedulerStatus.CANCELLED_BY_OWNER},
    "end": {SchedulerStatus.CANCELLED_BY_OWNER, SchedulerStatus.CANCELLED},
}
"""Statuses of cancelled jobs that end a chain, by what its input chooses."""

MAX_LOST = 3

OWN_OPTIONS = ("parser_name", "input_filename", "output_filename", "stash")
"""Options that each kind of job sets by itself, or that are of its files."""

MEMORY = (("machine", "batch_size"), ("machine", "snapshot_cache_mib"), ("sampling", "walkers"))
"""The parameters that decide how much memory a job takes, and which handlers lower."""


def _check_max_lost(node: orm.Int, _: Any) -> str | None:
    return None if 0 <= node.value <= 100 else f"max_lost = {node.value} must be at least 0 and at most 100"


def _check_on_cancelled(node: orm.Str, _: Any) -> str | None:
    if node.value in ENDS_WHEN_CANCELLED:
        return None
    return f"on_cancelled = {shown(node.value)} must be one of {', '.join(ENDS_WHEN_CANCELLED)}"


def without_remotes(nodes: Mapping[str, Any]) -> tuple[dict[str, Any], list[orm.RemoteData]]:
    """Inputs without the folders called ``remote``, at any depth, and these folders.

    The one that alone has the whole of its trajectory stays.
    """
    kept, folders = {}, []
    is_needed = places.is_needed(nodes.get("remote"), nodes.get("trajectory"))
    for name, value in nodes.items():
        if isinstance(value, Mapping):
            kept[name], inner = without_remotes(value)
            folders += inner
        elif name == "remote" and not is_needed:
            folders.append(value)
        else:
            kept[name] = value
    return kept, folders


def options_of_another(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a job for one of another kind: without what each kind sets by itself, such as its parser."""
    return {name: given for name, given in options.items() if name not in OWN_OPTIONS}


def lowered_for_memory(chain: orm.ProcessNode) -> dict[str, Any]:
    """What the handlers of a restart chain lowered until its job fitted into memory.

    Args:
        chain: that ended well.

    Returns:
        Parameters to merge into those of the next job of the kind; empty where nothing was lowered.
    """
    jobs = sorted((job for job in chain.called if isinstance(job, orm.CalcJobNode)), key=lambda job: job.pk or 0)
    if not jobs:
        return {}
    first, last = (job.inputs.parameters.get_dict() for job in (jobs[0], jobs[-1]))
    lowered: dict[str, Any] = {}
    for section, name in MEMORY:
        if last.get(section, {}).get(name) != first.get(section, {}).get(name):
            lowered.setdefault(section, {})[name] = last[section][name]
    return lowered


class EngineBaseWorkChain(ProtocolMixin, IndexedMixin, SubmitOnceMixin, CleansMixin, BaseRestartWorkChain):
    """Run a job of the engine, and again with other inputs where that helps.

    A failure that no handler can cure ends the chain with the exit status and the message of the job.
    """

    @classmethod
    def define(cls, spec: WorkChainSpec) -> None:  # type: ignore[override]
        """Inputs and outputs of the job, the loop, and the exit codes of the job."""
        super().define(spec)
        job = cls.job_class()
        spec.expose_inputs(job, namespace="calc", namespace_options={"help": "Of each job."})
        spec.input(
            "max_lost",
            valid_type=orm.Int,
            default=lambda: orm.Int(MAX_LOST),
            serializer=orm.to_aiida_type,
            validator=_check_max_lost,
            help="How often a job is tried again that left neither whole results nor a reason: its node may be lost.",
        )
        spec.input(
            "on_cancelled",
            valid_type=orm.Str,
            default=lambda: orm.Str("resubmit"),
            serializer=orm.to_aiida_type,
            validator=_check_on_cancelled,
            help="What follows when a job was cancelled past AiiDA, as with scancel: resubmit (it goes on from its "
            "checkpoint); end_if_own (the chain ends where the accounting says that the owner of the job did it); end.",
        )
        spec.expose_outputs(job)
        spec.outline(cls.setup, while_(cls.should_run_process)(cls.run_process, cls.inspect_process), cls.results)
        for label, exit_code in job.exit_codes.items():
            if exit_code.status >= FIRST_ENGINE_STATUS:
                spec.exit_code(exit_code.status, label, message=exit_code.message)

    @classmethod
    def job_class(cls) -> type[EngineCalculation]:
        """The calculation job that the chain runs."""
        if cls._process_class is None or not issubclass(cls._process_class, EngineCalculation):
            raise TypeError(f"{cls.__name__} names no job of the engine")
        return cls._process_class

    def setup(self) -> ExitCode | None:  # type: ignore[override] # a step of an outline may end the chain
        """Take the inputs of the first job from those of the chain; end where it cannot have a trajectory."""
        super().setup()
        inputs = self.ctx.inputs = AttributeDict(self.exposed_inputs(self.job_class(), namespace="calc"))
        computer = inputs.metadata.get("computer") or inputs.code.computer
        if message := self.job_class().check_reach(inputs, computer):
            return ExitCode(ExitStatus.CORRUPT_FILE, message)
        return None

    def change_parameters(self, changes: Mapping[str, Any]) -> None:
        """Merge changes into the parameters of the next job."""
        self.ctx.inputs.parameters = orm.Dict(deep_merge(self.ctx.inputs.parameters.get_dict(), changes))

    def less_memory(self) -> dict[str, Any] | None:
        """Changes of the parameters that need less memory; None where there is nothing left to halve.

        What the engine itself chose depends on the system and is not known here, so that a batch of one is all that is
        sure to be smaller.
        """
        machine = self.ctx.inputs.parameters.get_dict().get("machine", {})
        size, usual = machine.get("batch_size", 0), Machine().snapshot_cache_mib
        changes = {} if size == 1 else {"batch_size": size // 2 or 1}
        if machine.get("snapshot_cache_mib", usual) > usual:
            changes["snapshot_cache_mib"] = usual
        return {"machine": changes} if changes else None

    @property
    def has_checkpoints(self) -> bool:
        """Whether the job can continue from the folder of one that was stopped."""
        return "parent_folder" in self.job_class().spec().inputs

    def drop_links(self) -> bool:
        """Do without files on the machine that may be lost; whether there were any."""
        inputs = self.ctx.inputs
        names = ["parent_folder", "start_folder"]
        names += [] if places.is_needed(inputs.get("remote"), inputs.get("trajectory")) else ["remote"]
        dropped = [inputs.pop(name, None) for name in names]
        if points := inputs.get("state_points"):
            inputs.state_points, folders = without_remotes(points)
            dropped += folders
        return any(node is not None for node in dropped)

    def cured(self, node: orm.CalcJobNode, what: str) -> ProcessHandlerReport:
        """Report a cure; the job runs again."""
        self.report(f"{node.process_label}<{node.pk}> failed: {node.exit_message}; {what}")
        return ProcessHandlerReport(do_break=True)

    @process_handler(priority=600)
    def handle_lost_files(self, node: orm.CalcJobNode) -> ProcessHandlerReport | None:
        """A link or checkpoint on the machine may be gone or damaged: once more with files from the repository."""
        if node.exit_status not in LOST_FILES:
            return None
        if self.drop_links():
            return self.cured(node, "running again without files that were left on the machine")
        lost = [
            one.node.told_of_part()
            for one in self.job_class().trajectories(self.ctx.inputs)
            if one.takes_all and one.name in (node.exit_message or "")
        ]
        if not lost:
            return None
        remedy = "put back what is missing there, or sample it again, and not from the cache"
        message = f"{node.exit_message}; {'; '.join(lost)}: {remedy}"
        self.report(f"{node.process_label}<{node.pk}> failed for good: {message}")
        return ProcessHandlerReport(do_break=True, exit_code=ExitCode(node.exit_status, message))

    @process_handler(priority=550)
    def handle_cancelled(self, node: orm.CalcJobNode) -> ProcessHandlerReport | None:
        """Cancelled past AiiDA: the end, where the input says so."""
        if node.exit_status not in ENDS_WHEN_CANCELLED[self.inputs.on_cancelled.value]:
            return None
        self.report(f"{node.process_label}<{node.pk}>: {node.exit_message}; on_cancelled says that this is the end")
        return ProcessHandlerReport(do_break=True, exit_code=ExitCode(node.exit_status, node.exit_message))

    @process_handler(priority=500)
    def handle_stopped(self, node: orm.CalcJobNode) -> ProcessHandlerReport | None:
        """Walltime, or taken away: continue from the checkpoint, or begin again where that can help."""
        if node.exit_status not in STOPPED:
            return None
        if self.has_checkpoints and "remote_folder" in node.outputs:
            self.ctx.inputs.parent_folder = node.outputs.remote_folder
            return self.cured(node, "continuing from its checkpoint")
        if node.exit_status in TAKEN_AWAY:
            return self.cured(node, "running again")
        return None

    @process_handler(priority=450)
    def handle_lost_outputs(self, node: orm.CalcJobNode) -> ProcessHandlerReport | None:
        """Killed, or files damaged before they were retrieved: the same again, from the checkpoint if it left one.

        A kill without any evidence of memory is no reason to change how much a job does at once: that would change what
        the run finds.
        """
        lost, allowed = self.ctx.get("lost", 0), self.inputs.max_lost.value
        if node.exit_status not in LOST_OUTPUTS or lost >= allowed:
            return None
        self.ctx.lost = lost + 1
        if self.has_checkpoints and "remote_folder" in node.outputs:
            self.ctx.inputs.parent_folder = node.outputs.remote_folder
        return self.cured(node, f"running the same job again ({lost + 1} of at most {allowed} times)")

    @process_handler(priority=400)
    def handle_out_of_memory(self, node: orm.CalcJobNode) -> ProcessHandlerReport | None:
        """Out of memory: halve what is held at once."""
        changes = self.less_memory() if node.exit_status in OUT_OF_MEMORY else None
        if changes is None:
            return None
        self.change_parameters(changes)
        self.ctx.inputs.pop("parent_folder", None)  # its checkpoint is of another size
        return self.cured(node, f"running again with {changes}")

    @process_handler(priority=0)
    def handle_unrecoverable(self, node: orm.CalcJobNode) -> ProcessHandlerReport | None:
        """What nothing above cures: end with the job's own status and message, unless the user asks otherwise."""
        if not node.is_failed or node.exit_status is None or "on_unhandled_failure" in self.inputs:
            return None
        self.report(f"{node.process_label}<{node.pk}> failed for good: {node.exit_message}")
        return ProcessHandlerReport(do_break=True, exit_code=ExitCode(node.exit_status, node.exit_message))

    @classmethod
    def make_builder(
        cls,
        *,
        code: orm.AbstractCode | str,
        calc: Mapping[str, Any],
        parameters: Mapping[str, Any],
        protocol: str | None,
        overrides: Mapping[str, Any] | None,
        options: Mapping[str, Any] | None,
    ) -> ProcessBuilder:
        """A builder with the inputs of a preset.

        Args:
            code: the engine on a machine, or its label.
            calc: input nodes of the job; None values are left out.
            parameters: merged into those of the preset.
            protocol: quick (the default), cpu or paper.
            overrides: merged into all of the above, in the nesting of the chain's inputs.
            options: Options of the job (``metadata.options``), merged into those of the preset.

        Returns:
            The builder.

        Raises:
            ValueError: for a code that there is not, and for inputs that the chain does not have.
        """
        given = {"calc": {"parameters": parameters, "metadata": {"options": options or {}}}}
        inputs = deep_merge(cls.get_protocol_inputs(protocol, given), overrides or {})
        job = inputs.pop("calc")
        builder: Any = cls.get_builder()
        builder.calc.code = load_code(code)
        builder.calc.parameters = orm.Dict(job.pop("parameters"))
        metadata = job.pop("metadata")
        ports: Any = cls.spec().inputs
        refuse_unknown(inputs, ports, f"overrides of {cls.CHAIN}")
        refuse_unknown(job, ports["calc"], f"overrides of {cls.CHAIN}.calc")
        refuse_unknown(metadata, ports["calc"]["metadata"], f"overrides of {cls.CHAIN}.calc.metadata")
        options_port = ports["calc"]["metadata"]["options"]
        refuse_unknown(metadata["options"], options_port, f"options of {cls.CHAIN}")
        for name, value in metadata.pop("options").items():
            builder.calc.metadata.options[name] = value
        for name, value in metadata.items():
            builder.calc.metadata[name] = value
        for name, value in {**calc, **job}.items():
            if value is not None:
                builder.calc[name] = value
        for name, value in inputs.items():
            builder[name] = orm.to_aiida_type(value)
        return builder
