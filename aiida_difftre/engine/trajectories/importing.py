r"""From files of other programs to a reference trajectory: read, checked, and cut to what is in equilibrium. JAX-free.

A reference trajectory stands for the ensemble of *what sampled it*. Snapshots :math:`x_i` of a Hamiltonian
:math:`U_\mathrm{ref}` give averages of another one by the weights

.. math:: w_i \propto e^{-\beta [U_\theta(x_i) - U_\mathrm{ref}(x_i)]},

so that the energies of the file have to be those whose gradients moved the atoms: potential energies, without the
kinetic part, of each frame. Velocities are not needed, and are not kept: positions and momenta are independent in the
canonical ensemble, so that the next trajectory draws its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, field_validator

from aiida_difftre.engine import units
from aiida_difftre.engine.contract.base import Strict
from aiida_difftre.engine.contract.bounds import Component, Duration, DurationOrZero, Pressure, Temperature
from aiida_difftre.engine.contract.documents import check_regular
from aiida_difftre.engine.contract.files import digest
from aiida_difftre.engine.contract.frames import chosen_numbers, split_index
from aiida_difftre.engine.contract.label_names import LabelKeys
from aiida_difftre.engine.contract.results import Stationarity
from aiida_difftre.engine.contract.trajectories import Trajectory
from aiida_difftre.engine.reweighting import stationarity, statistics
from aiida_difftre.engine.trajectories import cp2k, lammps, structures
from aiida_difftre.engine.trajectories.fitting import check_fluctuations
from aiida_difftre.engine.trajectories.frames import Array, Frames, check_frames, check_same

FORMATS = {"extxyz": "extended XYZ", "traj": "ASE .traj", "lammps": "LAMMPS dump", "cp2k": "CP2K XYZ",
           "vasp-xml": "vasprun.xml", "vasp-xdatcar": "XDATCAR"}  # fmt: skip
"""By the names that the setting ``format`` takes; those with a hyphen are ase's."""

SAME_SHAPE = 1e-5
"""Relative; cells of one shape differ by less, as they are rounded in files."""

LEAST_INDEPENDENT = 10.0
"""Independent snapshots of a reference trajectory: with fewer not even their own error is known."""

TEMPERATURE_ERRORS = 5.0
"""Standard errors between the temperature of the velocities and the one that is stated."""

TEMPERATURE_PART = 0.02
"""Of the temperature, that a thermostat may be off."""

WAVES = 3
"""Shortest reciprocal vectors along each axis, whose density waves stand for the slow motions where energies lack."""


class FileSettings(Strict):
    """What files of a trajectory do not say of themselves.

    Args:
        format: Format of the files; None to tell it from their names and content.
        units: Style of units of LAMMPS, such as ``metal``; None takes that of the dump or the log.
        species: Chemical symbols by type, for dumps of LAMMPS without a column ``element``.
        cell: Lattice vectors in rows, Å, of a file that has no cell; three lengths or nine numbers.
        interval_fs: Time between two frames of the file, fs, where it does not say it.
        equilibration_fs: Time at the beginning of each file that is left out, fs; None finds where leaving out what is
            before leaves the most independent snapshots.
        energies: ``file`` for the potential energies that the files hold, of what sampled them; ``start`` states that
            what sampled them is the potential that a refinement starts from, which then gives the energies.
        keys: Names of energies and stresses in extended XYZ, where these are not the usual ones.
    """

    format: Literal["extxyz", "traj", "lammps", "cp2k", "vasp-xml", "vasp-xdatcar"] | None = None
    units: str | None = None
    species: dict[str, str] | None = None
    cell: list[Component] | None = None
    interval_fs: Duration | None = None
    equilibration_fs: DurationOrZero | None = None
    energies: Literal["file", "start"] = "file"
    keys: LabelKeys = Field(default_factory=LabelKeys)

    @field_validator("cell")
    @classmethod
    def _whole(cls, cell: list[float] | None) -> list[float] | None:
        if cell is not None and len(cell) not in (3, 9):
            raise ValueError(f"{len(cell)} numbers; give three lengths, or the nine numbers of three vectors, in Å")
        return cell


