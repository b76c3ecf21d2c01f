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
    """Find the snapshots of each walker, in the order in which they are stored.

    Args:
        walkers: Index of the walker of each snapshot, (snapshots,).

    Returns:
        Indices of the snapshots, one array for each walker.

    Example:
        >>> import numpy as np
        >>> from aiida_difftre.engine.reweighting.statistics import walker_slices
        >>> [index.tolist() for index in walker_slices(np.array([0, 1, 0, 1]))]
        [[0, 2], [1, 3]]
    """
    walkers = np.asarray(walkers)
    order = np.argsort(walkers, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(walkers[order])) + 1)


class MeanVariance(NamedTuple):
    """What correlated series tell about their means.

    Args:
        variance: Variance of the mean of each column, the square of its standard error; () or (columns,).
        inefficiency: Statistical inefficiency g, at least 1; () or (columns,). N snapshots are worth N/g independent
            ones.

    Example:
        >>> import numpy as np
        >>> from aiida_difftre.engine.reweighting.statistics import MeanVariance
        >>> found = MeanVariance(variance=np.array(0.04), inefficiency=np.array(5.0))
        >>> float(np.sqrt(found.variance))
        0.2
    """

    variance: Floats
    inefficiency: Floats


def mean_variance(values: Floats, walkers: NDArray[np.integer], slowest: float = 1.0) -> MeanVariance:
    r"""Estimate the variance of the mean of series from independent walkers, without bias also where these are short.

    With the autocovariance :math:`\hat\gamma_t` around the mean of all walkers, averaged over the :math:`n_t` pairs
    that are t apart in any walker,

    .. math::
        V = \frac{\sum_{|t| \le W} n_t \hat\gamma_t / N^2}{1 - \sum_{|t| \le W} n_t / N^2},
        \qquad g = \frac{N V}{\hat\gamma_0 + V}.

    The denominator is there because deviations from the mean of the same data are too small, each product of two by V
    on average. Over the whole length of the walkers V becomes the variance between their means, divided by their
    number. W is the first window that is several autocorrelation times g/2 long.

    Args:
        values: One row per snapshot, in order of time within each walker, (snapshots,) or (snapshots, columns).
        walkers: Index of the walker of each snapshot, (snapshots,).
        slowest: Statistical inefficiency of what relaxes most slowly in the same snapshots, for which W is long enough,
            too. Where slow changes are small beside what differs from snapshot to snapshot, as in a bin of a
            distribution, they decide the error all the same, but the first lags do not tell.

    Returns:
        V and g of each column. Series that do not vary, or consist of one snapshot, have V = 0 and g = 1.

    Raises:
        ValueError: Where the numbers of values and of walker indices differ.

    References:
        U. Wolff, Comput. Phys. Commun. 156, 143 (2004), eqs. 31-35, 49; N. Madras and A. D. Sokal, J. Stat. Phys. 50,
        109 (1988).

    Example:
        Independent values of variance 1 have a mean of variance 1/N:

        >>> import numpy as np
        >>> from aiida_difftre.engine.reweighting.statistics import mean_variance
        >>> values, walkers = np.random.default_rng(1).normal(size=4000), np.repeat(np.arange(8), 500)
        >>> round(4000 * float(mean_variance(values, walkers).variance), 1)
        1.0
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
    is_long = np.arange(windows)[:, None] >= WINDOW_TIMES * np.maximum(inefficiency, slowest) / 2
    chosen = np.where(is_long.any(axis=0), np.argmax(is_long, axis=0), windows - 1)
    every = np.arange(columns.shape[1])
    g = inefficiency[chosen, every]
    # Series that alternate have less than this; it is not relied on.
    least = products[0] / count / max(count - 1, 1)
    shape = values.shape[1:]
    found = np.where(varies, np.maximum(variance[chosen, every], least), 0.0)
    return MeanVariance(found.reshape(shape), g.reshape(shape))


def statistical_inefficiency(values: Floats, walkers: NDArray[np.integer]) -> Floats:
    """Estimate how many snapshots are worth one independent snapshot, from series of independent walkers.

    Args:
        values: One row per snapshot, in order of time within each walker, (snapshots,) or (snapshots, columns).
        walkers: Index of the walker of each snapshot, (snapshots,).

    Returns:
        Statistical inefficiency g, at least 1; () or (columns,). See :func:`mean_variance`.

    Example:
        Where each value stands ten times, g is ten:

        >>> import numpy as np
        >>> from aiida_difftre.engine.reweighting.statistics import statistical_inefficiency
        >>> values = np.repeat(np.random.default_rng(1).normal(size=1000), 10)
        >>> 8 < float(statistical_inefficiency(values, np.zeros(10000, int))) < 12
        True
    """
    return mean_variance(values, walkers).inefficiency


def blocks(walkers: NDArray[np.integer], g: float) -> list[NDArray[np.intp]]:
    """Cut trajectories into blocks of consecutive snapshots of one walker, several statistical inefficiencies long.

    A walker that is shorter than a block is one block. Where there would be fewer than a handful of blocks they are
    made shorter, since a variance over two or three says nothing.

    Args:
        walkers: Index of the walker of each snapshot, (snapshots,).
        g: Statistical inefficiency, in snapshots.

    Returns:
        The indices of the snapshots of each block; every snapshot is in exactly one.

    Raises:
        ValueError: For a statistical inefficiency below 1, or one that is not finite.

    Example:
        >>> import numpy as np
        >>> from aiida_difftre.engine.reweighting.statistics import blocks
        >>> [len(block) for block in blocks(np.zeros(80, int), 2.0)]
        [7, 7, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6]
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
    """Draw how often each snapshot appears in each replicate of a block bootstrap.

    A replicate draws n - 1 of the n blocks with replacement, which makes the variance over replicates of a mean
    unbiased (McCarthy & Snowden 1985); n draws would give (n - 1)/n of it. The weights of a replicate are
    w · counts, renormalised.

    Args:
        walkers: Index of the walker of each snapshot, (snapshots,).
        g: Statistical inefficiency, in snapshots.
        replicates: Number of replicates.
        seed: Seed of the draws.

    Returns:
        Counts, (replicates, snapshots). With a single snapshot there is nothing to resample, and all counts are 1.

    References:
        H. R. Künsch, Ann. Statist. 17, 1217 (1989); P. J. McCarthy and C. B. Snowden, Vital Health Stat. 2, 95 (1985).

    Example:
        >>> import numpy as np
        >>> from aiida_difftre.engine.reweighting.statistics import block_bootstrap_counts
        >>> block_bootstrap_counts(np.repeat(np.arange(10), 5), 5.0, 3, seed=1).sum(1).tolist()  # nine of ten blocks
        [45.0, 45.0, 45.0]
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
