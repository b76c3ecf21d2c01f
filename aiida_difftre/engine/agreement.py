"""Which of two potentials agrees better with experiment, both judged on trajectories that they sampled themselves.

Reduced chi² counts the error of the simulation, so that a potential whose observables hardly converge (a crystal about
to lose its order) may have a low one. Two potentials are therefore compared with the same errors of the simulation, at
each point the smaller of the two.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray


class Points(NamedTuple):
    """All points of the targets that decide.

    Args:
        deviations: prediction - experiment.
        experiment_errors: standard errors.
        simulation_errors: standard errors of the prediction.
    """

    deviations: Float[NDArray[np.float64], " points"]
    experiment_errors: Float[NDArray[np.float64], " points"]
    simulation_errors: Float[NDArray[np.float64], " points"]


def is_better(candidate: Points, incumbent: Points, margin: float = 0.0) -> bool:
    """Whether the chi² of the candidate is below that of the incumbent, with the same errors.

    Args:
        candidate: its points.
        incumbent: its points, of the same targets.
        margin: fraction of the chi² of the incumbent by which it has to be lower.
    """
    errors = np.minimum(candidate.simulation_errors, incumbent.simulation_errors)
    variance = np.square(candidate.experiment_errors) + np.square(errors)
    found, best = (np.sum(np.square(points.deviations) / variance) for points in (candidate, incumbent))
    return bool(found < (1 - margin) * best)
