r"""Stillinger-Weber: pairs and angles of tetrahedral crystals.

.. math::
    U = \sum_{i<j} A \epsilon \left[B (\sigma/r)^p - (\sigma/r)^q\right] e^{\sigma/(r - r_c)}
      + \sum_i \sum_{j<k} \lambda \epsilon \left(\cos\theta_{jik} + \tfrac13\right)^2
        e^{\gamma\sigma/(r_{ij} - r_c)} e^{\gamma\sigma/(r_{ik} - r_c)}

with :math:`r_c = a\sigma`. In refinement r_c stays where the neighbour list ends while sigma moves.

The sum over triplets is done without triplets: with :math:`h_j = e^{\gamma\sigma/(r_{ij} - r_c)}` and unit vectors u_j,

.. math::
    \sum_{j<k} h_j h_k (\cos\theta + \tfrac13)^2 = \tfrac12\left[\Big|\sum_j h_j u_j \otimes u_j\Big|^2
      + \tfrac23 \Big|\sum_j h_j u_j\Big|^2 + \tfrac19 \Big(\sum_j h_j\Big)^2 - \tfrac{16}{9} \sum_j h_j^2\right]

References:
    Stillinger & Weber, Phys. Rev. B 31, 5262 (1985), eqs. 2.3-2.5 and table I.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from aiida_difftre.engine.contract.term_options import StillingerWeberOptions
from aiida_difftre.engine.potentials.pairs import masked_distances
from aiida_difftre.engine.potentials.term import Environment, Parameters, Term

END = 0.995
"""Fraction of the cutoff beyond which a pair counts as outside.

The exponential is below e^-110 there, and its derivatives would be products of zero and infinity in float32.
"""


def integer_power(base: Array, exponent: float) -> Array:
    """Raise to a power; integer ones are products, several times faster than the general one.

    Args:
        base: Numbers, of any shape.
        exponent: The exponent.

    Returns:
        The powers, in the shape of the base.
    """
    return base ** int(exponent) if exponent == int(exponent) else base**exponent


class Bonds(NamedTuple):
    """Distances and directions, by components, from each atom to its neighbours."""

    distance: Float[Array, "atoms neighbors"]
    unit: tuple[Array, Array, Array]
    within: Bool[Array, "atoms neighbors"]


@dataclass(frozen=True)
class StillingerWeber(Term):
    r"""Stillinger-Weber potential of tetrahedral crystals: pairs and angles; several species share the parameters.

    .. math::
        U = \sum_{i<j} A \epsilon \left[B (\sigma/r)^p - (\sigma/r)^q\right] e^{\sigma/(r - r_c)}
          + \sum_i \sum_{j<k} \lambda \epsilon \left(\cos\theta_{jik} + \tfrac13\right)^2
            e^{\gamma\sigma/(r_{ij} - r_c)} e^{\gamma\sigma/(r_{ik} - r_c)}

    Args:
        species: Chemical symbols of the potential.
        cutoff: The cutoff r_c, Å, which must be a times the initial sigma.
        initial: Names and initial values of the parameters: epsilon (eV), sigma (Å), A, B, lambda, gamma.
        p: Exponent of the repulsion.
        q: Exponent of the attraction.

    References:
        F. H. Stillinger and T. A. Weber, Phys. Rev. B 31, 5262 (1985), eqs. 2.3-2.5 and table I.

    Example:
        A pair of silicon atoms is bound by epsilon = 2.17 eV at 2^(1/6) sigma = 2.35 Å:

        >>> import jax
        >>> import jax.numpy as jnp
        >>> from aiida_difftre.engine.potentials.stillinger_weber import StillingerWeber
        >>> from aiida_difftre.engine.potentials.term import Environment
        >>> term = StillingerWeber.from_spec(("Si",), 1.8 * 2.0951, {"preset": "silicon"})
        >>> vectors = jnp.array([[[2.3517, 0.0, 0.0]], [[-2.3517, 0.0, 0.0]]])
        >>> dimer = Environment(vectors, jnp.ones((2, 1), bool), jnp.zeros(2, int), jnp.zeros((2, 1), int))
        >>> energies = term.energy(term.init(jax.random.key(0)), term.project(dimer))
        >>> round(float(energies.sum()), 2)
        -2.17
    """

    initial: tuple[tuple[str, float], ...]
    p: float
    q: float

    @classmethod
    def from_spec(cls, species: tuple[str, ...], cutoff: float, hyperparameters: dict[str, Any]) -> Self:
        """Make the term from the spec of a potential, and check its hyperparameters.

        Args:
            species: Chemical symbols of the potential.
            cutoff: Cutoff, Å.
            hyperparameters: Any of epsilon, sigma, A, B, lambda, gamma, a, p, q and ``preset``, which is ``silicon``
                (the default) or ``diamond``; what is given beside it takes precedence.

        Returns:
            The term.

        Raises:
            ValueError: Where a hyperparameter is unknown or out of range; the message names it and the remedy.
        """
        return cls(species, cutoff, **StillingerWeberOptions.read(hyperparameters).complete(species, cutoff))

    def init(self, key: Array) -> Parameters:
        """The initial values; nothing is random."""
        return {name: jnp.array(value) for name, value in self.initial}

    def project(self, environment: Environment) -> Bonds:
        """Distances and directions."""
        distance, within = masked_distances(environment, END * self.cutoff)
        x, y, z = (jnp.where(within, part / distance, 0.0) for part in environment.axes())
        return Bonds(distance, (x, y, z), within)

    def energy(self, parameters: Parameters, projected: Bonds) -> Float[Array, " atoms"]:
        """Energy of each atom, eV."""
        distance, axes, within = projected
        value = {name: parameter.astype(distance.dtype) for name, parameter in parameters.items()}
        ratio = value["sigma"] / distance
        inverse = value["sigma"] / (distance - self.cutoff)
        radial = (
            value["A"] * (value["B"] * integer_power(ratio, self.p) - integer_power(ratio, self.q)) * jnp.exp(inverse)
        )
        pairs = 0.5 * jnp.sum(jnp.where(within, radial, 0.0), -1)

        h = jnp.where(within, jnp.exp(value["gamma"] * inverse), 0.0)
        # Component by component: sums over neighbours that fuse with what they are of.
        first = sum(jnp.sum(h * u, -1) ** 2 for u in axes)
        second = sum(
            (1 if a == b else 2) * jnp.sum(h * axes[a] * axes[b], -1) ** 2 for a in range(3) for b in range(a, 3)
        )
        same = jnp.sum(h**2, -1)
        angles = (second + 2 / 3 * first + jnp.sum(h, -1) ** 2 / 9 - 16 / 9 * same) / 2
        return value["epsilon"] * (pairs + value["lambda"] * angles)
