"""The gradient of a loss by backpropagation through molecular dynamics against the reweighted and the exact one.

A particle in a double well, u(x)/kT = 1.3 [2500 (x - 0.5)⁶ - 10 (x - 0.55)²], with a periodic spline on top of it, at
zero; the loss is the mean squared error of the density against that of the same well without the factor of 1.3. Its
gradient with respect to the spline is taken

- through the trajectory: the engine's Langevin integrator, differentiated in reverse with checkpoints;
- by reweighting the same snapshots (DiffTRe);
- exactly, by quadrature.

    python tests/benchmarks/gradient_explosion.py --output FOLDER

It is about the value; time and memory are those of ``gradient.py``, for many atoms.
"""

from __future__ import annotations

import argparse
import functools
import json
from pathlib import Path
from typing import Any

import measure
import numpy as np
import through_dynamics

from aiida_difftre.engine import units
from aiida_difftre.engine.contract.jobs import Machine, PotentialSpec
from aiida_difftre.engine.contract.sampling_settings import SamplingSettings
from aiida_difftre.engine.runtime import device

TEMPERATURE, LENGTH = 300.0, 5.0
KT = units.BOLTZMANN * TEMPERATURE
WELL = np.array([-0.025, 1.0, -10.0, 0.0, 0.0, 0.0, 2500.0])
"""Coefficients of u(x)/kT in powers of x - 0.5."""
FACTOR = 1.3
BINS, SMEARING, POINTS = 50, 0.02, 2000
STRIDE = 10
"""Steps between snapshots."""


def problem(friction_per_ps: float) -> tuple[Any, ...]:
    """The potential with its parameters, the system, the features of a coordinate and the exact target."""
    import jax
    import jax.numpy as jnp

    from aiida_difftre.engine.contract.observables import ObservableRequest
    from aiida_difftre.engine.observables import protocol
    from aiida_difftre.engine.potentials import potential as potentials
    from aiida_difftre.engine.sampling.system import System

    terms = [
        {"architecture": "external_spline", "cutoff": 0.1},
        {
            "architecture": "external_polynomial",
            "cutoff": 0.1,
            "hyperparameters": {"coefficients": (FACTOR * KT * WELL).tolist()},
        },
    ]
    potential = potentials.build(PotentialSpec.model_validate({"species": ["He"], "terms": terms}))
    cell = LENGTH * np.eye(3)
    settings = SamplingSettings.model_validate(
        {"timestep_fs": 5.0, "thermostat": {"name": "langevin", "friction_per_ps": friction_per_ps}}
    )
    system = System(potential, ("He",), cell, TEMPERATURE, settings, "float64")
    request = ObservableRequest(
        observable="density_profile", grid=((np.arange(BINS) + 0.5) / BINS).tolist(), options={"smearing": SMEARING}
    )
    density = protocol.make(request, ("He",), cell)

    def features(x: Any) -> Any:
        return jax.vmap(lambda s: density.features(jnp.stack([s, s, s])[None], jnp.asarray(cell)))(x)

    x = (jnp.arange(POINTS) + 0.5) / POINTS
    weight = jnp.exp(-jnp.polyval(jnp.asarray(WELL[::-1]), x - 0.5))
    return potential, potential.init(jax.random.key(0)), system, features, (weight / weight.sum()) @ features(x)


def energies(potential: Any, parameters: Any, x: Any) -> Any:
    """Energies at fractional coordinates, eV."""
    import jax.numpy as jnp

    from aiida_difftre.engine.potentials.term import Environment

    count = len(x)
    nobody = jnp.zeros((count, 1), bool)
    positions = jnp.stack([x, x, x], -1)
    kinds = jnp.zeros(count, int)
    return potential.energies(
        parameters, Environment(jnp.zeros((count, 1, 3)), nobody, kinds, kinds[:, None], positions)
    )


