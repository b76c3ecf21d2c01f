r"""Weights of snapshots pooled from several references, each sampled with a potential or at a state point of its own.

.. math:: w(x) \propto \frac{e^{-u(x)}}{\sum_k N_k\, e^{f_k - u_k(x)}}, \qquad u = \frac{U + PV}{kT}

over all snapshots of all references k, with N_k snapshots each. The free energies f_k follow from the snapshots alone;
the denominator does not depend on the parameters that are refined. One reference gives the softmax of
:func:`aiida_difftre.engine.reweighting.weights.boltzmann_weights`.

References:
    Shirts & Chodera, J. Chem. Phys. 129, 124105 (2008), eqs. 11 and 13.
"""

from __future__ import annotations

import os

import jax
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray
from scipy.special import logsumexp


def free_energies(reduced: NDArray[np.float64], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    r"""Estimate the dimensionless free energies of several references from their pooled snapshots (MBAR).

    .. math:: f_k = -\ln \sum_i \frac{e^{-u_k(x_i)}}{\sum_l N_l\, e^{f_l - u_l(x_i)}}

    Args:
        reduced: Reduced energies u_k = (U_k + P_k V)/kT_k of each pooled snapshot for each reference, (references,
            snapshots); the snapshots of the first reference come first.
        counts: Number of snapshots of each reference, (references,).

    Returns:
        Free energies f, (references,); that of the first reference is zero.

    Raises:
        ValueError: For counts that do not add up to the snapshots.

    References:
        M. R. Shirts and J. D. Chodera, J. Chem. Phys. 129, 124105 (2008), eq. 11.

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
    # With JAX, pymbar would change the precision of the whole process.
    os.environ["PYMBAR_DISABLE_JAX"] = "TRUE"
    from pymbar import MBAR

    solved = np.asarray(MBAR(reduced, counts, solver_protocol="robust").f_k, np.float64)
    return solved - solved[0]


def log_mixture(
    reduced: NDArray[np.float64], counts: NDArray[np.int64], free: NDArray[np.float64]
) -> NDArray[np.float64]:
    r"""Compute the logarithm of the mixture of references that each pooled snapshot was drawn from.

    .. math:: \ln \sum_k N_k\, e^{f_k - [u_k(x) - u_0(x)]}

    with u_0 that of the first reference.

    Args:
        reduced: Reduced energies of each pooled snapshot for each reference, (references, snapshots).
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
    exponents = (np.log(counts) + free)[:, None] - (reduced - reduced[0])
    result: NDArray[np.float64] = logsumexp(exponents, axis=0)
    return result


def weights(
    target: Float[Array, " snapshots"], first: Float[Array, " snapshots"], mixture: Float[Array, " snapshots"]
) -> Float[Array, " snapshots"]:
    r"""Weigh the pooled snapshots of several references for a potential and a state point.

    .. math:: w(x) \propto \frac{e^{-u(x)}}{\sum_k N_k\, e^{f_k - u_k(x)}}

    Args:
        target: Reduced energies u of the potential and state point that are asked for, (snapshots,).
        first: Reduced energies u_0 of the first reference, (snapshots,): differences keep the digits that energies
            lose.
        mixture: Logarithms of the mixture, (snapshots,), from :func:`log_mixture`.

    Returns:
        Weights, (snapshots,), which add up to one; JAX can differentiate them by ``target``.

    References:
        M. R. Shirts and J. D. Chodera, J. Chem. Phys. 129, 124105 (2008), eq. 13.

    Example:
        >>> import jax.numpy as jnp
        >>> from aiida_difftre.engine.reweighting.mbar import weights
        >>> weights(jnp.zeros(4), jnp.zeros(4), jnp.zeros(4)).tolist()
        [0.25, 0.25, 0.25, 0.25]
    """
    return jax.nn.softmax(-(target - first) - mixture)