class ImportSettings(FileSettings):
    """What files of a trajectory do not say, and where it was sampled.

    Args:
        temperature: Temperature at which it was sampled, K.
        pressure: Pressure that a barostat held, GPa; None for one at constant volume.
    """

    temperature: Temperature
    pressure: Pressure | None = None


@dataclass(frozen=True)
class Imported:
    """A reference trajectory, and what is known of it.

    Args:
        trajectory: The trajectory; its energies are not finite where the potential that starts has to give them, and
            its velocities are zero: they are drawn.
        stresses: Stresses of the files without the kinetic part, (snapshots, 6), GPa; None where they have none.
        source: Where it came from and what was found, as it is kept with a node.
    """

    trajectory: Trajectory
    stresses: Array | None
    source: dict[str, Any] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """What was found, for a person to check."""
        made, source = self.trajectory, self.source
        found = source["stationarity"]
        held = "constant volume" if made.pressure is None else f"{made.pressure:g} GPa"
        lines = [
            f"{source['format']}, {len(made.species)} atoms, {made.temperature:g} K, {held}: "
            f"{source['frames']} frames every {source['interval_fs']:g} fs, of which the first "
            f"{source['left_out']} are left out as equilibration",
            f"energies: {source['energies']}; correlation time {source['correlation_time_fs']:.3g} fs of "
            f"{source['correlated_by']}, {found['independent_samples']:.3g} independent snapshots of "
            f"{len(made.positions)}",
        ]
        lines += [f"{name}: {source[name]}" for name in ("measured", "completeness") if source.get(name)]
        return lines


def import_trajectory(files: Sequence[Path], logs: Sequence[Path], settings: ImportSettings) -> Imported:
    """Read a trajectory of another program, and check that averages can be taken over it.

    Args:
        files: Files of one system at one state point, each of them a run of its own, which becomes a walker; an index
            of the frames may stand behind a name (``md.extxyz@::5``).
        logs: Logs that belong to them: of one file all of them, of several files one for each in the same order.
        settings: What the files do not say.

    Returns:
        The trajectory.

    Raises:
        ValueError: naming the file, the frame and the value, and the remedy.
    """
    runs = [_run(file, one, settings) for file, one in zip(files, _shared(files, logs), strict=True)]
    for file, run in zip(files[1:], runs[1:], strict=True):
        check_same(runs[0].symbols, run.symbols, f"{file.name}: its first frame")
    kept, left_out, interval = [], 0, 0.0
    for file, run in zip(files, runs, strict=True):
        interval, gap = _interval(run, file.name, settings.interval_fs)
        start = _start(run, interval, settings.equilibration_fs, file.name)
        left_out += start
        notes = {"completeness": gap} if gap else {}
        kept.append(run.take(slice(start, None)).noted(**notes))
    walkers = np.repeat(np.arange(len(kept), dtype=np.int32), [len(run.numbers) for run in kept])
    trajectory = _trajectory(kept, walkers, interval, settings)
    notes = dict(note for run in kept for note in run.notes)
    series, name = _series(kept, trajectory)
    record = stationarity.record(series, walkers)
    g = len(walkers) / record["independent_samples"]
    _check_sampled(record, len(walkers), " and ".join(file.name for file in files))
    source = {
        "files": [{"name": file.name, "sha256": digest(split_index(file)[0])} for file in files],
        "logs": [{"name": log.name, "sha256": digest(log)} for log in logs],
        "format": FORMATS[_format(files[0], settings)],
        "units": notes.get("units", ""),
        "frames": sum(len(run.numbers) for run in runs),
        "left_out": left_out,
        "interval_fs": interval,
        "energies": notes.get("energies", "") if settings.energies == "file" else "those of the potential that starts",
        "correlated_by": name,
        "correlation_time_fs": g * interval / 2,
        "stationarity": Stationarity(**record).model_dump(mode="json"),
        "measured": _measured(kept, trajectory),
        "completeness": notes.get("completeness", ""),
    }
    stresses = None if any(run.stresses is None for run in kept) else np.concatenate([run.stresses for run in kept])  # type: ignore[misc]
    return Imported(trajectory, stresses, source)


