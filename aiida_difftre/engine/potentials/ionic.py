r"""Cores of ions: exponential repulsion, and with it dispersion without damping.

Born-Mayer and Buckingham pairs are what models of oxides and halides are made of, beside the Coulomb energy
(``coulomb_dsf``). -C₆/r⁶ and the attraction of charges win at short distances, where ions would fuse: a potential whose
pairs have no wall of 10 eV is refused. A core that no condition reaches is a term ``repulsion`` that is not trained.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float

from aiida_difftre.engine.contract.ionic_options import BornMayerOptions, BuckinghamOptions
from aiida_difftre.engine.potentials.pairs import PairDistances, SwitchedPairs, of_pair
from aiida_difftre.engine.potentials.term import Parameters


@dataclass(frozen=True)
class BornMayer(SwitchedPairs):
    r"""Exponential repulsion of overlapping ions, with a smooth end at the cutoff.

    .. math:: u(r) = A e^{-r/\rho} S(r)

    Args:
        species: Chemical symbols of the potential.
        cutoff: Distance from which the energy is zero, Å.
        amplitude: Initial A for each pair of species, (pairs,), eV.
        rho: Initial length ρ for each pair of species, (pairs,), Å.
        onset: Distance up to which S is 1, Å; a spec may leave it out, and it is then 0.9 of the cutoff.
        tail: Whether energy and pressure of what lies beyond are added.
        feynman_hibbs: Temperature, K, at which quantum nuclei are corrected for; None for classical ones.

    References:
        M. Born and J. E. Mayer, Z. Phys. 75, 1 (1932).

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from aiida_difftre.engine.potentials.ionic import BornMayer
        >>> from aiida_difftre.engine.potentials.pairs import PairDistances
        >>> term = BornMayer.from_spec(("Na", "Cl"), 8.0, {"amplitude": 1256.0, "rho": 0.317})
        >>> pairs = PairDistances(jnp.array([[2.82]]), jnp.array([[True]]), jnp.array([[1]]))
        >>> round(float(term.pair_energy(term.init(jax.random.key(0)), pairs)[0, 0]), 4)  # eV
        0.172
    """

    amplitude: tuple[float, ...]
    rho: tuple[float, ...]

    options = BornMayerOptions
    trained = ("amplitude", "rho")

    def bare_energy(self, parameters: Parameters, pairs: PairDistances) -> Float[Array, "atoms neighbors"]:
        """u without the switch, eV."""
        return of_pair(parameters["amplitude"], pairs) * jnp.exp(-pairs.distance / of_pair(parameters["rho"], pairs))


@dataclass(frozen=True)
class Buckingham(SwitchedPairs):
    r"""Exponential repulsion and dispersion, with a smooth end at the cutoff.

    .. math:: u(r) = \left[A e^{-r/\rho} - \frac{C_6}{r^6}\right] S(r)

    Args:
        species: Chemical symbols of the potential.
        cutoff: Distance from which the energy is zero, Å.
        amplitude: Initial A for each pair of species, (pairs,), eV.
        rho: Initial length ρ for each pair of species, (pairs,), Å.
        c6: Initial coefficient C₆ for each pair of species, (pairs,), eV Å⁶.
        onset: Distance up to which S is 1, Å; a spec may leave it out, and it is then 0.9 of the cutoff.
        tail: Whether energy and pressure of what lies beyond are added.
        feynman_hibbs: Temperature, K, at which quantum nuclei are corrected for; None for classical ones.

    References:
        R. A. Buckingham, Proc. R. Soc. Lond. A 168, 264 (1938).

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from aiida_difftre.engine.potentials.ionic import Buckingham
        >>> from aiida_difftre.engine.potentials.pairs import PairDistances
        >>> term = Buckingham.from_spec(("O",), 8.0, {"amplitude": 1388.773, "rho": 0.362319, "c6": 175.0})
        >>> pairs = PairDistances(jnp.array([[2.6]]), jnp.array([[True]]), jnp.array([[0]]))
        >>> round(float(term.pair_energy(term.init(jax.random.key(0)), pairs)[0, 0]), 4)  # eV
        0.4955
    """

    amplitude: tuple[float, ...]
    rho: tuple[float, ...]
    c6: tuple[float, ...]

    options = BuckinghamOptions
    trained = ("amplitude", "rho", "c6")

    def bare_energy(self, parameters: Parameters, pairs: PairDistances) -> Float[Array, "atoms neighbors"]:
        """u without the switch, eV."""
        repulsion = of_pair(parameters["amplitude"], pairs) * jnp.exp(
            -pairs.distance / of_pair(parameters["rho"], pairs)
        )
        return repulsion - of_pair(parameters["c6"], pairs) / pairs.distance**6
