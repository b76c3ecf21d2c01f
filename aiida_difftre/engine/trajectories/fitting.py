"""Whether a trajectory is of a system, a cell and an ensemble, and whether energies can be its potential energies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aiida_difftre.engine import units
from aiida_difftre.engine.contract.observables import Ensemble
from aiida_difftre.engine.contract.trajectories import Trajectory

SAME_CELL = 1e-4
"""Relative; cells that are the same differ by less, as they are rounded in files."""

FLUCTUATION = (0.05, 20.0)
"""Variance of the energies over that of 3N harmonic coordinates: outside, they are of another unit or temperature, or
not the potential energy."""


def check_fits(trajectory: Trajectory, symbols: Sequence[str], cell: ArrayLike, ensemble: Ensemble) -> None:
    """Refuse a trajectory that is not of the atoms, the cell and the ensemble of a state point.

    Args:
        trajectory: The trajectory.
        symbols: Chemical symbols of the structure, one per atom.
        cell: Its lattice vectors in rows, (3, 3), Å.
        ensemble: What is sampled at the state point.

    Raises:
        ValueError: naming what differs, and the remedy.
    """
    if trajectory.species != tuple(symbols):
        raise ValueError(
            f"the trajectory has {len(trajectory.species)} atoms of {', '.join(sorted(set(trajectory.species)))}, the "
            f"structure {len(symbols)} of {', '.join(sorted(set(symbols)))}, or another order of atoms; take the "
            "structure from a frame of the trajectory (structure: FILE@-1)"
        )
    if trajectory.ensemble != ensemble:
        held = "no pressure was held" if trajectory.pressure is None else f"{trajectory.pressure:g} GPa were held"
        raise ValueError(
            f"the trajectory is of the ensemble {trajectory.ensemble} ({held}), and the state point of {ensemble}; "
            "give it a pressure and sampling a barostat for NPT, or neither for NVT"
        )
    wanted = np.asarray(cell, np.float64)
    found = np.asarray(trajectory.cell, np.float64)
    if ensemble == "NPT":
        found = found * (abs(np.linalg.det(wanted)) / abs(np.linalg.det(found))) ** (1 / 3)
    differs = float(np.abs(found - wanted).max() / np.abs(wanted).max())
    if differs > SAME_CELL:
        raise ValueError(
            f"the cell of the trajectory differs from that of the structure by {differs:.2g} of its length: "
            f"{found.round(4).tolist()} and {wanted.round(4).tolist()} Å; take the structure from a frame of the "
            "trajectory (structure: FILE@-1), or set the density that it has"
        )


def check_fluctuations(energies: NDArray[np.float64], atoms: int, temperature: float) -> None:
    """Refuse energies that cannot be the potential energies of atoms at a temperature.

    Args:
        energies: Energies of the snapshots, (snapshots,), eV.
        atoms: Number of atoms.
        temperature: Temperature, K.

    Raises:
        ValueError: naming both fluctuations, and what may be wrong.
    """
    harmonic = 1.5 * atoms * (units.BOLTZMANN * temperature) ** 2
    ratio = float(np.var(energies)) / harmonic
    if not FLUCTUATION[0] < ratio < FLUCTUATION[1]:
        raise ValueError(
            f"the energies fluctuate by {np.std(energies):.3g} eV, and those of {atoms} atoms at {temperature:g} K by "
            f"about {harmonic**0.5:.3g} eV; give potential energies (not total ones) of the whole cell in eV, the "
            "temperature at which it was sampled, and no frames of before"
        )
