r"""Lennard-Jones pairs.

.. math:: U = \sum_{i<j} 4 \epsilon \left[(\sigma/r)^{12} - (\sigma/r)^6\right] S(r)

S switches from 1 at the onset to 0 at the cutoff with two continuous derivatives, so that below the onset the energy is
that of the textbook, without a shift.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import jax.numpy as jnp
from jaxtyping import Array, Float

from aiida_difftre.engine.potentials import Environment, Parameters, known_hyperparameters
from aiida_difftre.engine.potentials.pairs import (
    PairDistances,
    check_onset,
    half_sum,
    of_pair,
    pair_distances,
    positive_per_pair,
    switch,
)


@dataclass(frozen=True)
class LennardJones:
    """Lennard-Jones with a switch.

    Args:
        species: chemical symbols.
        cutoff: Å.
        epsilon: initial depth of the well of each pair of species, eV.
        sigma: initial diameter of each pair of species, Å.
        onset: where the switch starts, Å; 0.9 of the cutoff by default.
    """

    species: tuple[str, ...]
    cutoff: float
    epsilon: tuple[float, ...]
    sigma: tuple[float, ...]
    onset: float

    is_pairwise = True

    @classmethod
    def from_spec(cls, species: tuple[str, ...], cutoff: float, hyperparameters: dict[str, Any]) -> Self:
        """Check the hyperparameters; ``epsilon`` and ``sigma`` are numbers, or mappings such as ``{"C-O": 3.1}``.

        Raises:
            ValueError: naming the value.
        """
        given = known_hyperparameters(cls, hyperparameters)
        epsilon = positive_per_pair("epsilon", given.get("epsilon"), species)
        sigma = positive_per_pair("sigma", given.get("sigma"), species)
        return cls(species, cutoff, epsilon, sigma, check_onset(given.get("onset"), cutoff))

    def init(self, key: Array) -> Parameters:
        """The initial values; nothing is random."""
        return {"epsilon": jnp.array(self.epsilon), "sigma": jnp.array(self.sigma)}

    def project(self, environment: Environment) -> PairDistances:
        """Distances and pairs."""
        return pair_distances(environment, self.cutoff, len(self.species))

    def energy(self, parameters: Parameters, projected: PairDistances) -> Float[Array, " atoms"]:
        """Energy of each atom, eV."""
        attraction = (of_pair(parameters["sigma"], projected) / projected.distance) ** 6
        energy = 4 * of_pair(parameters["epsilon"], projected) * (attraction**2 - attraction)
        return half_sum(energy * switch(projected.distance, self.onset, self.cutoff), projected)
