"""Which potential a refinement returns, of those that it judged.

The *best* potential, which a refinement returns, is the latest one whose chi² is above the lowest by no more than the
standard error of their difference (:func:`~aiida_difftre.engine.contract.agreement.is_worse`). Among those that agree
alike within the noise of their trajectories the lowest is luck, while later ones were moved on more of them.
Only trajectories of equal length compare: a short one hides differences behind its own error. So the first longer ones
begin anew, unless they show by far more than the noise of both that their potential is worse
(:func:`~aiida_difftre.engine.contract.agreement.is_clearly_worse`) and do not agree. Free of JAX and AiiDA.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from aiida_difftre.engine.contract.agreement import Criterion, Points, is_better, is_clearly_worse, is_worse
from aiida_difftre.engine.contract.base import Strict


class Judged(Strict):
    """An iteration whose trajectories were compared with the targets.

    Args:
        iteration: Number of the iteration, from 0.
        training: Reduced chi² of the training targets.
    """

    iteration: int
    training: float


class Leader(Judged):
    """The iteration with the lowest chi² of the targets that decide, with which others are compared.

    Args:
        points: Columns of :class:`~aiida_difftre.engine.contract.agreement.Points`, for the targets that decide.
        production_fs: Sampled time of each walker of its trajectories, fs.
    """

    points: tuple[list[float], list[float], list[float]]
    production_fs: float


class Selected(Strict):
    """Which iteration was chosen, by what, and what was given up for it.

    Args:
        criterion: Role of the targets that decided.
        iteration: Number of the chosen iteration.
        training: Reduced chi² of the training targets in the chosen iteration.
        lowest: The iteration with the lowest such chi², on trajectories of the same length.
        leader: The iteration with the lowest chi² of the targets that decided, from which noise does not tell the
            chosen one; None where an earlier version chose that one.
    """

    criterion: Criterion
    iteration: int
    training: float
    lowest: Judged
    leader: int | None = None

    def sentence(self) -> str:
        """The choice in words.

        Returns:
            One line for a log or a report.
        """
        other = f"lowest {self.lowest.training:.3g} at iteration {self.lowest.iteration}"
        lowest = "the lowest" if self.lowest.iteration == self.iteration else other
        by = f"by {self.criterion} targets"
        if self.leader not in {None, self.iteration}:
            by += f", the latest within the noise of iteration {self.leader}"
        return f"iteration {self.iteration}, {by}: training chi² {self.training:.3g}, {lowest}"


class Standing(NamedTuple):
    """How an iteration compares with those before.

    Args:
        is_first: True if it is the first that counts among those with trajectories of this length.
        leads: True if its chi² is the lowest so far.
        is_best: True if it is what would be returned now.
        is_improved: True if its chi² is the lowest by a margin, for which the loop goes on.
    """

    is_first: bool
    leads: bool
    is_best: bool
    is_improved: bool


def standing(
    points: Points, production_fs: float, leader: Leader | None, margin: float, *, agrees: bool = False
) -> Standing:
    """Compare an iteration with the one that leads.

    Args:
        points: Points of the targets that decide, on the trajectories of the iteration.
        production_fs: Sampled time of each walker of these, fs.
        leader: The iteration with the lowest chi² so far; None for none.
        margin: Fraction by which chi² has to fall to count as improved.
        agrees: Whether its chi² is one for which the loop would end.

    Returns:
        How it compares.

    Example:
        Not the lowest, but within the noise of it:

        >>> import numpy as np
        >>> from aiida_difftre.engine.contract.agreement import Points
        >>> from aiida_difftre.engine.contract.choice import Leader, standing
        >>> leader = Leader(iteration=1, training=1.0, points=([1.0], [0.6], [0.8]), production_fs=5000.0)
        >>> later = Points(np.array([1.3]), np.array([0.6]), np.array([0.8]))
        >>> standing(later, 5000.0, leader, margin=0.02)
        Standing(is_first=False, leads=False, is_best=True, is_improved=False)
    """
    incumbent = None if leader is None else Points(*(np.array(column) for column in leader.points))
    if leader is None or incumbent is None:
        return Standing(is_first=True, leads=True, is_best=True, is_improved=True)
    if production_fs > leader.production_fs:
        counts = agrees or not is_clearly_worse(points, incumbent)
        return Standing(is_first=counts, leads=counts, is_best=counts, is_improved=counts)
    leads = is_better(points, incumbent)
    is_best = leads or not is_worse(points, incumbent)
    return Standing(is_first=False, leads=leads, is_best=is_best, is_improved=is_better(points, incumbent, margin))
