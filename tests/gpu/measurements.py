"""The parts of check.py, each in a process of its own: `measurements.py PART OPTIONS --output FILE`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import md
import measure

from aiida_difftre.engine.contract.jobs import Machine, UpdateSettings
from aiida_difftre.engine.contract.state_points import StatePoint
from aiida_difftre.engine.contract.targets import Conditions, Target
from aiida_difftre.engine.runtime import device

SIZES = {"lj": 108, "sw": 64, "network": 64}
SMALL = {"lj": 32}
TEMPERATURE = 300.0
LONGEST_S = 3.0
"""Of one timed run."""


def peak_mib() -> float | None:
    """Largest memory on the device so far; None where it does not count."""
    import jax

    found = jax.local_devices()[0].memory_stats()
    return None if not found else found.get("peak_bytes_in_use", 0) / 2**20


def snapshots_of(kind: str, number: int, frames: int, precision: str) -> tuple[Any, Any, Any]:
    """Rattled crystals as a trajectory of a system of md.py; its potential, and its parameters."""
    import jax
    import numpy as np

    from aiida_difftre.engine.contract.trajectories import Trajectory
    from aiida_difftre.engine.snapshots import snapshots as quantities

    system, begin, parameters = md.system_of(kind, number, 100)
    with jax.default_device(jax.devices("cpu")[0]):
        parameters = jax.tree.map(np.asarray, system.potential.init(jax.random.key(0)))
    noise = np.random.default_rng(7).normal(0.0, 0.08, (frames, *begin.positions.shape[1:]))
    positions = (begin.positions[0] + noise @ np.linalg.inv(begin.cell)).astype(np.float32)
    energies = quantities.energies(system.potential, parameters, positions, begin.cell, begin.symbols)
    arrays = {
        "positions": positions, "cell": begin.cell, "energies": energies, "walkers": np.zeros(frames, np.int32),
        "times": np.arange(frames, dtype=float), "temperatures": np.full(frames, TEMPERATURE),
        "last_positions": positions[-1:].astype(float), "last_velocities": np.zeros_like(positions[-1:], float),
    }  # fmt: skip
    trajectory = Trajectory.from_arrays(arrays, species=begin.symbols, temperature=TEMPERATURE, pressure=None)
    return system.potential, parameters, trajectory


def prepared(kind: str, number: int, frames: int, machine: Machine) -> tuple[Any, Any, Any, Any]:
    """A state point of an update towards a pressure; potential, parameters and trajectory."""
    from aiida_difftre.engine.refinement import objective

    potential, parameters, trajectory = snapshots_of(kind, number, frames, machine.precision)
    target = Target(
        observable="pressure", values=[0.1], errors=[0.05], unit="GPa", error_source="assumed",
        conditions=Conditions(temperature=TEMPERATURE), citation="made for this check",
    )  # fmt: skip
    sampled = objective.SampledStatePoint("here", trajectory, [target], StatePoint(TEMPERATURE))
    settings = UpdateSettings(bootstrap=10)
    return (
        objective.prepare(potential, parameters, sampled, settings, machine, seed=1),
        potential,
        parameters,
        trajectory,
    )


def moved(parameters: Any) -> Any:
    """Parameters a little away from those that sampled, so that weights differ."""
    import jax
    import numpy as np

    return jax.tree.map(lambda leaf: np.asarray(leaf) * (1 + 1e-3), parameters)


def answers(options: argparse.Namespace, machine: Machine) -> dict[str, Any]:
    """Energies, forces and stresses of rattled cells; gradient of a loss and weights after a step."""
    import ase
    import jax
    import numpy as np

    from aiida_difftre.engine.calculator import DiffTReCalculator
    from aiida_difftre.engine.potentials import potential as potentials
    from aiida_difftre.engine.refinement import objective

    found = {}
    for kind, number in (SMALL if options.small else SIZES).items():
        data, potential, parameters, trajectory = prepared(kind, number, 8, machine)
        path = options.output.with_suffix(f".{kind}.safetensors")
        potentials.save(path, potential, parameters)
        atoms = ase.Atoms(trajectory.species, cell=trajectory.cell, pbc=True)
        atoms.calc = DiffTReCalculator(path, precision=machine.precision)
        energy, forces, stress = [], [], []
        for positions in trajectory.positions[:3]:
            atoms.set_scaled_positions(positions.astype(float))
            energy.append(atoms.get_potential_energy())
            forces.append(atoms.get_forces().tolist())
            stress.append(atoms.get_stress().tolist())
        elsewhere = moved(parameters)
        evaluation = objective.evaluate([data], elsewhere)
        slope = objective.gradient([data], elsewhere, evaluation)
        weights = data.reference.weights(jax.numpy.asarray(evaluation.quantities["here"]["energy"]))
        found[kind] = {
            "energy": energy, "forces": forces, "stress": stress,
            "gradient": np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(slope)]).tolist(),
            "weights": (np.asarray(weights) * len(trajectory.energies)).tolist(),
        }  # fmt: skip
    return {"answers": found, "peak_mib": peak_mib()}


def distribution(options: argparse.Namespace, machine: Machine) -> dict[str, Any]:
    """Positions, temperature and energies of a sampled well that is exactly solvable."""
    from aiida_difftre.engine.sampling.run import simulate
    from aiida_difftre.testing import samplers

    settings = samplers.strong_friction()
    if options.small:
        settings = settings.model_copy(update={"production_fs": 1200.0})
    example = samplers.SamplerExample(simulate, settings, walkers=16 if options.small else 1024)
    checks = (
        samplers.harmonic_distribution_is_sampled, samplers.temperature_is_held,
        samplers.energies_are_those_of_the_positions,
    )  # fmt: skip
    failures = []
    for check in checks:
        try:
            check(example)
        except AssertionError as error:
            failures.append(f"distribution: {error}")
    return {"wrong": failures, "snapshots": len(example.trajectory.energies), "peak_mib": peak_mib()}


def compiling(options: argparse.Namespace, machine: Machine) -> dict[str, Any]:
    """Time until the first steps of each kind of system are done, with what the cache holds."""
    import jax

    found = {}
    for kind, number in (SMALL if options.small else SIZES).items():
        began = time.monotonic()
        advance, state, _ = md.prepared(kind, number, 100, 8)
        jax.block_until_ready(advance(state))
        found[kind] = time.monotonic() - began
    return {"seconds": found}


def walkers(options: argparse.Namespace, machine: Machine) -> dict[str, Any]:
    """Atom-steps per second against the number of walkers, until more walkers bring no more, or no memory is left."""
    import jax

    found: list[dict[str, float]] = []
    count, ended = 1, "no more walkers"
    while count <= (2 if options.small else 65_536):
        try:
            advance, state, steps = md.prepared(options.system, options.atoms, 40 if options.small else 200, count)
            state = jax.block_until_ready(advance(state))
            began, calls = time.perf_counter(), 0
            while calls < 3 and time.perf_counter() - began < LONGEST_S:
                state, calls = jax.block_until_ready(advance(state)), calls + 1
            seconds = (time.perf_counter() - began) / calls
        except Exception as error:  # XLA has no class of its own for it
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            ended = "out of memory"
            break
        rate = options.atoms * count * steps / seconds
        found.append({"walkers": count, "atom_steps_per_s": rate, "step_us": 1e6 * seconds / steps})
        options.output.write_text(json.dumps({"walkers": found, "ended": "out of time", "peak_mib": peak_mib()}))
        if len(found) > 2 and rate < 1.1 * found[-2]["atom_steps_per_s"] and rate < 1.2 * found[-3]["atom_steps_per_s"]:
            ended = "the knee"
            break
        count *= 2 if options.small else 4
    best = max(one["atom_steps_per_s"] for one in found)
    knee = next(one["walkers"] for one in found if one["atom_steps_per_s"] > 0.9 * best)
    return {
        "walkers": found, "ended": ended, "best_atom_steps_per_s": best, "knee_atoms": knee * options.atoms,
        "peak_mib": peak_mib(),
    }  # fmt: skip


def update(options: argparse.Namespace, machine: Machine) -> dict[str, Any]:
    """A loss, its weights and its gradient on snapshots of 64 atoms with a network, of which the second call counts."""
    from aiida_difftre.engine.refinement import objective

    kind, number, frames = ("lj", 32, 20) if options.small else ("network", 64, 10_000)
    began = time.monotonic()
    data, _, parameters, _ = prepared(kind, number, frames, machine)
    preparing = time.monotonic() - began
    elsewhere = moved(parameters)

    def once() -> None:
        objective.gradient([data], elsewhere, objective.evaluate([data], elsewhere))

    spent = measure.middle(measure.times(once, 1 if options.small else 3))
    return {"snapshots": frames, "preparing_s": preparing, "update_s": spent.wall, "peak_mib": peak_mib()}


PARTS = {one.__name__: one for one in (answers, distribution, compiling, walkers, update)}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--platform", choices=["cpu", "gpu"], default="gpu")
    parser.add_argument("--precision", choices=["float32", "float64"], default="float32")
    parser.add_argument("--system", choices=list(SIZES), default="lj")
    parser.add_argument("--atoms", type=int, default=32)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    machine = Machine(platform=options.platform, precision=options.precision, threads=1 if options.small else 0)
    device.configure(machine)
    found = PARTS[options.part](options, machine)
    options.output.write_text(json.dumps({**found, "device": device.description(machine)}))


if __name__ == "__main__":
    main()
