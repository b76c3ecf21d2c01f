"""Statistics of correlated snapshots: statistical inefficiency and block bootstrap over walkers. NumPy only."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MINIMUM_LAG = 3
"""Lags up to this one are summed even where the estimate is negative: short series cross zero by noise."""

BLOCK_INEFFICIENCIES = 3.0
"""Length of a bootstrap block over the statistical inefficiency."""

MINIMUM_BLOCKS = 8
"""Blocks are shortened before there are fewer of them than this."""


def walker_slices(walkers: NDArray[np.integer]) -> list[NDArray[np.intp]]:
    """Indices of the snapshots of each walker, in the order in which they are stored."""
    walkers = np.asarray(walkers)
    order = np.argsort(walkers, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(walkers[order])) + 1)


def statistical_inefficiency(values: Floats, walkers: NDArray[np.integer]) -> Floats:
    r"""Statistical inefficiency of series sampled by independent walkers.

    .. math:: g = 1 + 2 \sum_{t \ge 1} (1 - t/\bar N) C(t)

    with the normalised autocorrelation C pooled over the walkers around the common mean, summed up to its first zero.
    N/g is the number of independent samples.

    Args:
        values: (S,) or (S, F), one row per snapshot, in order of time within each walker.
        walkers: (S,), index of the walker of each snapshot.

    Returns:
        g, at least 1: () or (F,). Series that do not vary have g = 1.

    References:
        Chodera et al., J. Chem. Theory Comput. 3, 26 (2007), eqs. 15-20.
    """
    values = np.asarray(values, dtype=np.float64)
    if len(values) != len(walkers):
        raise ValueError(f"{len(values)} values for {len(walkers)} walker indices")
    columns = values.reshape(len(values), -1)
    indices = walker_slices(walkers)
    longest = max(len(index) for index in indices)
    mean_length = len(columns) / len(indices)
    deviations = columns - columns.mean(axis=0)
    variance = np.mean(deviations**2, axis=0)
    rounding = 1e3 * np.finfo(np.float64).eps
    varies = variance > rounding**2 * np.mean(columns**2, axis=0)

    products = np.zeros((longest, columns.shape[1]))
    pairs = np.zeros(longest)
    for index in indices:
        length = len(index)
        spectrum = np.fft.rfft(deviations[index], n=2 * length, axis=0)
        products[:length] += np.fft.irfft(np.abs(spectrum) ** 2, n=2 * length, axis=0)[:length]
        pairs[:length] += length - np.arange(length)
    correlation = products / pairs[:, None] / np.where(varies, variance, 1.0)

    lags = np.arange(1, longest - 1)
    crossed = (correlation[1:-1] <= 0) & (lags > MINIMUM_LAG)[:, None]
    before_zero = np.cumsum(crossed, axis=0) == 0
    terms = np.where(before_zero, correlation[1:-1] * (1 - lags / mean_length)[:, None], 0.0)
    inefficiency = np.where(varies, np.maximum(1.0, 1 + 2 * terms.sum(axis=0)), 1.0)
    return inefficiency.reshape(values.shape[1:])


def blocks(walkers: NDArray[np.integer], g: float) -> list[NDArray[np.intp]]:
    """Consecutive snapshots of one walker each, several statistical inefficiencies long.

    A walker that is shorter than a block is one block. Where there would be fewer than a handful of blocks they are
    made shorter, since a variance over two or three says nothing.

    Args:
        walkers: (S,), index of the walker of each snapshot.
        g: statistical inefficiency, in snapshots.

    Returns:
        The indices of the snapshots of each block; every snapshot is in exactly one.
    """
    if not (math.isfinite(g) and g >= 1):
        raise ValueError(f"statistical inefficiency {g!r} must be a number >= 1")
    slices = walker_slices(walkers)
    fewest = math.ceil(MINIMUM_BLOCKS / len(slices))
    result: list[NDArray[np.intp]] = []
    for index in slices:
        by_length = int(len(index) / (BLOCK_INEFFICIENCIES * g))
        result += np.array_split(index, min(len(index), max(1, fewest, by_length)))
    return result


def block_bootstrap_counts(walkers: NDArray[np.integer], g: float, replicates: int, seed: int) -> Floats:
    """How often each snapshot appears in each replicate of a block bootstrap.

    A replicate draws n - 1 of the n blocks with replacement, which makes the variance over replicates of a mean
    unbiased (McCarthy & Snowden 1985); n draws would give (n - 1)/n of it. The weights of a replicate are
    w · counts, renormalised.

    Args:
        walkers: (S,), index of the walker of each snapshot.
        g: statistical inefficiency, in snapshots.
        replicates: number of replicates.
        seed: of the draws.

    Returns:
        (replicates, S). With a single snapshot there is nothing to resample, and all counts are 1.

    References:
        Künsch, Ann. Statist. 17, 1217 (1989); McCarthy & Snowden, Vital Health Stat. 2, 95 (1985).
    """
    parts = blocks(walkers, g)
    if len(parts) == 1:
        return np.ones((replicates, len(walkers)))
    draws = np.random.default_rng(seed).multinomial(
        len(parts) - 1, np.full(len(parts), 1 / len(parts)), size=replicates
    )
    counts = np.empty((replicates, len(walkers)))
    for block, index in enumerate(parts):
        counts[:, index] = draws[:, block, None]
    return counts
