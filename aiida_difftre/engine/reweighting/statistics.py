"""Statistics of correlated snapshots: errors of means, and a block bootstrap over walkers. NumPy only."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

WINDOW_TIMES = 4.0
"""Autocorrelation times over which an autocovariance is summed: beyond is noise, and e^-4 of what counts."""

LARGEST_PART = 2 / 3
"""Of all pairs of snapshots that an autocovariance is summed over."""

BLOCK_INEFFICIENCIES = 3.0
"""Length of a bootstrap block over the statistical inefficiency."""

MINIMUM_BLOCKS = 8
"""Blocks are shortened before there are fewer of them than this."""


def walker_slices(walkers: NDArray[np.integer]) -> list[NDArray[np.intp]]:
    """Indices of the snapshots of each walker, in the order in which they are stored."""
    walkers = np.asarray(walkers)
    order = np.argsort(walkers, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(walkers[order])) + 1)


class MeanVariance(NamedTuple):
    """What correlated series tell about their means.

    Args:
        variance: of the mean of each column, the square of its standard error; () or (F,).
        inefficiency: statistical inefficiency g, at least 1: () or (F,). N/g is the number of independent samples.
    """

    variance: Floats
    inefficiency: Floats


def mean_variance(values: Floats, walkers: NDArray[np.integer]) -> MeanVariance:
    r"""Variance of the mean of series sampled by independent walkers, free of bias also where these are short.

    With the autocovariance :math:`\hat\gamma_t` around the mean of all walkers, averaged over the :math:`n_t` pairs
    that are t apart in any walker,

    .. math::
        V = \frac{\sum_{|t| \le W} n_t \hat\gamma_t / N^2}{1 - \sum_{|t| \le W} n_t / N^2},
        \qquad g = \frac{N V}{\hat\gamma_0 + V}.

    The denominator is there because deviations from the mean of the same data are too small, each product of two by V
    on average. Over the whole length of the walkers V becomes the variance between their means, divided by their
    number. W is the first window that is several autocorrelation times g/2 long.

    Args:
        values: (S,) or (S, F), one row per snapshot, in order of time within each walker.
        walkers: (S,), index of the walker of each snapshot.

    Returns:
        V and g of each column. Series that do not vary, or consist of one snapshot, have V = 0 and g = 1.

    References:
        Wolff, Comput. Phys. Commun. 156, 143 (2004), eqs. 31-35, 49; Madras & Sokal, J. Stat. Phys. 50, 109 (1988).
    """
    values = np.asarray(values, dtype=np.float64)
    if len(values) != len(walkers):
        raise ValueError(f"{len(values)} values for {len(walkers)} walker indices")
    columns = values.reshape(len(values), -1)
    count = len(columns)
    indices = walker_slices(walkers)
    longest = max(len(index) for index in indices)
    deviations = columns - columns.mean(axis=0)

    products = np.zeros((longest, columns.shape[1]))
    pairs = np.zeros(longest)
    for index in indices:
        length = len(index)
        spectrum = np.fft.rfft(deviations[index], n=2 * length, axis=0)
        products[:length] += np.fft.irfft(np.abs(spectrum) ** 2, n=2 * length, axis=0)[:length]
        pairs[:length] += length - np.arange(length)
    products[1:] *= 2
    pairs[1:] *= 2

    # By window. Beyond a part of all pairs the denominator would divide noise by nearly nothing.
    used = np.cumsum(pairs) / count**2
    windows = max(1, int(np.count_nonzero(used <= LARGEST_PART)))
    free = np.maximum(1 - used[:windows, None], 1 / count)
    variance = np.cumsum(products[:windows], axis=0) / count**2 / free
    spread = products[0] / count + variance
    rounding = (1e3 * np.finfo(np.float64).eps) ** 2 * np.mean(columns**2, axis=0)
    varies = products[0] / count > rounding
    inefficiency = np.where(varies, count * variance / np.where(spread > 0, spread, 1.0), 1.0)
    inefficiency = np.maximum(inefficiency, 1.0)
    is_long = np.arange(windows)[:, None] >= WINDOW_TIMES * inefficiency / 2
    chosen = np.where(is_long.any(axis=0), np.argmax(is_long, axis=0), windows - 1)
    every = np.arange(columns.shape[1])
    g = inefficiency[chosen, every]
    # Series that alternate have less than this; it is not relied on.
    least = products[0] / count / max(count - 1, 1)
    shape = values.shape[1:]
    found = np.where(varies, np.maximum(variance[chosen, every], least), 0.0)
    return MeanVariance(found.reshape(shape), g.reshape(shape))


def statistical_inefficiency(values: Floats, walkers: NDArray[np.integer]) -> Floats:
    """Statistical inefficiency g of series sampled by independent walkers; see :func:`mean_variance`.

    Args:
        values: (S,) or (S, F), one row per snapshot, in order of time within each walker.
        walkers: (S,), index of the walker of each snapshot.

    Returns:
        g, at least 1: () or (F,).
    """
    return mean_variance(values, walkers).inefficiency


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
