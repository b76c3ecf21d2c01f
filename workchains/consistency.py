"""Whether the targets of a state point agree with it, and with each other: what no single value shows to be wrong."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from aiida_difftre.engine.contract.targets import Target
from aiida_difftre.engine.units import AMU_PER_A3_IN_KG_PER_M3

if TYPE_CHECKING:
    from ase import Atoms

DENSITY_TOLERANCE = 0.03
"""Relative. A crystal whose lattice constant is off by 1 % is off by 3 %; a state point that states its density is
compared with a third of it."""

AMBIENT_GPA = 0.1
"""Up to here a pressure changes a solid or liquid by less than what simulations resolve."""

CONTRADICTION = 5.0
"""Standard errors by which two measurements of one thing may differ."""


def density_of(atoms: Atoms) -> float:
    """Mass over volume, kg/m³."""
    return float(atoms.get_masses().sum() / atoms.get_volume() * AMU_PER_A3_IN_KG_PER_M3)


def check_cell(targets: Mapping[str, Target], atoms: Atoms) -> None:
    """Refuse targets that were measured at other conditions than a cell of fixed size has.

    Args:
        targets: Targets of a state point whose volume is fixed, by label.
        atoms: its cell.

    Raises:
        ValueError: naming the target, its condition, and what to state.
    """
    density = density_of(atoms)
    for name, target in targets.items():
        measured = target.conditions
        if measured.density is None:
            continue
        if abs(measured.density - density) > DENSITY_TOLERANCE * measured.density:
            raise ValueError(
                f"its cell has {density:.5g} kg/m³, but its target {name!r} was measured at {measured.density:g} "
                f"kg/m³; give the state point density: {measured.density:g}, to which the cell is scaled, or a cell "
                f"whose vectors are {_scaled(atoms, density, measured.density)}"
            )


def _scaled(atoms: Atoms, density: float, wanted: float) -> str:
    """By which factor vectors have to change, and what the edge of a cube becomes."""
    factor = (density / wanted) ** (1 / 3)
    a, b, c, *angles = atoms.cell.cellpar()
    is_cube = np.allclose([a, b, c], a, rtol=1e-6) and np.allclose(angles, 90)
    return f"{factor:.4f} times as long" + (f", {factor * a:.4f} Å instead of {a:.4f} Å" if is_cube else "")


def check_pressures(targets: Mapping[str, Target], *, states_volume: bool) -> None:
    """Refuse targets under pressure where nothing holds it and nothing says how dense the cell has to be.

    Args:
        targets: Targets of a state point whose volume is fixed, by label.
        states_volume: True if the state point states a density or a structure of its own.

    Raises:
        ValueError: naming the target, and what to state.
    """
    for name, target in targets.items():
        pressure = target.conditions.pressure
        if pressure is None or abs(pressure) <= AMBIENT_GPA or states_volume or target.conditions.density is not None:
            continue
        raise ValueError(
            f"its target {name!r} was measured at {pressure:g} GPa, but nothing holds this pressure: give the state "
            f"point pressure: {pressure:g} and sampling a barostat, or the density at this pressure"
        )


def check_targets(targets: Mapping[str, Target]) -> None:
    """Refuse a measurement that is given twice, and two that cannot both be right.

    Args:
        targets: Targets of one state point, by label.

    Raises:
        ValueError: naming both, and the value.
    """
    for (first, one), (second, other) in combinations(targets.items(), 2):
        if _quantity(one) != _quantity(other):
            continue
        if one.grid == other.grid and one.values == other.values:
            raise ValueError(f"targets {first!r} and {second!r} are the same measurement; leave out one of them")
        if one.is_in_loss and other.is_in_loss and (problem := _contradiction(one, other)) is not None:
            raise ValueError(
                f"targets {first!r} and {second!r} contradict each other: {problem}; leave out one of them, or give "
                "them errors that cover the difference"
            )


def _quantity(target: Target) -> tuple[str, Any]:
    return target.observable, target.options


def _contradiction(one: Target, other: Target) -> str | None:
    """How two measurements of one quantity contradict each other; None where they do not."""
    values, errors = np.array(one.values), one.total_errors()
    if one.grid is None or other.grid is None:
        labels, found, deviations = one.component_labels(), np.array(other.values), other.total_errors()
    else:
        grid = np.array(one.grid)
        common = (grid >= other.grid[0]) & (grid <= other.grid[-1])
        if not common.any():
            return None
        found = np.interp(grid[common], other.grid, other.values)
        deviations = np.interp(grid[common], other.grid, other.total_errors())
        values, errors = values[common], errors[common]
        labels = [f"at {value:g}" for value in grid[common]]
    scaled = np.abs(values - found) / np.hypot(errors, deviations)
    worst = int(np.argmax(scaled))
    # Single points of two curves may differ by more than their errors, which are seldom all of it; as a whole not.
    size = float(np.sqrt(np.mean(scaled**2))) if one.grid is not None else float(scaled[worst])
    if size <= CONTRADICTION:
        return None
    return (
        f"{labels[worst]} {values[worst]:g} ± {errors[worst]:g} and {found[worst]:g} ± {deviations[worst]:g} {one.unit}"
    )
