"""What the jobs of a refinement find: the verdicts from which its loop goes on. Free of JAX and AiiDA."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from aiida_difftre.engine.contract.agreement import Points
from aiida_difftre.engine.contract.reasons import Reason


@dataclass(frozen=True)
class Sampled:
    """Verdict of sampling: the trajectories of all state points are stable."""


@dataclass(frozen=True)
class Unstable:
    """Verdict of sampling: the dynamics became unstable.

    Args:
        label: Label of a state point where it did.
        reason: Message of the job that failed.
    """

    label: str
    reason: str


@dataclass(frozen=True)
class Agreement:
    """Verdict on the reference: how well its trajectories agree with the targets.

    Args:
        training: Reduced chi² of the training targets.
        selection: Reduced chi² of the selection targets; None where there are none.
        points: Data points of the targets that decide.
        noise: Share of the simulation in the errors of the noisiest training target.
    """

    training: float
    selection: float | None
    points: Points
    noise: float


@dataclass(frozen=True)
class Updated:
    """Verdict of an update that ended well.

    Args:
        has_moved: True if it made a step, or had no reason to make one.
        reason: Why it ended.
        held: For each state point that is sampled, the effective independent snapshots that its trajectories have for
            the new potential, over those of its newest trajectory.
    """

    has_moved: bool
    reason: Reason | None = None
    held: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class UpdateFailed:
    """Verdict of an update: it failed in a way that smaller steps may cure.

    Args:
        reason: Message of the job that failed.
    """

    reason: str


@dataclass(frozen=True)
class Stopped:
    """The refinement cannot go on, whatever the steps.

    Args:
        reason: Reason for the end: a failure, a walltime or a signal.
        message: Message of the job that stopped.
    """

    reason: Reason
    message: str


Verdict = Sampled | Unstable | Agreement | Updated | UpdateFailed | Stopped
