"""Terms that are sums over pairs: pairs of species, distances that are safe to differentiate, the switch at the cutoff.

:class:`PairTerm` is such a sum; :class:`SwitchedPairs` one that ends smoothly at the cutoff, and whose hyperparameters
are numbers for each pair of species. A new one states its fields and the energy of a pair.
"""

from __future__ import annotations

import itertools
import math
from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from aiida_difftre.engine import units
from aiida_difftre.engine.contract import quantum
from aiida_difftre.engine.contract.term_options import TermOptions, pair_labels, positive_pairs
from aiida_difftre.engine.potentials.term import Environment, Kind, Parameters, Term, masses

QUADRATURE = 16
"""Points of the integrals of a tail, on either side of the cutoff."""


class PairDistances(NamedTuple):
    """Distances from each atom to its neighbours, and which pair of species each neighbour forms with the atom.

    Args:
        distance: Distances, (atoms, neighbors), Å; the cutoff itself where ``within`` is False.
        within: Whether a real neighbour is inside the cutoff, (atoms, neighbors).
        pair: Index of the pair of species, (atoms, neighbors), in the order of
            ``aiida_difftre.engine.contract.term_options.pair_labels``.
        partners: Number density of the partners that an atom has in each pair of species, (atoms, pairs), 1/Å³; None
            where what lies beyond the cutoff does not count.

    Example:
        >>> import jax.numpy as jnp
        >>> from aiida_difftre.engine.potentials.pairs import PairDistances
        >>> pairs = PairDistances(jnp.array([[3.8, 8.5]]), jnp.array([[True, False]]), jnp.array([[0, 0]]))
        >>> int(pairs.within.sum())
        1
    """

    distance: Float[Array, "atoms neighbors"]
    within: Bool[Array, "atoms neighbors"]
    pair: Int[Array, "atoms neighbors"]
    partners: Float[Array, "atoms pairs"] | None = None


@dataclass(frozen=True)
class PairTerm(Term):
    r"""Base class of sums over pairs; a subclass defines the energy of a pair.

    .. math:: U = \tfrac12 \sum_i \sum_j u(r_{ij})

    where u depends on the pair of species and must go smoothly to zero at the cutoff.

    Args:
        species: Chemical symbols of the potential.
        cutoff: Distance from which u is zero, Å.

    Example:
        Soft spheres, u = (1 - r/r_c)³ in eV:

        >>> from dataclasses import dataclass
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from aiida_difftre.engine.potentials.pairs import PairDistances, PairTerm
        >>> @dataclass(frozen=True)
        ... class SoftSpheres(PairTerm):
        ...     @classmethod
        ...     def from_spec(cls, species, cutoff, hyperparameters):
        ...         return cls(species, cutoff)
        ...
        ...     def init(self, key):
        ...         return {"height": jnp.array(1.0)}
        ...
        ...     def pair_energy(self, parameters, pairs):
        ...         return parameters["height"] * (1 - pairs.distance / self.cutoff) ** 3
        >>> term = SoftSpheres.from_spec(("Ar",), 4.0, {})
        >>> pairs = PairDistances(jnp.array([[2.0]]), jnp.array([[True]]), jnp.array([[0]]))
        >>> term.energy(term.init(jax.random.key(0)), pairs).tolist()
        [0.0625]
    """

    @property
    def kind(self) -> Kind:
        """A sum over pairs."""
        return Kind.PAIRWISE

    def project(self, environment: Environment) -> PairDistances:
        """Compute distances and pairs of species.

        Args:
            environment: The neighbours of all atoms.

        Returns:
            Distances within the cutoff.
        """
        return pair_distances(environment, self.cutoff, len(self.species))

    def energy(self, parameters: Parameters, projected: PairDistances) -> Float[Array, " atoms"]:
        """Compute the energy of each atom, half of that of each of its pairs.

        Args:
            parameters: Parameters of this term.
            projected: What ``project`` returned.

        Returns:
            Energy of each atom, (atoms,), eV.
        """
        return 0.5 * jnp.sum(jnp.where(projected.within, self.pair_energy(parameters, projected), 0.0), -1)

    @abstractmethod
    def pair_energy(self, parameters: Parameters, pairs: PairDistances) -> Float[Array, "atoms neighbors"]:
        """Compute the energy u of each pair.

        Args:
            parameters: Parameters of this term.
            pairs: Distances and pairs of species.

        Returns:
            Energies, (atoms, neighbors), eV; any finite value where a neighbour is not within the cutoff.
        """


