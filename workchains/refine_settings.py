"""How a refinement goes on and ends: the settings of its loop."""

from __future__ import annotations

from typing import Annotated, Any

from aiida import orm
from pydantic import Field

from aiida_difftre.engine.contract.base import Seed, Strict
from aiida_difftre.engine.contract.bounds import Chi2, DurationOrZero, Iterations, Limits
from aiida_difftre.engine.contract.jobs import validate


class Growth(Strict):
    """Longer trajectories as the potential gets better, since their statistical error then decides.

    A potential that falls below a threshold is sampled again, longer, before it may count as converged: agreement on
    a short trajectory, whose own error is part of chi², has to hold on a longer one. So there is an iteration more
    where the first trajectories already agree.

    Args:
        factor: by which production_fs grows each time that the reduced chi² falls below a threshold.
        thresholds: of the reduced chi², each used once.
    """

    factor: Annotated[float, Limits(above=1, most=100, reason="trajectories that grow faster are never sampled")] = 2.0
    thresholds: list[Chi2] = Field(default_factory=list)


class RefineSettings(Strict):
    """How the loop goes on and ends.

    Args:
        max_iterations: updates of the potential.
        patience: iterations without a better chi² before stopping.
        min_improvement: fraction by which chi² has to fall to count as better: less is noise.
        chi2_stop: stop when the reduced chi² of the training targets, on fresh trajectories, is at most this.
        max_roll_backs: how often the potential may be rolled back, the learning rate halved each time.
        continued_equilibration_fs: equilibration of a trajectory that continues the previous one; None for that of
            the sampling parameters.
        growth: of the trajectories.
        seed: from which that of each job follows.
    """

    max_iterations: Iterations = 8
    patience: Iterations = 4
    min_improvement: Annotated[float, Limits(least=0, below=1, reason="it is a fraction of chi²")] = 0.02
    chi2_stop: Chi2 = 1.0
    max_roll_backs: Annotated[
        int, Limits(least=0, most=60, reason="a learning rate halved more often moves nothing")
    ] = 2
    continued_equilibration_fs: DurationOrZero | None = None
    growth: Growth = Field(default_factory=Growth)
    seed: Seed = 0


def check_settings(node: orm.Dict | None, _: Any) -> str | None:
    """Port validator of the settings of a refinement."""
    try:
        validate(RefineSettings, node.get_dict() if node is not None else {})
    except ValueError as error:
        return f"settings: {error}"
    return None
