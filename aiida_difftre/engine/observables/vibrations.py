"""Vibrational density of states from the paths of atoms: a property of the dynamics, not an average over snapshots."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import cumulative_trapezoid
from scipy.signal import welch

from aiida_difftre.engine import units
from aiida_difftre.engine.contract.observables import ObservableRequest
from aiida_difftre.engine.contract.trajectories import Trajectory
from aiida_difftre.engine.observables import bins
from aiida_difftre.engine.observables.paths import Paths, atoms_of, squared_error_of_mean
from aiida_difftre.engine.observables.protocol import Observed

FS_PER_PS: Final = 1000.0

AMU_A2_PER_PS2: Final = units.ELEMENTARY_CHARGE / units.ATOMIC_MASS * 1e-4
"""In an electronvolt; 1 m²/s² is 1e-4 Å²/ps²."""

LEAST_ENERGY: Final = 0.9
"""Of kT/2 for each degree of freedom, carried by the velocities of the paths: less moves faster than snapshots tell."""

CERTAIN: Final = 2.0
"""Standard errors below that: few atoms among others, or few walkers, have more or less than their share by chance."""


def velocity_spectrum(
    positions: NDArray[np.float64], stride: float, segment: int, masses: NDArray[np.float64], atoms: NDArray[np.intp]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    r"""Compute the spectrum of the velocities of one walker, :math:`\sum_i m_i\, S_{\dot{\mathbf r}_i}(\nu)`.

    By Welch's method, with the periodograms of half-overlapping segments under a Hann window, of
    :math:`\dot{\mathbf r}_i \approx \Delta \mathbf r_i / \Delta t`, whose spectrum is
    :math:`\operatorname{sinc}^2(\nu \Delta t)` times that of the velocities. The integral over all frequencies is
    :math:`\sum_i m_i \langle \dot{\mathbf r}_i^2 \rangle`.

    Args:
        positions: Unwrapped Cartesian positions, (snapshots, atoms, 3), Å, at equal times.
        stride: Time between two snapshots, ps.
        segment: Number of snapshots of a segment.
        masses: Masses of all atoms, (atoms,), amu.
        atoms: Indices of the atoms that count, relative to the centre of mass of all.

    Returns:
        Frequencies up to half of the rate of the snapshots, THz, and the spectrum there, amu Å²/ps² per THz.

    References:
        P. D. Welch, IEEE Trans. Audio Electroacoust. 15, 70 (1967).

    Example:
        A heavy atom and a light one on a spring, 2 THz:

        >>> import numpy as np
        >>> from aiida_difftre.engine.observables.vibrations import velocity_spectrum
        >>> wave = np.sin(2 * np.pi * 2.0 * 0.05 * np.arange(400))[:, None, None]
        >>> path = wave * np.array([[0.1], [-1.0]]) * np.array([1.0, 0.0, 0.0])
        >>> frequencies, spectrum = velocity_spectrum(path, 0.05, 200, np.array([10.0, 1.0]), np.arange(2))
        >>> float(frequencies[spectrum.argmax()])
        2.0
    """
    centre = np.einsum("a,tac->tc", masses / masses.sum(), positions)
    moving = (positions[:, atoms] - centre[:, None]) * np.sqrt(masses[atoms])[:, None]
    velocities = np.diff(moving, axis=0) / stride
    frequencies, spectra = welch(
        velocities, fs=1 / stride, window="hann", nperseg=min(segment, len(velocities)), detrend=False, axis=0
    )
    return frequencies, spectra.sum((1, 2)) / np.sinc(frequencies * stride) ** 2


@dataclass(frozen=True)
class VibrationalDensityOfStates:
    r"""Density of states of vibrations at the temperature of the dynamics, in bins of frequencies, with area one.

    .. math:: g(\nu) = \frac{\sum_i m_i S_{\dot{\mathbf r}_i}(\nu)}{\int \sum_i m_i S_{\dot{\mathbf r}_i}(\nu)\, d\nu}

    In a harmonic crystal each mode carries the same kinetic energy, and g counts modes. Anharmonic shifts and widths
    are in it; of a liquid of one species, :math:`g(0) = 4 m D / kT` tells the diffusion. With a
    species, it is the part of its atoms, with area one as well.

    Args:
        atoms: Indices of the atoms that count.
        edges: Edges of the bins, (bins + 1,), THz.
        segment_fs: Length of the segments of Welch's method, fs.
    """

    atoms: NDArray[np.intp]
    edges: NDArray[np.float64]
    segment_fs: float

    quantities = ()
    static = True

    @classmethod
    def from_request(cls, request: ObservableRequest, species: tuple[str, ...], cell: NDArray[np.float64]) -> Self:
        """Options, grid and species were checked by the registry.

        Args:
            request: What is asked for.
            species: Chemical symbol of each atom.
            cell: Not looked at.
        """
        options = request.options
        chosen = atoms_of(options["species"], species)
        return cls(chosen, bins.edges(request.grid or [], request.name, "THz"), float(options["segment_fs"]))

    def of_trajectory(self, trajectory: Trajectory, masses: NDArray[np.float64]) -> Observed:
        """Compute the density of states from the paths of all walkers.

        Args:
            trajectory: The trajectory, in the order of time.
            masses: Masses of the atoms, amu.

        Returns:
            Its averages over the bins, their errors, and the kinetic energy that the paths carry over that of the
            temperature.

        Raises:
            ValueError: For paths that are too few, too short, or too coarse in time.
        """
        paths = Paths(trajectory)
        walkers, length, stride = paths.walkers, len(paths.times), paths.stride
        segment = round(self.segment_fs / stride)
        if not 2 <= segment <= length or not paths.are_regular:
            raise ValueError(
                f"{walkers} walkers of {length} snapshots do not tell segments of {self.segment_fs:g} fs; sample "
                "at least 2 walkers, for longer than that, at equal times"
            )
        highest = FS_PER_PS / (2 * stride)
        if self.edges[-1] > highest * (1 + 1e-6):
            raise ValueError(
                f"snapshots {stride:g} fs apart see up to {highest:.4g} THz and not up to {self.edges[-1]:g} THz"
            )
        averages, energies = [], []
        for path in paths.positions():
            frequencies, spectrum = velocity_spectrum(path, stride / FS_PER_PS, segment, masses, self.atoms)
            area = cumulative_trapezoid(spectrum, frequencies, initial=0.0)
            averages.append(np.diff(np.interp(self.edges, frequencies, area)) / np.diff(self.edges) / area[-1])
            energies.append(area[-1])
        shares = np.array(energies) / self._of_equipartition(float(trajectory.temperatures.mean()), masses)
        carried = float(shares.mean())
        if carried + CERTAIN * squared_error_of_mean(shares) ** 0.5 < LEAST_ENERGY:
            raise ValueError(
                f"the paths carry {carried:.0%} of the kinetic energy of their temperature: atoms move faster than "
                f"snapshots {stride:g} fs apart tell; give a shorter stride_fs"
            )
        errors = np.sqrt([squared_error_of_mean(values) for values in np.transpose(averages)])
        return Observed(np.mean(averages, axis=0), errors, {"kinetic energy of the paths": carried}, float(walkers))

    def _of_equipartition(self, temperature: float, masses: NDArray[np.float64]) -> float:
        """Σ m v² of the atoms at a temperature, relative to the centre of mass of all, amu Å²/ps²."""
        degrees = 3 * float(np.sum(1 - masses[self.atoms] / masses.sum()))
        return degrees * units.BOLTZMANN * temperature * AMU_A2_PER_PS2
