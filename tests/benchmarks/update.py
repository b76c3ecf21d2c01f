"""One update against chemtrain on the same workload, on a reused and on a resampled trajectory.

    python tests/benchmarks/update.py [--models lennard_jones network] [--runs 3] [--output FILE]

A Lennard-Jones liquid (N = 256, ρ* = 0.844, kT = 1, cutoff 2.5, time step 0.005, 500 steps and then 50 snapshots 50
steps apart) with its radial distribution function (100 bins to 3.0) as target, 2 parameters; or Lennard-Jones and a
radial network of some 6300 parameters with 20 snapshots. One core each, CPU seconds after a first call that compiles.

``reused`` is an evaluation, its gradient and a step; ``resampled`` adds the dynamics, compiled before as the peer's is,
and preparing its snapshots; ``resampled_job`` takes the sampling job as a whole, with its checks, its stored energies
and what is traced and loaded anew in each process.

chemtrain gets an environment of its own from PyPI, in DIFFTRE_BENCHMARKS (~/.cache/difftre-benchmarks by default);
without it and without ``--install`` only this package is measured.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import measure

from aiida_difftre.engine import units
from aiida_difftre.engine.contract.jobs import (
    LangevinSpec,
    Machine,
    PotentialSpec,
    SamplingSettings,
    TermSpec,
    UpdateSettings,
)
from aiida_difftre.engine.contract.state_points import StatePoint
from aiida_difftre.engine.contract.targets import Conditions, Target
from aiida_difftre.engine.runtime import device

CHEMTRAIN = "chemtrain==0.2.0"
MODELS = ("lennard_jones", "network")
KINDS = ("reused", "resampled")
EPSILON, SIGMA, MASS = 0.0125, 3.4, 39.948
CUTOFF, ONSET, DENSITY, TIMESTEP, STRIDE, END, BINS = 2.5, 2.25, 0.844, 0.005, 50, 3.0, 100
RADIAL, HIDDEN = 32, 64
TIME = SIGMA * math.sqrt(MASS / EPSILON) * units.TIME_UNIT_IN_FS
"""The reduced unit of time, fs."""
TARGETS = {"lennard_jones": {"reused": 50, "resampled": 15}, "network": {"reused": 10, "resampled": 3}}


def environment(install: bool) -> Path | None:
    """Python of chemtrain's environment; None where there is none and none is wanted."""
    folder = Path(os.environ.get("DIFFTRE_BENCHMARKS") or Path.home() / ".cache" / "difftre-benchmarks") / "chemtrain"
    python = folder / "bin" / "python"
    if install and not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", CHEMTRAIN], check=True)
    return python if python.exists() else None


def workload(model: str, tiny: bool) -> dict[str, Any]:
    """Numbers that both sides take, in reduced units; positions are fractional."""
    import numpy as np
    from ase.build import bulk

    atoms = bulk("Ar", "fcc", a=(4 / DENSITY) ** (1 / 3), cubic=True).repeat(4)
    centers = (np.arange(BINS) + 0.5) * END / BINS
    return {
        "model": model,
        "box": float(atoms.cell[0, 0]),
        "positions": atoms.get_scaled_positions().tolist(),
        "cutoff": CUTOFF,
        "onset": ONSET,
        "timestep": TIMESTEP,
        "stride": 10 if tiny else STRIDE,
        "equilibration": 20 if tiny else 500,
        "snapshots": 4 if tiny else (50 if model == "lennard_jones" else 20),
        "rdf_end": END,
        "bins": BINS,
        "radial": RADIAL,
        "hidden": HIDDEN,
        "target": (centers > 1.0).astype(float).tolist(),
    }


