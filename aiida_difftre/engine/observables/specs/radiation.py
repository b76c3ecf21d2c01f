"""What radiation sees of a sample: isotopes by mass, by name or by choice, and of which composition. Free of JAX."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from aiida_difftre.engine.contract import isotopes
from aiida_difftre.engine.errors import shown

SAME_SHARE = 0.02
"""Difference of mole fractions up to which a sample and its simulation are of the same composition."""

OPTIONS: dict[str, Any] = {"scattering_lengths": None, "isotopes": None, "composition": None}
"""Options of every observable that weighs atoms by how they scatter, with their defaults."""


def check_options(options: Mapping[str, Any], observable: str) -> None:
    """Refuse options that do not say which sample was measured.

    Raises:
        ValueError: naming the option, its value and what is wanted.
    """
    for option in ("scattering_lengths", "isotopes"):
        if options[option] is not None and options["radiation"] != "neutron":
            raise ValueError(f"option {option!r} of {observable} is for radiation: neutron")
    lengths = options["scattering_lengths"]
    if lengths is not None and not (
        isinstance(lengths, dict) and all(isinstance(b, int | float) and np.isfinite(b) for b in lengths.values())
    ):
        raise ValueError(
            f"option 'scattering_lengths' of {observable} is {lengths!r}; give numbers in fm by species, such as "
            "{'H': 6.671}"
        )
    if options["isotopes"] is not None:
        if not isinstance(options["isotopes"], dict):
            raise _no_isotopes(options["isotopes"], observable)
        for element, given in options["isotopes"].items():
            _shares(element, given, observable)
    if options["composition"] is not None:
        if not isinstance(options["composition"], str):
            raise ValueError(
                f"option 'composition' of {observable} is {shown(options['composition'])}; give a formula, such as SiO2"
            )
        isotopes.Composition.parse(options["composition"])


def _no_isotopes(given: Any, observable: str) -> ValueError:
    return ValueError(
        f"option 'isotopes' of {observable} is {shown(given)}; give isotopes by element, such as {{H: D}}, or "
        "their shares, such as {H: {H: 0.36, D: 0.64}}"
    )


def _shares(element: str, given: Any, observable: str) -> dict[str, float]:
    """Shares of the isotopes of an element, by name."""
    shares = {given: 1.0} if isinstance(given, str) else given
    if not isinstance(shares, dict) or not shares:
        raise _no_isotopes({element: given}, observable)
    for name, share in shares.items():
        try:
            symbol, _ = isotopes.parse(name)
        except ValueError as error:
            raise ValueError(f"option 'isotopes' of {observable}: {error}") from None
        if symbol != element:
            raise ValueError(f"option 'isotopes' of {observable} has {name} for {element}; it is one of {symbol}")
        if isinstance(share, bool) or not (isinstance(share, int | float) and 0 <= share <= 1):
            raise ValueError(f"option 'isotopes' of {observable} has a share of {shown(share)} for {name}; give 0 to 1")
    total = sum(shares.values())
    if abs(total - 1) > 1e-6:
        raise ValueError(f"shares of the isotopes of {element} sum to {total:g}, not to 1; give them all")
    return dict(shares)


def seen(
    options: dict[str, Any], species: tuple[str, ...], masses: Sequence[float] | None
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Neutrons tell isotopes apart: those that the option names, or else those that masses are.

    Args:
        options: Complete options of the observable.
        species: Chemical symbol of each atom.
        masses: Masses of the atoms, u; None for the standard atomic weights.

    Returns:
        The options with the length of each, fm, and the name of each atom.

    Raises:
        ValueError: for an isotope without a length, or an element that is not there.
    """
    if options["radiation"] != "neutron":
        return options, species
    given = {_canonical(name): length for name, length in (options["scattering_lengths"] or {}).items()}
    for element, named in (options["isotopes"] or {}).items():
        if element not in species:
            raise ValueError(f"option 'isotopes' names {element}; the structure has {', '.join(sorted(set(species)))}")
        given[element] = 0.0
        for name, share in _shares(element, named, "the observable").items():
            length = isotopes.scattering_length(name)
            if length is None:
                raise ValueError(
                    f"{name} has no scattering length in the table; give that of {element} in scattering_lengths, fm"
                )
            given[element] += share * length
    names = isotopes.seen_by_neutrons(species, masses, given)
    tabulated = {name: isotopes.scattering_length(name) for name in sorted(set(names)) if name not in given}
    lengths = {**given, **{name: length for name, length in tabulated.items() if length is not None}}
    return {**options, "scattering_lengths": lengths, "isotopes": None}, names


def _canonical(name: str) -> str:
    try:
        return isotopes.canonical(name)
    except ValueError:  # beads have names of their own
        return name


def check_system(options: Mapping[str, Any], species: Sequence[str], observable: str) -> None:
    """Refuse a structure of another composition than the sample that was measured.

    Args:
        options: Complete options of the observable.
        species: Name of each atom, as :func:`seen` gives it.
        observable: Name of the observable, for messages.

    Raises:
        ValueError: naming both.
    """
    if options["composition"] is None:
        return
    wanted = Counter[str]()
    for name, count in isotopes.Composition.parse(options["composition"]).counts.items():
        wanted[isotopes.parse(name)[0]] += count  # type: ignore[assignment]  # formulas have shares
    found = Counter(isotopes.parse(name)[0] for name in species)
    if any(
        abs(wanted[one] / sum(wanted.values()) - found[one] / len(species)) > SAME_SHARE for one in {*wanted, *found}
    ):
        there = ", ".join(f"{count} {element}" for element, count in sorted(found.items()))
        raise ValueError(
            f"{observable!r} was measured on {options['composition']}, by whose composition it is weighted, but the "
            f"structure holds {there}; give a structure of that composition, or the option 'composition' of the sample"
        )