def _shared(files: Sequence[Path], logs: Sequence[Path]) -> list[list[Path]]:
    for log in logs:
        check_regular(log)
    if len(files) == 1:
        return [list(logs)]
    if logs and len(logs) != len(files):
        raise ValueError(f"{len(files)} trajectories and {len(logs)} logs; give one log for each, in the same order")
    return [[log] for log in logs] if logs else [[] for _ in files]


def _format(file: Path, settings: ImportSettings) -> str:
    """The format that is stated, or that a file has by its content and name."""
    if settings.format is not None:
        return settings.format
    path = split_index(file)[0]
    check_regular(path)
    with path.open("rb") as stream:
        start = stream.read(4096)
    if not start.strip():
        raise ValueError(f"{path.name} is empty; give the trajectory that was written")
    if start.startswith(b"ITEM: "):
        return "lammps"
    if start.startswith(b"- of Ulm"):
        return "traj"
    if b"<modeling>" in start:
        return "vasp-xml"
    if "XDATCAR" in path.name or b"Direct configuration=" in start:
        return "vasp-xdatcar"
    lines = start.decode(errors="replace").splitlines()
    if len(lines) > 1 and cp2k.COMMENT.match(lines[1]) and "Lattice" not in lines[1]:
        return "cp2k"
    if len(lines) > 1 and lines[0].strip().isdecimal():
        return "extxyz"
    raise ValueError(f"{path.name} is none of {', '.join(FORMATS.values())}; convert it to extended XYZ")


def _run(file: Path, logs: Sequence[Path], settings: ImportSettings) -> Frames:
    kind = _format(file, settings)
    path, index = split_index(file)
    check_regular(path)

    def chosen(count: int) -> range:
        return chosen_numbers(count, index, path.name)

    for name, where in (("units", "lammps"), ("species", "lammps"), ("cell", "cp2k")):
        if getattr(settings, name) is not None and kind != where:
            raise ValueError(f"--{name} is for {FORMATS[where]}; {path.name} is {FORMATS[kind]}, which has its own")
    if kind == "lammps":
        if len(logs) > 1:
            raise ValueError(f"{path.name} has {len(logs)} logs; give the one of its run")
        log = logs[0] if logs else None
        frames = lammps.read(path, chosen, log=log, style=settings.units, species=settings.species)
    elif kind == "cp2k":
        cell = None if settings.cell is None else np.array(settings.cell, float)
        cell = np.diag(cell) if cell is not None and len(cell) == 3 else cell
        frames = cp2k.read(path, chosen, logs=logs, cell=None if cell is None else cell.reshape(3, 3))
    else:
        frames = structures.read(file, kind, logs=logs, keys=settings.keys, temperature=settings.temperature)
    check_frames(frames, path.name)
    if len(frames.numbers) < 2:
        raise ValueError(f"{path.name} has one frame; a trajectory of many is needed")
    return _with_energies(frames, path.name, settings)


def _with_energies(frames: Frames, name: str, settings: ImportSettings) -> Frames:
    """Refuse a file without energies unless it is said where they come from."""
    if settings.energies == "start":
        return replace(frames, energies=None)
    if frames.energies is None:
        raise ValueError(
            f"{name} has no energies, and weights need those of what sampled it; give the log of the run (--log), or "
            "say --energies start where the potential that a refinement starts from has sampled it"
        )
    if len(frames.energies) > 1 and not np.ptp(frames.energies):
        raise ValueError(
            f"{name} has the energy {frames.energies[0]:g} eV in all of its {len(frames.energies)} frames: none was "
            "stored; give those of what sampled it, or say --energies start"
        )
    return frames


