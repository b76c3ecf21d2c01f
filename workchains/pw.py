"""Restart chain of one calculation by pw.x: that of aiida-quantumespresso, through killed workers too."""

from __future__ import annotations

from typing import Any

from aiida.plugins import WorkflowFactory

from aiida_difftre.workchains.once import SubmitOnceMixin

Restarts: Any = WorkflowFactory("quantumespresso.pw.base")


class PwBaseWorkChain(SubmitOnceMixin, Restarts):  # type: ignore[misc]
    """One calculation by pw.x with the error handlers of aiida-quantumespresso, submitted once.

    Inputs, outputs and exit codes are those of its PwBaseWorkChain. The calculation is found again where a worker was
    killed in the middle of its submission, as those of the other chains of this package are.
    """
