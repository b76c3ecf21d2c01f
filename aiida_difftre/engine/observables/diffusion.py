"""Self-diffusion from the mean squared displacement: a property of the dynamics, not an average over snapshots."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from aiida_difftre.engine import units
from aiida_difftre.engine.contract.observables import ObservableRequest
from aiida_difftre.engine.contract.trajectories import Trajectory
from aiida_difftre.engine.observables.paths import Paths, atoms_of, squared_error_of_mean
from aiida_difftre.engine.observables.protocol import Observed

A2_PER_FS: Final = 1e4
"""In 1e-9 m²/s."""

SELF_INTERACTION: Final = 2.837297
"""Of a particle with its images in a cubic cell, which Yeh and Hummer call ξ."""

MOST_LAGS = 32
"""Of the straight line: more are correlated with these."""


def mean_squared_displacements(
    positions: NDArray[np.float64], lags: NDArray[np.intp], masses: NDArray[np.float64], atoms: NDArray[np.intp]
) -> NDArray[np.float64]:
    r"""Average :math:`|\mathbf r_i(t + \tau) - \mathbf r_i(t)|^2` over atoms and all origins t of one walker.

    Positions are relative to the centre of mass of all atoms, which a thermostat may move.

    Args:
        positions: Unwrapped Cartesian positions, (snapshots, atoms, 3), Å, at equal times.
        lags: Numbers of snapshots between two positions, (lags,).
        masses: Masses of all atoms, (atoms,).
        atoms: Indices of the atoms that count.

    Returns:
        The mean squared displacement of each lag, (lags,), Å².

    Example:
        >>> import numpy as np
        >>> from aiida_difftre.engine.observables.diffusion import mean_squared_displacements
        >>> path = np.array([[0.0, 0.0], [1.0, -1.0], [2.0, -2.0]])[..., None] * np.array([1.0, 0.0, 0.0])
        >>> mean_squared_displacements(path, np.array([1, 2]), np.ones(2), np.arange(2)).tolist()
        [1.0, 4.0]
    """
    centre = np.einsum("a,tac->tc", masses / masses.sum(), positions)
    moving = positions[:, atoms] - centre[:, None]
    return np.array([np.mean(np.sum((moving[lag:] - moving[:-lag]) ** 2, -1)) for lag in lags])


def size_correction(temperature: float, viscosity: float, edge: float) -> float:
    r"""What periodic images take from the self-diffusion coefficient in a cubic cell.

    .. math:: D_\infty - D_L = \frac{\xi k T}{6 \pi \eta L}

    Args:
        temperature: Temperature, K.
        viscosity: Shear viscosity η, mPa s.
        edge: Edge L of the cell, Å.

    Returns:
        The difference, 1e-9 m²/s.

    References:
        I.-C. Yeh and G. Hummer, J. Phys. Chem. B 108, 15873 (2004), equation 12.

    Example:
        Water in a cell of 20 Å:

        >>> from aiida_difftre.engine.observables.diffusion import size_correction
        >>> round(size_correction(298.15, 0.89, 20.0), 3)
        0.348
    """
    energy = units.BOLTZMANN * units.ELEMENTARY_CHARGE * temperature
    return SELF_INTERACTION * energy / (6 * math.pi * viscosity * 1e-3 * edge * 1e-10) * 1e9


@dataclass(frozen=True)
class Diffusion:
    r"""Slope of the mean squared displacement, :math:`D = \frac{1}{6} \frac{d}{d\tau} \langle r^2(\tau) \rangle`.

    The slope is that of a straight line from ``begin_fs`` to ``end_fs``, of each walker for itself. The error is that
    of their mean, with Student's factor for few of them, and half of what the slopes of the two halves of the line
    differ by more than chance allows: there the motion is not diffusive yet, or not any more.

    Args:
        atoms: Indices of the atoms that count.
        begin_fs: First lag, fs.
        end_fs: Last lag, fs.
        viscosity: Shear viscosity, mPa s, for the correction for the size of the cell; None for none.
    """

    atoms: NDArray[np.intp]
    begin_fs: float
    end_fs: float
    viscosity: float | None

    quantities = ()
    static = True

    @classmethod
    def from_request(cls, request: ObservableRequest, species: tuple[str, ...], cell: NDArray[np.float64]) -> Self:
        """Options and species were checked by the registry.

        Args:
            request: What is asked for.
            species: Chemical symbol of each atom.
            cell: Not looked at.
        """
        options = request.options
        chosen = atoms_of(options["species"], species)
        return cls(chosen, float(options["begin_fs"]), float(options["end_fs"]), options["viscosity_mPa_s"])

    def of_trajectory(self, trajectory: Trajectory, masses: NDArray[np.float64]) -> Observed:
        """Compute the coefficient from the paths of all walkers.

        Args:
            trajectory: The trajectory, in the order of time.
            masses: Masses of the atoms, amu.

        Returns:
            The coefficient, its error, and the uncorrected value with what was added to it.

        Raises:
            ValueError: For paths that are too few or too short.
        """
        paths = Paths(trajectory)
        walkers, length, stride = paths.walkers, len(paths.times), paths.stride
        first, last = max(1, math.ceil(self.begin_fs / stride - 1e-9)), math.floor(self.end_fs / stride + 1e-9)
        if last - first < 3 or last >= length or not paths.are_regular:
            raise ValueError(
                f"{walkers} walkers of {length} snapshots do not tell a slope from {self.begin_fs:g} to "
                f"{self.end_fs:g} fs; sample at least 2 walkers, for longer than that, at equal times"
            )
        lags = np.unique(np.linspace(first, last, min(MOST_LAGS, last - first + 1)).round().astype(np.intp))
        displacements = np.stack(
            [mean_squared_displacements(path, lags, masses, self.atoms) for path in paths.positions()]
        )
        middle = len(lags) // 2
        whole, early, late = (
            A2_PER_FS / 6 * np.polyfit(lags[part] * stride, displacements[:, part].T, 1)[0]
            for part in (slice(None), slice(None, middle + 1), slice(middle, None))
        )
        bend = late - early
        unexplained = max(0.0, float(bend.mean() ** 2 - squared_error_of_mean(bend))) / 4
        value, error = float(whole.mean()), math.sqrt(squared_error_of_mean(whole) + unexplained)
        edge = float(np.linalg.norm(trajectory.cell[0]))
        added = 0.0
        if self.viscosity is not None:
            added = size_correction(trajectory.temperature, self.viscosity, edge)
        told = {"D of this cell": value, "added for its size": added, "bend": float(bend.mean())}
        return Observed(np.array([value + added]), np.array([error]), told, float(walkers))
