"""Restart chain of scattering paths: the same job again where it was lost."""

from __future__ import annotations

from aiida.common import AttributeDict
from aiida.engine import BaseRestartWorkChain, ExitCode, ProcessHandlerReport, process_handler, while_
from aiida.engine.processes.workchains.workchain import WorkChainSpec
from aiida.orm import CalcJobNode

from aiida_difftre.calculations.feff import FeffCalculation
from aiida_difftre.workchains.once import SubmitOnceMixin

MAX_JOBS = 4
"""The first one, and as many as the chains of the engine's jobs try again by default."""


class FeffBaseWorkChain(SubmitOnceMixin, BaseRestartWorkChain):
    """Run FEFF, and again where its node was lost or its files were damaged: it takes less than a second.

    A failure that remains ends the chain with the exit status and the message of the job.
    """

    _process_class = FeffCalculation

    @classmethod
    def define(cls, spec: WorkChainSpec) -> None:  # type: ignore[override]
        """Inputs and outputs of the job, and the loop."""
        super().define(spec)
        spec.expose_inputs(FeffCalculation, namespace="calc", namespace_options={"help": "Of each job."})
        spec.expose_outputs(FeffCalculation)
        spec.outline(cls.setup, while_(cls.should_run_process)(cls.run_process, cls.inspect_process), cls.results)

    def setup(self) -> None:
        """Take the inputs of the job from those of the chain."""
        super().setup()
        self.ctx.inputs = AttributeDict(self.exposed_inputs(FeffCalculation, namespace="calc"))

    @process_handler(priority=0)
    def handle_failure(self, node: CalcJobNode) -> ProcessHandlerReport | None:
        """Once more, up to a bound; then end with the job's own status and message."""
        if not node.is_failed or node.exit_status is None:
            return None
        if self.ctx.iteration < MAX_JOBS:
            self.report(f"{node.process_label}<{node.pk}> failed: {node.exit_message}; running the same job again")
            return ProcessHandlerReport(do_break=True)
        return ProcessHandlerReport(do_break=True, exit_code=ExitCode(node.exit_status, node.exit_message))
