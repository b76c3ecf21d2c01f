r"""Free energies of several references, each sampled with a potential or at a state point of its own, by MBAR.

.. math:: w(x_i) \propto \frac{e^{-u(x_i)}}{g_{k(i)} \sum_k n_k\, e^{f_k - u_k(x_i)}}, \qquad u = \frac{U + PV}{kT},
    \qquad n_k = \frac{N_k}{g_k}

over all snapshots of all references k, with N_k snapshots each, of which g_k are worth an independent one. This is what
MBAR of every g_k-th snapshot says, on average over where these begin, and none is thrown away. The free energies f_k
follow from the snapshots alone; the denominator does not depend on the parameters that are refined. One reference gives
the softmax of :func:`aiida_difftre.engine.reweighting.weights.boltzmann_weights`, and equal g_k do not count.

References:
    Shirts & Chodera, J. Chem. Phys. 129, 124105 (2008), eqs. 11 and 13.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import optimize
from scipy.special import logsumexp

ACCURACY = 1e-9
"""Largest deviation of the fraction of the snapshots that a reference stands for from that which it sampled."""


def free_energies(
    reduced: NDArray[np.float64], counts: NDArray[np.int64], inefficiencies: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    r"""Estimate the dimensionless free energies of several references from their pooled snapshots (MBAR).

    .. math:: f_k = -\ln \sum_i \frac{e^{-u_k(x_i)}}{g_{k(i)} \sum_l n_l\, e^{f_l - u_l(x_i)}}

    They are where the convex function

    .. math:: \sum_i \frac{1}{g_{k(i)}} \ln \sum_k n_k e^{f_k - u_k(x_i)} - \sum_k n_k f_k

    is least, which SciPy finds with its first and second derivatives.

    Args:
        reduced: Reduced energies u_k = (U_k + P_k V)/kT_k of each pooled snapshot for each reference, (references,
            snapshots); the snapshots of the first reference come first.
        counts: Number of snapshots of each reference, (references,).
        inefficiencies: Statistical inefficiency of the snapshots of each reference, (references,); None where they
            are independent.

    Returns:
        Free energies f, (references,); that of the first reference is zero.

    Raises:
        ValueError: For counts that do not add up to the snapshots, inefficiencies below one, and for references that
            hardly overlap.

    References:
        M. R. Shirts and J. D. Chodera, J. Chem. Phys. 129, 124105 (2008), eqs. 11 and C1 to C3.

    Example:
        A constant added to the energy is the difference in free energy:

        >>> import numpy as np
        >>> from aiida_difftre.engine.reweighting.mbar import free_energies
        >>> first = np.random.default_rng(1).normal(size=200) ** 2 / 2
        >>> free_energies(np.stack([first, first + 1.5]), np.array([100, 100])).round(6).tolist()
        [0.0, 1.5]
    """
    reduced, counts = np.asarray(reduced, np.float64), np.asarray(counts)
    if reduced.ndim != 2 or len(counts) != len(reduced) or counts.sum() != reduced.shape[1] or np.any(counts < 1):
        raise ValueError(
            f"{len(counts)} references with {counts.tolist()} snapshots do not fit reduced energies of shape "
            f"{reduced.shape}; give one row per reference and one column per snapshot"
        )
    each = _each(inefficiencies, counts)
    if len(counts) == 1:
        return np.zeros(1)
    system = _Equations(reduced - reduced[0], counts, each)
    nearly = optimize.minimize(
        system.value, system.guess(), jac=system.slope, hess=system.curvature, method="trust-exact", tol=1e-6
    )
    # From differences of values alone the last digits do not follow.
    found = optimize.root(system.slope, nearly.x, jac=system.curvature, tol=1e-12).x
    is_least = np.max(np.abs(system.slope(found))) < ACCURACY
    if not is_least or np.linalg.eigvalsh(system.curvature(found))[0] < ACCURACY:
        raise ValueError(
            f"the free energies of {len(counts)} references with {counts.tolist()} snapshots were not found: they "
            "hardly overlap; leave those out that overlap least"
        )
    return np.concatenate([[0.0], found])


def _each(inefficiencies: NDArray[np.float64] | None, counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """The inefficiencies of all references, (references,)."""
    each = np.ones(len(counts)) if inefficiencies is None else np.asarray(inefficiencies, np.float64)
    if each.shape != counts.shape or not np.all(np.isfinite(each) & (each >= 1)):
        raise ValueError(
            f"statistical inefficiencies {each.tolist()} of {len(counts)} references; give a number >= 1 for each"
        )
    return each


class _Equations:
    """The convex function of the free energies but the first, over the number of samples, and its derivatives."""

    def __init__(
        self, differences: NDArray[np.float64], counts: NDArray[np.int64], inefficiencies: NDArray[np.float64]
    ) -> None:
        self._differences, self._first = differences, int(counts[0])
        self._samples = counts / inefficiencies
        self._worth = np.repeat(1 / inefficiencies, counts)

    def guess(self) -> NDArray[np.float64]:
        """Free energies by the snapshots of the first reference alone."""
        first = self._differences[1:, : self._first]
        guess: NDArray[np.float64] = np.log(self._first) - logsumexp(-first, axis=1)
        return guess

    def _shares(self, free: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The logarithm of the mixture, (snapshots,), and the share of each reference, (references, snapshots)."""
        exponents = (np.log(self._samples) + np.concatenate([[0.0], free]))[:, None] - self._differences
        mixture = logsumexp(exponents, axis=0)
        return mixture, np.exp(exponents - mixture)

    def value(self, free: NDArray[np.float64]) -> float:
        return float(self._worth @ self._shares(free)[0] - self._samples[1:] @ free) / self._samples.sum()

    def slope(self, free: NDArray[np.float64]) -> NDArray[np.float64]:
        expected = self._shares(free)[1] @ self._worth
        slope: NDArray[np.float64] = (expected - self._samples)[1:] / self._samples.sum()
        return slope

    def curvature(self, free: NDArray[np.float64]) -> NDArray[np.float64]:
        shares = self._shares(free)[1]
        worth = self._worth * shares
        whole: NDArray[np.float64] = (np.diag(worth.sum(1)) - worth @ shares.T) / self._samples.sum()
        return whole[1:, 1:]


