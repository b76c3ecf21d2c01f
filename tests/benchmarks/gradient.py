"""The gradient of a loss by reweighting against backpropagation through molecular dynamics: time, memory, value.

    python tests/benchmarks/gradient.py [--steps 100 1000 10000] [--runs 3] [--output FILE]

108 Lennard-Jones atoms (ρ* = 0.844, kT = 1, time step 0.005, cutoff 2.4), the mean squared deviation of their radial
distribution function over 100 snapshots, and its gradient with respect to epsilon and sigma. Backpropagation runs
through the engine's own integrator with a checkpoint at every snapshot and step, in float64. Reweighting takes the same
snapshots; its time is that of the gradient, ``with_sampling`` adds the dynamics and the distribution functions.
``gradient_explosion.py`` shows the value against an exact gradient, and draws it.
"""

from __future__ import annotations

import functools
import math
import statistics
from typing import Any

import measure
import through_dynamics

from aiida_difftre.engine import units
from aiida_difftre.engine.contract.jobs import LangevinSpec, Machine, PotentialSpec, SamplingSettings, TermSpec
from aiida_difftre.engine.runtime import device

EPSILON, SIGMA, MASS, CUTOFF, DENSITY, BINS, SNAPSHOTS = 0.0125, 3.4, 39.948, 2.4, 0.844, 60, 100
TIME = SIGMA * math.sqrt(MASS / EPSILON) * units.TIME_UNIT_IN_FS
"""The reduced unit of time, fs."""


