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
    r"""Lennard-Jones potential with a smooth end at the cutoff.

    .. math:: u(r) = 4 \epsilon \left[(\sigma/r)^{12} - (\sigma/r)^6\right] S(r)

    Args:
        species: Chemical symbols of the potential.
        cutoff: Distance from which the energy is zero, Å.
        epsilon: Initial depth of the well for each pair of species, (pairs,), eV.
        sigma: Initial distance of zero energy for each pair of species, (pairs,), Å.
        onset: Distance up to which S is 1, Å; a spec may leave it out, and it is then 0.9 of the cutoff.
        tail: Whether energy and pressure of what lies beyond are added.
        feynman_hibbs: Temperature, K, at which quantum nuclei are corrected for; None for classical ones.

    References:
        J. E. Lennard-Jones, Proc. R. Soc. Lond. A 106, 463 (1924).

    Example:
        The well is epsilon deep, at 2^(1/6) sigma:

        >>> import jax
        >>> import jax.numpy as jnp
        >>> from aiida_difftre.engine.potentials.lennard_jones import LennardJones
        >>> from aiida_difftre.engine.potentials.pairs import PairDistances
        >>> term = LennardJones.from_spec(("Ar",), 8.5, {"epsilon": 0.0103, "sigma": 3.4})
        >>> well = PairDistances(jnp.array([[3.4 * 2 ** (1 / 6)]]), jnp.array([[True]]), jnp.array([[0]]))
        >>> round(float(term.pair_energy(term.init(jax.random.key(0)), well)[0, 0]), 4)
        -0.0103
    """

    epsilon: tuple[float, ...]
    sigma: tuple[float, ...]

    options = LennardJonesOptions
    trained = ("epsilon", "sigma")

    def bare_energy(self, parameters: Parameters, pairs: PairDistances) -> Float[Array, "atoms neighbors"]:
        """u without the switch, eV."""
        attraction = (of_pair(parameters["sigma"], pairs) / pairs.distance) ** 6
        return 4 * of_pair(parameters["epsilon"], pairs) * (attraction**2 - attraction)