@dataclass(frozen=True)
class SwitchedPairs(PairTerm):
    r"""Base class of pair potentials that a factor takes smoothly to zero at the cutoff.

    .. math:: u(r) = u_\mathrm{bare}(r)\, S(r)

    What the factor takes away may be put back on average, as if atoms beyond the onset were everywhere (g = 1),

    .. math:: U_\mathrm{tail} = 2\pi \sum_i \sum_b \frac{N_b}{V} \int u_\mathrm{bare}(r) [1 - S(r)]\, r^2\, dr

    of which energies, pressures and stiffness get their part, and forces none. The pressure is minus its derivative by
    the volume: for -C₆/r⁶ it is -(2/3)πρ²C₆/r_c³, and the other half of the textbook's -(4/3)πρ²C₆/r_c³ is what S
    itself pulls with between onset and cutoff.

    Quantum nuclei of a pair spread like Gaussians about their distance; to second order, with the reduced mass μ of
    standard atomic weights, the classical energy at a temperature T becomes

    .. math:: u_\mathrm{bare} + \frac{\hbar^2}{24 \mu k T} \Big( u_\mathrm{bare}'' + \frac{2 u_\mathrm{bare}'}{r} \Big)

    A subclass names its trained and its fixed hyperparameters, one positive number for each pair of species, and
    defines ``bare_energy``. Where the hyperparameters are anything else it states its ``options``.

    Args:
        species: Chemical symbols of the potential.
        cutoff: Distance from which the energy is zero, Å.
        onset: Distance up to which S is 1, Å; a spec may leave it out, and it is then 0.9 of the cutoff.
        tail: Whether energy and pressure of what lies beyond are added; the bare energy must then fall faster than r⁻³.
        feynman_hibbs: Temperature, K, at which quantum nuclei are corrected for to second order; None for classical
            ones.

    References:
        M. P. Allen and D. J. Tildesley, Computer Simulation of Liquids (Oxford, 1987), section 2.8;
        R. P. Feynman and A. R. Hibbs, Quantum Mechanics and Path Integrals (McGraw-Hill, 1965), section 10.3.

    Example:
        >>> from dataclasses import dataclass
        >>> import jax
        >>> from aiida_difftre.engine.potentials.pairs import SwitchedPairs, of_pair
        >>> @dataclass(frozen=True)
        ... class InverseSquare(SwitchedPairs):
        ...     strength: tuple[float, ...]
        ...     trained = ("strength",)
        ...
        ...     def bare_energy(self, parameters, pairs):
        ...         return of_pair(parameters["strength"], pairs) / pairs.distance**2
        >>> term = InverseSquare.from_spec(("C", "O"), 5.0, {"strength": {"C-C": 1.0, "C-O": 2.0, "O-O": 3.0}})
        >>> term.onset, term.strength
        (4.5, (1.0, 2.0, 3.0))
    """

    onset: float = field(kw_only=True)
    tail: bool = field(default=False, kw_only=True)
    feynman_hibbs: float | None = field(default=None, kw_only=True)

    trained: ClassVar[tuple[str, ...]]
    fixed: ClassVar[tuple[str, ...]] = ()
    options: ClassVar[type[TermOptions] | None] = None
    """What the hyperparameters may be; None for positive numbers, whatever they are."""

    @classmethod
    def from_spec(cls, species: tuple[str, ...], cutoff: float, hyperparameters: dict[str, Any]) -> Self:
        """Make the term from the spec of a potential, and check its hyperparameters.

        Args:
            species: Chemical symbols of the potential.
            cutoff: Cutoff, Å.
            hyperparameters: One number for all pairs of species, or a mapping such as ``{"C-O": 3.1}``, by name.

        Returns:
            The term.

        Raises:
            ValueError: Where a hyperparameter is unknown or out of range; the message names it and the remedy.
        """
        options = cls.options or positive_pairs(cls.__name__, (*cls.trained, *cls.fixed))
        return cls(species=species, cutoff=cutoff, **options.read(hyperparameters).complete(species, cutoff))

    @property
    def has_tail(self) -> bool:
        """Whether what lies beyond the cutoff counts."""
        return self.tail

    def init(self, key: Array) -> Parameters:
        """The initial values; nothing is random."""
        return {name: jnp.array(getattr(self, name)) for name in self.trained}

    def project(self, environment: Environment) -> PairDistances:
        """Compute distances and pairs of species, and for a tail the densities.

        Args:
            environment: The neighbours of all atoms.

        Returns:
            Distances within the cutoff.
        """
        pairs = super().project(environment)
        if not self.tail or environment.densities is None:
            return pairs
        partners = partner_densities(environment.species, environment.densities.astype(pairs.distance.dtype))
        return pairs._replace(partners=partners)

    def energy(self, parameters: Parameters, projected: PairDistances) -> Float[Array, " atoms"]:
        """Compute the energy of each atom, half of that of each of its pairs, and its tail.

        Args:
            parameters: Parameters of this term.
            projected: What ``project`` returned.

        Returns:
            Energy of each atom, (atoms,), eV.
        """
        near = super().energy(parameters, projected)
        if projected.partners is None:
            return near
        return near + 2 * math.pi * (projected.partners @ self._beyond(parameters, projected.partners.dtype))

    def _beyond(self, parameters: Parameters, dtype: Any) -> Float[Array, " pairs"]:
        """The integral of what the factor takes away, eV Å³, for each pair of species.

        Beyond the cutoff by the inverse distance, in which powers are polynomials: the rule of Gauss is exact.
        """
        nodes, weights = np.polynomial.legendre.leggauss(QUADRATURE)
        x, weights = (nodes + 1) / 2, weights / 2
        inner = self.onset + (self.cutoff - self.onset) * x
        r = jnp.asarray(np.concatenate([inner, self.cutoff / x]), dtype)
        shells = np.concatenate([weights * (self.cutoff - self.onset) * inner**2, weights * self.cutoff**3 / x**4])
        count = len(pair_labels(self.species))
        distance = jnp.broadcast_to(r, (count, len(r)))
        pair = jnp.broadcast_to(jnp.arange(count)[:, None], distance.shape)
        bare = self._spread_energy(parameters, PairDistances(distance, distance > 0, pair))
        return jnp.sum(bare * (1 - switch(r, self.onset, self.cutoff)) * jnp.asarray(shells, dtype), -1)

    def pair_energy(self, parameters: Parameters, pairs: PairDistances) -> Float[Array, "atoms neighbors"]:
        """u with the switch, eV."""
        return self._spread_energy(parameters, pairs) * switch(pairs.distance, self.onset, self.cutoff)

    def _spread_energy(self, parameters: Parameters, pairs: PairDistances) -> Float[Array, "atoms neighbors"]:
        """u without the switch, eV, of nuclei as spread as quantum mechanics has them at a temperature."""
        if self.feynman_hibbs is None:
            return self.bare_energy(parameters, pairs)

        def bare(distance: Array) -> Array:
            return self.bare_energy(parameters, pairs._replace(distance=distance))

        r, along = pairs.distance, jnp.ones_like(pairs.distance)
        (value, slope), (_, curvature) = jax.jvp(lambda x: jax.jvp(bare, (x,), (along,)), (r,), (along,))
        mass = masses(self.species)
        reduced = [a * b / (a + b) for a, b in itertools.combinations_with_replacement(mass, 2)]
        factor = quantum.HBAR_SQUARED / (24 * np.array(reduced) * units.BOLTZMANN * self.feynman_hibbs)
        return value + of_pair(jnp.asarray(factor), pairs) * (curvature + 2 * slope / r)

    @abstractmethod
    def bare_energy(self, parameters: Parameters, pairs: PairDistances) -> Float[Array, "atoms neighbors"]:
        """Compute the energy of each pair without the factor that takes it to zero.

        Args:
            parameters: Parameters of this term.
            pairs: Distances and pairs of species.

        Returns:
            Energies, (atoms, neighbors), eV.
        """