def log_mixture(
    reduced: NDArray[np.float64],
    counts: NDArray[np.int64],
    free: NDArray[np.float64],
    inefficiencies: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    r"""Compute the logarithm of the mixture of references that each pooled snapshot was drawn from.

    .. math:: \ln \left( g_{k(i)} \sum_k n_k\, e^{f_k - u_k(x_i)} \right)

    Args:
        reduced: Reduced energies u_k of each pooled snapshot for each reference, (references, snapshots); or their
            differences from those for which snapshots are to be weighed, whose weights are then proportional to the
            inverse of the mixture: differences keep the digits that energies lose.
        counts: Number of snapshots of each reference, (references,).
        free: Free energies, (references,), from :func:`free_energies`.
        inefficiencies: Statistical inefficiency of the snapshots of each reference, (references,), as there.

    Returns:
        Logarithms, (snapshots,).

    References:
        M. R. Shirts and J. D. Chodera, J. Chem. Phys. 129, 124105 (2008), eq. 13.

    Example:
        >>> import numpy as np
        >>> from aiida_difftre.engine.reweighting.mbar import log_mixture
        >>> log_mixture(np.zeros((2, 4)), np.array([2, 2]), np.zeros(2)).round(4).tolist()  # ln 4
        [1.3863, 1.3863, 1.3863, 1.3863]
    """
    each = _each(inefficiencies, counts)
    mixture = logsumexp((np.log(counts / each) + free)[:, None] - reduced, axis=0)
    result: NDArray[np.float64] = mixture + np.repeat(np.log(each), counts)
    return result
