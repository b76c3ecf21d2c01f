"""Where a refinement is: the state on which all its decisions depend. Free of JAX and AiiDA."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from aiida_difftre.engine.contract.agreement import Criterion
from aiida_difftre.engine.contract.base import Strict
from aiida_difftre.engine.contract.choice import Judged, Leader, Selected
from aiida_difftre.engine.contract.loop_settings import LoopSettings
from aiida_difftre.engine.contract.reasons import Reason


class Action(StrEnum):
    """What to do next."""

    SAMPLE = "sample"
    """Sample trajectories with the candidate, which become the reference if the dynamics is stable."""
    JUDGE = "judge"
    """Compare the reference's trajectories with the targets; there is no update after it."""
    UPDATE = "update"
    """Judge the reference where that was not done yet, and move its parameters."""
    END = "end"
    """Nothing: the refinement is over."""


class Reference(Strict):
    """What is known of the last trajectories that were stable.

    Args:
        production_fs: Sampled time of each walker, fs.
        is_judged: True once they were compared with the targets.
        is_updated: True once an update has started from them.
        is_best: True if the potential that sampled them is the best so far.
        has_fresh_optimizer: True if the next update starts without the optimizer's memory.
        held: Labels of the state points that the potential did not sample: what earlier ones sampled stands for it.
    """

    production_fs: float
    is_judged: bool = False
    is_updated: bool = False
    is_best: bool = False
    has_fresh_optimizer: bool = False
    held: list[str] = Field(default_factory=list)


class State(Strict):
    """Everything on which the decisions depend; of bounded size but for the iterations that were discarded.

    Args:
        action: The next thing to do.
        production_fs: Sampled time of each walker in the next sampling, fs.
        thresholds: Thresholds of growth that chi² has not yet passed.
        grown_against_noise: Number of times that the trajectories grew because their own error was too large.
        learning_rate_scale: Factor on the learning rate of the next update.
        iteration: Number of the present iteration, from 0; an iteration ends with its update.
        discarded: Numbers of the iterations whose update was done again.
        settings_from: First iteration, production_fs and learning_rate_scale, each time that these changed.
        held: Labels of the state points that the next sampling leaves out.
        samplings: Number of samplings so far.
        roll_backs: Number of roll-backs so far.
        since_best: Number of iterations since chi² has last improved.
        is_stalled: True if the last update found no step.
        reference: Trajectories of the present iteration; None before the first ones.
        criterion: Role of the targets that decide; None before the first judgement.
        leader: The iteration with the lowest chi² of the targets that decide, on the longest trajectories so far; None
            before the first judgement.
        best: The best iteration, which is the leader or later; None before the first judgement.
        lowest: The iteration with the lowest chi² of the training targets alone, on trajectories as long as those of
            the leader.
        reason: Reason for the end; None while the refinement goes on.
        failure: Message of what ended it; empty where nothing failed.
        message: The last decision in words, for a log.
    """

    action: Action = Action.SAMPLE
    production_fs: float
    thresholds: list[float] = Field(default_factory=list)
    grown_against_noise: int = 0
    learning_rate_scale: float = 1.0
    iteration: int = 0
    discarded: list[int] = Field(default_factory=list)
    settings_from: list[tuple[int, float, float]] = Field(default_factory=list)
    held: list[str] = Field(default_factory=list)
    samplings: int = 0
    roll_backs: int = 0
    since_best: int = 0
    is_stalled: bool = False
    reference: Reference | None = None
    criterion: Criterion | None = None
    leader: Leader | None = None
    best: Judged | None = None
    lowest: Judged | None = None
    reason: Reason | None = None
    failure: str = ""
    message: str = ""

    def is_last(self, settings: LoopSettings) -> bool:
        """Whether the next trajectories are only judged, since there were as many updates as there may be.

        Args:
            settings: Settings of the loop.

        Returns:
            True once ``max_iterations`` updates were made and not discarded.
        """
        return self.iteration - len(self.discarded) >= settings.max_iterations

    def selected(self) -> Selected | None:
        """The iteration that is kept, and the targets that decided.

        Returns:
            The choice; None before the first judgement.
        """
        if self.best is None or self.leader is None or self.lowest is None or self.criterion is None:
            return None
        return Selected(
            criterion=self.criterion,
            iteration=self.best.iteration,
            training=self.best.training,
            lowest=self.lowest,
            leader=self.leader.iteration,
        )
