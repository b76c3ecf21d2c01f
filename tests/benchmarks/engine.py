"""What the engine costs: molecular dynamics and one gradient step of a stiffness target. Prints JSON.

    python tests/benchmarks/engine.py [--walkers 16] [--repeat 2] [--threads 1]

Diamond with an untrained moment network, whose cost does not depend on the parameters. CPU seconds of this process,
medians of several runs after one that compiles.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

from aiida_difftre.engine import device
from aiida_difftre.engine.jobs import LangevinSpec, Machine, PotentialSpec, SamplingSettings, TermSpec
from aiida_difftre.engine.observable_specs import ObservableRequest

CUTOFF = 3.5
TEMPERATURE = 298.15


def cpu_seconds(function: Callable[[], Any], runs: int) -> float:
    """Median CPU time of a call after one that is not counted."""
    function()
    times = []
    for _ in range(runs):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return statistics.median(times)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--walkers", type=int, default=16)
    parser.add_argument("--repeat", type=int, default=2, help="cubic cells along each axis")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    machine = Machine(threads=options.threads)
    device.configure(machine)

    import jax
    import numpy as np
    from ase.build import bulk

    from aiida_difftre.engine import potentials, reweighting, sample, sampling
    from aiida_difftre.engine.progress import Silent

    atoms = bulk("C", "diamond", 3.567, cubic=True).repeat(options.repeat)
    prior = TermSpec(
        architecture="stillinger_weber", cutoff=2.52, hyperparameters={"preset": "diamond"}, trainable=False
    )
    spec = PotentialSpec(species=["C"], terms=[TermSpec(architecture="moment_network", cutoff=CUTOFF), prior])
    potential = potentials.build(spec)
    parameters = potential.init(jax.random.key(0))
    # A last layer of zeros: the atoms fly freely, and slowly enough that lists are rebuilt a few times only.
    network = parameters["terms"]["0_moment_network"]["mlp"]
    network["w2"] = 0 * network["w2"]

    settings = SamplingSettings(
        walkers=options.walkers,
        thermostat=LangevinSpec(friction_per_ps=50),
        equilibration_fs=0,
        production_fs=100,
        min_distance=1e-3,
    )
    positions = atoms.get_scaled_positions()[None].repeat(options.walkers, 0)
    start = sample.Start(positions, None, np.array(atoms.cell), tuple(atoms.symbols))
    system = sampling.System(potential, start.symbols, start.cell, TEMPERATURE, settings, machine.precision)
    dynamics = sampling.dynamics(system, sample.list_capacity(system, start))
    state = dynamics.init(jax.random.key(1), positions, np.ones(len(positions)), None, parameters)
    steps = system.snapshots_per_call * system.steps_per_snapshot
    md = cpu_seconds(lambda: jax.block_until_ready(dynamics.apply(state, parameters)), options.runs)

    trajectory = sample.simulate(
        potential,
        parameters,
        start,
        temperature=TEMPERATURE,
        settings=settings,
        machine=machine,
        seed=1,
        progress=Silent(),
    )
    requests = [ObservableRequest(observable=name) for name in ("stress", "stiffness")]
    began = time.process_time()
    ref = reweighting.reference(potential, parameters, trajectory, requests, temperature=TEMPERATURE, machine=machine)
    prepare = time.process_time() - began
    quantities = ref.snapshots.evaluate(parameters)
    cotangents = {key: np.ones_like(value) for key, value in quantities.items()}
    result = {
        "versions": device.description(machine),
        "atoms": len(atoms),
        "walkers": options.walkers,
        "neighbors": float(np.mean(np.asarray(state.lists.mask).sum(-1))),
        "md_microseconds_per_atom_and_step": 1e6 * md / (steps * options.walkers * len(atoms)),
        "snapshots": len(trajectory.energies),
        "prepare_cpu_s": prepare,
        "energies_cpu_s": cpu_seconds(lambda: ref.snapshots.energies(parameters), options.runs),
        "evaluate_cpu_s": cpu_seconds(lambda: ref.snapshots.evaluate(parameters), options.runs),
        "gradient_cpu_s": cpu_seconds(
            lambda: jax.block_until_ready(ref.snapshots.pullback(parameters, cotangents)), options.runs
        ),
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