def ours(work: dict[str, Any], runs: int) -> dict[str, Any]:
    """CPU seconds of this package."""
    import jax
    import numpy as np
    import optax

    from aiida_difftre.engine.potentials import potential as potentials
    from aiida_difftre.engine.refinement import objective
    from aiida_difftre.engine.runtime.progress import Silent
    from aiida_difftre.engine.sampling import protocol
    from aiida_difftre.engine.sampling import run as running
    from aiida_difftre.engine.sampling.dynamics import dynamics as dynamics_of
    from aiida_difftre.engine.sampling.starts import Start
    from aiida_difftre.engine.sampling.system import System

    pair = TermSpec(
        architecture="lennard_jones",
        cutoff=CUTOFF * SIGMA,
        hyperparameters={"epsilon": EPSILON, "sigma": SIGMA, "onset": ONSET * SIGMA},
        trainable=work["model"] == "lennard_jones",
    )
    shape = {"rank": 0, "n_radial": work["radial"], "hidden": [work["hidden"]] * 2, "output_scale": 1e-3}
    network = TermSpec(architecture="moment_network", cutoff=CUTOFF * SIGMA, hyperparameters=shape)
    terms = [pair] if work["model"] == "lennard_jones" else [network, pair]
    potential = potentials.build(PotentialSpec(species=["Ar"], terms=terms))
    parameters = potential.init(jax.random.key(0))
    machine, temperature = Machine(threads=1), EPSILON / units.BOLTZMANN
    step = work["timestep"] * TIME
    settings = SamplingSettings(
        walkers=1,
        timestep_fs=step,
        thermostat=LangevinSpec(friction_per_ps=1e3 / TIME),
        equilibration_fs=work["equilibration"] * step,
        production_fs=work["snapshots"] * work["stride"] * step,
        stride_fs=work["stride"] * step,
    )
    cell = work["box"] * SIGMA * np.eye(3)
    start = Start(np.array([work["positions"]]), None, cell, ("Ar",) * len(work["positions"]))
    centers = (np.arange(work["bins"]) + 0.5) * work["rdf_end"] / work["bins"] * SIGMA
    target = Target(
        observable="rdf",
        grid=centers.tolist(),
        values=work["target"],
        errors=[0.1] * work["bins"],
        unit="1",
        options={"smearing": work["rdf_end"] / work["bins"] * SIGMA},
        conditions=Conditions(temperature=temperature),
        citation="made for this benchmark",
    )
    update = UpdateSettings.model_validate({"loss": {"kind": "mse"}})
    optimizer = optax.adam(1e-3)
    trainable = potential.trainable(parameters)

    def sampled(seed: int) -> Any:
        point, run = StatePoint(temperature), protocol.Run(machine, seed, Silent())
        return protocol.sample(potential, parameters, start, point, settings, run)

    def prepared(trajectory: Any) -> Any:
        sampled = objective.SampledStatePoint("liquid", trajectory, [target], StatePoint(temperature))
        return objective.prepare(potential, parameters, sampled, update, machine, seed=1)

    def step_from(data: Any, parameters: Any, state: Any) -> tuple[Any, Any]:
        evaluation = objective.evaluate([data], parameters)
        slope = objective.gradient([data], parameters, evaluation)
        slope = jax.tree.map(lambda s, free: s if free else 0 * s, slope, trainable)
        change, state = optimizer.update(slope, state, parameters)
        return jax.block_until_ready((optax.apply_updates(parameters, change), state))

    system = System(potential, start.symbols, cell, temperature, settings, machine.precision)
    lists = running.start_lists(system, start)
    dynamics = dynamics_of(system, running.list_capacity(lists))
    begun = dynamics.init(1, start.positions, np.ones(1), None, parameters, lists)
    total = system.snapshots(settings.equilibration_fs) + system.snapshots(settings.production_fs)

    def steps() -> Any:
        walkers = begun
        for _ in range(total // system.snapshots_per_call):
            walkers, _ = dynamics.apply(walkers, parameters)
        return jax.block_until_ready(walkers)

    trajectory = sampled(1)
    data = prepared(trajectory)
    while dynamics.capacity.exceeded(needed := steps().needed):
        # Lists that the liquid, unlike the crystal at the start, fills: steps with incomplete ones would be cheaper.
        dynamics = dynamics_of(system, dynamics.capacity.enlarged(needed))
        begun = dynamics.relist(begun)
    moved, state = step_from(data, parameters, optimizer.init(parameters))
    reused, kept, whole, preparing = [], [], [], []
    for run in range(runs):
        began = time.process_time()
        moved, state = step_from(data, moved, state)
        reused.append(time.process_time() - began)
        began = time.process_time()
        steps()
        kept.append(time.process_time() - began)
        began = time.process_time()
        again = sampled(2 + run)
        whole.append(time.process_time() - began)
        began = time.process_time()
        prepared(again)
        preparing.append(time.process_time() - began)
    leaves = jax.tree.leaves(jax.tree.map(lambda p, free: p.size if free else 0, parameters, trainable))
    return {
        "reused": statistics.median(reused),
        "dynamics": statistics.median(kept),
        "sampling_job": statistics.median(whole),
        "preparing": statistics.median(preparing),
        "resampled": statistics.median([sum(parts) for parts in zip(reused, kept, preparing, strict=True)]),
        "resampled_job": statistics.median([sum(parts) for parts in zip(reused, whole, preparing, strict=True)]),
        "snapshots": len(trajectory.energies),
        "parameters": int(sum(leaves)),
    }


def chemtrain(python: Path, work: dict[str, Any], kind: str, runs: int) -> dict[str, Any]:
    """What chemtrain's process prints, or the end of its error message."""
    command = [str(python), str(Path(__file__).parent / "chemtrain_peer.py"), "--workload", json.dumps(work)]
    done = subprocess.run(
        [*command, "--kind", kind, "--runs", str(runs)],
        env={key: value for key, value in os.environ.items() if not key.startswith(("XLA_", "JAX_"))},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        return {"error": done.stderr[-2000:]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    """Command line."""
    parser = measure.parser(__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument(
        "--install", action="store_true", help="make chemtrain's environment from PyPI if it is missing"
    )
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    options = parser.parse_args()
    machine = Machine(threads=1, platform="cpu")
    device.configure(machine)
    python = None if options.tiny else environment(options.install)
    results: dict[str, Any] = {"versions": measure.versions(machine)}
    for model in options.models:
        work = workload(model, options.tiny)
        entry: dict[str, Any] = {"engine": ours(work, options.runs)}
        for kind in options.kinds if python is not None else ():
            entry[kind] = theirs = chemtrain(python, work, kind, options.runs)
            if "cpu_s" in theirs:
                entry[kind]["times_faster"] = theirs["cpu_s"] / entry["engine"][kind]
                entry[kind]["target"] = TARGETS[model][kind]
        results[model] = entry
    measure.write(results, options.output)


if __name__ == "__main__":
    main()
