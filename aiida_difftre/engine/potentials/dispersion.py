r"""London dispersion of pairs, damped at short distances.

.. math:: U = -\sum_{i<j} \frac{C_6}{r^6 + R^6} S(r)

with the rational damping of Becke and Johnson, and S as in Lennard-Jones: what semilocal functionals lack. C₆ is
trainable, R is not.

References:
    A. D. Becke and E. R. Johnson, J. Chem. Phys. 123, 154101 (2005);
    S. Grimme, S. Ehrlich and L. Goerigk, J. Comput. Chem. 32, 1456 (2011).
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
class Dispersion:
    """Damped dispersion with a switch.

    Args:
        species: chemical symbols.
        cutoff: Å.
        c6: initial coefficient of each pair of species, eV Å⁶; 1 Hartree Bohr⁶ is 0.5975 eV Å⁶.
        radius: of the damping for each pair of species, Å.
        onset: where the switch starts, Å; 0.9 of the cutoff by default.
    """

    species: tuple[str, ...]
    cutoff: float
    c6: tuple[float, ...]
    radius: tuple[float, ...]
    onset: float

    is_pairwise = True

    @classmethod
    def from_spec(cls, species: tuple[str, ...], cutoff: float, hyperparameters: dict[str, Any]) -> Self:
        """Check the hyperparameters; ``c6`` and ``radius`` are numbers, or mappings such as ``{"C-O": 3.1}``.

        Raises:
            ValueError: naming the value.
        """
        given = known_hyperparameters(cls, hyperparameters)
        c6 = positive_per_pair("c6", given.get("c6"), species)
        radius = positive_per_pair("radius", given.get("radius"), species)
        return cls(species, cutoff, c6, radius, check_onset(given.get("onset"), cutoff))

    def init(self, key: Array) -> Parameters:
        """The initial values; nothing is random."""
        return {"c6": jnp.array(self.c6)}

    def project(self, environment: Environment) -> PairDistances:
        """Distances and pairs."""
        return pair_distances(environment, self.cutoff, len(self.species))

    def energy(self, parameters: Parameters, projected: PairDistances) -> Float[Array, " atoms"]:
        """Energy of each atom, eV."""
        radius = of_pair(jnp.array(self.radius), projected)
        energy = -of_pair(parameters["c6"], projected) / (projected.distance**6 + radius**6)
        return half_sum(energy * switch(projected.distance, self.onset, self.cutoff), projected)
