"""Terms that are sums over pairs: pairs of species, distances that are safe to differentiate, the switch at the cutoff.

:class:`PairTerm` is such a sum; :class:`SwitchedPairs` one that ends smoothly at the cutoff, and whose hyperparameters
are numbers for each pair of species. A new one states its fields and the energy of a pair.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Self

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from aiida_difftre.engine.contract.term_options import TermOptions, positive_pairs
from aiida_difftre.engine.potentials.term import Environment, Kind, Parameters, Term


class PairDistances(NamedTuple):
    """Distances from each atom to its neighbours.

    Args:
        distance: Å; the cutoff where ``within`` is False.
        within: True for real neighbours inside the cutoff.
        pair: index into :func:`aiida_difftre.engine.contract.term_options.pair_labels`.
    """

    distance: Float[Array, "atoms neighbors"]
    within: Bool[Array, "atoms neighbors"]
    pair: Int[Array, "atoms neighbors"]


@dataclass(frozen=True)
class PairTerm(Term):
    """A sum over pairs, U = ½ Σ_i Σ_j u(r_ij), where u depends on the pair of species and is zero beyond the cutoff.

    Args:
        species: chemical symbols.
        cutoff: Å.
    """

    @property
    def kind(self) -> Kind:
        """A sum over pairs."""
        return Kind.PAIRWISE

    def project(self, environment: Environment) -> PairDistances:
        """Distances and pairs."""
        return pair_distances(environment, self.cutoff, len(self.species))

    def energy(self, parameters: Parameters, projected: PairDistances) -> Float[Array, " atoms"]:
        """Energy of each atom, eV: half of that of each of its pairs."""
        return 0.5 * jnp.sum(jnp.where(projected.within, self.pair_energy(parameters, projected), 0.0), -1)

    @abstractmethod
    def pair_energy(self, parameters: Parameters, pairs: PairDistances) -> Float[Array, "atoms neighbors"]:
        """u, eV; any finite value where a neighbour is not within the cutoff."""


@dataclass(frozen=True)
class SwitchedPairs(PairTerm):
    """A sum over pairs that a factor takes smoothly to zero, with positive numbers for each pair of species.

    Such hyperparameters are fields that ``trained`` or ``fixed`` names; ``trained`` are the parameters. A class with
    other fields states its ``options``.

    Args:
        species: chemical symbols.
        cutoff: Å.
        onset: where the switch starts, Å; 0.9 of the cutoff by default.
    """

    onset: float = field(kw_only=True)

    trained: ClassVar[tuple[str, ...]]
    fixed: ClassVar[tuple[str, ...]] = ()
    options: ClassVar[type[TermOptions] | None] = None
    """What the hyperparameters may be; None for positive numbers, whatever they are."""

    @classmethod
    def from_spec(cls, species: tuple[str, ...], cutoff: float, hyperparameters: dict[str, Any]) -> Self:
        """Check the hyperparameters; those of pairs are numbers, or mappings such as ``{"C-O": 3.1}``.

        Raises:
            ValueError: naming the value.
        """
        options = cls.options or positive_pairs(cls.__name__, (*cls.trained, *cls.fixed))
        return cls(species=species, cutoff=cutoff, **options.read(hyperparameters).complete(species, cutoff))

    def init(self, key: Array) -> Parameters:
        """The initial values; nothing is random."""
        return {name: jnp.array(getattr(self, name)) for name in self.trained}

    def pair_energy(self, parameters: Parameters, pairs: PairDistances) -> Float[Array, "atoms neighbors"]:
        """u with the switch, eV."""
        return self.bare_energy(parameters, pairs) * switch(pairs.distance, self.onset, self.cutoff)

    @abstractmethod
    def bare_energy(self, parameters: Parameters, pairs: PairDistances) -> Float[Array, "atoms neighbors"]:
        """u without the switch, eV."""


def pair_distances(environment: Environment, cutoff: float, n_species: int) -> PairDistances:
    """Distances within the cutoff and the pairs of species that they belong to."""
    distance, within = masked_distances(environment, cutoff)
    low = jnp.minimum(environment.species[..., None], environment.neighbor_species)
    high = jnp.maximum(environment.species[..., None], environment.neighbor_species)
    return PairDistances(distance, within, low * n_species - low * (low - 1) // 2 + high - low)


def masked_distances(
    environment: Environment, cutoff: float
) -> tuple[Float[Array, "atoms neighbors"], Bool[Array, "atoms neighbors"]]:
    """Distances, the cutoff where there is no neighbour within it, and where there is one.

    The mask acts before the square root: padded pairs sit at r = 0, where it has no derivative.
    """
    if environment.distances is not None:
        within = environment.mask & (environment.distances < cutoff)
        return jnp.where(within, environment.distances, cutoff), within
    squared = environment.squared_distances()
    within = environment.mask & (squared < cutoff**2)
    return jnp.sqrt(jnp.where(within, squared, cutoff**2)), within


def of_pair(values: Float[Array, " pairs"], distances: PairDistances) -> Array:
    """The parameter of each neighbour's pair of species, in the precision of the distances."""
    values = values.astype(distances.distance.dtype)
    return values[0] if values.shape[0] == 1 else values[distances.pair]


def switch(distance: Float[Array, "*shape"], onset: float, cutoff: float) -> Float[Array, "*shape"]:
    """1 up to ``onset``, then 1 - 10 t³ + 15 t⁴ - 6 t⁵ to 0 at ``cutoff``: twice continuously differentiable."""
    t = jnp.clip((distance - onset) / (cutoff - onset), 0.0, 1.0)
    return 1 - t**3 * (10 - t * (15 - 6 * t))
