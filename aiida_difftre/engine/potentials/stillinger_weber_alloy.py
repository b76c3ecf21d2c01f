r"""Stillinger-Weber potential with parameter sets by species, for compounds such as SiC.

.. math::
    U = \sum_{i<j} A \epsilon \left[B (\sigma/r)^p - (\sigma/r)^q\right] e^{\sigma/(r - r_c)}
      + \sum_i \sum_{j<k} \lambda_{jik} \sqrt{\epsilon_{ij} \epsilon_{ik}} \left(\cos\theta_{jik} + \tfrac13\right)^2
        e^{\gamma_{ij}\sigma_{ij}/(r_{ij} - r_{c,ij})} e^{\gamma_{ik}\sigma_{ik}/(r_{ik} - r_{c,ik})}

All but λ, p and q belong to a pair of species, and λ to a triplet with its centre. Sums over pairs of neighbours are
those over products of moments of each species of neighbours, so that the cost grows with the neighbours and not with
their square.

References:
    F. H. Stillinger and T. A. Weber, Phys. Rev. B 31, 5262 (1985), eqs. 2.3-2.5.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Any, NamedTuple, Self

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from aiida_difftre.engine.contract.tetrahedral_options import StillingerWeberAlloyOptions
from aiida_difftre.engine.potentials.pairs import PairDistances, of_pair, pair_distances
from aiida_difftre.engine.potentials.stillinger_weber import END, integer_power
from aiida_difftre.engine.potentials.term import Environment, Parameters, Term


class SpeciesBonds(NamedTuple):
    """Distances and directions, by components, from each atom to its neighbours, and their species."""

    pairs: PairDistances
    unit: tuple[Array, Array, Array]
    species: Int[Array, " atoms"]
    neighbor_species: Int[Array, "atoms neighbors"]


@dataclass(frozen=True)
class StillingerWeberAlloy(Term):
    r"""Stillinger-Weber potential of tetrahedral compounds, with parameter sets by species.

    Args:
        species: Chemical symbols of the potential.
        cutoff: The largest of the distances r_c = a sigma at which pairs end, Å.
        initial: Names and initial values of the parameters: epsilon (eV), sigma (Å), A, B, gamma for each pair of
            species, and lambda for each triplet, by its centre and then by the pair of its ends.
        ends: Distance r_c of each pair of species, (pairs,), Å, which is not trained.
        p: Exponent of the repulsion.
        q: Exponent of the attraction.

    References:
        F. H. Stillinger and T. A. Weber, Phys. Rev. B 31, 5262 (1985), eqs. 2.3-2.5.

    Example:
        >>> import jax
        >>> from aiida_difftre.engine.potentials.stillinger_weber_alloy import StillingerWeberAlloy
        >>> sigma = {"Si-Si": 2.0951, "Si-C": 1.7, "C-C": 1.4}
        >>> term = StillingerWeberAlloy.from_spec(("Si", "C"), 1.8 * 2.0951, {"epsilon": 2.2, "sigma": sigma})
        >>> parameters = term.init(jax.random.key(0))
        >>> parameters["sigma"].shape, parameters["lambda"].shape  # pairs, and triplets
        ((3,), (6,))
    """

    initial: tuple[tuple[str, tuple[float, ...]], ...]
    ends: tuple[float, ...]
    p: float
    q: float

    @classmethod
    def from_spec(cls, species: tuple[str, ...], cutoff: float, hyperparameters: dict[str, Any]) -> Self:
        """Check the hyperparameters.

        ``epsilon`` (eV) and ``sigma`` (Å), and any of ``A``, ``B``, ``gamma`` and ``a`` = r_c/sigma, are numbers, or
        mappings such as ``{"Si-C": 1.7, ...}``; ``lambda`` is a number, or a mapping from triplets with the centre in
        the middle, such as ``{"C-Si-C": 21.0, ...}``. What is not given is that of silicon.

        Raises:
            ValueError: naming the value.
        """
        options = StillingerWeberAlloyOptions.read(hyperparameters)
        return cls(species, cutoff, **options.complete(species, cutoff))

    def init(self, key: Array) -> Parameters:
        """The initial values; nothing is random."""
        return {name: jnp.array(values) for name, values in self.initial}

    def project(self, environment: Environment) -> SpeciesBonds:
        """Distances and directions."""
        pairs = pair_distances(environment, END * self.cutoff, len(self.species))
        end = jnp.array(self.ends, pairs.distance.dtype)[pairs.pair]
        within = pairs.within & (pairs.distance < END * end)
        distance = jnp.where(within, pairs.distance, END * end)
        x, y, z = (jnp.where(within, part / distance, 0.0) for part in environment.axes())
        inside = PairDistances(distance, within, pairs.pair)
        return SpeciesBonds(inside, (x, y, z), environment.species, environment.neighbor_species)

    def energy(self, parameters: Parameters, projected: SpeciesBonds) -> Float[Array, " atoms"]:
        """Energy of each atom, eV."""
        bonds = projected.pairs
        dtype = bonds.distance.dtype
        names = ("epsilon", "sigma", "A", "B", "gamma")
        epsilon, sigma, a, b, gamma = (of_pair(parameters[name], bonds) for name in names)
        ratio = sigma / bonds.distance
        inverse = sigma / (bonds.distance - jnp.array(self.ends, dtype)[bonds.pair])
        bracket = b * integer_power(ratio, self.p) - integer_power(ratio, self.q)
        radial = epsilon * a * bracket * jnp.exp(inverse)
        pairs = 0.5 * jnp.sum(jnp.where(bonds.within, radial, 0.0), -1)
        weight = jnp.where(bonds.within, jnp.sqrt(epsilon) * jnp.exp(gamma * inverse), 0.0)
        return pairs + self._angles(parameters["lambda"].astype(dtype), weight, projected)

    def _angles(
        self, strength: Float[Array, " triplets"], weight: Float[Array, "atoms neighbors"], bonds: SpeciesBonds
    ) -> Float[Array, " atoms"]:
        """Energy of the angles at each atom, from moments of the neighbours of each species."""
        count = len(self.species)
        moments: list[list[Array]] = []
        alone: list[Array] = []
        for kind in range(count):
            h = jnp.where(bonds.neighbor_species == kind, weight, 0.0)
            axes = bonds.unit
            first = [jnp.sum(h * u, -1) for u in axes]
            # Off the diagonal twice, by sqrt(2) in either factor of a product.
            second = [
                (1.0 if m == n else 2**0.5) * jnp.sum(h * axes[m] * axes[n], -1) for m in range(3) for n in range(m, 3)
            ]
            moments.append([*second, *((2 / 3) ** 0.5 * one for one in first), jnp.sum(h, -1) / 3])
            alone.append(jnp.sum(h**2, -1))
        table = strength.reshape(count, -1)[bonds.species]
        total = jnp.zeros_like(alone[0])
        for column, (s, t) in enumerate(combinations_with_replacement(range(count), 2)):
            product = sum(x * y for x, y in zip(moments[s], moments[t], strict=True))
            found = (product - 16 / 9 * alone[s]) / 2 if s == t else product
            total = total + table[:, column] * found
        return total
