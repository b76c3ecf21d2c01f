r"""Coulomb energy of ions by the damped shifted force: a sum over pairs within a cutoff, without an Ewald sum.

.. math::
    U = k \sum_{i<j} q_i q_j \left[v(r_{ij}) - v(r_c) - v'(r_c)(r_{ij} - r_c)\right]
      - k \left[\frac{\alpha}{\sqrt\pi} + \frac{v(r_c) - r_c v'(r_c)}{2}\right] \sum_i q_i^2,
    \qquad v(r) = \frac{\operatorname{erfc}(\alpha r)}{r}

Energy and force go to zero at the cutoff, and each ion is neutralised on the sphere around it. The last sum, the
energy of an ion with its damped and shifted self, is the same for all snapshots; it counts where absolute energies
are compared.

Charges are trained with their total held at zero: the charge of the last species follows from the others and from the
formula, so that the term has one parameter less than there are species.

References:
    C. J. Fennell and J. D. Gezelter, J. Chem. Phys. 124, 234104 (2006), eqs. 19 and 20;
    D. Wolf, P. Keblinski, S. R. Phillpot and J. Eggebrecht, J. Chem. Phys. 110, 8254 (1999).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Self

import jax.numpy as jnp
from jax.scipy.special import erfc
from jaxtyping import Array, Float

from aiida_difftre.engine import units
from aiida_difftre.engine.contract.ionic_options import CoulombDsfOptions
from aiida_difftre.engine.potentials.pairs import masked_distances
from aiida_difftre.engine.potentials.term import Environment, Kind, Parameters, Term


@dataclass(frozen=True)
class CoulombDsf(Term):
    r"""Coulomb energy by the damped shifted force of Fennell and Gezelter, with charges that stay neutral.

    Args:
        species: Chemical symbols of the potential.
        cutoff: Distance from which the energy is zero, Å.
        charges: Initial charge of each species, (species,), elementary charges; a spec gives them by species.
        counts: Number of atoms of each species in the formula unit, (species,); a spec gives the ``formula``, such as
            ``NaCl`` or ``SiO2``, of which structures must be multiples.
        damping: The damping α, 1/Å, which is not trained.

    References:
        C. J. Fennell and J. D. Gezelter, J. Chem. Phys. 124, 234104 (2006).

    Example:
        Charges of silica, of which that of oxygen follows:

        >>> import jax
        >>> from aiida_difftre.engine.potentials.coulomb_dsf import CoulombDsf
        >>> term = CoulombDsf.from_spec(("Si", "O"), 10.0, {"charges": {"Si": 2.4, "O": -1.2}, "formula": "SiO2"})
        >>> parameters = term.init(jax.random.key(0))
        >>> [round(charge, 3) for charge in term.all_charges({"charges": 0.5 * parameters["charges"]}).tolist()]
        [1.2, -0.6]
    """

    charges: tuple[float, ...]
    counts: tuple[int, ...]
    damping: float = 0.2

    @property
    def kind(self) -> Kind:
        """A sum over pairs."""
        return Kind.PAIRWISE

    @classmethod
    def from_spec(cls, species: tuple[str, ...], cutoff: float, hyperparameters: dict[str, Any]) -> Self:
        """Check the hyperparameters.

        ``charges`` is a mapping such as ``{"Na": 1.0, "Cl": -1.0}``, and ``formula`` the one in which they sum to zero,
        in place of ``counts``.

        Raises:
            ValueError: naming the value, such as charges that do not sum to zero.
        """
        return cls(species, cutoff, **CoulombDsfOptions.read(hyperparameters).complete(species, cutoff))

    def init(self, key: Array) -> Parameters:
        """Charges of all species but the last; nothing is random."""
        return {"charges": jnp.array(self.charges[:-1])}

    def all_charges(self, parameters: Parameters) -> Float[Array, " species"]:
        """Charges of all species, which are neutral together.

        Args:
            parameters: Parameters of this term.

        Returns:
            Charges, (species,), elementary charges.
        """
        free = parameters["charges"]
        last = -jnp.dot(free, jnp.array(self.counts[:-1], free.dtype)) / self.counts[-1]
        return jnp.concatenate([free, last[None]])

    def project(self, environment: Environment) -> tuple[Array, Array]:
        """Potential at each atom from unit charges on each species, 1/Å, and the species of the atom.

        Args:
            environment: The neighbours of all atoms.

        Returns:
            Arrays (atoms, species) and (atoms,); no parameter enters, so that they are all that an energy needs.
        """
        distance, within = masked_distances(environment, self.cutoff)
        edge, slope = _at(self.cutoff, self.damping)
        shifted = erfc(self.damping * distance) / distance - edge - slope * (distance - self.cutoff)
        value = jnp.where(within, shifted, 0.0)
        parts = [
            jnp.sum(jnp.where(environment.neighbor_species == number, value, 0.0), -1)
            for number in range(len(self.species))
        ]
        return jnp.stack(parts, -1), environment.species

    def energy(self, parameters: Parameters, projected: tuple[Array, Array]) -> Float[Array, " atoms"]:
        """Compute the energy of each atom, half of that of each of its pairs, and that with itself.

        Args:
            parameters: Parameters of this term.
            projected: What ``project`` returned.

        Returns:
            Energy of each atom, (atoms,), eV.
        """
        potential, species = projected
        charges = self.all_charges(parameters).astype(potential.dtype)
        edge, slope = _at(self.cutoff, self.damping)
        itself = self.damping / math.sqrt(math.pi) + (edge - self.cutoff * slope) / 2
        own = charges[species]
        return units.COULOMB_CONSTANT * own * (0.5 * (potential @ charges) - itself * own)


def _at(r: float, damping: float) -> tuple[float, float]:
    """erfc(αr)/r and its derivative, 1/Å and 1/Å²."""
    value = math.erfc(damping * r) / r
    return value, -value / r - 2 * damping / math.sqrt(math.pi) * math.exp(-((damping * r) ** 2)) / r
