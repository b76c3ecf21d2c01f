r"""External fields: one-body potentials along one axis of the cell, as functions of the fractional coordinate.

.. math:: U = \sum_i u(s_i), \qquad s_i = (\mathbf{r}_i \mathbf{h}^{-1})_\mathrm{axis}

with the lattice vectors as rows of h. The field is periodic and deforms with the cell: a homogeneous strain leaves
every s_i where it is, so that the field contributes to no stress and no stiffness, but for the forces
-u'(s) ∂s/∂r. These terms see no neighbours; the cutoff that a spec states for them only makes neighbour lists longer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from aiida_difftre.engine.contract.term_options import ExternalPolynomialOptions, ExternalSplineOptions
from aiida_difftre.engine.potentials.term import Environment, Kind, Parameters, Term


def coordinate(environment: Environment, axis: int) -> Float[Array, " atoms"]:
    """Take the fractional coordinate of each atom along an axis.

    Args:
        environment: The neighbours of all atoms, with fractional positions.
        axis: Index of the lattice vector: 0, 1 or 2.

    Returns:
        Coordinates, (atoms,), in units of the lattice vector.

    Raises:
        ValueError: For an environment that does not say where its atoms are.
    """
    if environment.positions is None:
        raise ValueError("an external field needs fractional positions, which a configuration without a cell has not")
    return environment.positions[..., axis]


@dataclass(frozen=True)
class ExternalPolynomial(Term):
    r"""External field that is a polynomial of the distance from a plane, in fractions of the cell.

    .. math:: u(s) = \sum_k c_k (s - s_0)^k

    with s - s_0 reduced to [-1/2, 1/2]. Where the sum of the odd powers is not zero the energy jumps at s_0 + 1/2.

    Args:
        species: Chemical symbols of the potential; all of them feel the field.
        cutoff: A distance, Å, without meaning for a field.
        coefficients: The coefficients c_0, c_1, ..., eV.
        axis: Lattice vector along which the field varies, 0, 1 or 2.
        center: The fractional coordinate s_0.

    Example:
        A double well, 1 eV high in the middle and zero at s = 0.25 and 0.75:

        >>> import jax
        >>> import jax.numpy as jnp
        >>> from aiida_difftre.engine.potentials.external import ExternalPolynomial
        >>> field = ExternalPolynomial.from_spec(("Ar",), 3.0, {"coefficients": [1.0, 0.0, -32.0, 0.0, 256.0]})
        >>> field.energy(field.init(jax.random.key(0)), jnp.array([-0.25, 0.0, 0.25])).tolist()  # of s - 0.5
        [0.0, 1.0, 0.0]
    """

    coefficients: tuple[float, ...]
    axis: int = 0
    center: float = 0.5

    @property
    def kind(self) -> Kind:
        """A field, the same whatever the neighbours are."""
        return Kind.EXTERNAL

    @classmethod
    def from_spec(cls, species: tuple[str, ...], cutoff: float, hyperparameters: dict[str, Any]) -> Self:
        """Check the hyperparameters.

        Raises:
            ValueError: naming the value.
        """
        return cls(species, cutoff, **ExternalPolynomialOptions.read(hyperparameters).complete(species, cutoff))

    def init(self, key: Array) -> Parameters:
        """The coefficients; nothing is random."""
        return {"coefficients": jnp.array(self.coefficients)}

    def project(self, environment: Environment) -> Float[Array, " atoms"]:
        """Distances from the centre."""
        distance = coordinate(environment, self.axis) - self.center
        return distance - jnp.round(distance)

    def energy(self, parameters: Parameters, projected: Float[Array, " atoms"]) -> Float[Array, " atoms"]:
        """Energy of each atom, eV."""
        coefficients = parameters["coefficients"].astype(projected.dtype)
        total = jnp.zeros_like(projected)
        for power in reversed(range(len(self.coefficients))):
            total = total * projected + coefficients[power]
        return total


class SplinePlace(NamedTuple):
    """Where atoms are between the knots of a periodic spline.

    Args:
        interval: index of the knot below.
        fraction: Fraction of the interval, from 0 to 1.
    """

    interval: Int[Array, " atoms"]
    fraction: Float[Array, " atoms"]


@dataclass(frozen=True)
class ExternalSpline(Term):
    r"""External field of free shape: a periodic cubic spline of a fractional coordinate.

    .. math:: u(s) = \sum_{k=0}^{n-1} c_k B(n s - k)

    with the cardinal cubic B-spline B, periodic in n, so that u is twice continuously differentiable everywhere. The
    control points c are the parameters, and start at zero.

    Args:
        species: Chemical symbols of the potential; all of them feel the field.
        cutoff: A distance, Å, without meaning for a field.
        knots: Number n of control points.
        axis: Lattice vector along which the field varies, 0, 1 or 2.

    References:
        de Boor, A Practical Guide to Splines (Springer, 2001), chapter IX.

    Example:
        >>> import jax
        >>> from aiida_difftre.engine.potentials.external import ExternalSpline
        >>> field = ExternalSpline.from_spec(("Ar",), 3.0, {"knots": 20, "axis": 2})
        >>> field.init(jax.random.key(0))["control_points"].shape
        (20,)
    """

    knots: int = 50
    axis: int = 0

    @property
    def kind(self) -> Kind:
        """A field, the same whatever the neighbours are."""
        return Kind.EXTERNAL

    @classmethod
    def from_spec(cls, species: tuple[str, ...], cutoff: float, hyperparameters: dict[str, Any]) -> Self:
        """Check the hyperparameters.

        Raises:
            ValueError: naming the value.
        """
        return cls(species, cutoff, **ExternalSplineOptions.read(hyperparameters).complete(species, cutoff))

    def init(self, key: Array) -> Parameters:
        """No field; nothing is random."""
        return {"control_points": jnp.zeros(self.knots)}

    def project(self, environment: Environment) -> SplinePlace:
        """Intervals and fractions."""
        scaled = coordinate(environment, self.axis)
        scaled = (scaled - jnp.floor(scaled)) * self.knots
        interval = jnp.clip(jnp.floor(scaled), 0, self.knots - 1).astype(jnp.int32)
        return SplinePlace(interval, scaled - interval)

    def energy(self, parameters: Parameters, projected: SplinePlace) -> Float[Array, " atoms"]:
        """Energy of each atom, eV."""
        t = projected.fraction
        points = parameters["control_points"].astype(t.dtype)
        weights = ((1 - t) ** 3, 4 - 6 * t**2 + 3 * t**3, 1 + 3 * t + 3 * t**2 - 3 * t**3, t**3)
        total = jnp.zeros_like(t)
        for offset, weight in enumerate(weights):
            total = total + weight * points[(projected.interval + offset - 1) % self.knots]
        return total / 6
