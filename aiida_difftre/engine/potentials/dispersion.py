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
    r"""London dispersion, damped at short distances, with a smooth end at the cutoff: what semilocal functionals lack.

    .. math:: u(r) = -\frac{C_6}{r^6 + R^6} S(r)

    Args:
        species: Chemical symbols of the potential.
        cutoff: Distance from which the energy is zero, Å.
        c6: Initial coefficient C₆ for each pair of species, (pairs,), eV Å⁶; 1 Hartree Bohr⁶ is 0.5975 eV Å⁶.
        radius: Damping length R for each pair of species, (pairs,), Å, which is not trained.
        onset: Distance up to which S is 1, Å; a spec may leave it out, and it is then 0.9 of the cutoff.
        tail: Whether energy and pressure of what lies beyond are added.
        feynman_hibbs: Temperature, K, at which quantum nuclei are corrected for; None for classical ones.

    References:
        A. D. Becke and E. R. Johnson, J. Chem. Phys. 123, 154101 (2005);
        S. Grimme, S. Ehrlich and L. Goerigk, J. Comput. Chem. 32, 1456 (2011).

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from aiida_difftre.engine.potentials.dispersion import Dispersion
        >>> from aiida_difftre.engine.potentials.pairs import PairDistances
        >>> term = Dispersion.from_spec(("Ar",), 9.0, {"c6": 38.4, "radius": 3.0})
        >>> pairs = PairDistances(jnp.array([[3.0, 6.0]]), jnp.array([[True, True]]), jnp.array([[0, 0]]))
        >>> [round(u, 4) for u in term.pair_energy(term.init(jax.random.key(0)), pairs)[0].tolist()]  # eV
        [-0.0263, -0.0008]
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
