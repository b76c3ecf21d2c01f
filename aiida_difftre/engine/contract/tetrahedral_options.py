"""The hyperparameters of Stillinger-Weber with sets by species: pairs, and triplets with their centre. Free of JAX."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations_with_replacement
from typing import Annotated, Any, ClassVar

from pydantic import Field

from aiida_difftre.engine.contract.bounds import Limits, is_number
from aiida_difftre.engine.contract.term_options import (
    STILLINGER_WEBER_REDUCED,
    Depths,
    Distances,
    PerPair,
    TermOptions,
    of_pairs,
)
from aiida_difftre.engine.errors import shown

_RATIO = Limits(above=0, most=1e4, reason="it is relative to epsilon or sigma, and of the order of 1 to 20")
_STRENGTH = Limits(least=0, most=1e4, reason="it is relative to epsilon, and of the order of 20")

Ratios = Annotated[Any, PerPair(_RATIO)]


def triplet_labels(species: Sequence[str]) -> list[str]:
    """Labels of the triplets with their centre in the middle, such as ``C-Si-C``: by centre, then by pair of ends."""
    return [f"{a}-{centre}-{b}" for centre in species for a, b in combinations_with_replacement(species, 2)]


class StillingerWeberAlloyOptions(TermOptions):
    """Hyperparameters of ``stillinger_weber_alloy``: one number, or one for each pair; of lambda for each triplet."""

    per_pair: ClassVar[tuple[str, ...]] = ("epsilon", "sigma", "A", "B", "gamma", "a")

    epsilon: Depths
    sigma: Distances
    repulsion: Ratios = Field(default=STILLINGER_WEBER_REDUCED["A"], alias="A")
    attraction: Ratios = Field(default=STILLINGER_WEBER_REDUCED["B"], alias="B")
    angles: Any = Field(default=STILLINGER_WEBER_REDUCED["lambda"], alias="lambda")
    gamma: Ratios = STILLINGER_WEBER_REDUCED["gamma"]
    a: Ratios = STILLINGER_WEBER_REDUCED["a"]
    p: Annotated[float, Limits(above=0, most=24, reason="a steeper wall needs shorter steps of time")] = 4.0
    q: Annotated[float, Limits(least=0, most=24, reason="it is below p")] = 0.0

    def complete(self, species: tuple[str, ...], cutoff: float) -> dict[str, Any]:
        """The fields of the term; a pair ends at its a·sigma, and the longest of them is the cutoff."""
        if not self.q < self.p:
            raise ValueError(f"p = {self.p} and q = {self.q} must satisfy 0 <= q < p")
        given = self.model_dump(by_alias=True)
        values = {name: of_pairs(name, given[name], species) for name in self.per_pair}
        ends = tuple(a * sigma for a, sigma in zip(values.pop("a"), values["sigma"], strict=True))
        if abs(cutoff - max(ends)) > 1e-3 * max(ends):
            raise ValueError(
                f"cutoff = {cutoff} Å must be the largest a·sigma = {max(ends):.6g} Å, where the potential ends"
            )
        initial = {**values, "lambda": self._of_triplets(species)}
        return {"initial": tuple(initial.items()), "ends": ends, "p": self.p, "q": self.q}

    def _of_triplets(self, species: tuple[str, ...]) -> tuple[float, ...]:
        """Strength of the angles for each triplet."""
        labels, value = triplet_labels(species), self.angles
        given = value if isinstance(value, Mapping) else dict.fromkeys(labels, value)
        ordered: dict[str, float] = {}
        for triplet, number in given.items():
            reverse = "-".join(reversed(str(triplet).split("-")))
            label = triplet if triplet in labels else reverse
            if label not in labels:
                raise ValueError(
                    f"lambda has a value for the triplet {shown(triplet)}; give the centre in the middle, as in "
                    f"{labels[0]!r}"
                )
            if label in ordered:
                raise ValueError(f"lambda has two values for the triplet {label!r}; give one")
            if not is_number(number):
                raise ValueError(f"lambda = {shown(number)} of {label}: must be a number")
            try:
                _STRENGTH.check(number)
            except ValueError as error:
                raise ValueError(f"lambda = {number} of {label}: {error}") from None
            ordered[label] = float(number)
        missing = [label for label in labels if label not in ordered]
        if missing:
            raise ValueError(f"lambda has no value for the triplet {missing[0]!r}; give one, or one number for all")
        return tuple(ordered[label] for label in labels)