def problem(cells: int) -> tuple[Any, ...]:
    """Parameters, the state to start from, one step, energies and features of positions."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from ase.build import bulk

    from aiida_difftre.engine.observables import histogram
    from aiida_difftre.engine.potentials import potential as potentials
    from aiida_difftre.engine.potentials.term import Environment
    from aiida_difftre.engine.sampling.integrators import integrator
    from aiida_difftre.engine.sampling.system import System

    atoms = bulk("Ar", "fcc", a=SIGMA * (4 / DENSITY) ** (1 / 3), cubic=True).repeat(cells)
    number, cell = len(atoms), np.array(atoms.cell)
    # One neighbour is one nearest image: the cutoff must fit half the cell.
    cutoff = min(CUTOFF * SIGMA, 0.49 * cell[0, 0])
    hyperparameters = {"epsilon": EPSILON, "sigma": SIGMA}
    term = TermSpec(architecture="lennard_jones", cutoff=cutoff, hyperparameters=hyperparameters)
    potential = potentials.build(PotentialSpec(species=["Ar"], terms=[term]))
    parameters = potential.init(jax.random.key(0))
    settings = SamplingSettings(timestep_fs=0.005 * TIME, thermostat=LangevinSpec(friction_per_ps=1e3 / TIME))
    temperature = EPSILON / units.BOLTZMANN
    system = System(potential, ("Ar",) * number, cell, temperature, settings, "float64")
    index = np.array([[j for j in range(number) if j != i] for i in range(number)])
    kinds, everyone = jnp.zeros(number, int), jnp.ones(index.shape, bool)

    def surroundings(positions: Any) -> tuple[list[Any], Any]:
        difference = positions[index] - positions[:, None]
        vectors = (difference - jax.lax.stop_gradient(jnp.round(difference))) @ cell
        parts = [vectors[..., axis] for axis in range(3)]
        return parts, Environment(vectors, everyone, kinds, kinds[index], positions)

    def force(positions: Any, _: Any, *, parameters: Any) -> Any:
        parts, environment = surroundings(positions)
        return potential.forces_and_virial(parameters, parts, environment, jnp.asarray(index))

    init, apply = integrator(system, force, jnp.dtype("float64"))
    width = cutoff / BINS
    edges = width * np.arange(BINS + 1)
    shells = 4 / 3 * math.pi * np.diff(edges**3) * number * (number - 1) / np.linalg.det(cell)

    start = init(
        jax.random.key(1), jnp.asarray(atoms.get_scaled_positions()), jnp.ones(()),
        mass=jnp.asarray(system.mass), parameters=parameters,
    )  # fmt: skip
    start = jax.jit(
        lambda state: jax.lax.fori_loop(0, 1000, lambda _, s: apply(s, parameters=parameters), state)
    )(start)  # fmt: skip
    target = jnp.asarray(edges[1:] > SIGMA, float)

    def energies(parameters: Any, positions: Any) -> Any:
        return jax.lax.map(lambda x: potential.total(parameters, surroundings(x)[1]), positions, batch_size=10)

    def features(positions: Any) -> Any:
        def one(x: Any) -> Any:
            distance = jnp.sqrt(surroundings(x)[1].squared_distances()).reshape(-1)
            counts = histogram.deposit(jnp.zeros(BINS + 1), distance / width, distance > 0, shared=True)
            return counts[:-1] / shells

        return jax.lax.map(jax.checkpoint(one), positions)

    return parameters, start, apply, energies, features, target, units.BOLTZMANN * temperature


def gradients(lengths: list[int], cells: int, runs: int) -> list[dict[str, Any]]:
    """Time, memory and value for trajectories of several lengths."""
    import jax
    import jax.numpy as jnp

    parameters, start, apply, energies, features, target, kT = problem(cells)

    def trajectory(parameters: Any, stride: int) -> Any:
        return through_dynamics.trajectory(functools.partial(apply, parameters=parameters), start, stride, SNAPSHOTS)

    def through(parameters: Any, stride: int) -> Any:
        return jnp.mean((jnp.mean(features(trajectory(parameters, stride)), 0) - target) ** 2)

    def reweighted(parameters: Any, snapshots: Any, reference: Any, values: Any) -> Any:
        weight = jax.nn.softmax(-(energies(parameters, snapshots) - reference) / kT)
        return jnp.mean((weight @ values - target) ** 2)

    def megabytes(compiled: Any) -> float:
        return compiled.memory_analysis().temp_size_in_bytes / 1e6

    estimate = jax.jit(jax.grad(reweighted))
    results = []
    for steps in lengths:
        stride = max(1, steps // SNAPSHOTS)
        back = jax.jit(jax.grad(through), static_argnums=1)
        run = jax.jit(lambda p, stride=stride: trajectory(p, stride))
        snapshots = jax.block_until_ready(run(parameters))
        describe = jax.jit(lambda x: (energies(parameters, x), features(x)))
        known = jax.block_until_ready(describe(snapshots))
        forward = measure.median(lambda: jax.block_until_ready(describe(run(parameters))), runs)  # noqa: B023
        exploded = jax.block_until_ready(back(parameters, stride))
        reweight = functools.partial(estimate, parameters, snapshots, *known)
        value = jax.block_until_ready(reweight())
        backward, direct, ratios = [], [], []
        for _ in range(runs):
            backward.append(measure.seconds(lambda: jax.block_until_ready(back(parameters, stride))).cpu)  # noqa: B023
            direct.append(measure.seconds(lambda: jax.block_until_ready([reweight() for _ in range(5)])).cpu / 5)  # noqa: B023
            ratios.append(backward[-1] / direct[-1])
        results.append(
            {
                "steps": stride * SNAPSHOTS,
                "backpropagation_cpu_s": statistics.median(backward),
                "reweighting_cpu_s": statistics.median(direct),
                "times_faster": statistics.median(ratios),
                "times_faster_with_sampling": statistics.median(backward) / (statistics.median(direct) + forward),
                "backpropagation_mb": megabytes(back.lower(parameters, stride).compile()),
                "reweighting_mb": megabytes(estimate.lower(parameters, snapshots, *known).compile()),
                "backpropagation_norm": through_dynamics.norm(exploded["terms"]),
                "reweighting_norm": through_dynamics.norm(value["terms"]),
            }
        )
    return results


def main() -> None:
    """Command line."""
    parser = measure.parser(__doc__)
    parser.add_argument("--steps", type=int, nargs="+", default=[100, 1000, 10000])
    options = parser.parse_args()
    machine = Machine(precision="float64", threads=1, platform="cpu")
    device.configure(machine)
    cells, steps = (2, [100]) if options.tiny else (3, options.steps)
    found = gradients(steps, cells, options.runs)
    measure.write(
        {"versions": measure.versions(machine), "lengths": found, "target_times_faster_at_10000": 200}, options.output
    )


if __name__ == "__main__":
    main()