def _interval(run: Frames, name: str, stated: float | None) -> tuple[float, str]:
    """The time between frames, fs, and what is missing among them."""
    if run.times is None:
        if stated is None:
            raise ValueError(f"{name} does not say the time between its frames; give --interval-fs")
        if len(steps := np.unique(np.diff(run.numbers))) == 1:
            stated *= float(steps[0])
        return stated, ""
    steps = np.diff(run.times)
    interval = float(np.median(steps))
    if (steps <= 0).any():
        number = run.numbers[int(np.argmax(steps <= 0)) + 1]
        raise ValueError(
            f"frame {number} of {name} is not later than the one before: a restart that repeats frames; leave them out"
        )
    if stated is not None and abs(stated * float(np.median(np.diff(run.numbers))) - interval) > 0.01 * interval:
        raise ValueError(f"{name} has a frame every {interval:g} fs, and --interval-fs says {stated:g}; leave it out")
    longer = np.flatnonzero(np.abs(steps - interval) > 0.01 * interval)
    gap = f"{len(longer)} gaps between frames, the first behind frame {run.numbers[longer[0]]}" if len(longer) else ""
    return interval, gap


def _columns(run: Frames) -> dict[str, Array]:
    """Quantities whose fluctuations tell how independent frames are."""
    series = {}
    if run.energies is not None:
        series["energy"] = run.energies
    else:
        series |= {f"density wave {number}": wave for number, wave in enumerate(_waves(run).T)}
    volumes = np.abs(np.linalg.det(run.cells))
    if np.ptp(volumes) > SAME_SHAPE * volumes.mean():
        series["volume"] = volumes
    return series


def _waves(run: Frames) -> Array:
    """Squared amplitudes of the longest density waves of each frame, (frames, waves)."""
    fractional = run.positions @ np.linalg.inv(run.cells)
    waves = [np.abs(np.exp(2j * np.pi * (fractional @ vector)).sum(1)) ** 2 for vector in np.eye(3)]
    return np.stack(waves[:WAVES], 1) / len(run.symbols)


def _start(run: Frames, interval: float, stated: float | None, name: str) -> int:
    """The first frame in equilibrium."""
    if stated is not None:
        start = int(np.ceil(stated / interval - 1e-9))
        if start >= len(run.numbers):
            raise ValueError(f"{name} lasts {interval * len(run.numbers):g} fs, all of it equilibration; state less")
        return start
    columns = np.stack(list(_columns(run).values()), 1)
    return int(np.ceil(stationarity.equilibration(columns, np.zeros(len(columns), int)) * len(columns)))


def _trajectory(kept: Sequence[Frames], walkers: Any, interval: float, settings: ImportSettings) -> Trajectory:
    cells = np.concatenate([run.cells for run in kept])
    numbers = np.concatenate([run.numbers for run in kept])
    cell, scales = _scaled(cells, numbers)
    is_constant = np.ptp(scales) <= SAME_SHAPE
    if is_constant and settings.pressure is not None:
        raise ValueError(
            f"the cell is the same in all frames, so that no barostat held {settings.pressure:g} GPa; leave out the "
            "pressure (what was measured at constant volume is a target)"
        )
    if not is_constant and settings.pressure is None:
        raise ValueError(
            f"the volume changes by {np.ptp(scales**3):.2%}, and no pressure is stated; give --pressure (GPa) of the "
            "barostat"
        )
    scales = np.ones(len(scales)) if is_constant else scales
    positions = np.concatenate([run.positions for run in kept]) @ np.linalg.inv(cells)
    # Whole cells away from the origin cost digits of float32; the first frame of each walker says how many.
    ends = [index[-1] for index in statistics.walker_slices(walkers)]
    starts = np.array([index[0] for index in statistics.walker_slices(walkers)])
    positions -= np.floor(positions[starts])[walkers]
    atoms = len(kept[0].symbols)
    energies = np.full(len(positions), np.nan)
    temperatures = np.full(len(positions), settings.temperature)
    if all(run.energies is not None for run in kept):
        energies = np.concatenate([run.energies for run in kept])  # type: ignore[misc]
        check_fluctuations(energies, atoms, settings.temperature)
    if all(run.temperatures is not None for run in kept):
        temperatures = np.concatenate([run.temperatures for run in kept])  # type: ignore[misc]
        _check_temperature(temperatures, walkers, settings.temperature)
    return Trajectory(
        positions=positions.astype(np.float32),
        cell=cell,
        species=kept[0].symbols,
        energies=energies,
        walkers=walkers,
        times=np.concatenate([interval * np.arange(1, len(run.numbers) + 1) for run in kept]),
        temperatures=temperatures,
        last_positions=positions[ends],
        last_velocities=np.zeros((len(kept), atoms, 3)),
        temperature=settings.temperature,
        scales=scales,
        last_scales=scales[ends],
        pressure=settings.pressure,
        masses=kept[0].masses,
    )


