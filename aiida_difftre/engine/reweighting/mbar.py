r"""Free energies of several references, each sampled with a potential or at a state point of its own, by MBAR.

.. math:: w(x) \propto \frac{e^{-u(x)}}{\sum_k N_k\, e^{f_k - u_k(x)}}, \qquad u = \frac{U + PV}{kT}

over all snapshots of all references k, with N_k snapshots each. The free energies f_k follow from the snapshots alone;
the denominator does not depend on the parameters that are refined. One reference gives the softmax of
:func:`aiida_difftre.engine.reweighting.weights.boltzmann_weights`.

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


def free_energies(reduced: NDArray[np.float64], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    r"""Estimate the dimensionless free energies of several references from their pooled snapshots (MBAR).

    .. math:: f_k = -\ln \sum_i \frac{e^{-u_k(x_i)}}{\sum_l N_l\, e^{f_l - u_l(x_i)}}

    They are where the convex function :math:`\sum_i \ln \sum_k N_k e^{f_k - u_k(x_i)} - \sum_k N_k f_k` is least, which
    SciPy finds with its first and second derivatives.

    Args:
        reduced: Reduced energies u_k = (U_k + P_k V)/kT_k of each pooled snapshot for each reference, (references,
            snapshots); the snapshots of the first reference come first.
        counts: Number of snapshots of each reference, (references,).

    Returns:
        Free energies f, (references,); that of the first reference is zero.

    Raises:
        ValueError: For counts that do not add up to the snapshots, and for references that hardly overlap.

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
    if len(counts) == 1:
        return np.zeros(1)
    system = _Equations(reduced - reduced[0], counts)
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


class _Equations:
    """The convex function of the free energies but the first, over the number of snapshots, and its derivatives."""

    def __init__(self, differences: NDArray[np.float64], counts: NDArray[np.int64]) -> None:
        self._differences, self._counts = differences, counts

    def guess(self) -> NDArray[np.float64]:
        """Free energies by the snapshots of the first reference alone."""
        first = self._differences[1:, : self._counts[0]]
        guess: NDArray[np.float64] = np.log(self._counts[0]) - logsumexp(-first, axis=1)
        return guess

    def _shares(self, free: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The logarithm of the mixture, (snapshots,), and the share of each reference, (references, snapshots)."""
        exponents = (np.log(self._counts) + np.concatenate([[0.0], free]))[:, None] - self._differences
        mixture = logsumexp(exponents, axis=0)
        return mixture, np.exp(exponents - mixture)

    def value(self, free: NDArray[np.float64]) -> float:
        return float(self._shares(free)[0].sum() - self._counts[1:] @ free) / self._counts.sum()

    def slope(self, free: NDArray[np.float64]) -> NDArray[np.float64]:
        expected = self._shares(free)[1].sum(1)
        slope: NDArray[np.float64] = (expected - self._counts)[1:] / self._counts.sum()
        return slope

    def curvature(self, free: NDArray[np.float64]) -> NDArray[np.float64]:
        shares = self._shares(free)[1]
        whole: NDArray[np.float64] = (np.diag(shares.sum(1)) - shares @ shares.T) / self._counts.sum()
        return whole[1:, 1:]


def log_mixture(
    reduced: NDArray[np.float64], counts: NDArray[np.int64], free: NDArray[np.float64]
) -> NDArray[np.float64]:
    r"""Compute the logarithm of the mixture of references that each pooled snapshot was drawn from.

    .. math:: \ln \sum_k N_k\, e^{f_k - u_k(x)}

    Args:
        reduced: Reduced energies u_k of each pooled snapshot for each reference, (references, snapshots); or their
            differences from those for which snapshots are to be weighed, whose weights are then proportional to the
            inverse of the mixture: differences keep the digits that energies lose.
        counts: Number of snapshots of each reference, (references,).
        free: Free energies, (references,), from :func:`free_energies`.

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
    result: NDArray[np.float64] = logsumexp((np.log(counts) + free)[:, None] - reduced, axis=0)
    return result
