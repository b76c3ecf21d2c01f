"""Checkpoints of a sampling job: the walkers, and what was recorded of them so far."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray

from aiida_difftre.engine.contract import files
from aiida_difftre.engine.errors import EngineError, ExitStatus
from aiida_difftre.engine.geometry import neighbor_list
from aiida_difftre.engine.potentials.term import Parameters
from aiida_difftre.engine.sampling.dynamics import Dynamics, dynamics
from aiida_difftre.engine.sampling.starts import Start
from aiida_difftre.engine.sampling.system import System
from aiida_difftre.engine.sampling.walkers import Walkers


class Simulation(NamedTuple):
    """A run at one moment.

    Args:
        system: The simulated system, with the skin that it has come to.
        dynamics: Compiled dynamics of the system, with the capacity that its lists have come to.
        walkers: State of all walkers.
    """

    system: System
    dynamics: Dynamics
    walkers: Walkers


@dataclass
class Recording:
    """Snapshots so far, and how far the run is.

    Args:
        positions: Fractional positions of each block, (snapshots, walkers, atoms, 3).
        temperatures: Instantaneous temperatures of each block, (snapshots, walkers), K.
        scales: Scales of the cells of each block, (snapshots, walkers).
        done: Number of snapshots of a walker so far, those of the equilibration included.
    """

    positions: list[NDArray[np.float32]] = field(default_factory=list)
    temperatures: list[NDArray[np.float64]] = field(default_factory=list)
    scales: list[NDArray[np.float64]] = field(default_factory=list)
    done: int = 0


def identity_of(system: System, parameters: Parameters, start: Start, seed: int) -> str:
    """Digest of what a checkpoint belongs to: potential, system, state point, dynamics and start.

    The length of the production is not a part of it, so that a run can be prolonged.

    Args:
        system: The simulated system.
        parameters: Parameters of the potential.
        start: Start of the walkers.
        seed: Seed of velocities and thermostat.

    Returns:
        The digest, in hexadecimal digits.
    """
    settings = system.settings.model_dump(
        include={"thermostat", "walkers", "timestep_fs", "equilibration_fs", "stride_fs"}
    )
    spec = system.potential.spec.model_dump(exclude={"base"})  # whose digest counts, and not where its files lie
    described = [spec, system.symbols, system.cell.tolist(), system.temperature, settings]
    described += [system.snapshots_per_call, system.mass.tolist(), seed]
    if system.base_digest is not None:
        described.append(system.base_digest)
    if system.barostat is not None:
        described += [system.pressure, system.barostat.model_dump()]
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    for leaf in jax.tree.leaves((parameters, start.positions, start.velocities, start.scales)):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()


def write(path: Path, identity: str, simulation: Simulation, recording: Recording) -> None:
    """Write a checkpoint, atomically.

    Args:
        path: Path of the file.
        identity: Digest of the run, from :func:`identity_of`.
        simulation: The run at this moment.
        recording: Snapshots so far.
    """
    state = simulation.walkers
    arrays = {f"md/{number}": np.asarray(leaf) for number, leaf in enumerate(jax.tree.leaves(state.md))}
    arrays["built"], arrays["built_scale"] = np.asarray(state.built), np.asarray(state.built_scale)
    if recording.positions:
        arrays["positions"] = np.concatenate(recording.positions)
        arrays["temperatures"] = np.concatenate(recording.temperatures)
        arrays["scales"] = np.concatenate(recording.scales)
    metadata = {"done": str(recording.done), "capacity": json.dumps(simulation.dynamics.capacity), "identity": identity}
    metadata["widened"] = repr(simulation.system.widened)
    files.write_arrays(path, arrays, metadata)


def restore(path: Path, identity: str, simulation: Simulation) -> tuple[Simulation, Recording]:
    """Continue from a checkpoint.

    Args:
        path: Path of the file.
        identity: Digest of the run that the checkpoint must belong to.
        simulation: The run at its start; the leaves of its walkers say what those of the checkpoint must look like.

    Returns:
        The simulation, with the skin and the capacity that the run had come to, and the recording.

    Raises:
        EngineError: With status CORRUPT_FILE, for a checkpoint of another run.
    """
    arrays, metadata = files.read_arrays(path)
    state = simulation.walkers
    leaves, structure = jax.tree.flatten(state.md)
    stored = [arrays.get(f"md/{number}") for number in range(len(leaves))]
    fits = all(
        array is not None and (array.shape, array.dtype) == (leaf.shape, leaf.dtype)
        for array, leaf in zip(stored, leaves, strict=True)
    )
    if not fits or metadata.get("identity") != identity:
        raise EngineError(
            ExitStatus.CORRUPT_FILE,
            f"{path.name} is the checkpoint of another potential, system, start, seed, dynamics, precision or number "
            "of devices; remove it to start anew",
        )
    put = [jax.device_put(array, leaf.sharding) for array, leaf in zip(stored, leaves, strict=True)]
    try:
        built = jax.device_put(arrays["built"], state.built.sharding)
        built_scale = jax.device_put(arrays["built_scale"], state.built_scale.sharding)
        recording = Recording(done=int(metadata["done"]))
        if "positions" in arrays:
            recording.positions, recording.temperatures = [arrays["positions"]], [arrays["temperatures"]]
            recording.scales = [arrays["scales"]]
        capacity = neighbor_list.Capacity(*json.loads(metadata["capacity"]))
        widened = float(metadata["widened"])
    except (KeyError, TypeError, ValueError) as error:
        raise EngineError(
            ExitStatus.CORRUPT_FILE, f"{path.name} lacks what a checkpoint has ({error}); remove it to start anew"
        ) from None
    state = state._replace(md=jax.tree.unflatten(structure, put), built=built, built_scale=built_scale)
    if capacity != simulation.dynamics.capacity or widened != simulation.system.widened:
        system = replace(simulation.system, widened=widened)
        simulation = Simulation(system, dynamics(system, capacity), state)
    return simulation._replace(walkers=simulation.dynamics.relist(state)), recording
