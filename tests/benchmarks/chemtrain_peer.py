"""One DiffTRe update with chemtrain, on a reused and on a resampled trajectory; run by ``update.py``.

This runs in an environment with chemtrain and imports nothing of this package. The potentials are written here, on
jax-md's neighbour lists, with the same form as those of the other side.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import statistics
import tempfile
import time
from typing import Any

os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # one core: XLA takes no more threads than it may use

import jax  # noqa: E402

jax.random.KeyArray = jax.Array  # chemtrain 0.2.0 asks for a name that its own jax no longer has

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402
from chemtrain.ensemble import sampling  # noqa: E402
from chemtrain.quantity import observables  # noqa: E402
from chemtrain.trainers import trainers  # noqa: E402
from jax_md import partition, simulate, space  # noqa: E402
from jax_md_mod import custom_quantity  # noqa: E402


def energy_template(model: str, displacement: Any, cutoff: float, onset: float, radial: int) -> Any:
    """params -> energy(position, neighbor), in reduced units."""

    def distances(position: Any, neighbor: Any) -> tuple[Any, Any]:
        vectors = space.map_neighbor(displacement)(position, position[neighbor.idx])
        squared = jnp.sum(vectors**2, -1)
        within = (neighbor.idx < len(position)) & (squared < cutoff**2)
        return jnp.sqrt(jnp.where(within, squared, cutoff**2)), within

    def lennard_jones(params: Any, r: Any, within: Any) -> Any:
        power = (params["sigma"] / r) ** 6
        t = jnp.clip((r - onset) / (cutoff - onset), 0.0, 1.0)
        pair = 4 * params["epsilon"] * (power**2 - power) * (1 - t**3 * (10 - t * (15 - 6 * t)))
        return 0.5 * jnp.sum(jnp.where(within, pair, 0.0))

    def network(params: Any, r: Any, within: Any) -> Any:
        x = r / cutoff
        argument = 1 - 2 * x
        functions = [jnp.ones_like(x), argument]
        while len(functions) < radial:
            functions.append(2 * argument * functions[-1] - functions[-2])
        envelope = jnp.where(within, (1 - x**2) ** 3, 0.0)
        hidden = jnp.stack([jnp.sum(envelope * function, -1) for function in functions], -1)
        for number in range(2):
            hidden = jax.nn.silu(hidden @ params[f"w{number}"] + params[f"b{number}"])
        return jnp.sum(hidden @ params["w2"] + params["b2"])

    def template(params: Any) -> Any:
        def energy(position: Any, neighbor: Any, **_: Any) -> Any:
            r, within = distances(position, neighbor)
            if model == "lennard_jones":
                return lennard_jones(params, r, within)
            return lennard_jones({"sigma": 1.0, "epsilon": 1.0}, r, within) + network(params, r, within)

        return energy

    return template


def initial(model: str, radial: int, hidden: int) -> Any:
    """Parameters near those that made the target."""
    if model == "lennard_jones":
        return {"epsilon": jnp.asarray(1.0), "sigma": jnp.asarray(1.0)}
    widths, params = (radial, hidden, hidden, 1), {}
    for number, key in enumerate(jax.random.split(jax.random.PRNGKey(0), 3)):
        scale = (1e-3 if number == 2 else 1.0) / widths[number] ** 0.5
        params[f"w{number}"] = scale * jax.random.normal(key, widths[number : number + 2])
        params[f"b{number}"] = jnp.zeros(widths[number + 1])
    return params


def main() -> None:
    """Measure and print the last line as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workload", type=json.loads, required=True)
    parser.add_argument("--kind", choices=["reused", "resampled"], required=True)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    work = options.workload
    box, timestep, stride = work["box"], work["timestep"], work["stride"]
    displacement, shift = space.periodic_general(box, fractional_coordinates=True)
    template = energy_template(work["model"], displacement, work["cutoff"], work["onset"], work["radial"])
    params = initial(work["model"], work["radial"], work["hidden"])
    positions = jnp.asarray(work["positions"])
    neighbor_fn = partition.neighbor_list(
        displacement, box, work["cutoff"], 0.3, fractional_coordinates=True, format=partition.Dense,
        disable_cell_list=True,
    )  # fmt: skip
    neighbors = neighbor_fn.allocate(positions, extra_capacity=20)
    init, simulator = sampling.initialize_simulator_template(
        simulate.nvt_langevin, shift, neighbors, extra_simulator_kwargs={"dt": timestep, "kT": 1.0, "gamma": 1.0}
    )
    state = init(
        jax.random.PRNGKey(1), positions, template(params), init_sim_kwargs={"mass": 1.0, "neighbor": neighbors}
    )
    equilibration, production = work["equilibration"] * timestep, work["snapshots"] * stride * timestep
    timings = sampling.process_printouts(
        timestep, equilibration + production + 1e-3 * timestep, equilibration + 1e-4 * timestep, stride * timestep
    )
    centers, edges, sigma = custom_quantity.rdf_discretization(work["rdf_end"], work["bins"])
    rdf = custom_quantity.init_rdf(
        displacement, custom_quantity.RDFParams(None, centers, edges, sigma), reference_box=box * jnp.eye(3)
    )
    # A trajectory is sampled anew where too few effective samples are left: never, or always.
    ratio = 0.0 if options.kind == "reused" else 1.1
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainers.Difftre(params, optax.adam(1e-3), reweight_ratio=ratio, checkpoint_path=folder)
        trainer.add_statepoint(
            template,
            simulator,
            neighbor_fn,
            timings,
            {"kT": 1.0},
            {"rdf": rdf},
            state,
            targets={
                "rdf": {
                    "target": jnp.asarray(work["target"]),
                    "gamma": 1.0,
                    "traj_fn": observables.init_traj_mean_fn("rdf"),
                }
            },
        )

        def update() -> float:
            start = time.process_time()
            trainer._update([0])
            jax.block_until_ready(trainer.params)
            return time.process_time() - start

        compiled = update()
        found = [update() for _ in range(options.runs)]
        trajectory = trainer.trajectory_states[0].trajectory.position
    print(
        json.dumps(
            {
                "cpu_s": statistics.median(found),
                "first_cpu_s": compiled,
                "snapshots": int(np.shape(trajectory)[0]),
                "parameters": sum(int(np.size(leaf)) for leaf in jax.tree_util.tree_leaves(trainer.params)),
                "loss": float(trainer.batch_losses[-1]),
                "versions": {
                    name: importlib.metadata.version(name) for name in ("chemtrain", "jax", "jaxlib", "jax-md")
                },
            }
        )
    )


if __name__ == "__main__":
    main()
