"""Files of the contract: potentials, trajectories, checkpoints, results. Never pickle. Free of JAX."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from aiida_difftre.engine.errors import EngineError, ExitStatus
from aiida_difftre.engine.jobs import PotentialSpec, validate
from aiida_difftre.engine.observable_specs import Ensemble

FORMAT_VERSION = "1"
POTENTIAL_FORMAT = "difftre-potential"
SMALLEST_VOLUME = 1e-3
"""Å³, of a cell."""
Arrays = dict[str, NDArray[Any]]


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A temporary file beside ``path``, then renamed: readers see the old content or the new, never a part.

    The content is on the disk before the name is, so that a node that goes down leaves no empty file either.
    """
    temporary = path.with_name(path.name + ".part")
    with temporary.open("wb") as stream:
        yield stream
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write a whole file, as :func:`opened` does."""
    with opened(path) as stream:
        stream.write(content.encode() if isinstance(content, str) else content)


def write_npz(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write named arrays as ``.npz``, atomically and without pickles."""
    with opened(path) as stream:
        np.savez(stream, allow_pickle=False, **arrays)


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically; numbers that are not finite are refused, since JSON has none."""
    write_atomically(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, str] | None = None) -> None:
    """Write named arrays as one ``.safetensors`` file, atomically."""
    contiguous = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    write_atomically(path, save(contiguous, metadata={"format_version": FORMAT_VERSION, **(metadata or {})}))


def read_arrays(path: Path) -> tuple[Arrays, dict[str, str]]:
    """Read a ``.safetensors`` file: arrays and metadata.

    Raises:
        EngineError: with status CORRUPT_FILE.
    """
    try:
        with safe_open(path, framework="numpy") as stream:
            return {name: stream.get_tensor(name) for name in stream.keys()}, dict(stream.metadata() or {})  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise EngineError(ExitStatus.CORRUPT_FILE, f"{path.name} is not a readable safetensors file: {error}") from None


def write_potential(path: Path, spec: PotentialSpec, parameters: Mapping[str, NDArray[Any]]) -> None:
    """Write a potential: parameters by their path in the parameter tree, the spec as metadata."""
    metadata = {"format": POTENTIAL_FORMAT, "potential": spec.model_dump_json(), "units": "angstrom, eV, amu"}
    write_arrays(path, parameters, metadata)


def read_potential(path: Path) -> tuple[PotentialSpec, Arrays]:
    """Read a potential: its spec, and its parameters by path.

    Raises:
        EngineError: with status CORRUPT_FILE, for anything that is not a potential or holds numbers that are not
        finite.
    """
    arrays, metadata = read_arrays(path)
    spec = _spec(path, metadata)
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise EngineError(ExitStatus.CORRUPT_FILE, f"parameter {name!r} in {path.name} is not finite")
    return spec, arrays


def _spec(path: Path, metadata: dict[str, str]) -> PotentialSpec:
    if metadata.get("format") != POTENTIAL_FORMAT:
        raise EngineError(
            ExitStatus.CORRUPT_FILE, f"{path.name} is no potential: its format is {metadata.get('format')!r}"
        )
    try:
        return validate(PotentialSpec, json.loads(metadata["potential"]))
    except (KeyError, ValueError) as error:
        raise EngineError(ExitStatus.CORRUPT_FILE, f"{path.name} describes no potential: {error}") from None


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@dataclass(frozen=True)
class Trajectory:
    """Snapshots of several walkers at one state point.

    Args:
        positions: (snapshots, atoms, 3), fractional, unwrapped, float32.
        cell: (3, 3), rows are the lattice vectors, Å, float64.
        species: chemical symbols, one per atom.
        energies: (snapshots,), potential energy with the sampling potential, of the positions as stored, eV, float64.
        walkers: (snapshots,), index of the walker.
        times: (snapshots,), fs since the end of equilibration.
        temperatures: (snapshots,), instantaneous, K.
        last_positions: (walkers, atoms, 3), fractional, float64.
        last_velocities: (walkers, atoms, 3), Å/fs.
        temperature: of the thermostat, K.
        scales: (snapshots,); the cell of a snapshot is its scale times ``cell``. All ones at constant volume.
        last_scales: (walkers,), of the cells of ``last_positions``.
        pressure: of the barostat, GPa; None at constant volume.
        masses: (atoms,), amu; None for the standard atomic weights.
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

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, Any], *, species: tuple[str, ...], temperature: float, pressure: float | None
    ) -> Trajectory:
        """A trajectory of named arrays; scales that are not among them are ones, as in files before NPT.

        Raises:
            KeyError: for an array that is missing.
        """
        given = {name: arrays[name] for name in TRAJECTORY_ARRAYS if name not in SCALES}
        ones = {"scales": np.ones(len(given["energies"])), "last_scales": np.ones(len(given["last_positions"]))}
        given |= {name: arrays[name] if name in arrays else ones[name] for name in SCALES}
        masses = arrays.get(MASSES)
        return cls(species=species, temperature=temperature, pressure=pressure, masses=masses, **given)

    @property
    def ensemble(self) -> Ensemble:
        """NPT where there is a pressure."""
        return "NVT" if self.pressure is None else "NPT"

    @property
    def volumes(self) -> NDArray[np.float64]:
        """(snapshots,), Å³."""
        return float(abs(np.linalg.det(self.cell))) * self.scales**3