def pair_distances(environment: Environment, cutoff: float, n_species: int) -> PairDistances:
    """Compute the distances to the neighbours within a cutoff, and the pair of species of each.

    Args:
        environment: The neighbours of all atoms.
        cutoff: Cutoff, Å.
        n_species: Number of species of the potential.

    Returns:
        Distances, which of them are within the cutoff, and indices of pairs.

    Example:
        >>> import jax.numpy as jnp
        >>> from aiida_difftre.engine.potentials.pairs import pair_distances
        >>> from aiida_difftre.engine.potentials.term import Environment
        >>> vectors = jnp.array([[[2.0, 0.0, 0.0]], [[-2.0, 0.0, 0.0]]])
        >>> dimer = Environment(vectors, jnp.ones((2, 1), bool), jnp.array([0, 1]), jnp.array([[1], [0]]))
        >>> pair_distances(dimer, 3.0, 2).pair.tolist()  # of C-C, C-O, O-O
        [[1], [1]]
    """
    distance, within = masked_distances(environment, cutoff)
    low = jnp.minimum(environment.species[..., None], environment.neighbor_species)
    high = jnp.maximum(environment.species[..., None], environment.neighbor_species)
    return PairDistances(distance, within, low * n_species - low * (low - 1) // 2 + high - low)


def partner_densities(
    species: Int[Array, " atoms"], densities: Float[Array, "atoms species"]
) -> Float[Array, "atoms pairs"]:
    """Compute the density of the partners that each atom has in each pair of species.

    Args:
        species: Index of the species of each atom.
        densities: Number density of each species around each atom, (atoms, species), 1/Å³.

    Returns:
        Densities, (atoms, pairs), 1/Å³; zero for the pairs that an atom is not of.

    Example:
        >>> import jax.numpy as jnp
        >>> from aiida_difftre.engine.potentials.pairs import partner_densities
        >>> partner_densities(jnp.array([0, 1]), jnp.array([[0.25, 0.5], [0.25, 0.5]])).tolist()
        [[0.25, 0.5, 0.0], [0.0, 0.25, 0.5]]
    """
    count = densities.shape[-1]
    columns = []
    for first, second in itertools.combinations_with_replacement(range(count), 2):
        of_first = jnp.where(species == first, densities[..., second], 0.0)
        of_second = jnp.where(species == second, densities[..., first], 0.0)
        columns.append(of_first if first == second else of_first + of_second)
    return jnp.stack(columns, -1)


def masked_distances(
    environment: Environment, cutoff: float
) -> tuple[Float[Array, "atoms neighbors"], Bool[Array, "atoms neighbors"]]:
    """Compute distances that are safe to differentiate, also where a list is padded.

    The mask acts before the square root: padded pairs sit at r = 0, where it has no derivative.

    Args:
        environment: The neighbours of all atoms.
        cutoff: Cutoff, Å.

    Returns:
        Distances, (atoms, neighbors), Å, with the cutoff where there is no neighbour within it; and where there is one,
        (atoms, neighbors).

    Example:
        >>> import jax.numpy as jnp
        >>> from aiida_difftre.engine.potentials.pairs import masked_distances
        >>> from aiida_difftre.engine.potentials.term import Environment
        >>> vectors = jnp.array([[[2.0, 0.0, 0.0], [0.0, 0.0, 0.0]]])
        >>> atom = Environment(vectors, jnp.array([[True, False]]), jnp.array([0]), jnp.array([[0, 0]]))
        >>> distance, within = masked_distances(atom, 3.0)
        >>> distance.tolist(), within.tolist()
        ([[2.0, 3.0]], [[True, False]])
    """
    if environment.distances is not None:
        within = environment.mask & (environment.distances < cutoff)
        return jnp.where(within, environment.distances, cutoff), within
    squared = environment.squared_distances()
    within = environment.mask & (squared < cutoff**2)
    return jnp.sqrt(jnp.where(within, squared, cutoff**2)), within


def of_pair(values: Float[Array, " pairs"], distances: PairDistances) -> Array:
    """Look up the parameter of each neighbour's pair of species.

    Args:
        values: One value for each pair of species, (pairs,).
        distances: Distances with the index of each pair.

    Returns:
        The values, (atoms, neighbors), or a single number where there is one species; in the precision of the
        distances.

    Example:
        >>> import jax.numpy as jnp
        >>> from aiida_difftre.engine.potentials.pairs import PairDistances, of_pair
        >>> pairs = PairDistances(jnp.array([[2.0, 3.0]]), jnp.array([[True, True]]), jnp.array([[0, 2]]))
        >>> of_pair(jnp.array([1.0, 2.0, 3.0]), pairs).tolist()
        [[1.0, 3.0]]
    """
    values = values.astype(distances.distance.dtype)
    return values[0] if values.shape[0] == 1 else values[distances.pair]


def switch(distance: Float[Array, "*shape"], onset: float, cutoff: float) -> Float[Array, "*shape"]:
    r"""Compute the factor that takes a pair potential smoothly to zero at the cutoff.

    .. math:: S(r) = 1 - 10 t^3 + 15 t^4 - 6 t^5, \qquad t = \frac{r - r_\mathrm{onset}}{r_c - r_\mathrm{onset}}

    between the onset and the cutoff, 1 below and 0 above: twice continuously differentiable.

    Args:
        distance: Distances, any shape, Å.
        onset: Distance up to which the factor is 1, Å.
        cutoff: Distance from which it is 0, Å.

    Returns:
        The factor, in the shape of the distances.

    Example:
        >>> import jax.numpy as jnp
        >>> from aiida_difftre.engine.potentials.pairs import switch
        >>> switch(jnp.array([2.0, 3.5, 4.0]), 3.0, 4.0).tolist()
        [1.0, 0.5, 0.0]
    """
    t = jnp.clip((distance - onset) / (cutoff - onset), 0.0, 1.0)
    return 1 - t**3 * (10 - t * (15 - 6 * t))
