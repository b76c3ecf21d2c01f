"""How well a potential agrees with experiment, and which of two does better, on trajectories that they sampled.

Selection targets decide where there are any, and else the training targets that have a weight; test targets never do.
Free of JAX and AiiDA: ``difftre refine`` and the work chain judge alike.

Reduced chi² counts the error of the simulation, so that a potential whose observables hardly converge (a crystal about
to lose its order) may have a low one. Two potentials are therefore compared with the same errors of the simulation, at
each point the smaller of the two; and a low chi² is agreement only where the share of this error in it is small. Of
two whose chi² differ by less than the noise of their trajectories, the lower one is lower by chance.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

Role = Literal["training", "selection", "test"]
"""Training targets enter the loss; selection targets choose the best iteration; test targets influence nothing."""

Criterion = Literal["training", "selection"]
"""The role of the targets that decide."""

TOLERANCE = 1.0
"""Standard errors of the difference by which chi² may be above another one without being worse. Where later potentials
know more, two would return what is 3 % nearer to the truth, but 6 % farther from it where they do not."""

CLEARLY = 5.0
"""Standard errors by which trajectories of another length have to show that a potential is worse: neighbours on a curve
go together, so that those that are computed for independent points are too small by two and more."""

FEWEST_SNAPSHOTS = 5
"""Independent snapshots below which nothing is known of the error of a prediction: that of one is zero, and that of a
few of one walker, which hardly moved in between, mostly less than a third of the true one."""


class Points(NamedTuple):
    """Points of targets beside their predictions.

    Args:
        deviations: Prediction minus experiment, (points,).
        experiment_errors: Standard errors of the experiment, (points,).
        simulation_errors: Standard errors of the prediction, (points,).

    Example:
        >>> import numpy as np
        >>> from aiida_difftre.engine.contract.agreement import Points
        >>> Points(np.array([10.0]), np.array([3.0]), np.array([4.0])).squares().tolist()
        [4.0]
    """

    deviations: Float[np.ndarray, " points"]
    experiment_errors: Float[np.ndarray, " points"]
    simulation_errors: Float[np.ndarray, " points"]

    def squares(self) -> Float[np.ndarray, " points"]:
        """Compute (prediction - experiment)²/(σ_exp² + σ_sim²), whose mean is the reduced chi².

        Returns:
            The squares, (points,).
        """
        return np.square(self.deviations) / (np.square(self.experiment_errors) + np.square(self.simulation_errors))

    def noise(self) -> float:
        """Compute the mean of σ_sim²/(σ_exp² + σ_sim²): what part of the errors in chi² is the simulation's.

        Returns:
            The share, between 0 and 1; 1/2 where the two errors are equal.

        Example:
            >>> import numpy as np
            >>> from aiida_difftre.engine.contract.agreement import Points
            >>> Points(np.array([10.0]), np.array([3.0]), np.array([4.0])).noise()
            0.64
        """
        simulated = np.square(self.simulation_errors)
        return float(np.mean(simulated / (np.square(self.experiment_errors) + simulated)))


class Compared(NamedTuple):
    """A target beside its prediction.

    Args:
        role: Role of the target.
        weight: Weight of the target; a training target without one counts for nothing.
        points: its points.
        effective_samples: Independent snapshots behind the prediction; None where that is not known.
    """

    role: Role
    weight: float
    points: Points
    effective_samples: float | None = None

    def noise(self) -> float:
        """The share of the simulation in the errors; all of it where too few snapshots tell how large its error is."""
        count = self.effective_samples
        return 1.0 if count is not None and count < FEWEST_SNAPSHOTS else self.points.noise()


def _counts(item: Compared, role: Role) -> bool:
    return item.role == role and (role != "training" or item.weight > 0)


def _of_role(compared: Iterable[Compared], role: Role) -> list[Points]:
    return [item.points for item in compared if _counts(item, role)]


def reduced_chi2(compared: Iterable[Compared], role: Role) -> float | None:
    """chi² per point of all targets of a role, the training ones with a weight; None where there is none.

    Args:
        compared: targets of all state points.
        role: Role of those that count.

    Returns:
        chi² per point.
    """
    chosen = _of_role(compared, role)
    return float(np.mean(np.concatenate([points.squares() for points in chosen]))) if chosen else None


def noise(compared: Iterable[Compared]) -> float:
    """The share of the simulation in the errors of the noisiest training target with a weight; 0 where there is none.

    Of a potential whose predictions are off by m squared errors of the experiment in the mean, a target with the share
    f has the chi² (1 - f) m + f, in expectation: as f approaches 1 it is 1 whatever m is. The largest share counts and
    not the mean, since the points of a target that is known well do not make another one any better known.

    Args:
        compared: targets of all state points.

    Returns:
        The largest :meth:`Compared.noise`.
    """
    return max((item.noise() for item in compared if _counts(item, "training")), default=0.0)


def criterion(compared: Iterable[Compared]) -> Criterion:
    """Which targets decide: those of the role selection where there are some, else the training targets.

    Args:
        compared: targets of all state points.

    Returns:
        The role of the targets that decide.
    """
    return "selection" if any(item.role == "selection" for item in compared) else "training"


def decisive_points(compared: Iterable[Compared]) -> Points:
    """The points that decide which of two potentials is better: of the selection targets where there are some.

    Args:
        compared: targets of all state points, in an order that does not change.

    Returns:
        The points of all targets that decide, one after the other.

    Raises:
        ValueError: where no target counts.
    """
    items = list(compared)
    chosen = _of_role(items, criterion(items))
    if not chosen:
        raise ValueError("no target decides: give a training target a weight, or a target the role selection")
    return Points(*(np.concatenate(column) for column in zip(*chosen, strict=True)))


def is_better(candidate: Points, incumbent: Points, margin: float = 0.0) -> bool:
    """Tell whether one potential agrees better than another, with the same errors of the simulation for both.

    At each point the smaller of the two errors counts, since a potential whose observables hardly converge would have a
    low chi² otherwise.

    Args:
        candidate: Points of one potential.
        incumbent: Points of the other, of the same targets.
        margin: Fraction of the chi² of the other by which the one has to be lower.

    Returns:
        Whether it is.

    Example:
        Nearer with the same error, and farther with a large error:

        >>> import numpy as np
        >>> from aiida_difftre.engine.contract.agreement import Points, is_better
        >>> best = Points(np.array([1.0]), np.array([0.1]), np.array([0.1]))
        >>> near, vague = (Points(np.array([d]), np.array([0.1]), np.array([s])) for d, s in ((0.5, 0.1), (1.5, 9.0)))
        >>> is_better(near, best), is_better(vague, best)
        (True, False)
    """
    found, best, _ = _with_equal_errors(candidate, incumbent)
    return bool(np.sum(found) < (1 - margin) * np.sum(best))


def is_worse(candidate: Points, incumbent: Points) -> bool:
    r"""Tell whether one potential agrees worse than another by more than a standard error, the noise of trajectories.

    With the smaller error of the simulation at each point for both, as in :func:`is_better`, and f its share of the
    squared error, a point that is missed by m² squared errors in truth has the χ² of m² + f, with the variance
    4 f m² + 2 f². So the difference of the sums over the points, of two trajectories of equally good potentials, has

        variance = Σ 8 f max(χ² - f, 0) + 4 f²

    with χ² of the incumbent. The candidate is worse where its sum is above the other by more than ``TOLERANCE``
    roots of it. Points count as independent.

    Args:
        candidate: Points of one potential.
        incumbent: Points of the other, of the same targets, which seems the better one.

    Returns:
        Whether it is.

    Example:
        Off by 1.2 errors where the other is off by a half: with the noise of a simulation, and without:

        >>> import numpy as np
        >>> from aiida_difftre.engine.contract.agreement import Points, is_worse
        >>> def points(deviation, experiment, simulation):
        ...     return Points(np.array([deviation]), np.array([experiment]), np.array([simulation]))
        >>> [is_worse(points(1.2, *errors), points(0.5, *errors)) for errors in ((0.1, 1.0), (1.0, 0.1))]
        [False, True]
    """
    found, best, share = _with_equal_errors(candidate, incumbent)
    variance = np.sum(8 * share * np.maximum(best - share, 0) + 4 * np.square(share))
    return bool(np.sum(found) - np.sum(best) > TOLERANCE * np.sqrt(variance))


def is_clearly_worse(candidate: Points, incumbent: Points) -> bool:
    r"""Tell whether one potential agrees worse than another, beyond the noise of trajectories of different length.

    With v the squared error of the experiment and the smaller one of the simulation at each point, and f = σ_sim²/v of
    each trajectory, d²/v - f is on average what the potential misses in truth, m², with the variance 4 f m² + 2 f². The
    candidate is clearly worse where the sum of the differences is above ``CLEARLY`` roots of that of the variances,
    with the m² that both have in the mean. Points count as independent.

    Args:
        candidate: Points of one potential, on longer trajectories.
        incumbent: Points of the other, of the same targets.

    Returns:
        Whether it is.

    Example:
        Off by four errors where the other is off by one and a half: beside errors of a tenth, and where the shorter
        trajectory has such large ones that it may be off by as much in truth:

        >>> import numpy as np
        >>> from aiida_difftre.engine.contract.agreement import Points, is_clearly_worse
        >>> longer = Points(np.array([4.0]), np.array([1.0]), np.array([0.1]))
        >>> shorter = [Points(np.array([1.5]), np.array([1.0]), np.array([error])) for error in (0.1, 2.0)]
        >>> [is_clearly_worse(longer, one) for one in shorter]
        [True, False]
    """
    found, best, _ = _with_equal_errors(candidate, incumbent)
    smaller = np.square(np.minimum(candidate.simulation_errors, incumbent.simulation_errors))
    whole = np.square(candidate.experiment_errors) + smaller
    shares = [np.square(one.simulation_errors) / whole for one in (candidate, incumbent)]
    missed = [squares - share for squares, share in zip((found, best), shares, strict=True)]
    in_mean = np.maximum((missed[0] + missed[1]) / 2, 0)
    variance = sum(np.sum(4 * share * in_mean + 2 * np.square(share)) for share in shares)
    return bool(np.sum(missed[0] - missed[1]) > CLEARLY * np.sqrt(variance))


def _with_equal_errors(candidate: Points, incumbent: Points) -> list[Float[np.ndarray, " points"]]:
    """The squares of both with the smaller error of the simulation at each point, and its share of the variance."""
    simulated = np.square(np.minimum(candidate.simulation_errors, incumbent.simulation_errors))
    variance = np.square(candidate.experiment_errors) + simulated
    return [
        squares / variance for squares in (*map(np.square, (candidate.deviations, incumbent.deviations)), simulated)
    ]