SCALES = ("scales", "last_scales")
"""Arrays that a trajectory may lack."""

MASSES = "masses"
"""The array that is only there where the masses are not the standard atomic weights."""

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


def write_trajectory(path: Path, trajectory: Trajectory) -> None:
    """Write a trajectory as ``.npz``, atomically: the arrays of :class:`Trajectory`, species as fixed-width unicode."""
    arrays = {name: getattr(trajectory, name) for name in TRAJECTORY_ARRAYS}
    if trajectory.masses is not None:
        arrays[MASSES] = trajectory.masses
    numbers = {
        "species": np.array(trajectory.species, dtype=np.str_),
        "temperature": np.float64(trajectory.temperature),
        "pressure": np.float64(np.nan if trajectory.pressure is None else trajectory.pressure),
    }
    write_npz(path, numbers | arrays)


def read_trajectory(path: Path) -> Trajectory:
    """Read a trajectory.

    Raises:
        EngineError: with status CORRUPT_FILE, for anything that is not a trajectory.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            pressure = float(archive["pressure"]) if "pressure" in archive else np.nan
            trajectory = Trajectory.from_arrays(
                archive,
                species=tuple(str(symbol) for symbol in archive["species"]),
                temperature=float(archive["temperature"]),
                pressure=None if np.isnan(pressure) else pressure,
            )
        _check_trajectory(trajectory)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, MemoryError, zipfile.BadZipFile) as error:
        raise EngineError(ExitStatus.CORRUPT_FILE, f"{path.name} is not a readable trajectory: {error}") from None
    return trajectory


def _check_trajectory(trajectory: Trajectory) -> None:
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
    for name, shape in shapes.items():
        array = getattr(trajectory, name)
        if array.shape != shape:
            raise ValueError(f"{name} has the shape {array.shape} where {shape} is expected")
        if array.dtype.kind not in "fiu" or not np.isfinite(array).all():
            raise ValueError(f"{name} holds what is no finite number")
    if not (snapshots and atoms and walkers):
        raise ValueError(f"it has {snapshots} snapshots of {atoms} atoms in {walkers} walkers")
    volume = abs(np.linalg.det(trajectory.cell))
    if volume < SMALLEST_VOLUME or min(trajectory.scales.min(), trajectory.last_scales.min()) <= 0:
        raise ValueError(f"its cell has a volume of {volume:g} Å³, and scales from {trajectory.scales.min():g}")
    if not trajectory.temperature > 0:
        raise ValueError(f"its temperature is {trajectory.temperature:g} K")
