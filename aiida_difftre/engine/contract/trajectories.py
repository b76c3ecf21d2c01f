"""Trajectories of several walkers at one state point, and their files. Free of JAX."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_numbers
from numpy.typing import NDArray

from aiida_difftre.engine.contract.base_arrays import BASE_ARRAYS, BaseArrays
from aiida_difftre.engine.contract.files import Arrays, write_npz
from aiida_difftre.engine.contract.observables import Ensemble
from aiida_difftre.engine.contract.parts import PART_ARRAYS, Part
from aiida_difftre.engine.contract.reading import opened_npz

SMALLEST_VOLUME = 1e-3
"""Å³, of a cell."""


SCALES = ("scales", "last_scales")
"""Arrays that a trajectory may lack."""

MASSES = "masses"
"""The array that is only there where the masses are not the standard atomic weights."""

REFERENCE_ENERGIES = "reference_energies"
"""The array that is only there where another potential sampled than the one of the energies."""

OPTIONAL_ARRAYS = (MASSES, REFERENCE_ENERGIES, *BASE_ARRAYS, *PART_ARRAYS)
"""Arrays that only some trajectories have."""

TRAJECTORY_ARRAYS = (
    "positions",
    "cell",
    "energies",
    "walkers",
    "times",
    "temperatures",
    "last_positions",
    "last_velocities",
    *SCALES,
)


@dataclass(frozen=True)
class Trajectory:
    """Snapshots of several walkers at one state point.

    Args:
        positions: Fractional coordinates, unwrapped, (snapshots, atoms, 3), float32.
        cell: Lattice vectors in rows, (3, 3), Å, float64.
        species: Chemical symbol of each atom.
        energies: Potential energy of each snapshot with the potential that sampled it, of the positions as they are
            stored, (snapshots,), eV, float64.
        walkers: Index of the walker of each snapshot, (snapshots,).
        times: Time since the end of equilibration, (snapshots,), fs.
        temperatures: Instantaneous temperature, (snapshots,), K.
        last_positions: Fractional coordinates with which each walker ends, (walkers, atoms, 3), float64.
        last_velocities: Velocities with which each walker ends, (walkers, atoms, 3), Å/fs.
        temperature: Temperature of the thermostat, K.
        scales: Factor by which the cell of each snapshot is larger than ``cell``, (snapshots,); all ones at constant
            volume.
        last_scales: The same for the cells with which the walkers end, (walkers,).
        pressure: Pressure of the barostat, GPa; None at constant volume.
        masses: Masses of the atoms, (atoms,), amu; None for the standard atomic weights.
        base: What the base of the potential gave on the snapshots, which is a part of ``energies``; None for a
            potential without a base.
        reference_energies: Energies of what sampled the snapshots, (snapshots,), eV, where that was not the potential
            of ``energies``: weights are relative to it. None where it was.
        part: Of what these snapshots are a part; None for a whole trajectory. Weights and errors take whole ones.

    Example:
        >>> import numpy as np
        >>> from aiida_difftre.engine.contract.trajectories import Trajectory
        >>> trajectory = Trajectory(
        ...     positions=np.zeros((2, 1, 3), np.float32), cell=4.0 * np.eye(3), species=("Ar",), energies=np.zeros(2),
        ...     walkers=np.zeros(2, np.int32), times=np.array([0.0, 50.0]), temperatures=np.full(2, 90.0),
        ...     last_positions=np.zeros((1, 1, 3)), last_velocities=np.zeros((1, 1, 3)), temperature=90.0,
        ...     scales=np.ones(2), last_scales=np.ones(1),
        ... )
        >>> trajectory.ensemble, trajectory.volumes.round(6).tolist()
        ('NVT', [64.0, 64.0])
    """

    positions: NDArray[np.float32]
    cell: NDArray[np.float64]
    species: tuple[str, ...]
    energies: NDArray[np.float64]
    walkers: NDArray[np.int32]
    times: NDArray[np.float64]
    temperatures: NDArray[np.float64]
    last_positions: NDArray[np.float64]
    last_velocities: NDArray[np.float64]
    temperature: float
    scales: NDArray[np.float64]
    last_scales: NDArray[np.float64]
    pressure: float | None = None
    masses: NDArray[np.float64] | None = None
    base: BaseArrays | None = None
    reference_energies: NDArray[np.float64] | None = None
    part: Part | None = None

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, Any], *, species: tuple[str, ...], temperature: float, pressure: float | None
    ) -> Trajectory:
        """Make a trajectory of named arrays; scales that are not among them are ones, as in files before NPT.

        Args:
            arrays: Arrays by the names of the arguments of this class, and those of a base
                (``BASE_ARRAYS``) and of a part (``PART_ARRAYS``).
            species: Chemical symbol of each atom.
            temperature: Temperature of the thermostat, K.
            pressure: Pressure of the barostat, GPa; None at constant volume.

        Returns:
            The trajectory.

        Raises:
            KeyError: For an array that is missing.
        """
        given = {name: arrays[name] for name in TRAJECTORY_ARRAYS if name not in SCALES}
        ones = {"scales": np.ones(len(given["energies"])), "last_scales": np.ones(len(given["last_positions"]))}
        given |= {name: arrays[name] if name in arrays else ones[name] for name in SCALES}
        given |= {name: arrays[name] for name in (MASSES, REFERENCE_ENERGIES) if name in arrays}
        base, part = BaseArrays.from_arrays(arrays), Part.from_arrays(arrays)
        return cls(species=species, temperature=temperature, pressure=pressure, base=base, part=part, **given)

    @property
    def symbols(self) -> tuple[str, ...]:
        """Chemical symbol of each atom."""
        return self.species

    @property
    def optional_arrays(self) -> Arrays:
        """Arrays by name that only some trajectories have: masses, energies of what sampled, of a base, of a part."""
        named = {MASSES: self.masses, REFERENCE_ENERGIES: self.reference_energies}
        there = {name: np.asarray(array) for name, array in named.items() if array is not None}
        for one in (self.base, self.part):
            there |= {} if one is None else one.to_arrays()
        return there

    @property
    def has_energies(self) -> bool:
        """Whether there are energies; those of a foreign trajectory may be left to the potential that it starts."""
        return bool(np.isfinite(self.energies).all())

    @property
    def ensemble(self) -> Ensemble:
        """``NPT`` where there is a pressure, else ``NVT``."""
        return "NVT" if self.pressure is None else "NPT"

    @property
    def volumes(self) -> NDArray[np.float64]:
        """Volume of each snapshot, (snapshots,), Å³."""
        return float(abs(np.linalg.det(self.cell))) * self.scales**3


def write_trajectory(path: Path, trajectory: Trajectory) -> None:
    """Write a trajectory to an ``.npz`` file, without pickles.

    Args:
        path: The file, which is replaced as a whole where it exists.
        trajectory: The trajectory.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from aiida_difftre.engine.contract.trajectories import Trajectory, read_trajectory, write_trajectory
        >>> arrays = {
        ...     "positions": np.zeros((2, 1, 3), np.float32), "cell": 4.0 * np.eye(3), "energies": np.zeros(2),
        ...     "walkers": np.zeros(2, np.int32), "times": np.array([0.0, 50.0]), "temperatures": np.full(2, 90.0),
        ...     "last_positions": np.zeros((1, 1, 3)), "last_velocities": np.zeros((1, 1, 3)),
        ... }
        >>> argon = Trajectory.from_arrays(arrays, species=("Ar",), temperature=90.0, pressure=None)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_trajectory(Path(folder, "trajectory.npz"), argon)
        ...     read_trajectory(Path(folder, "trajectory.npz")).times.tolist()
        [0.0, 50.0]
    """
    arrays = {name: getattr(trajectory, name) for name in TRAJECTORY_ARRAYS}
    numbers = {
        "species": np.array(trajectory.species, dtype=np.str_),
        "temperature": np.float64(trajectory.temperature),
        "pressure": np.float64(np.nan if trajectory.pressure is None else trajectory.pressure),
    }
    write_npz(path, numbers | arrays | trajectory.optional_arrays)


def read_trajectory(path: Path, *, may_lack_energies: bool = False, may_be_part: bool = False) -> Trajectory:
    """Read a trajectory from an ``.npz`` file, and check that its arrays belong together.

    Args:
        path: The file.
        may_lack_energies: True for the first reference of a refinement, whose energies the potential may have to give.
        may_be_part: True where some of the snapshots will do, as for walkers that go on from the last ones.

    Returns:
        The trajectory.

    Raises:
        UnreadableFileError: For anything that is not a trajectory.

    Example:
        >>> from pathlib import Path
        >>> from aiida_difftre.engine.contract.trajectories import read_trajectory
        >>> read_trajectory(Path("missing.npz"))
        Traceback (most recent call last):
        ...
        aiida_difftre.engine.errors.UnreadableFileError: there is no trajectory missing.npz
    """
    with opened_npz(path, "trajectory") as archive:
        arrays = {name: archive[name] for name in archive.files}
        _check_numbers(arrays)
        pressure = float(arrays.get("pressure", np.nan))
        trajectory = Trajectory.from_arrays(
            arrays,
            species=tuple(str(symbol) for symbol in arrays["species"]),
            temperature=float(arrays["temperature"]),
            pressure=None if np.isnan(pressure) else pressure,
        )
        _check_trajectory(trajectory, may_lack_energies=may_lack_energies)
        if trajectory.part is not None:
            trajectory.part.check(len(trajectory.energies))
            if not may_be_part:
                raise ValueError(trajectory.part.refusal(len(trajectory.energies)))
    return trajectory


def _check_numbers(arrays: Arrays) -> None:
    """Refuse arrays of something else than numbers.

    Raises:
        ValueError: naming the array.
    """
    for name in (*TRAJECTORY_ARRAYS, MASSES, REFERENCE_ENERGIES):
        if name in arrays and arrays[name].dtype.kind not in "fiu":
            raise ValueError(f"{name} holds what is no finite number")
    if arrays["walkers"].dtype.kind == "f":
        raise ValueError("walkers holds numbers that are no integers")


def _check_trajectory(trajectory: Trajectory, *, may_lack_energies: bool) -> None:
    """Refuse arrays that do not belong together, or numbers that are not finite.

    Raises:
        ValueError: naming the array.
    """
    snapshots, atoms, walkers = len(trajectory.energies), len(trajectory.species), len(trajectory.last_positions)
    shapes: dict[str, tuple[int, ...]] = {
        "positions": (snapshots, atoms, 3), "cell": (3, 3), "energies": (snapshots,), "walkers": (snapshots,),
        "times": (snapshots,), "temperatures": (snapshots,), "scales": (snapshots,),
        "last_positions": (walkers, atoms, 3), "last_velocities": (walkers, atoms, 3), "last_scales": (walkers,),
        **({} if trajectory.masses is None else {MASSES: (atoms,)}),
    }  # fmt: skip
    if trajectory.reference_energies is not None:
        shapes[REFERENCE_ENERGIES] = (snapshots,)
    lacks_energies = bool(np.isnan(trajectory.energies).all())
    if lacks_energies and not may_lack_energies and snapshots:
        raise ValueError(
            "it was imported without energies, which the potential that a refinement starts from has to give: it can "
            "only be the first reference of a refinement"
        )
    for name, shape in shapes.items():
        array = getattr(trajectory, name)
        if array.shape != shape:
            raise ValueError(f"{name} has the shape {array.shape} where {shape} is expected")
        if name == "energies" and lacks_energies:
            continue
        if not np.isfinite(array).all():
            raise ValueError(f"{name} holds what is no finite number")
    if not (snapshots and atoms and walkers):
        raise ValueError(f"it has {snapshots} snapshots of {atoms} atoms in {walkers} walkers")
    unknown = sorted({symbol for symbol in trajectory.species if atomic_numbers.get(symbol, 0) < 1})
    if unknown:
        raise ValueError(f"{unknown[0][:20]!r} is no chemical symbol")
    if not 0 <= trajectory.walkers.min() <= trajectory.walkers.max() < walkers:
        raise ValueError(f"walkers holds numbers other than 0 to {walkers - 1}, of its {walkers} walkers")
    if trajectory.base is not None:
        trajectory.base.check(snapshots)
    if trajectory.masses is not None and trajectory.masses.min() <= 0:
        raise ValueError(f"masses holds {trajectory.masses.min():g} amu")
    volume = abs(np.linalg.det(trajectory.cell))
    if (
        not np.isfinite(volume)
        or volume < SMALLEST_VOLUME
        or min(trajectory.scales.min(), trajectory.last_scales.min()) <= 0
    ):
        raise ValueError(f"its cell has a volume of {volume:g} Å³, and scales from {trajectory.scales.min():g}")
    if not 0 < trajectory.temperature < np.inf:
        raise ValueError(f"its temperature is {trajectory.temperature:g} K")
    if trajectory.pressure is not None and not np.isfinite(trajectory.pressure):
        raise ValueError(f"its pressure is {trajectory.pressure:g} GPa")
