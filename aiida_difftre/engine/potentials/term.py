"""A term of a potential: what it sees of each atom, and what it must give.

A term is an ``init``/``energy`` pair over the neighbourhood of each atom. What does not depend on the parameters is
computed by ``project``; refinement computes it, and its derivatives with respect to strain, once per trajectory.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from ase.data import atomic_masses, atomic_numbers
from jaxtyping import Array, Bool, Float, Int
from numpy.typing import NDArray

from aiida_difftre.engine.contract.settings import TermSpec
from aiida_difftre.engine.errors import EngineError, ExitStatus

Parameters: TypeAlias = dict[str, Any]


class Environment(NamedTuple):
    """The neighbours of every atom of a configuration, which is all that a potential sees of it.

    Lists of neighbours are padded to the same length; ``mask`` says which entries are real.

    Args:
        displacements: Vectors r_j - r_i from each atom to its neighbours, (atoms, neighbors, 3), Å; any finite value
            where ``mask`` is False.
        mask: Whether an entry is a real neighbour, (atoms, neighbors); it may lie beyond the cutoff of a term.
        species: Index of the species of each atom, (atoms,).
        neighbor_species: Index of the species of each neighbour, (atoms, neighbors).
        positions: Fractional coordinates, unwrapped, (atoms, 3); None where there is no cell. Only external fields look
            at them.
        components: The x, y and z of the displacements as separate arrays, where they are at hand; else None.
        distances: Lengths of the displacements, (atoms, neighbors), Å, where they are at hand; else None. Not zero
            where ``mask`` is False.
        neighbors: Index of each neighbour among the atoms, (atoms, neighbors), any of them where ``mask`` is False;
            None where atoms are looked at one by one. Only terms that pass messages look at it.
        densities: Number density of each species around each atom, (atoms, species), 1/Å³, the same for all atoms; None
            where there is no cell. Only corrections for what lies beyond the cutoff look at them.

    Example:
        Two atoms, each the only neighbour of the other:

        >>> import jax.numpy as jnp
        >>> from aiida_difftre.engine.potentials.term import Environment
        >>> dimer = Environment(
        ...     displacements=jnp.array([[[2.0, 0.0, 0.0]], [[-2.0, 0.0, 0.0]]]),
        ...     mask=jnp.array([[True], [True]]),
        ...     species=jnp.array([0, 0]),
        ...     neighbor_species=jnp.array([[0], [0]]),
        ... )
        >>> dimer.squared_distances().tolist()
        [[4.0], [4.0]]
    """

    displacements: Float[Array, "atoms neighbors 3"]
    mask: Bool[Array, "atoms neighbors"]
    species: Int[Array, " atoms"]
    neighbor_species: Int[Array, "atoms neighbors"]
    positions: Float[Array, "atoms 3"] | None = None
    components: tuple[Array, Array, Array] | None = None
    distances: Float[Array, "atoms neighbors"] | None = None
    neighbors: Int[Array, "atoms neighbors"] | None = None
    densities: Float[Array, "atoms species"] | None = None

    def neighbor_index(self) -> Int[Array, "atoms neighbors"]:
        """Tell which atom each neighbour is, for terms that pass messages.

        Returns:
            Indices of atoms, (atoms, neighbors).

        Raises:
            ValueError: For an environment that does not know it.
        """
        if self.neighbors is None:
            raise ValueError(
                "a term that passes messages needs to know which atoms neighbours are: give Environment(..., "
                "neighbors=lists.index)"
            )
        return self.neighbors

    def axes(self) -> tuple[Array, Array, Array]:
        """Split the displacements into x, y and z; on CPUs these are faster to work with than vectors of three.

        Returns:
            Three arrays, (atoms, neighbors), Å.
        """
        if self.components is not None:
            return self.components
        x, y, z = (self.displacements[..., axis] for axis in range(3))
        return x, y, z

    def squared_distances(self) -> Float[Array, "atoms neighbors"]:
        """Compute the squared distances to the neighbours.

        Returns:
            Squares of the lengths of the displacements, (atoms, neighbors), Å².
        """
        x, y, z = self.axes()
        return x * x + y * y + z * z


class Kind(enum.Enum):
    """What the energy of a term depends on; the less it is, the cheaper are the forces.

    Example:
        >>> from aiida_difftre.engine.potentials.lennard_jones import LennardJones
        >>> LennardJones.from_spec(("Ar",), 8.5, {"epsilon": 0.0103, "sigma": 3.4}).kind
        <Kind.PAIRWISE: 1>
    """

    PAIRWISE = enum.auto()
    """Half of a sum over pairs, the same seen from either atom: no sum over those whose neighbour an atom is."""

    RADIAL = enum.auto()
    """Distances and no directions: one derivative for each neighbour, and not three."""

    GENERAL = enum.auto()
    """Vectors to the neighbours."""

    EXTERNAL = enum.auto()
    """Fractional positions, and no neighbours."""


@dataclass(frozen=True)
class Term(ABC):
    """Base class of the terms whose sum is a potential; a term of another package inherits from it.

    A term gives the energy of each atom from the neighbours around it, in two parts: ``project`` computes what does not
    depend on the parameters, ``energy`` the rest. A refinement calls the first once per trajectory and the second in
    every step. Terms are immutable, and JAX can differentiate and compile all methods but ``from_spec``.

    A subclass defines the abstract methods, and ``kind`` where it sees less than vectors to all neighbours. One that
    passes messages between atoms says ``is_message_passing``, and gathers what neighbours know by
    ``environment.neighbor_index()``; all atoms of a configuration are then evaluated together. The energy must go
    smoothly to zero at the cutoff, and must be finite, with finite derivatives, for padded neighbours.

    Args:
        species: Chemical symbols of the potential, in the order of the indices in an :class:`Environment`.
        cutoff: Distance beyond which a neighbour does not count, Å.

    Example:
        A term that makes crowded places costly, U = k Σ_i n_i², with a smooth number of neighbours n_i:

        >>> from dataclasses import dataclass
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from aiida_difftre.engine.potentials.term import Environment, Term
        >>> @dataclass(frozen=True)
        ... class Crowding(Term):
        ...     @classmethod
        ...     def from_spec(cls, species, cutoff, hyperparameters):
        ...         return cls(species, cutoff)
        ...
        ...     def init(self, key):
        ...         return {"k": jnp.array(0.5)}
        ...
        ...     def project(self, environment):
        ...         ratio = jnp.where(environment.mask, environment.squared_distances() / self.cutoff**2, 1.0)
        ...         return jnp.sum(jnp.maximum(1 - ratio, 0) ** 3, -1)
        ...
        ...     def energy(self, parameters, projected):
        ...         return parameters["k"] * projected**2
        >>> term = Crowding.from_spec(("Ar",), 4.0, {})
        >>> vectors = jnp.array([[[2.0, 0.0, 0.0]], [[-2.0, 0.0, 0.0]]])
        >>> ones = jnp.ones((2, 1), bool)
        >>> dimer = Environment(vectors, ones, jnp.zeros(2, int), jnp.zeros((2, 1), int))
        >>> [round(energy, 4) for energy in term.energy(term.init(jax.random.key(0)), term.project(dimer)).tolist()]
        [0.089, 0.089]
    """

    species: tuple[str, ...]
    cutoff: float

    buffers: ClassVar[tuple[str, ...]] = ()
    """Names of parameters that are never trained, and that ``standardise`` sets."""

    @property
    def kind(self) -> Kind:
        """What the energy depends on; vectors to the neighbours unless a subclass says otherwise."""
        return Kind.GENERAL

    @property
    def is_message_passing(self) -> bool:
        """Whether the energy of an atom depends on the neighbours of its neighbours, through ``neighbor_index``."""
        return False

    @property
    def has_tail(self) -> bool:
        """Whether the energy depends on densities, and with them on the volume beside the distances."""
        return False

    @classmethod
    @abstractmethod
    def from_spec(cls, species: tuple[str, ...], cutoff: float, hyperparameters: dict[str, Any]) -> Self:
        """Make the term from what the spec of a potential says, and check it.

        Args:
            species: Chemical symbols of the potential.
            cutoff: Cutoff of the term, Å.
            hyperparameters: Settings of the term by name.

        Returns:
            The term.

        Raises:
            ValueError: Where a hyperparameter is unknown or out of range; the message names it and the remedy.
        """

    @abstractmethod
    def init(self, key: Array) -> Parameters:
        """Make the initial parameters.

        Args:
            key: Random key of JAX.

        Returns:
            Arrays by name, float64; the tree may be nested.
        """

    @abstractmethod
    def project(self, environment: Environment) -> Any:
        """Compute what the energy needs of the neighbours and what does not depend on the parameters.

        Args:
            environment: The neighbours of all atoms.

        Returns:
            An array, or a tree of arrays, whose first axis is that of the atoms.
        """

    @abstractmethod
    def energy(self, parameters: Parameters, projected: Any) -> Float[Array, " atoms"]:
        """Compute the energy of each atom.

        Args:
            parameters: Parameters of this term.
            projected: What ``project`` returned.

        Returns:
            Energy of each atom, (atoms,), eV.
        """

    def standardise(self, parameters: Parameters, projected: Any) -> Parameters:
        """Set the parameters that ``buffers`` names, such as means and deviations, from training configurations.

        Args:
            parameters: Parameters of this term.
            projected: Projections of the atoms of many configurations; the first axis is that of all these atoms.

        Returns:
            The parameters with new buffers; unchanged where there are no buffers.
        """
        return parameters


def add_up(values: Float[Array, "*rows neighbors"]) -> Float[Array, "*rows"]:
    """Sum over the last axis, as a product with ones: on CPUs several times faster.

    Args:
        values: Numbers of each neighbour, (..., neighbors); zero where a list is padded.

    Returns:
        The sums, (...), in the same unit.
    """
    return jnp.matmul(values, jnp.ones(values.shape[-1:], values.dtype), precision=jax.lax.Precision.HIGHEST)


def densities(
    species: Int[Array, " atoms"], count: int, volume: Float[Array, ""] | float
) -> Float[Array, "atoms species"]:
    """Compute the number density of each species.

    Args:
        species: Index of the species of each atom, (atoms,).
        count: Number of species.
        volume: Volume of the cell, Å³.

    Returns:
        Densities, (atoms, species), 1/Å³, the same for each atom.
    """
    atoms = jnp.sum(species[:, None] == jnp.arange(count), axis=0)
    return jnp.broadcast_to(atoms / volume, (len(species), count))


def masses(symbols: tuple[str, ...] | list[str], own: NDArray[np.float64] | None = None) -> Float[np.ndarray, " atoms"]:
    """Tell the masses of atoms: their own, or those of ase's table of standard atomic weights.

    Args:
        symbols: Chemical symbol of each atom.
        own: Masses that a system states, (atoms,), amu; None for the table.

    Returns:
        Masses, (atoms,), amu.
    """
    if own is not None:
        return own
    return np.array([atomic_masses[atomic_numbers[symbol]] for symbol in symbols])


def species_index(symbols: tuple[str, ...] | list[str], species: list[str]) -> NDArray[np.int32]:
    """Find the index of each atom's element in the species of a potential.

    Args:
        symbols: Chemical symbol of each atom.
        species: Chemical symbols of the potential.

    Returns:
        Indices, (atoms,).

    Raises:
        EngineError: Naming the elements that the potential does not know.
    """
    unknown = sorted(set(symbols) - set(species))
    if unknown:
        raise EngineError(
            ExitStatus.INVALID_INPUT,
            f"the structure contains {', '.join(unknown)}, but the potential is for {', '.join(species)} only",
        )
    return np.array([species.index(symbol) for symbol in symbols], np.int32)


def check_term(term: Term, spec: TermSpec) -> None:
    """Refuse a term that claims what cannot be together, or has no parameters that are to be trained.

    Raises:
        ValueError: naming the claim, or the parameters.
    """
    if term.is_message_passing and (term.kind in (Kind.PAIRWISE, Kind.EXTERNAL) or term.buffers):
        raise ValueError(
            f"it passes messages, and is of the kind {term.kind.name} with the buffers {list(term.buffers)}; such a "
            "term is GENERAL or RADIAL, and has no buffers"
        )
    if isinstance(spec.trainable, bool):
        return
    shapes = jax.tree_util.tree_flatten_with_path(jax.eval_shape(term.init, jax.random.key(0)))[0]
    paths = ["/".join(str(part.key) for part in place) for place, _ in shapes]
    paths = [path for path in paths if path.split("/")[0] not in term.buffers]
    for name in spec.trainable:
        if not any(path == name or path.startswith(f"{name}/") for path in paths):
            known = ", ".join(sorted({path.split("/")[0] for path in paths}))
            raise ValueError(f"trainable: it has no parameters {name!r}; it has: {known}")
