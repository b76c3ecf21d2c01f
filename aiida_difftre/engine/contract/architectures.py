"""The terms of potentials and their hyperparameters, by name. Free of JAX: an input is refused where it is read.

Terms are registered under the entry-point group ``difftre.potentials``. The hyperparameters of those of other packages
are known to their classes alone, which import JAX: the job checks them.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Annotated

from pydantic import AfterValidator

from aiida_difftre.engine.contract import fusion, known_bases
from aiida_difftre.engine.contract.settings import PotentialSpec
from aiida_difftre.engine.contract.term_registry import OPTIONS
from aiida_difftre.engine.errors import did_you_mean

ENTRY_POINT_GROUP = "difftre.potentials"


@functools.cache
def registry() -> dict[str, EntryPoint]:
    """Entry points of all registered terms, by name."""
    return {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}


def check(spec: PotentialSpec) -> PotentialSpec:
    """Refuse a potential of terms that nobody registered, or with hyperparameters that a term does not have or take.

    Raises:
        ValueError: naming the architecture, or the hyperparameter and what is wanted.
    """
    known_terms: list[fusion.Known] = []
    for term in spec.terms:
        name = term.architecture
        if name not in registry():
            known = ", ".join(sorted(registry()))
            raise ValueError(
                f"unknown architecture {name!r}; registered: {known} (one of another package has to be installed "
                f"here){did_you_mean(name, registry())}"
            )
        if name in OPTIONS:
            try:
                fields = OPTIONS[name].read(term.hyperparameters).complete(tuple(spec.species), term.cutoff)
            except ValueError as error:
                raise ValueError(f"potential term {name!r}: {error}") from None
            known_terms.append(fusion.Known(name, term.cutoff, fields))
    if len(known_terms) == len(spec.terms) and spec.base is None:
        fusion.check(tuple(spec.species), known_terms)
    return spec


def check_temperature(spec: PotentialSpec, temperature: float) -> None:
    """Refuse a temperature (K) for which a term of a potential is not made.

    Raises:
        ValueError: naming both.
    """
    for term in spec.terms:
        if term.architecture in OPTIONS:
            try:
                OPTIONS[term.architecture].read(term.hyperparameters).check_temperature(temperature)
            except ValueError as error:
                raise ValueError(f"potential term {term.architecture!r}: {error}") from None


def check_composition(spec: PotentialSpec, symbols: Sequence[str]) -> None:
    """Refuse a structure, given as the symbol of each atom, for which a term of a potential is not made.

    Raises:
        ValueError: naming what the structure holds, and what is wanted.
    """
    for term in spec.terms:
        if term.architecture in OPTIONS:
            OPTIONS[term.architecture].read(term.hyperparameters).check_composition(symbols)


NewPotential = Annotated[PotentialSpec, AfterValidator(check), AfterValidator(known_bases.check_potential)]
"""What a potential to make is: its terms and its base are known here. That of a file need not be, but where it runs."""
