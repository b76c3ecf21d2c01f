"""How a refinement goes on and ends: the settings of its loop."""

from __future__ import annotations

from typing import Any

from aiida import orm
from pydantic import Field

from aiida_difftre.engine.jobs import validate
from aiida_difftre.engine.strict import Seed, Strict


class Growth(Strict):
    """Longer trajectories as the potential gets better, since their statistical error then decides.

    A potential that falls below a threshold is sampled again, longer, before it may count as converged: agreement on
    a short trajectory, whose own error is part of chi², has to hold on a longer one. So there is an iteration more
    where the first trajectories already agree.

    Args:
        factor: by which production_fs grows each time that the reduced chi² falls below a threshold.
        thresholds: of the reduced chi², each used once.
    """

    factor: float = Field(default=2.0, gt=1)
    thresholds: list[float] = Field(default_factory=list)


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

    max_iterations: int = Field(default=8, ge=1)
    patience: int = Field(default=4, ge=1)
    min_improvement: float = Field(default=0.02, ge=0, lt=1)
    chi2_stop: float = Field(default=1.0, ge=0)
    max_roll_backs: int = Field(default=2, ge=0)
    continued_equilibration_fs: float | None = Field(default=None, ge=0)
    growth: Growth = Field(default_factory=Growth)
    seed: Seed = 0


def check_settings(node: orm.Dict | None, _: Any) -> str | None:
    """Port validator of the settings of a refinement."""
    try:
        validate(RefineSettings, node.get_dict() if node is not None else {})
    except ValueError as error:
        return f"settings: {error}"
    return None
