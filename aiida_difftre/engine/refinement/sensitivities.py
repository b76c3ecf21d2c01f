r"""Derivatives of averages over a reference trajectory by the parameters, and the metric of the ensemble.

An average A of quantities a_i(θ) with weights w_i(U_i(θ)) has the derivatives

.. math:: \frac{\partial A}{\partial \theta} = \sum_i \frac{\partial A}{\partial U_i} \frac{\partial U_i}{\partial
    \theta} + \sum_i \frac{\partial A}{\partial a_i} \frac{\partial a_i}{\partial \theta},

the first part of which is a product of two matrices for all averages at once. The second part takes a vector-Jacobian
product for each value of a stress or a stiffness, and is zero for observables of positions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray

from aiida_difftre.engine import units
from aiida_difftre.engine.potentials.term import Parameters
from aiida_difftre.engine.reweighting.reference import Reference

ROUNDING = 1e-12
"""A derivative whose variance is below this part of its mean square is the same in all snapshots."""

Cotangents = Mapping[str, Array]
"""Derivatives of values by the quantities of each snapshot: (values, snapshots, ...) by quantity."""


def columns(tree: Parameters, movable: Sequence[bool], rows: int = 1) -> NDArray[np.float64]:
    """Put the leaves that may move beside each other.

    Args:
        tree: Arrays in the shape of the parameters, with leading rows where there are several.
        movable: Whether each leaf may move.
        rows: Number of rows.

    Returns:
        The array, (rows, parameters), float64.
    """
    leaves = [leaf for leaf, moves in zip(jax.tree.leaves(tree), movable, strict=True) if moves]
    return np.concatenate([np.asarray(leaf, np.float64).reshape(rows, -1) for leaf in leaves], axis=1)


def moved(tree: Parameters, movable: Sequence[bool], change: NDArray[np.float64]) -> Parameters:
    """Add a change of the leaves that may move, which stand beside each other as :func:`columns` puts them.

    Args:
        tree: Parameters.
        movable: Whether each leaf may move.
        change: The change, (parameters,).

    Returns:
        The changed parameters.
    """
    leaves, structure = jax.tree.flatten(tree)
    ends = np.cumsum([leaf.size if moves else 0 for leaf, moves in zip(leaves, movable, strict=True)])
    return jax.tree.unflatten(
        structure,
        [
            leaf + change[end - leaf.size : end].reshape(leaf.shape) if moves else leaf
            for leaf, moves, end in zip(leaves, movable, ends, strict=True)
        ],
    )


def products(cotangents: Cotangents) -> list[int]:
    """Find which values take a vector-Jacobian product: those that depend on the parameters besides the weights.

    Args:
        cotangents: Derivatives of the values by the quantities of each snapshot.

    Returns:
        Their numbers.
    """
    direct = [np.asarray(slope) for key, slope in cotangents.items() if key != "energy"]
    count = len(next(iter(cotangents.values())))
    return [number for number in range(count) if any(slope[number].any() for slope in direct)]


def derivatives(
    reference: Reference,
    parameters: Parameters,
    energies: Float[np.ndarray, " snapshots"],
    cotangents: Cotangents,
    movable: Sequence[bool],
) -> tuple[Float[np.ndarray, "values parameters"], Float[np.ndarray, "snapshots parameters"]]:
    """Compute the derivatives of values by the parameters, and the rows of the metric.

    Args:
        reference: The snapshots.
        parameters: Parameters at which to derive.
        energies: Energies of the snapshots there, eV.
        cotangents: Derivatives of the values by the quantities of each snapshot.
        movable: Whether each leaf of the parameters may move.

    Returns:
        The derivatives J, and rows X with F = Xᵀ X: a step δ changes U/kT by what fluctuates with sqrt(δᵀ F δ).
    """
    weight = np.asarray(reference.weights(jnp.asarray(energies)))
    slopes = columns(reference.snapshots.energy_slopes(parameters), movable, len(weight))
    direct = {key: np.asarray(slope) for key, slope in cotangents.items() if key != "energy"}
    jacobian = np.asarray(cotangents["energy"], np.float64) @ slopes
    still = np.zeros_like(energies)
    for number in products(cotangents):
        pulled = {"energy": still, **{key: slope[number] for key, slope in direct.items()}}
        jacobian[number] += columns(reference.snapshots.pullback(parameters, pulled), movable)[0]
    scale: float = units.BOLTZMANN * reference.point.temperature
    rows = np.sqrt(weight)[:, None] * (slopes - weight @ slopes) / scale
    # An offset of the energy costs nothing and moves nothing; rounding would call it cheap.
    rows[:, np.sum(rows**2, axis=0) <= ROUNDING * (weight @ slopes**2) / scale**2] = 0.0
    return jacobian, rows
