r"""Lennard-Jones pairs.

.. math:: U = \sum_{i<j} 4 \epsilon \left[(\sigma/r)^{12} - (\sigma/r)^6\right] S(r)

S switches from 1 at the onset to 0 at the cutoff with two continuous derivatives, so that below the onset the energy is
that of the textbook, without a shift.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Array, Float

from aiida_difftre.engine.contract.term_options import LennardJonesOptions
from aiida_difftre.engine.potentials.pairs import PairDistances, SwitchedPairs, of_pair
from aiida_difftre.engine.potentials.term import Parameters


@dataclass(frozen=True)
class LennardJones(SwitchedPairs):
    """Lennard-Jones with a switch.

    Args:
        species: chemical symbols.
        cutoff: Å.
        epsilon: initial depth of the well of each pair of species, eV.
        sigma: initial diameter of each pair of species, Å.
        onset: where the switch starts, Å; 0.9 of the cutoff by default.
    """

    epsilon: tuple[float, ...]
    sigma: tuple[float, ...]

    options = LennardJonesOptions
    trained = ("epsilon", "sigma")

    def bare_energy(self, parameters: Parameters, pairs: PairDistances) -> Float[Array, "atoms neighbors"]:
        """u without the switch, eV."""
        attraction = (of_pair(parameters["sigma"], pairs) / pairs.distance) ** 6
        return 4 * of_pair(parameters["epsilon"], pairs) * (attraction**2 - attraction)
