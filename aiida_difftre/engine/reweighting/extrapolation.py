"""How far reweighting carries: errors that grow as effective samples are lost, and where it is refused. NumPy only.

A weighted average knows nothing of a region that was never sampled. Where the logarithms of the weights are normal with
variance s², N exp(-s²) effective samples are left, while what decides the error are snapshots at 2s: beyond some s none
is among them. Then the largest weights are those of a few snapshots at the edge of what was sampled, of which a
bootstrap finds a small error of a wrong average, and of which even the effective sample size is too large: the less the
snapshots tell, the better it looks. Hence

- the effective sample size is also bounded by N exp(-s²), with s² from the upper half of the logarithms around their
  median. All snapshots tell s, also where hardly any stands for the average. The lower half is of snapshots that do not
  matter, however far they are;
- errors are those of a bootstrap times sqrt(1 + c ln(N/N_eff)/n), with the independent samples n = N_eff/g. For the
  energy, and normal weights, c = 15 makes them the errors of repeated runs; for the energy of harmonic oscillators that
  is carried to higher temperatures, whose weights have an exponential tail, it takes 20 to 30;
- below a number n of independent samples a prediction is refused, and below a handful whatever their weights.

The tests of this module repeat runs of oscillators, whose averages are known. A single one, whose temperature is
doubled, defeats any rule of this kind: the variance of its weights is infinite.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from aiida_difftre.engine.contract.agreement import FEWEST_SNAPSHOTS
from aiida_difftre.engine.errors import EngineError, ExitStatus

WIDENING = 30.0
"""c: of the squared error, for observables that follow the energy."""

LEAST_EFFECTIVE = 20.0
"""Effective independent samples, below which a prediction by reweighting is refused."""

LEAST_FRACTION = 0.5
"""Of the independent samples, where they are fewer than twice :data:`LEAST_EFFECTIVE`; at least
:data:`~aiida_difftre.engine.contract.agreement.FEWEST_SNAPSHOTS`."""


def normal_size(weight: NDArray[np.float64], shares: NDArray[np.float64] | None = None) -> float:
    """N exp(-s²): what would be left of N snapshots if the logarithms of all weights were as wide as their upper half.

    Args:
        weight: (S,), normalised.
        shares: What each snapshot counts, (S,), one on average: weights are relative to it; None where all are alike.

    Returns:
        An effective sample size, at most N.
    """
    shares = np.ones(len(weight)) if shares is None else shares
    logarithms = np.log(np.maximum(weight / shares, np.finfo(np.float64).tiny))
    order = np.argsort(logarithms)
    places = np.cumsum(shares[order]) - shares[order] / 2
    median = np.interp(len(weight) / 2, places, logarithms[order])
    above = np.maximum(logarithms - median, 0.0)
    return float(len(weight) * np.exp(-2 * np.average(above**2, weights=shares)))


def widening(effective: float, snapshots: float, inefficiency: float) -> float:
    """Factor by which the errors of a reweighted prediction are larger than a bootstrap finds; 1 without reweighting.

    Args:
        effective: effective sample size N_eff.
        snapshots: N.
        inefficiency: statistical inefficiency g.

    Returns:
        The factor, at least 1.
    """
    effective = max(1.0, effective)  # one snapshot always stands for the average, also where the bound underflows
    lost = max(0.0, math.log(snapshots / effective))
    return math.sqrt(1 + WIDENING * lost * inefficiency / effective)


def least(snapshots: int, inefficiency: float) -> float:
    """Effective independent samples that a reweighted prediction needs.

    A few do not tell how many of them are left: of one it is always all.

    Args:
        snapshots: N.
        inefficiency: statistical inefficiency g.

    Returns:
        Number of samples.
    """
    return max(FEWEST_SNAPSHOTS, min(LEAST_EFFECTIVE, LEAST_FRACTION * snapshots / inefficiency))


def check(effective: float, snapshots: int, inefficiency: float, sampled: str, asked: str) -> None:
    """Refuse a prediction that too few snapshots stand for.

    Args:
        effective: effective sample size N_eff.
        snapshots: N.
        inefficiency: statistical inefficiency g.
        sampled: the state point of the trajectory, in words.
        asked: that of the prediction.

    Raises:
        EngineError: with status TOO_FEW_EFFECTIVE_SAMPLES.
    """
    needed, left = least(snapshots, inefficiency), effective / inefficiency
    if left < needed:
        raise EngineError(
            ExitStatus.TOO_FEW_EFFECTIVE_SAMPLES,
            f"reweighting from {sampled} to {asked} leaves {left:.3g} effective independent samples of "
            f"{snapshots / inefficiency:.3g} ({snapshots} snapshots), fewer than {needed:.3g}; sample at {asked}, or "
            "ask for a state point nearer to the sampled one, or give more snapshots",
            {
                "n_eff": effective,
                "n_eff_independent": left,
                "least": needed,
                "snapshots": snapshots,
                "statistical_inefficiency": inefficiency,
            },
        )
