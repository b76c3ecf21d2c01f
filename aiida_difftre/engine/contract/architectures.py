"""The terms of potentials and their hyperparameters, by name. Free of JAX: an input is refused where it is read.

Terms are registered under the entry-point group ``difftre.potentials``. The hyperparameters of those of other packages
are known to their classes alone, which import JAX: the job checks them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Annotated, Any

from pydantic import AfterValidator

from aiida_difftre.engine.contract.network_options import check_moment_network
from aiida_difftre.engine.contract.settings import PotentialSpec

ENTRY_POINT_GROUP = "difftre.potentials"

HYPERPARAMETERS: dict[str, tuple[str, ...]] = {
    "dispersion": ("c6", "onset", "radius"),
    "external_polynomial": ("axis", "center", "coefficients"),
    "external_spline": ("axis", "knots"),
    "lennard_jones": ("epsilon", "onset", "sigma"),
    "moment_network": ("activation", "hidden", "n_radial", "output_scale", "rank"),
    "pair_spline": ("inner", "knots", "values"),
    "repulsion": ("epsilon", "exponent", "onset", "sigma"),
    "stillinger_weber": ("A", "B", "a", "epsilon", "gamma", "lambda", "p", "preset", "q", "sigma"),
}
"""Of the terms of this package."""

CHECKS: dict[str, Callable[[Mapping[str, Any]], None]] = {"moment_network": check_moment_network}
"""Of the values of hyperparameters, where that needs no JAX; those of the other terms are checked by the job."""


@functools.cache
def registry() -> dict[str, EntryPoint]:
    """Entry points of all registered terms, by name."""
    return {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}


def check(spec: PotentialSpec) -> PotentialSpec:
    """Refuse a potential of terms that nobody registered, or with hyperparameters that a term does not have or take.

    Raises:
        ValueError: naming the architecture or the hyperparameter, and the known ones.
    """
    for term in spec.terms:
        name = term.architecture
        if name not in registry():
            known = ", ".join(sorted(registry()))
            raise ValueError(
                f"unknown architecture {name!r}; registered: {known} (one of another package has to be installed here)"
            )
        known_ones = HYPERPARAMETERS.get(name)
        for given in term.hyperparameters:
            if known_ones is not None and given not in known_ones:
                raise ValueError(
                    f"potential term {name!r}: unknown hyperparameter {given!r}; known: {', '.join(known_ones)}"
                )
        try:
            if name in CHECKS:
                CHECKS[name](term.hyperparameters)
        except ValueError as error:
            raise ValueError(f"potential term {name!r}: {error}") from None
    return spec


NewPotential = Annotated[PotentialSpec, AfterValidator(check)]
"""What a potential to make is: its terms are known here. That of a file need not be, but where it runs."""
