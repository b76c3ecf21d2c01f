r"""The natural gradient: steepest descent, with the change of the distribution as length of a step.

A step δ changes the distribution that the snapshots came from by

.. math::

    \ln\frac{N}{N_\mathrm{eff}} \approx \delta^\mathsf{T} F \delta,
    \qquad F = \beta^2\,\mathrm{Cov}\left(\frac{\partial U}{\partial\theta}, \frac{\partial U}{\partial\theta}\right)

with the weighted covariance over the snapshots. The direction that lowers the loss L most for what it costs in
effective samples is

.. math::

    d = \frac{M^{-1} g}{\sqrt{g^\mathsf{T} M^{-1} g}}, \qquad M = F + \lambda\,\overline{\mathrm{diag} F},
    \qquad g = \frac{\partial L}{\partial\theta}.

The bar is an average over each array of parameters: what the snapshots hardly tell, such as the energy of pairs that
are too close to occur, hardly moves, and the direction does not depend on the units of different arrays. Its length is
1 where length is measured in the standard deviation of the change of U/kT, so that a learning rate of 0.5 leaves about
exp(-0.25) of the effective samples. For a pair potential and a radial distribution function F is the matrix of inverse
Monte Carlo.

References:
    S. Amari, Neural Computation 10, 251 (1998); A. P. Lyubartsev and A. Laaksonen, Phys. Rev. E 52, 3730 (1995).
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from aiida_difftre.engine import units
from aiida_difftre.engine.errors import EngineError, ExitStatus
from aiida_difftre.engine.objective import Data
from aiida_difftre.engine.potentials import Parameters

LARGEST_BYTES = 2 << 30
"""Of the derivatives of the energies of all snapshots by all parameters."""


def direction(
    data: Sequence[Data], parameters: Parameters, slopes: Parameters, free: Parameters, damping: float
) -> Parameters:
    """The natural direction in place of a gradient; parameters that are fixed, or that nothing depends on, get zero.

    Args:
        data: state points.
        parameters: where.
        slopes: gradient of the loss.
        free: booleans; which parameters may move.
        damping: λ.

    Raises:
        EngineError: where the derivatives do not fit into memory.
    """
    leaves, structure = jax.tree.flatten(slopes)
    movable = jax.tree.leaves(free)
    gradient = np.concatenate([np.ravel(leaf) for leaf, moves in zip(leaves, movable, strict=True) if moves])
    count = sum(len(point.reference.energies) for point in data)
    if count * gradient.size * 8 > LARGEST_BYTES:
        raise EngineError(
            ExitStatus.INVALID_INPUT,
            f"the natural gradient of {gradient.size} parameters on {count} snapshots takes more than "
            f"{LARGEST_BYTES >> 30} GiB; leave it out (natural_gradient: false), or take fewer snapshots",
        )
    rows = np.concatenate([_deviations(point, parameters, movable) for point in data])
    arrays = np.repeat(
        np.arange(len(leaves)), [leaf.size if moves else 0 for leaf, moves in zip(leaves, movable, strict=True)]
    )
    found = solve(rows, np.asarray(gradient, np.float64), damping, arrays)
    ends = np.cumsum([leaf.size if moves else 0 for leaf, moves in zip(leaves, movable, strict=True)])
    parts = [
        jnp.asarray(found[end - leaf.size : end].reshape(leaf.shape), leaf.dtype) if moves else jnp.zeros_like(leaf)
        for leaf, moves, end in zip(leaves, movable, ends, strict=True)
    ]
    moved: Parameters = jax.tree.unflatten(structure, parts)
    return moved


def _deviations(point: Data, parameters: Parameters, movable: Sequence[bool]) -> NDArray[np.float64]:
    """Rows whose inner products are the matrix F: sqrt(w_i) β (dU_i/dθ - <dU/dθ>)."""
    reference = point.reference
    weight = np.asarray(reference.weights(jnp.asarray(reference.snapshots.energies(parameters))))
    found = reference.snapshots.energy_slopes(parameters)
    leaves = [leaf for leaf, moves in zip(jax.tree.leaves(found), movable, strict=True) if moves]
    slopes = np.concatenate([leaf.reshape(len(weight), -1) for leaf in leaves], axis=1)
    deviations = slopes - weight @ slopes
    scale: float = units.BOLTZMANN * reference.point.temperature
    return np.asarray(np.sqrt(weight)[:, None] * deviations / scale, np.float64)


def solve(
    rows: Float[NDArray[np.float64], "samples parameters"],
    gradient: Float[NDArray[np.float64], " parameters"],
    damping: float,
    arrays: Int[NDArray[np.intp], " parameters"],
) -> Float[NDArray[np.float64], " parameters"]:
    """The natural direction, from rows X with F = Xᵀ X; through the smaller one of Xᵀ X and X Xᵀ.

    Args:
        rows: X.
        gradient: g.
        damping: λ > 0.
        arrays: to which array each parameter belongs.
    """
    size = np.bincount(arrays)
    mean = np.bincount(arrays, np.sum(rows**2, axis=0)) / np.maximum(size, 1)
    scale = np.sqrt(mean[arrays])
    active = scale > 0
    result = np.zeros_like(gradient)
    x, g = rows[:, active] / scale[active], gradient[active] / scale[active]
    if x.shape[0] < x.shape[1]:
        inner = np.linalg.solve(x @ x.T + damping * np.eye(len(x)), x @ g)
        found = np.asarray((g - x.T @ inner) / damping, np.float64)
    else:
        found = np.asarray(np.linalg.solve(x.T @ x + damping * np.eye(x.shape[1]), g), np.float64)
    length = float(g @ found)
    if length > 0:
        result[active] = found / (scale[active] * np.sqrt(length))
    return result