def gradients(friction_per_ps: float, lengths: list[int], walkers: int, seed: int) -> dict[str, Any]:
    """Norms of the gradients for trajectories of several lengths, and the angle between reweighted and exact."""
    import jax
    import jax.numpy as jnp

    from aiida_difftre.engine.potentials.term import Environment, masses
    from aiida_difftre.engine.sampling.integrators import integrator

    potential, parameters, system, features, target = problem(friction_per_ps)
    cell, mass, kinds = jnp.asarray(system.cell), jnp.asarray(masses(["He"])), jnp.zeros(1, int)

    def with_points(points: Any) -> Any:
        terms = {**parameters["terms"], "0_external_spline": {"control_points": points}}
        return {**parameters, "terms": terms}

    def force(positions: Any, scale: Any, *, points: Any) -> Any:
        nobody = jnp.zeros((1, 1), bool)
        environment = Environment(jnp.zeros((1, 1, 3)), nobody, kinds, kinds[:, None], positions)
        return potential.external_forces(with_points(points), environment, cell), 0 * scale

    init, apply = integrator(system, force, jnp.dtype("float64"))
    points = parameters["terms"]["0_external_spline"]["control_points"]
    x = (jnp.arange(POINTS) + 0.5) / POINTS
    reference = energies(potential, parameters, x)

    def loss_of(density: Any) -> Any:
        return jnp.mean((density - target) ** 2)

    def exact(points: Any) -> Any:
        weight = jax.nn.softmax(-energies(potential, with_points(points), x) / KT)
        return loss_of(weight @ features(x))

    start = jax.random.choice(jax.random.key(seed), x, (walkers,), p=jax.nn.softmax(-reference / KT))
    states = jax.vmap(lambda k, s: init(k, jnp.full((1, 3), s), jnp.ones(()), mass=mass, points=points))(
        jax.random.split(jax.random.key(seed + 1), walkers), start
    )

    def trajectory(points: Any, steps: int) -> Any:
        advance = jax.vmap(functools.partial(apply, points=points))
        return through_dynamics.trajectory(advance, states, STRIDE, steps // STRIDE)[..., 0, 0].reshape(-1)

    def through(points: Any, steps: int) -> Any:
        return loss_of(jnp.mean(features(trajectory(points, steps)), 0))

    def reweighted(points: Any, snapshots: Any) -> Any:
        change = energies(potential, with_points(points), snapshots) - energies(potential, parameters, snapshots)
        return loss_of(jax.nn.softmax(-change / KT) @ features(snapshots))

    norm = through_dynamics.norm
    truth = jax.grad(exact)(points)
    found: dict[str, Any] = {"friction_per_ps": friction_per_ps, "exact": norm(truth), "lengths": []}
    for steps in lengths:
        backpropagated = jax.jit(jax.grad(through), static_argnums=1)(points, steps)
        snapshots = jax.jit(trajectory, static_argnums=1)(points, steps)
        estimate = jax.jit(jax.grad(reweighted))(points, snapshots)
        found["lengths"].append(
            {
                "steps": steps,
                "backpropagated": norm(backpropagated),
                "reweighted": norm(estimate),
                "reweighted_error": norm(estimate - truth) / norm(truth),
                "backpropagated_error": norm(backpropagated - truth) / norm(truth),
            }
        )
        print(json.dumps(found["lengths"][-1]), flush=True)
    return found


def plot(results: dict[str, Any], path: Path) -> None:
    """Norms against the number of steps."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.4, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    axis.spines[["top", "right"]].set_visible(False)
    for run, style in zip(results["runs"], ("o-", "s--", "^:"), strict=False):
        steps = [point["steps"] for point in run["lengths"]]
        friction = f"{run['friction_per_ps']:g}/ps"
        for kind, colour in (("backpropagated", "#c8553d"), ("reweighted", "#0b6fa4")):
            values = [point[kind] for point in run["lengths"]]
            axis.plot(steps, values, style, color=colour, label=f"{kind}, friction {friction}", markersize=4)
    axis.axhline(results["runs"][0]["exact"], color="0.3", linewidth=1, label="exact (quadrature)")
    axis.set(xscale="log", yscale="log", xlabel="time steps", ylabel="|dL/dθ| / eV⁻¹")
    axis.legend(fontsize="x-small", frameon=False)
    figure.savefig(path, dpi=160)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path())
    parser.add_argument("--steps", type=int, nargs="+", default=[10, 30, 100, 300, 1000, 3000, 10000])
    parser.add_argument("--frictions", type=float, nargs="+", default=[1.0], help="1/ps")
    parser.add_argument("--walkers", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    machine = Machine(precision="float64", threads=1)
    device.configure(machine)
    runs = [gradients(friction, options.steps, options.walkers, options.seed) for friction in options.frictions]
    results = {"versions": measure.versions(machine), "walkers": options.walkers, "seed": options.seed, "runs": runs}
    options.output.mkdir(parents=True, exist_ok=True)
    measure.write(results, options.output / "gradient_explosion.json")
    plot(results, options.output / "gradient_explosion.png")


if __name__ == "__main__":
    main()
