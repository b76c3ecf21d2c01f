r"""Whether a trajectory samples one state all along, or still relaxes or drifts. NumPy only.

The end of equilibration is where leaving out what is before leaves the most independent samples, of all walkers
together (Chodera, J. Chem. Theory Comput. 12, 1799 (2016)). A steady drift has no such end; it shows in the difference
between the means of the second and of the first half, in units of its standard error:

.. math:: z = \frac{\bar a_2 - \bar a_1}{\sqrt{V_1 + V_2}}

with V of :func:`aiida_difftre.engine.reweighting.statistics.mean_variance`. Walkers that sample different states, or
halves that do, have an R-hat above 1 (Gelman & Rubin, Statist. Sci. 7, 457 (1992); of half walkers: Vehtari et al.,
Bayesian Anal. 16, 667 (2021)); that of short walkers is above 1 also where nothing is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aiida_difftre.engine.contract.trajectories import Trajectory
from aiida_difftre.engine.reweighting import statistics

STARTS = 20
"""Ends of equilibration that are tried, evenly from the first snapshot on."""

SHORTEST = 4
"""Snapshots of each walker that an end of equilibration leaves at least."""

LARGEST_DRIFT = 4.0
"""Standard errors between the halves, above which a trajectory is not stationary: seldom so by chance alone, also with
the uncertain errors of short walkers."""

NOTABLE_DRIFT = 2.0
"""The same, where half of the trajectory would have to be left out as equilibration."""


def equilibration(values: NDArray[np.float64], walkers: NDArray[np.integer]) -> float:
    """The part of each walker after which the most independent samples remain; 0 for one that starts in equilibrium.

    Args:
        values: (S,) or (S, F); the slowest column counts.
        walkers: (S,), index of the walker of each snapshot.

    Returns:
        The part, from 0 to below 1.
    """
    values, walkers = np.asarray(values, np.float64).reshape(len(walkers), -1), np.asarray(walkers)
    place = _places(walkers)
    shortest = min(len(index) for index in statistics.walker_slices(walkers))
    best, found = 0.0, 0.0
    for part in np.arange(STARTS) / STARTS:
        if part > 0 and int((1 - part) * shortest) < SHORTEST:
            break
        kept = place >= part
        g = float(np.max(statistics.statistical_inefficiency(values[kept], walkers[kept])))
        if kept.sum() / g > best:
            best, found = float(kept.sum() / g), float(part)
    return found


def drift(values: NDArray[np.float64], walkers: NDArray[np.integer]) -> float:
    """Mean of the second halves of the walkers minus that of the first, in standard errors; 0 where nothing varies.

    Args:
        values: (S,).
        walkers: (S,), index of the walker of each snapshot.

    Returns:
        The change in standard errors.
    """
    second = _places(walkers) >= 0.5
    if not second.any() or second.all():
        return 0.0
    halves = [(values[half], walkers[half]) for half in (~second, second)]
    variance = sum(float(statistics.mean_variance(*half).variance) for half in halves)
    change = float(halves[1][0].mean() - halves[0][0].mean())
    return change / variance**0.5 if variance > 0 else 0.0


def r_hat(values: NDArray[np.float64], walkers: NDArray[np.integer]) -> float | None:
    """R-hat between the halves of all walkers; None for walkers shorter than four snapshots.

    Args:
        values: (S,).
        walkers: (S,), index of the walker of each snapshot.

    Returns:
        R-hat; near 1 where walkers and halves agree.
    """
    halves = [part for index in statistics.walker_slices(walkers) for part in np.array_split(index, 2)]
    length = min(len(part) for part in halves)
    if length < SHORTEST // 2:
        return None
    within = float(np.mean([np.var(values[part], ddof=1) for part in halves]))
    between = float(np.var([np.mean(values[part]) for part in halves], ddof=1))
    return ((length - 1) / length + between / within) ** 0.5 if within > 0 else 1.0


def record(series: Mapping[str, NDArray[np.float64]], walkers: NDArray[np.integer]) -> dict[str, Any]:
    """What results tell about the stationarity of a trajectory.

    Args:
        series: (S,) of each quantity by name, such as energy and volume.
        walkers: (S,), index of the walker of each snapshot.

    Returns:
        ``equilibration``: part of each walker that still relaxes; ``drift`` and ``r_hat`` by quantity;
        ``independent_samples``: N/g; ``stationary``; ``warning``: a line where it is not, else None.
    """
    columns = np.stack(list(series.values()), axis=1)
    part = equilibration(columns, walkers)
    drifts = {name: drift(values, walkers) for name, values in series.items()}
    name = max(drifts, key=lambda name: abs(drifts[name]))
    largest = abs(drifts[name])
    is_stationary = largest <= (NOTABLE_DRIFT if part >= 0.5 else LARGEST_DRIFT)
    relaxes = f", and {part:.0%} of it still relaxes" if round(part, 2) else ""
    warning = (
        f"the trajectory is not stationary: the mean {name} of its second half differs by {drifts[name]:+.1f} standard "
        f"errors from that of its first{relaxes}; equilibrate or sample longer"
    )
    return {
        "stationary": is_stationary,
        "equilibration": part,
        "drift": drifts,
        "r_hat": {name: r_hat(values, walkers) for name, values in series.items()},
        "independent_samples": float(len(walkers) / np.max(statistics.statistical_inefficiency(columns, walkers))),
        "warning": None if is_stationary else warning,
    }


def of_trajectory(trajectory: Trajectory) -> dict[str, Any]:
    """:func:`record` of the energy and, at constant pressure, of the volume."""
    series = {"energy": trajectory.energies}
    if trajectory.ensemble == "NPT":
        series["volume"] = trajectory.volumes
    return record(series, trajectory.walkers)


def thermal_columns(trajectory: Trajectory) -> NDArray[np.float64]:
    """Energy and volume of each snapshot, (snapshots, 2), for the statistical inefficiency."""
    return np.stack([trajectory.energies, trajectory.volumes], 1)


def _places(walkers: NDArray[np.integer]) -> NDArray[np.float64]:
    """Place of each snapshot within its walker, from 0 to below 1."""
    places = np.empty(len(walkers))
    for index in statistics.walker_slices(walkers):
        places[index] = np.arange(len(index)) / len(index)
    return places