def _scaled(cells: Array, numbers: Any) -> tuple[Array, Array]:
    """The first cell, and by how much those of all frames are larger.

    Raises:
        ValueError: for a cell of another shape.
    """
    scales = (np.linalg.det(cells) / np.linalg.det(cells[0])) ** (1 / 3)
    differs = np.abs(cells - scales[:, None, None] * cells[0]).max((1, 2)) / np.abs(cells[0]).max()
    if (worst := int(np.argmax(differs))) and differs[worst] > SAME_SHAPE:
        raise ValueError(
            f"the cell of frame {numbers[worst]} differs in shape from that of the first by {differs[worst]:.2g}; a "
            "reference changes its volume alone (an isotropic barostat) or nothing: sample it at a fixed cell, or with "
            "a barostat that keeps the shape"
        )
    return cells[0], scales


def _check_temperature(temperatures: Array, walkers: Any, stated: float) -> None:
    found = float(temperatures.mean())
    error = float(statistics.mean_variance(temperatures, walkers).variance) ** 0.5
    if abs(found - stated) > TEMPERATURE_ERRORS * error + TEMPERATURE_PART * stated:
        raise ValueError(
            f"the velocities have {found:.5g} ± {error:.2g} K, and the temperature is stated as {stated:g} K; state "
            "the temperature at which it was sampled, or leave out what is not yet in equilibrium"
        )


def _series(kept: Sequence[Frames], trajectory: Trajectory) -> tuple[Mapping[str, Array], str]:
    """Quantities of all frames by name, and what they are, in words."""
    columns = [_columns(run) for run in kept]
    names = [name for name in columns[0] if all(name in one for one in columns)]
    series = {name: np.concatenate([one[name] for one in columns]) for name in names}
    words = [name for name in ("energy", "volume") if name in names]
    return series, " and ".join(words) if "energy" in names else " and ".join(["density waves", *words])


def _check_sampled(record: Mapping[str, Any], snapshots: int, name: str) -> None:
    independent = record["independent_samples"]
    if independent < LEAST_INDEPENDENT:
        raise ValueError(
            f"{name} has {independent:.3g} independent snapshots of {snapshots}, fewer than {LEAST_INDEPENDENT:g}: it "
            "is too short, or its frames too much alike; give a longer trajectory, or several of them"
        )
    if record["warning"] is not None:
        raise ValueError(f"{name}: {record['warning']}, or leave out its beginning (--equilibration-fs)")


def _measured(kept: Sequence[Frames], trajectory: Trajectory) -> str:
    """Temperature and pressure that the files tell, in words."""
    parts = []
    if all(run.temperatures is not None for run in kept):
        parts.append(f"{trajectory.temperatures.mean():.5g} K of the velocities")
    if all(run.stresses is not None for run in kept):
        stresses = np.concatenate([run.stresses for run in kept])  # type: ignore[misc]
        kinetic = len(trajectory.species) * units.BOLTZMANN * trajectory.temperature / trajectory.volumes
        pressures = units.EV_PER_A3_IN_GPA * kinetic - stresses[:, :3].mean(1)
        parts.append(f"a mean pressure of {pressures.mean():.4g} GPa of the stresses")
    return ", ".join(parts)
