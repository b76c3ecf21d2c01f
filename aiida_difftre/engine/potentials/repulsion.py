r"""Inverse-power repulsion, the prior that keeps atoms apart where the data say nothing.

.. math:: U = \sum_{i<j} \epsilon (\sigma/r)^n S(r)

S switches from 1 at the onset to 0 at the cutoff with two continuous derivatives.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Array, Float

from aiida_difftre.engine.contract.term_options import RepulsionOptions
from aiida_difftre.engine.potentials.pairs import PairDistances, SwitchedPairs, of_pair
from aiida_difftre.engine.potentials.term import Parameters


@dataclass(frozen=True)
class Repulsion(SwitchedPairs):
    """Inverse-power repulsion with a switch.

    Args:
        species: chemical symbols.
        cutoff: Å.
        epsilon: initial energy of each pair of species at its sigma, eV.
        sigma: initial length of each pair of species, Å.
        exponent: n, fixed.
        onset: where the switch starts, Å; 0.9 of the cutoff by default.
    """

    epsilon: tuple[float, ...]
    sigma: tuple[float, ...]
    exponent: int = 12

    options = RepulsionOptions
    trained = ("epsilon", "sigma")

    def bare_energy(self, parameters: Parameters, pairs: PairDistances) -> Float[Array, "atoms neighbors"]:
        """u without the switch, eV."""
        power = (of_pair(parameters["sigma"], pairs) / pairs.distance) ** self.exponent
        return of_pair(parameters["epsilon"], pairs) * power
