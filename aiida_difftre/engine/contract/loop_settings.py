"""How the loop of a refinement goes on and ends: what a user may choose of it. Free of JAX."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from aiida_difftre.engine.contract.base import Strict
from aiida_difftre.engine.contract.bounds import Chi2, DurationOrZero, Iterations, Limits
from aiida_difftre.engine.contract.sampling_settings import SamplingSettings
from aiida_difftre.engine.contract.validation import validate


class Growth(Strict):
    """Longer trajectories as the potential gets better, since their statistical error then decides.

    A potential that falls below a threshold is sampled again, longer, before it may count as converged: agreement on
    a short trajectory, whose own error is part of chi², has to hold on a longer one. So there is an iteration more
    where the first trajectories already agree.

    Args:
        factor: Factor on production_fs each time that the reduced chi² falls below a threshold.
        thresholds: Thresholds of the reduced chi² of the training targets, each used once.
        against_noise: Number of further times that the trajectories may grow, where chi² is low enough but their own
            error too large to tell (``max_noise`` of the loop).
    """

    factor: Annotated[float, Limits(above=1, most=100, reason="trajectories that grow faster are never sampled")] = 2.0
    thresholds: list[Chi2] = Field(default_factory=list)
    against_noise: Annotated[int, Limits(least=0, most=20, reason="trajectories of a million times the length")] = 2

    @property
    def most(self) -> float:
        """The factor on production_fs of the longest trajectories that there can be."""
        return self.factor ** (len(self.thresholds) + self.against_noise)


class LoopSettings(Strict):
    """How the loop of a refinement goes on and ends.

    Args:
        max_iterations: Number of updates of the potential, at most.
        patience: Number of iterations without a better chi² before stopping.
        min_improvement: Fraction by which chi² has to fall to count as better: less is noise.
        chi2_stop: Stop when the reduced chi² of the training targets, on fresh trajectories, is at most this; an update
            ends at it as well, unless its own ``chi2_stop`` is given.
        max_noise: Largest share of the simulation in the errors of a training target, σ_sim²/(σ_exp² + σ_sim²) in the
            mean over its points, at which a chi² below ``chi2_stop`` counts; with more, and with fewer than five
            independent snapshots, the trajectories grow, and where they cannot the refinement ends as ``noise`` and
            not as ``converged``. 1 asks for nothing.
        max_roll_backs: Number of times that the potential may be rolled back, the learning rate halved each time.
        continued_equilibration_fs: Equilibration of a trajectory that continues the previous one, fs; None for that of
            the sampling parameters.
        growth: Growth of the trajectories as the potential gets better.
        pool_iterations: Number of earlier iterations whose trajectories each update takes beside the newest one, where
            they overlap with it (``pool`` of its settings).
        pool_neighbours: Whether each update takes at every state point the trajectories of the others of the same atoms
            and ensemble, too, where they overlap: those at constant volume of the same cell at other temperatures,
            those at constant pressure at other temperatures and pressures.
        resample_below: A state point is left out of the next sampling where the trajectories that it has hold at least
            this share of the effective independent snapshots of a new one, for the potential that the update made; its
            observables are then reweighted. What is kept as the best or ends the refinement was sampled everywhere.
            None samples every state point in each iteration.
    """

    max_iterations: Iterations = 8
    patience: Iterations = 4
    min_improvement: Annotated[float, Limits(least=0, below=1, reason="it is a fraction of chi²")] = 0.02
    chi2_stop: Chi2 = 1.0
    max_noise: Annotated[float, Limits(above=0, most=1, reason="it is a share of the squared error")] = 0.5
    max_roll_backs: Annotated[
        int, Limits(least=0, most=60, reason="a learning rate halved more often moves nothing")
    ] = 2
    continued_equilibration_fs: DurationOrZero | None = None
    growth: Growth = Field(default_factory=Growth)
    pool_iterations: Annotated[
        int, Limits(least=0, most=100, reason="potentials of more iterations ago hardly overlap with the present one")
    ] = 0
    pool_neighbours: bool = False
    resample_below: (
        Annotated[float, Limits(least=0.1, most=100, reason="fewer snapshots than a tenth of a trajectory tell little")]
        | None
    ) = None

    def of_updates(self) -> dict[str, float]:
        """Settings of an update that follow from these.

        Returns:
            ``chi2_stop`` and ``chi2_converged``, by name; they hold where the update does not have its own.
        """
        return {"chi2_stop": self.chi2_stop, "chi2_converged": self.chi2_stop}

    def check_lengths(self, sampling: SamplingSettings) -> None:
        """Refuse trajectories that would become too long as they grow, before the first is sampled.

        Args:
            sampling: Settings of the first trajectories.

        Raises:
            ValueError: If the longest ones are more than a job takes.
        """
        longest = sampling.production_fs * self.growth.most
        if longest == sampling.production_fs:
            return
        try:
            validate(SamplingSettings, {**sampling.model_dump(), "production_fs": longest})
        except ValueError as error:
            raise ValueError(f"growth makes production_fs {longest:g} fs: {error}") from None
