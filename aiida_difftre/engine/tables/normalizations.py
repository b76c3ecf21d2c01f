r"""Normalisations in which g(r) and S(q) are published, and how a table in one becomes the observable. Free of JAX.

Each is linear in the observable y at every point of the grid x,

    y = offset + value / (factor x^power).

References:
    D. A. Keen, J. Appl. Cryst. 34, 172 (2001), for the names in use.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aiida_difftre.engine.contract.isotopes import Composition
from aiida_difftre.engine.observables.specs.curve_checks import last_third

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Quantity:
    """One normalisation.

    Args:
        name: Name by which it is asked for.
        observable: that it gives.
        formula: Formula of the observable, for people.
        unit: Unit of its values.
        power: Power of the grid by which it is multiplied.
        offset: Value of the observable where the quantity is zero.
        needs: ``density`` or ``lengths``, where the factor is made of these.
        limit: Value to which it tends; None where it grows.
    """

    name: str
    observable: str
    formula: str
    unit: str = "1"
    power: int = 0
    offset: float = 1.0
    needs: str | None = None
    limit: float | None = 0.0


QUANTITIES = {
    quantity.name: quantity
    for quantity in (
        Quantity("g", "rdf", "g", offset=0.0, limit=1.0),
        Quantity("g-1", "rdf", "g = 1 + (g - 1)"),
        Quantity("G", "rdf", "g = 1 + G/(4πrρ)", unit="1/angstrom2", power=1, needs="density"),
        Quantity("T", "rdf", "g = T/(4πrρ)", "1/angstrom2", power=1, offset=0.0, needs="density", limit=None),
        Quantity("R", "rdf", "g = R/(4πr²ρ)", "1/angstrom", power=2, offset=0.0, needs="density", limit=None),
        Quantity("S", "structure_factor", "S", offset=0.0, limit=1.0),
        Quantity("S-1", "structure_factor", "S = 1 + (S - 1)"),
        Quantity("Q(S-1)", "structure_factor", "S = 1 + Q(S - 1)/Q", unit="1/angstrom", power=1),
        Quantity("F", "structure_factor", "S = 1 + F/<b>²", unit="barn", needs="lengths"),
        Quantity("DCS", "structure_factor", "S = 1 + (DCS - <b²>)/<b>²", unit="barn", needs="lengths", limit=None),
    )
}
"""By name."""


def quantity(name: str, observable: str) -> Quantity:
    """The normalisation of a name; brackets and spaces do not matter.

    Raises:
        ValueError: for one that is not known, or gives another observable.
    """
    plain = {key.replace("(", "").replace(")", ""): key for key in QUANTITIES}
    key = plain.get("".join(character for character in name if character not in "[]() "))
    known = [one for one in QUANTITIES.values() if one.observable == observable]
    if not known:
        raise ValueError(f"observable {observable!r} comes in one normalisation; leave out --quantity")
    if key is None or QUANTITIES[key] not in known:
        choices = "; ".join(f"{one.name} ({one.formula})" for one in known)
        raise ValueError(f"quantity {name!r} gives no {observable}; choose one of {choices}")
    return QUANTITIES[key]


@dataclass(frozen=True)
class Normalization:
    """A normalisation with its constants.

    Args:
        quantity: which one.
        factor: 4πρ in 1/Å³, <b>² in barn, or 1.
        offset: Value of the observable where the quantity is zero.
        description: The constants, in words.
    """

    quantity: Quantity
    factor: float
    offset: float
    description: str

    @classmethod
    def of(
        cls,
        quantity: Quantity,
        *,
        number_density: float | None,
        composition: Composition | None,
        radiation: str = "neutron",
        lengths: Mapping[str, float] | None = None,
    ) -> Normalization:
        """Take the constants from what is known of the sample.

        Args:
            quantity: which normalisation.
            number_density: atoms per Å³.
            composition: Composition of the sample.
            radiation: Radiation with which S was measured.
            lengths: scattering lengths in place of those of the table, fm.

        Returns:
            The constants.

        Raises:
            ValueError: naming what is missing.
        """
        if quantity.needs == "density":
            if number_density is None:
                raise ValueError(
                    f"{quantity.formula} needs the number density: give --number-density in atoms per Å³, or --density "
                    "and --composition"
                )
            return cls(quantity, 4 * math.pi * number_density, quantity.offset, f", ρ = {number_density:.6g} 1/Å³")
        if quantity.needs == "lengths":
            if radiation != "neutron":
                raise ValueError(
                    f"{quantity.formula} is of neutrons; X-ray data are normalised by form factors of each q: divide "
                    "them by <f(q)>² and give S, S-1 or Q(S-1)"
                )
            if composition is None:
                raise ValueError(f"{quantity.formula} needs --composition, such as D2O, for the scattering lengths")
            mean, square = composition.mean_lengths(lengths)
            offset = 1 - square / mean if quantity.name == "DCS" else quantity.offset
            words = f", {composition.formula}: <b>² = {mean:.5g} barn, <b²> = {square:.5g} barn"
            return cls(quantity, mean, offset, words)
        return cls(quantity, 1.0, quantity.offset, "")

    @property
    def is_identity(self) -> bool:
        """Whether the table holds the observable itself."""
        return self.quantity.offset == 0 and self.quantity.power == 0

    def check(self, x: Floats, y: Floats) -> None:
        """Refuse a table that tends to 1 where the quantity tends to 0.

        Args:
            x: the grid, in the observable's unit.
            y: the table's values, in the quantity's unit.
        """
        mean, extent = last_third(x, y)
        is_long = x[-1] >= (6 if self.quantity.observable == "rdf" else 4)
        if self.quantity.limit == 0 and self.quantity.needs != "lengths" and is_long and mean > 0.7 and extent < 2:
            whole = "g" if self.quantity.observable == "rdf" else "S"
            raise ValueError(
                f"the values tend to {mean:.2g}, and {self.quantity.name} tends to 0: is it --quantity {whole}?"
            )

    def slope(self, x: Floats) -> Floats:
        """What one unit of the quantity adds to the observable at each point."""
        return np.asarray(1 / (self.factor * x**self.quantity.power))
