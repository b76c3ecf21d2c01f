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
    r"""Repulsion that falls with a power of the distance; as a prior it keeps atoms apart where the data say nothing.

    .. math:: u(r) = \epsilon (\sigma/r)^n S(r)

    Args:
        species: Chemical symbols of the potential.
        cutoff: Distance from which the energy is zero, Å.
        epsilon: Initial energy at the distance sigma for each pair of species, (pairs,), eV.
        sigma: Initial length for each pair of species, (pairs,), Å.
        exponent: The power n, which is not trained.
        onset: Distance up to which S is 1, Å; a spec may leave it out, and it is then 0.9 of the cutoff.
        tail: Whether energy and pressure of what lies beyond are added.
        feynman_hibbs: Temperature, K, at which quantum nuclei are corrected for; None for classical ones.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from aiida_difftre.engine.potentials.pairs import PairDistances
        >>> from aiida_difftre.engine.potentials.repulsion import Repulsion
        >>> term = Repulsion.from_spec(("C",), 3.0, {"epsilon": 1.0, "sigma": 1.2, "exponent": 12})
        >>> pairs = PairDistances(jnp.array([[1.2, 2.4]]), jnp.array([[True, True]]), jnp.array([[0, 0]]))
        >>> [round(u, 5) for u in term.pair_energy(term.init(jax.random.key(0)), pairs)[0].tolist()]  # eV
        [1.0, 0.00024]
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
