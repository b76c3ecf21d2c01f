"""Where nuclei are quantum: the thermal wavelength against the distance to the nearest neighbour. Free of JAX.

A classical simulation that is fitted to measurements absorbs what quantum nuclei do, silently: neon at 42 K, refined on
its g(r) alone, gets a tenth of its well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from aiida_difftre.engine import units

LARGEST_RATIO = 0.1
"""Thermal wavelength over the distance to the nearest neighbour, from which on quantum effects are worth a word."""

_HBAR = 6.62607015e-34 / (2 * math.pi) / units.ELEMENTARY_CHARGE  # eV s

HBAR_SQUARED = _HBAR**2 * units.ELEMENTARY_CHARGE / units.ATOMIC_MASS * 1e20
"""ħ², eV u Å²."""


def thermal_wavelength(mass: float, temperature: float) -> float:
    """h/sqrt(2πmkT), Å.

    Args:
        mass: u.
        temperature: K.

    Example:
        >>> round(thermal_wavelength(20.18, 42.0), 2)  # neon
        0.6
    """
    return math.sqrt(2 * math.pi * HBAR_SQUARED / (mass * units.BOLTZMANN * temperature))


def advice(
    symbols: Sequence[str], masses: ArrayLike, positions: ArrayLike, cell: ArrayLike, temperature: float
) -> str | None:
    """What to know where nuclei are quantum; None where they are nearly classical.

    Args:
        symbols: Chemical symbol of each atom.
        masses: Mass of each atom, u.
        positions: (atoms, 3), Å, in a periodic cell.
        cell: Lattice vectors in rows, (3, 3), Å.
        temperature: K.
    """
    from ase import Atoms
    from ase.neighborlist import neighbor_list

    places, box = np.asarray(positions, np.float64), np.asarray(cell, np.float64)
    spacing = (abs(np.linalg.det(box)) / len(symbols)) ** (1 / 3)
    index, distance = neighbor_list("id", Atoms(list(symbols), positions=places, cell=box, pbc=True), 2.0 * spacing)
    nearest = np.full(len(symbols), 2.0 * spacing)
    np.minimum.at(nearest, index, distance)
    worst, found = LARGEST_RATIO, None
    for element in sorted(set(symbols)):
        own = np.array([symbol == element for symbol in symbols])
        # The median, since atoms that were packed at random may be as near as that allows.
        first, mass = float(np.median(nearest[own])), float(np.min(np.asarray(masses)[own]))
        ratio = thermal_wavelength(mass, temperature) / first
        if ratio > worst:
            worst, found = ratio, (element, mass, first)
    if found is None:
        return None
    element, mass, first = found
    return (
        f"nuclei of {element} ({mass:.4g} u) are quantum at {temperature:g} K: their thermal wavelength, "
        f"{thermal_wavelength(mass, temperature):.2g} Å, is {worst:.2f} of the {first:.3g} Å to a neighbour, and what "
        "classical atoms are fitted to has that in it; for pair terms, feynman_hibbs adds the correction at this "
        "temperature, and otherwise the potential is an effective one for these conditions alone"
    )
