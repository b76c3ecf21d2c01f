r"""Pair potential as a cubic spline of control points, one set for each pair of species.

.. math:: U = \sum_{i<j} \sum_k c_k B\left(\frac{r - r_k}{h}\right), \qquad r_k = r_0 + k h

B is the cardinal cubic B-spline, so that U is twice continuously differentiable whatever the control points c are; each
acts on distances within 2h of its knot only. The last three control points are zero, and with them value,
slope and curvature at the cutoff. Below the first knot, where the curvature is zero, the potential goes on as a line.

References:
    de Boor, A Practical Guide to Splines (Springer, 2001), chapter IX.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from aiida_difftre.engine.potentials import Environment, Parameters, known_hyperparameters
from aiida_difftre.engine.potentials.pairs import PairDistances, half_sum, number, pair_distances, pair_labels


@dataclass(frozen=True)
class PairSpline:
    """Cubic spline of the distance.

    Args:
        species: chemical symbols.
        cutoff: Å.
        inner: first knot, Å; the potential is a line below it.
        knots: control points of each pair of species that are free, at ``inner`` and then every
            h = (cutoff - inner)/(knots + 1).
    """

    species: tuple[str, ...]
    cutoff: float
    inner: float
    knots: int = 40

    is_pairwise = True

    @classmethod
    def from_spec(cls, species: tuple[str, ...], cutoff: float, hyperparameters: dict[str, Any]) -> Self:
        """Check the hyperparameters; ``inner`` is 0.2 of the cutoff by default.

        Raises:
            ValueError: naming the value.
        """
        given = known_hyperparameters(cls, hyperparameters)
        inner = number("inner", given.get("inner", 0.2 * cutoff))
        knots = given.get("knots", 40)
        if not 0 <= inner < cutoff:
            raise ValueError(f"inner = {inner} Å must lie between 0 and the cutoff, {cutoff} Å")
        if isinstance(knots, bool) or not isinstance(knots, int) or not 2 <= knots <= 1000:
            raise ValueError(f"knots = {knots!r} must be an integer from 2 to 1000")
        return cls(species, cutoff, inner, knots)

    @property
    def positions(self) -> np.ndarray:
        """Knots of the free control points, Å."""
        return np.linspace(self.inner, self.cutoff, self.knots + 2)[: self.knots]

    def init(self, key: Array) -> Parameters:
        """No interaction; nothing is random."""
        return {"control_points": jnp.zeros((len(pair_labels(self.species)), self.knots))}

    def project(self, environment: Environment) -> PairDistances:
        """Distances and pairs."""
        return pair_distances(environment, self.cutoff, len(self.species))

    def energy(self, parameters: Parameters, projected: PairDistances) -> Float[Array, " atoms"]:
        """Energy of each atom, eV."""
        dtype = projected.distance.dtype
        free = parameters["control_points"].astype(dtype)
        # c_-1 = 2 c_0 - c_1 makes the curvature at the first knot zero.
        first = 2 * free[:, :1] - free[:, 1:2]
        points = jnp.concatenate([first, free, jnp.zeros((free.shape[0], 3), dtype)], axis=1)
        coordinate = (projected.distance - self.inner) * ((self.knots + 1) / (self.cutoff - self.inner))
        interval = jnp.clip(jnp.floor(coordinate), 0, self.knots).astype(jnp.int32)
        t = jnp.maximum(coordinate - interval, 0.0)
        weights = ((1 - t) ** 3, 4 - 6 * t**2 + 3 * t**3, 1 + 3 * t + 3 * t**2 - 3 * t**3, t**3)
        flat, start = points.reshape(-1), projected.pair * points.shape[1] + interval
        inside = sum(weight * flat[start + offset] for offset, weight in enumerate(weights)) / 6
        slope = (flat[start + 2] - flat[start]) / 2
        energy = jnp.where(coordinate < 0, inside + slope * jnp.minimum(coordinate, 0.0), inside)
        return half_sum(energy, projected)
