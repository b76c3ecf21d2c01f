"""The hyperparameters of the terms of ions: exponential repulsion, dispersion without damping, charges. Free of JAX."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

from pydantic import Field

from aiida_difftre.engine.contract.bounds import Limits
from aiida_difftre.engine.contract.term_options import (
    Distances,
    PerPair,
    SwitchedPairOptions,
    TermOptions,
)
from aiida_difftre.engine.errors import shown

NEUTRAL = 1e-6
"""Total charge of a formula unit, elementary charges, up to which it counts as zero: rounding."""

Amplitudes = Annotated[
    Any, PerPair(Limits(least=0, most=1e6, unit="eV", reason="cores of ions have some 100 to 20000 eV"))
]
Attractions = Annotated[Any, PerPair(Limits(least=0, most=1e6, unit="eV Å⁶", reason="atoms have some 1 to 4000 eV Å⁶"))]


class BornMayerOptions(SwitchedPairOptions):
    """Hyperparameters of ``born_mayer``: energy at no distance (eV) and length of the decay (Å) of each pair."""

    per_pair: ClassVar[tuple[str, ...]] = ("amplitude", "rho")

    amplitude: Amplitudes
    rho: Distances


class BuckinghamOptions(SwitchedPairOptions):
    """Hyperparameters of ``buckingham``: those of ``born_mayer``, and C₆ (eV Å⁶) of each pair."""

    per_pair: ClassVar[tuple[str, ...]] = ("amplitude", "rho", "c6")

    amplitude: Amplitudes
    rho: Distances
    c6: Attractions


@functools.cache
def atoms_of_formula(formula: str) -> dict[str, int]:
    """Numbers of atoms of each element in a chemical formula.

    Raises:
        ValueError: for what is no formula.
    """
    from ase.formula import Formula  # ase takes its time

    try:
        return dict(Formula(formula).count())
    except Exception as error:
        raise ValueError(f"formula = {shown(formula)} must be a chemical formula, such as NaCl or SiO2") from error


class CoulombDsfOptions(TermOptions):
    """Hyperparameters of ``coulomb_dsf``: charges (e), the formula that is neutral, and the damping (1/Å)."""

    charges: dict[str, Annotated[float, Limits(least=-10, most=10, unit="e", reason="ions have charges of some e")]]
    formula: Annotated[str, Field(min_length=1, max_length=200)]
    damping: Annotated[float, Limits(least=0, most=2, unit="1/Å", reason="it is about 2.5 over the cutoff")] = 0.2

    def complete(self, species: tuple[str, ...], cutoff: float) -> dict[str, Any]:
        """The fields of the term: charges and numbers of atoms in the order of the species."""
        counts = atoms_of_formula(self.formula)
        for name, given in (("charges", self.charges), (f"formula = {self.formula!r}", counts)):
            for element in sorted(set(species) - set(given)):
                raise ValueError(f"{name} has no {element}, which is a species of this potential; add it")
            for element in sorted(set(given) - set(species)):
                raise ValueError(f"{name} has {shown(element)}; species of this potential: {', '.join(species)}")
        total = sum(counts[one] * self.charges[one] for one in species)
        if abs(total) > NEUTRAL:
            *others, last = species
            wanted = -sum(counts[one] * self.charges[one] for one in others) / counts[last]
            raise ValueError(
                f"charges of {self.formula} sum to {total:.6g} e, not to zero; with the others as they are, {last} "
                f"must have {wanted:.6g} e"
            )
        return {
            "charges": tuple(self.charges[one] for one in species),
            "counts": tuple(counts[one] for one in species),
            "damping": self.damping,
        }

    def check_composition(self, symbols: Sequence[str]) -> None:
        """The elements must be there as in the formula, which alone is neutral whatever the charges become."""
        wanted, found = atoms_of_formula(self.formula), Counter(symbols)
        if any(wanted[a] * found[b] != wanted[b] * found[a] for a in wanted for b in wanted):
            there = ", ".join(f"{count} {element}" for element, count in sorted(found.items()))
            raise ValueError(
                f"coulomb_dsf: charges are neutral in {self.formula}, but the structure holds {there}; give a "
                "structure of that composition, or make a potential whose formula is that of the structure"
            )
