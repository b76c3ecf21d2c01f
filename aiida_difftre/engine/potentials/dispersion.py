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

import jax.numpy as jnp
from jaxtyping import Array, Float

from aiida_difftre.engine.contract.term_options import DispersionOptions
from aiida_difftre.engine.potentials.pairs import PairDistances, SwitchedPairs, of_pair
from aiida_difftre.engine.potentials.term import Parameters


@dataclass(frozen=True)
class Dispersion(SwitchedPairs):
    """Damped dispersion with a switch.

    Args:
        species: chemical symbols.
        cutoff: Å.
        c6: initial coefficient of each pair of species, eV Å⁶; 1 Hartree Bohr⁶ is 0.5975 eV Å⁶.
        radius: of the damping for each pair of species, Å.
        onset: where the switch starts, Å; 0.9 of the cutoff by default.
    """

    c6: tuple[float, ...]
    radius: tuple[float, ...]

    options = DispersionOptions
    trained = ("c6",)
    fixed = ("radius",)

    def bare_energy(self, parameters: Parameters, pairs: PairDistances) -> Float[Array, "atoms neighbors"]:
        """u without the switch, eV."""
        radius = of_pair(jnp.array(self.radius), pairs)
        return -of_pair(parameters["c6"], pairs) / (pairs.distance**6 + radius**6)
