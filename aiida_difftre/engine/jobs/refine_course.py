"""How far a refinement in one process is: its state, and the potentials and trajectories that this speaks of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiida_difftre.engine.bases.protocol import BasePotential
from aiida_difftre.engine.contract import loop_verdicts as verdicts
from aiida_difftre.engine.contract import policy
from aiida_difftre.engine.contract.jobs import RefineJob, RefineStatePoint
from aiida_difftre.engine.contract.loop_state import State
from aiida_difftre.engine.contract.reasons import STOPPED, Reason
from aiida_difftre.engine.contract.results import RefineIteration
from aiida_difftre.engine.contract.trajectories import Trajectory
from aiida_difftre.engine.errors import EngineError
from aiida_difftre.engine.matching.dataset_loss import DatasetLoss
from aiida_difftre.engine.potentials.potential import Potential
from aiida_difftre.engine.potentials.term import Parameters
from aiida_difftre.engine.refinement.curvature import CurvaturePrior
from aiida_difftre.engine.refinement.objective import PreparedStatePoint
from aiida_difftre.engine.reweighting.pool import EarlierTrajectory
from aiida_difftre.engine.runtime.progress import Reporter
from aiida_difftre.engine.runtime.stop import Stop
from aiida_difftre.engine.sampling.starts import Start


@dataclass(frozen=True)
class Candidate:
    """A potential, and the state in which its update left the optimizer; None for none.

    Args:
        parameters: Parameters of the potential.
        optimizer_state: State of the optimizer for the update that starts from these parameters.
    """

    parameters: Parameters
    optimizer_state: Any = None


@dataclass(frozen=True)
class Setup:
    """What does not change during a refinement.

    Args:
        job: The job, as it was read and checked.
        folder: Folder with the files of the job.
        potential: The potential to refine.
        base: Its base; None for none.
        structures: Start of the first trajectories, by state point.
        earlier: Trajectories of earlier potentials that the job gives, by state point.
        extra: The DFT term of the loss; None for none.
        prior: That of smooth splines; None for none.
        progress: Takes reports of all jobs.
        stop: Tells between jobs whether the walltime has passed or a signal came.
    """

    job: RefineJob
    folder: Path
    potential: Potential
    base: BasePotential | None
    structures: dict[str, Start]
    earlier: dict[str, list[EarlierTrajectory]]
    extra: DatasetLoss | None
    prior: CurvaturePrior | None
    progress: Reporter
    stop: Stop

    @property
    def sampled(self) -> list[RefineStatePoint]:
        """The state points that every iteration samples; the others are validated alone."""
        return [point for point in self.job.state_points if any(target.is_decisive for target in point.targets)]


@dataclass
class Course:
    """How far a refinement is: the state of the policy, and the potentials and trajectories that it speaks of.

    Args:
        state: State of the policy.
        candidate: The potential to be sampled next.
        best: Parameters of the best potential.
        reference: The last potential that sampled well; None before the first trajectories.
        pools: Trajectories by state point with what sampled them, the latest first: the reference, or for a state point
            that it did not sample the last one before it that did.
        data: The same, prepared for an update; empty until they are.
        iterations: Records for ``results.json``.
        failure: The last failure; None where nothing failed.
    """

    state: State
    candidate: Candidate
    best: Parameters
    reference: Candidate | None = None
    pools: dict[str, list[EarlierTrajectory]] = field(default_factory=dict)
    data: list[PreparedStatePoint] = field(default_factory=list)
    iterations: list[RefineIteration] = field(default_factory=list)
    failure: EngineError | None = None

    def decide(self, verdict: verdicts.Verdict, job: RefineJob) -> None:
        """Go on to what follows from a verdict.

        Args:
            verdict: Verdict on the last thing that was done.
            job: The job, with the settings of the loop.
        """
        self.state = policy.decide(self.state, verdict, job)
        if self.state.message and self.iterations:
            self.iterations[-1].decisions.append(self.state.message)

    def take(self, trajectories: Mapping[str, Trajectory], most: int) -> None:
        """Take what the candidate sampled: it becomes the reference.

        Args:
            trajectories: Its trajectories, by state point.
            most: Number of earlier trajectories to keep for the pools of updates.
        """
        self.reference = self.candidate
        label = f"sampling{self.state.samplings:03d}"
        for point, trajectory in trajectories.items():
            latest = EarlierTrajectory(label, trajectory, self.reference.parameters)
            self.pools[point] = [latest, *self.pools.get(point, [])][: 1 + most]

    def fail(self, error: EngineError, verdict: verdicts.Verdict | None, job: RefineJob) -> None:
        """Go on after a failure.

        Args:
            error: The failure.
            verdict: Verdict on a failure that smaller steps may cure; None for one that they do not.
            job: The job, with the settings of the loop.
        """
        self.failure = error
        stopped = verdicts.Stopped(STOPPED.get(error.status, Reason.FAILED), error.message)
        self.decide(stopped if verdict is None else verdict, job)
