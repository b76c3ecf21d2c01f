"""Whether stresses can be what they are taken for: eV/Å³, positive in tension, as the forces and volumes tell."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from aiida_difftre.engine.units import EV_PER_A3_IN_GPA

if TYPE_CHECKING:
    from ase import Atoms

Values = NDArray[np.float64]

LARGEST_VIRIAL = 50.0
"""eV per atom, stress times volume: carbon at 1 TPa has 20, iron in the core of the Earth 13; silicon at 5 GPa has 0.6,
and 100 where GPa are taken for eV/Å³."""

FORCES_TIMES_DISTANCE = 10.0
"""A larger virial is believed up to this multiple of forces times the distance of the atoms."""

GAP = 6.0
"""Å of vacuum on all sides, from which on the virial of a cluster is the sum of positions times forces."""

CROWDED = 20.0
"""Å³ per atom; a cell with less has no such vacuum."""

SMALLEST_VIRIAL = 0.3
"""eV, of a cluster; below, what is left of the basis set hides it."""

WRONG_UNIT = 30.0
"""Ratio of two virials; a stress in GPa gives 160, in kbar 1602."""

SAME_COMPOSITION = 10
"""Frames of one composition from which on stresses are compared with volumes."""

SPREAD = (1.1, 1.5)
"""Largest volume over the smallest, likewise; larger ones are left out, where a stretched crystal has torn."""

AGAINST = -0.9
"""Correlation of stress and volume at which the sign is wrong: what is compressed pushes outwards."""

REMEDY = (
    "give eV/Å³, positive in tension (1 eV/Å³ = 160.2 GPa = 1602 kbar), leave stresses out with keys: {stress: none}, "
    "or take them as they are with keys: {trust_stress: true}"
)


def check_stresses(frames: Sequence[Atoms], places: Sequence[str]) -> None:
    """Refuse stresses that cannot be eV/Å³, positive in tension.

    Args:
        frames: Structures with labels in calculators of ase.
        places: how messages name each of them.

    Raises:
        ValueError: naming the frame, the value and the remedy.
    """
    stressed = [
        (atoms, where)
        for atoms, where in zip(frames, places, strict=True)
        if atoms.calc and "stress" in atoms.calc.results
    ]
    for atoms, where in stressed:
        _check_size(atoms, where)
    _check_clusters(stressed)
    _check_volumes(stressed)


def _check_size(atoms: Atoms, where: str) -> None:
    results = atoms.calc.results
    largest = float(np.abs(results["stress"]).max())
    volume = atoms.get_volume() / len(atoms)
    forces = float(np.sqrt(np.mean(results["forces"] ** 2))) if "forces" in results else 0.0
    if largest * volume > max(LARGEST_VIRIAL, FORCES_TIMES_DISTANCE * forces * volume ** (1 / 3)):
        raise ValueError(
            f"{where}: its stress reaches {largest:.4g} eV/Å³, which is {largest * EV_PER_A3_IN_GPA:.4g} GPa and "
            f"{largest * volume:.4g} eV per atom; {REMEDY}"
        )


def _check_clusters(stressed: list[tuple[Atoms, str]]) -> None:
    """A cluster in vacuum has the virial Σ r F and no other."""
    ratios, alike, first = [], [], ""
    for atoms, where in stressed:
        if "forces" not in atoms.calc.results or (positions := _cluster(atoms)) is None:
            continue
        product = positions.T @ atoms.calc.results["forces"]
        virial = ((product + product.T) / 2)[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
        stated = -atoms.calc.results["stress"] * atoms.get_volume()
        sizes = float(np.linalg.norm(virial)), float(np.linalg.norm(stated))
        if min(sizes) > SMALLEST_VIRIAL:
            first = first or where
            ratios.append(sizes[1] / sizes[0])
            alike.append(float(virial @ stated) / (sizes[0] * sizes[1]))
    if not ratios:
        return
    if (ratio := float(np.median(ratios))) > WRONG_UNIT:
        raise ValueError(
            f"{first} and others: the stress is {ratio:.4g} times what positions and forces give; {REMEDY}"
        )
    if np.median(alike) < AGAINST:
        raise ValueError(f"{first} and others: the stress has the sign opposite to what the forces give; {REMEDY}")


def _cluster(atoms: Atoms) -> Values | None:
    """Positions of a cluster that vacuum surrounds, unbroken by the cell; None where there is no such vacuum."""
    if len(atoms) < 2 or atoms.get_volume() < CROWDED * len(atoms):
        return None
    cell = np.asarray(atoms.cell)
    heights = abs(np.linalg.det(cell)) / np.linalg.norm(np.cross(np.roll(cell, -1, 0), np.roll(cell, -2, 0)), axis=1)
    fractional = atoms.get_scaled_positions(wrap=True)
    ordered = np.sort(fractional, axis=0)
    gaps = np.roll(ordered, -1, axis=0) - ordered
    gaps[-1] += 1.0
    widest = gaps.argmax(axis=0)
    if (gaps[widest, range(3)] * heights < GAP).any():
        return None
    start = ordered[(widest + 1) % len(atoms), range(3)]  # the first atom behind the vacuum
    return np.asarray(((fractional - start + 1e-9) % 1.0) @ cell)


def _check_volumes(stressed: list[tuple[Atoms, str]]) -> None:
    """Check signs: of one composition the larger volume has the larger stress, since pressure falls with it."""
    groups = defaultdict(list)
    for atoms, where in stressed:
        if _cluster(atoms) is not None:
            continue
        tension = float(np.mean(atoms.calc.results["stress"][:3]))
        groups[atoms.get_chemical_formula(empirical=True)].append((atoms.get_volume() / len(atoms), tension, where))
    for formula, rows in groups.items():
        volumes, tensions = (np.array([row[column] for row in rows]) for column in (0, 1))
        whole = volumes <= SPREAD[1] * volumes.min()
        volumes, tensions = volumes[whole], tensions[whole]
        if len(volumes) < SAME_COMPOSITION or volumes.max() < SPREAD[0] * volumes.min() or np.ptp(tensions) == 0:
            continue
        if np.corrcoef(volumes, tensions)[0, 1] < AGAINST:
            raise ValueError(
                f"the stresses of {len(volumes)} frames of {formula} ({rows[0][2]} and others) fall as the volume "
                f"grows, like those that are positive in compression; {REMEDY}"
            )
