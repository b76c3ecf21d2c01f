"""Measurements that ship with the package, and those in folders of the user: target files by system and name.

A measurement is named ``SYSTEM/NAME``, and is the file ``SYSTEM/NAME.yaml`` in one of the folders: that of the package,
``catalogue`` in the user's configuration folder ``~/.config/difftre`` (``$XDG_CONFIG_HOME/difftre``), and those of
``$DIFFTRE_CATALOGUE``, separated as those of ``$PATH``. Free of JAX and of AiiDA.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ase.data import atomic_names, atomic_numbers, chemical_symbols
from ase.formula import Formula

from aiida_difftre.engine.contract.targets import Target, read_fields
from aiida_difftre.engine.errors import did_you_mean, shown

PREFIX = "catalogue:"
"""How an input names a measurement of the catalogue."""

SHIPPED = Path(__file__).parent / "targets"
ENVIRONMENT = "DIFFTRE_CATALOGUE"
OTHER_NAMES = {
    "aluminum": "Al", "cesium": "Cs", "diamond": "C", "water": "H2O", "silica": "SiO2", "sodium chloride": "NaCl",
}  # fmt: skip
"""Systems by names that are not those of their elements, as these are spelled in British English."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*/[A-Za-z0-9][A-Za-z0-9_.+-]*")


@dataclass(frozen=True)
class Entry:
    """A measurement of the catalogue.

    Args:
        name: System and name, such as ``Si/stiffness_298K``.
        path: Its file.
    """

    name: str
    path: Path

    @property
    def system(self) -> str:
        """The part of the name before the slash."""
        return self.name.split("/")[0]

    def target(self) -> Target:
        """Read the measurement.

        Returns:
            The target.

        Raises:
            ValueError: With the file, and the offending value.
        """
        try:
            return read_fields(self.path)
        except ValueError as error:
            raise ValueError(f"{PREFIX}{self.name} ({self.path}): {error}") from None


def folders() -> list[Path]:
    """The folders of the catalogue that exist: that of the package first.

    Raises:
        ValueError: for a folder of the environment that does not exist.
    """
    configuration = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    own = [Path(text) for text in os.environ.get(ENVIRONMENT, "").split(os.pathsep) if text]
    for folder in own:
        if not folder.is_dir():
            raise ValueError(f"{ENVIRONMENT} names {shown(str(folder))}, which is no folder; make it or leave it out")
    usual = configuration / "difftre" / "catalogue"
    return [SHIPPED, *([usual] if usual.is_dir() else []), *own]


def entries(system: str | None = None) -> list[Entry]:
    """List the measurements of all folders.

    Args:
        system: Formula, such as ``Si``, or name of an element, such as ``silicon``; None for all.

    Returns:
        The entries, sorted by name.

    Raises:
        ValueError: Where there is nothing of this system; the message names the systems that there are.

    Example:
        >>> from aiida_difftre import catalogue
        >>> "Si/stiffness_298K" in [entry.name for entry in catalogue.entries("Si")]
        True
    """
    found = sorted((entry for folder in folders() for entry in _of(folder)), key=lambda entry: entry.name)
    if system is None:
        return found
    systems = sorted({entry.system for entry in found})
    called = system_called(system, systems)
    if called is None:
        elements = {atomic_names[atomic_numbers[one]]: one for one in systems if one in atomic_numbers}
        near = did_you_mean(system, [*systems, *elements, *OTHER_NAMES])
        raise ValueError(f"nothing of {shown(system)}{near}; there is {', '.join(systems)}")
    return [entry for entry in found if entry.system == called]


def system_called(name: str, systems: Iterable[str]) -> str | None:
    """The system that a person means: by its formula, whatever its capitals and order, or by its name in English.

    Args:
        name: Such as ``Ni``, ``ni``, ``nickel`` or ``ClNa``.
        systems: Those that there are.

    Returns:
        One of them; None where none is called so.
    """
    there = list(systems)
    plain = name.strip()
    if plain in there:
        return plain
    elements = {element.lower(): symbol for element, symbol in zip(atomic_names, chemical_symbols, strict=True)}
    symbol = (OTHER_NAMES | elements).get(plain.lower())
    if symbol in there:
        return symbol
    same = [one for one in there if one.lower() == plain.lower()]
    if not same and (wanted := _composition(plain)) is not None:
        same = [one for one in there if _composition(one) == wanted]
    return same[0] if len(same) == 1 else None


def _composition(formula: str) -> dict[str, int] | None:
    """Numbers of atoms in the smallest unit of a formula; None for what is none."""
    try:
        return dict(Formula(formula).reduce()[0].count())
    except ValueError:
        return None


def find(name: str) -> Entry:
    """Find a measurement.

    Args:
        name: Its name, such as ``Si/stiffness_298K``, with or without ``catalogue:`` before it.

    Returns:
        The entry.

    Raises:
        ValueError: For a name that is in no folder, or in more than one.

    Example:
        >>> from aiida_difftre import catalogue
        >>> catalogue.find("catalogue:Si/stiffness_298K").target().values
        [165.78, 63.94, 79.62]
    """
    wanted = name.removeprefix(PREFIX)
    if not NAME.fullmatch(wanted):
        raise ValueError(f"{shown(name)} names nothing in the catalogue; write {PREFIX}SYSTEM/NAME")
    there = entries()
    found = [entry for entry in there if entry.name == wanted]
    if len(found) == 1:
        return found[0]
    if found:
        places = " and ".join(str(entry.path) for entry in found)
        raise ValueError(f"{PREFIX}{wanted} is in {places}; rename one")
    raise ValueError(
        f"{PREFIX}{wanted} is not in the catalogue{did_you_mean(wanted, [entry.name for entry in there])}; "
        "`aiida-difftre target list` shows what is"
    )


def _of(folder: Path) -> Iterator[Entry]:
    """The entries of a folder: what a link leads out of it is passed over."""
    root = folder.resolve()
    for path in folder.glob("*/*.yaml"):
        name = f"{path.parent.name}/{path.stem}"
        if NAME.fullmatch(name) and path.resolve().is_relative_to(root):
            yield Entry(name, path)
