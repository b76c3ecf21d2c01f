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

from aiida_difftre.engine.errors import EngineError, ExitStatus

Parameters: TypeAlias = dict[str, Any]


class Environment(NamedTuple):
    """The neighbourhoods of all atoms of a configuration.

    Args:
        displacements: r_j - r_i, Å; any finite value where ``mask`` is False.
        mask: True for real neighbours, which may lie beyond a term's cutoff.
        species: index of each atom's species.
        neighbor_species: index of each neighbour's species.
        positions: fractional, unwrapped; None where there is no cell. Only external fields look at them.
        components: x, y and z of the displacements as separate arrays, where they are at hand.
        distances: lengths of the displacements, Å, where they are at hand; not zero where ``mask`` is False.
    """

    displacements: Float[Array, "atoms neighbors 3"]
    mask: Bool[Array, "atoms neighbors"]
    species: Int[Array, " atoms"]
    neighbor_species: Int[Array, "atoms neighbors"]
    positions: Float[Array, "atoms 3"] | None = None
    components: tuple[Array, Array, Array] | None = None
    distances: Float[Array, "atoms neighbors"] | None = None

    def axes(self) -> tuple[Array, Array, Array]:
        """x, y and z of the displacements; faster to work with, on CPUs, than vectors of three."""
        if self.components is not None:
            return self.components
        x, y, z = (self.displacements[..., axis] for axis in range(3))
        return x, y, z

    def squared_distances(self) -> Float[Array, "atoms neighbors"]:
        """|r_j - r_i|², Å²."""
        x, y, z = self.axes()
        return x * x + y * y + z * z


class Kind(enum.Enum):
    """What the energy of a term depends on. Forces are cheaper the less it is."""

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
    """One term of a potential: immutable, all methods traceable.

    A term of another package inherits from this class. It states its ``kind`` where forces can be cheaper than those of
    a general term, or where it is an external field.

    Args:
        species: Chemical symbols of the potential.
        cutoff: Distance beyond which a neighbour does not count, Å.
    """

    species: tuple[str, ...]
    cutoff: float

    buffers: ClassVar[tuple[str, ...]] = ()
    """Names of parameters that are never trained, and that ``standardise`` sets."""

    @property
    def kind(self) -> Kind:
        """What the energy depends on."""
        return Kind.GENERAL

    @classmethod
    @abstractmethod
    def from_spec(cls, species: tuple[str, ...], cutoff: float, hyperparameters: dict[str, Any]) -> Self:
        """Check the hyperparameters; ValueError names the value."""

    @abstractmethod
    def init(self, key: Array) -> Parameters:
        """Initial parameters, float64."""

    @abstractmethod
    def project(self, environment: Environment) -> Any:
        """What the energy needs of the environment: a pytree with a leading atoms axis, free of parameters."""

    @abstractmethod
    def energy(self, parameters: Parameters, projected: Any) -> Float[Array, " atoms"]:
        """Energy of each atom, eV."""

    def standardise(self, parameters: Parameters, projected: Any) -> Parameters:
        """The parameters with ``buffers`` that fit a batch of training configurations.

        Args:
            parameters: Parameters of this term.
            projected: Projections of real atoms; the leading axis is that of all atoms of the batch.

        Returns:
            The parameters; unchanged where there are no buffers.
        """
        return parameters


def add_up(values: Float[Array, "*rows neighbors"]) -> Float[Array, "*rows"]:
    """Sum over the last axis, as a product with ones: on CPUs several times faster."""
    return jnp.matmul(values, jnp.ones(values.shape[-1:], values.dtype), precision=jax.lax.Precision.HIGHEST)


def masses(symbols: tuple[str, ...] | list[str]) -> Float[np.ndarray, " atoms"]:
    """Atomic masses, amu (ase's table of standard atomic weights)."""
    return np.array([atomic_masses[atomic_numbers[symbol]] for symbol in symbols])


def species_index(symbols: tuple[str, ...] | list[str], species: list[str]) -> NDArray[np.int32]:
    """Index of each atom's element in the potential's species.

    Raises:
        EngineError: naming the elements that the potential does not know.
    """
    unknown = sorted(set(symbols) - set(species))
    if unknown:
        raise EngineError(
            ExitStatus.INVALID_INPUT,
            f"the structure contains {', '.join(unknown)}, but the potential is for {', '.join(species)} only",
        )
    return np.array([species.index(symbol) for symbol in symbols], np.int32)
