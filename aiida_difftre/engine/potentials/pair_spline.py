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

from aiida_difftre.engine.contract.term_options import PairSplineOptions, pair_labels
from aiida_difftre.engine.potentials.pairs import PairDistances, PairTerm
from aiida_difftre.engine.potentials.term import Parameters


@dataclass(frozen=True)
class PairSpline(PairTerm):
    r"""Pair potential of free shape: a cubic spline of the distance for each pair of species.

    .. math:: u(r) = \sum_k c_k B\left(\frac{r - r_k}{h}\right), \qquad r_k = r_0 + k h

    with the cardinal cubic B-spline B. The control points c are the parameters.

    Args:
        species: Chemical symbols of the potential.
        cutoff: Distance from which the energy is zero, Å.
        inner: The first knot r_0, Å; the potential is a line below it.
        knots: Number of free control points of each pair of species, at ``inner`` and then every
            h = (cutoff - inner)/(knots + 1).
        values: Initial energies at these knots for each pair of species, (pairs, knots), eV; None for no interaction.

    References:
        de Boor, A Practical Guide to Splines (Springer, 2001), chapter IX.

    Example:
        The spline goes through the values at its knots:

        >>> import jax
        >>> import jax.numpy as jnp
        >>> from aiida_difftre.engine.potentials.pair_spline import PairSpline
        >>> from aiida_difftre.engine.potentials.pairs import PairDistances
        >>> term = PairSpline.from_spec(("Ar",), 6.0, {"inner": 3.0, "knots": 5, "values": [1.0, 0.5, 0.2, 0.1, 0.0]})
        >>> term.positions.tolist()
        [3.0, 3.5, 4.0, 4.5, 5.0]
        >>> pairs = PairDistances(jnp.array([[3.0, 4.0]]), jnp.array([[True, True]]), jnp.array([[0, 0]]))
        >>> [round(u, 4) for u in term.pair_energy(term.init(jax.random.key(0)), pairs)[0].tolist()]
        [1.0, 0.2]
    """

    inner: float
    knots: int = 40
    values: tuple[tuple[float, ...], ...] | None = None

    @classmethod
    def from_spec(cls, species: tuple[str, ...], cutoff: float, hyperparameters: dict[str, Any]) -> Self:
        """Check the hyperparameters.

        ``inner`` is 0.2 of the cutoff by default; ``values`` is a list, or a mapping such as ``{"C-O": [...]}``.

        Raises:
            ValueError: naming the value.
        """
        return cls(species, cutoff, **PairSplineOptions.read(hyperparameters).complete(species, cutoff))

    @property
    def positions(self) -> np.ndarray:
        """The knots of the free control points, (knots,), Å."""
        return np.linspace(self.inner, self.cutoff, self.knots + 2)[: self.knots]

    def curvatures(self) -> tuple[np.ndarray, np.ndarray]:
        r"""Compute what makes second derivatives of control points, :math:`(c_{k-1} - 2 c_k + c_{k+1})/h^2`.

        Returns:
            The knots but the first, where the curvature is zero, and up to h before the cutoff, (knots,), Å; and the
            matrix from the control points of a pair, eV, to the second derivatives there, (knots, knots), 1/Å².
        """
        edges = np.linspace(self.inner, self.cutoff, self.knots + 2)
        differences = np.eye(self.knots) - 2 * np.eye(self.knots, k=1) + np.eye(self.knots, k=2)
        return edges[1:-1], differences / (edges[1] - edges[0]) ** 2

    def init(self, key: Array) -> Parameters:
        """The spline through ``values``, or no interaction; nothing is random."""
        if self.values is None:
            return {"control_points": jnp.zeros((len(pair_labels(self.species)), self.knots))}
        # U(r_k) = (c_k-1 + 4 c_k + c_k+1)/6, and with c_-1 = 2 c_0 - c_1 it is c_0 at the first knot.
        matrix = (np.eye(self.knots, k=-1) + 4 * np.eye(self.knots) + np.eye(self.knots, k=1)) / 6
        matrix[0, :2] = 1.0, 0.0
        return {"control_points": jnp.asarray(np.linalg.solve(matrix, np.array(self.values).T).T)}

    def pair_energy(self, parameters: Parameters, pairs: PairDistances) -> Float[Array, "atoms neighbors"]:
        """The spline, eV."""
        dtype = pairs.distance.dtype
        free = parameters["control_points"].astype(dtype)
        # c_-1 = 2 c_0 - c_1 makes the curvature at the first knot zero.
        first = 2 * free[:, :1] - free[:, 1:2]
        points = jnp.concatenate([first, free, jnp.zeros((free.shape[0], 3), dtype)], axis=1)
        coordinate = (pairs.distance - self.inner) * ((self.knots + 1) / (self.cutoff - self.inner))
        interval = jnp.clip(jnp.floor(coordinate), 0, self.knots).astype(jnp.int32)
        t = jnp.maximum(coordinate - interval, 0.0)
        weights = ((1 - t) ** 3, 4 - 6 * t**2 + 3 * t**3, 1 + 3 * t + 3 * t**2 - 3 * t**3, t**3)
        flat, start = points.reshape(-1), pairs.pair * points.shape[1] + interval
        inside = sum(weight * flat[start + offset] for offset, weight in enumerate(weights)) / 6
        slope = (flat[start + 2] - flat[start]) / 2
        return jnp.where(coordinate < 0, inside + slope * jnp.minimum(coordinate, 0.0), inside)
