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
    """Dimensionless free energies of the references; that of the first is zero.

    Args:
        reduced: (references, snapshots), u_k of each pooled snapshot, those of the first reference first.
        counts: (references,), snapshots of each.

    Raises:
        ValueError: for counts that do not add up to the snapshots.
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
    """ln Σ_k N_k exp(f_k - [u_k - u_0]) of each snapshot, with u_0 that of the first reference.

    Args:
        reduced: (references, snapshots).
        counts: (references,).
        free: (references,), from :func:`free_energies`.
    """
    exponents = (np.log(counts) + free)[:, None] - (reduced - reduced[0])
    result: NDArray[np.float64] = logsumexp(exponents, axis=0)
    return result


def weights(
    target: Float[Array, " snapshots"], first: Float[Array, " snapshots"], mixture: Float[Array, " snapshots"]
) -> Float[Array, " snapshots"]:
    """Normalised weights of the pooled snapshots; traceable.

    Args:
        target: u of the potential and state point that are asked for.
        first: u_0 of the first reference: differences of energies keep the digits that energies lose.
        mixture: from :func:`log_mixture`.
    """
    return jax.nn.softmax(-(target - first) - mixture)
