"""What trajectories of earlier iterations spare: the error of a refined pair energy against the steps sampled; JSON.

    python tests/benchmarks/pool.py --seeds 8 --output pool.json

Lennard-Jones argon (32 atoms, 85 K) whose true depth and diameter are known: its energy and pressure, from a trajectory
that is forty times as long, are the targets of a refinement that starts elsewhere. The targets have errors far below
those of the simulation, so that what separates the result from the truth is the noise of the trajectories. The error is
the root mean square, over seeds, of the deviation of each parameter from the truth, %.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import measure
import numpy as np

TRUTH = {"epsilon": 0.0104, "sigma": 3.40}
START = {"epsilon": 0.0112, "sigma": 3.42}
TEMPERATURE = 85.0
PRODUCTION_FS, WALKERS, ITERATIONS = 2000.0, 4, 6
CASES = (("alone", 0, 1.0), ("pooled", 4, 1.0), ("alone, twice as long", 0, 2.0), ("pooled, half as long", 4, 0.5))
"""Name, earlier iterations in the pool, and length of the trajectories over :data:`PRODUCTION_FS`."""


def sampling(length: float) -> dict[str, Any]:
    """Settings of trajectories."""
    return {
        "timestep_fs": 4.0, "equilibration_fs": 400.0, "production_fs": PRODUCTION_FS * length, "stride_fs": 40.0,
        "walkers": WALKERS,
    }  # fmt: skip


def potential(folder: Path, parameters: dict[str, float], name: str) -> str:
    """Write a Lennard-Jones potential; its file's name."""
    import jax

    from aiida_difftre.engine.contract.settings import PotentialSpec, TermSpec
    from aiida_difftre.engine.potentials.potential import build, save

    term = TermSpec(architecture="lennard_jones", cutoff=5.0, hyperparameters=parameters)
    made = build(PotentialSpec(species=["Ar"], terms=[term]))
    save(folder / name, made, made.init(jax.random.key(0)))
    return name


def true_values(folder: Path, length: float) -> dict[str, float]:
    """Energy (eV/atom) and pressure (GPa) of the true potential, from a long trajectory."""
    from aiida_difftre.engine.contract.jobs import SampleJob
    from aiida_difftre.engine.jobs import sample
    from aiida_difftre.engine.runtime.progress import Silent

    job = SampleJob.model_validate(
        {
            "potential": potential(folder, TRUTH, "truth.safetensors"), "temperature": TEMPERATURE, "seed": 99,
            "sampling": sampling(length),
            "observables": [{"observable": "potential_energy"}, {"observable": "pressure"}],
        }
    )  # fmt: skip
    return {one.observable: one.values[0] for one in sample.run(job, folder, Silent()).predictions}


def refined(
    folder: Path, targets: dict[str, float], pooled: int, length: float, *, seed: int, iterations: int
) -> tuple[list[float], float]:
    """Relative deviations of both parameters from the truth, and the time that all walkers sampled, fs."""
    from aiida_difftre.engine.contract.jobs import POTENTIAL_OUT, RefineJob
    from aiida_difftre.engine.jobs import refine
    from aiida_difftre.engine.potentials.potential import load
    from aiida_difftre.engine.runtime.progress import Silent

    units = {"potential_energy": ("eV/atom", 1e-6), "pressure": ("GPa", 1e-5)}
    measured = [
        {
            "observable": name, "unit": units[name][0], "values": [value], "errors": [units[name][1]],
            "citation": "the true potential", "conditions": {"temperature": TEMPERATURE},
        }
        for name, value in targets.items()
    ]  # fmt: skip
    job = RefineJob.model_validate(
        {
            "potential": potential(folder, START, "start.safetensors"), "seed": seed, "sampling": sampling(length),
            "state_points": [{"label": "argon", "temperature": TEMPERATURE, "targets": measured}],
            "max_iterations": iterations, "patience": iterations, "chi2_stop": 0.0, "pool_iterations": pooled,
            "continued_equilibration_fs": 200.0,
            "update": {"optimizer": {"name": "gauss_newton"}, "gate": 0.3, "max_step_loss": 0.6, "bootstrap": 50},
        }
    )  # fmt: skip
    results = refine.run(job, folder, Silent())
    term = load(folder / POTENTIAL_OUT)[1]["terms"]["0_lennard_jones"]
    deviations = [float(np.asarray(term[name]).ravel()[0]) / TRUTH[name] - 1 for name in TRUTH]
    return deviations, WALKERS * sum(one.production_fs for one in results.iterations)


def main() -> None:
    """Refine in each way with each seed."""
    parser = measure.parser(__doc__)
    parser.add_argument("--seeds", type=int, default=8)
    options = parser.parse_args()
    from aiida_difftre.engine.contract.settings import Machine
    from aiida_difftre.engine.runtime import device

    device.configure(Machine(threads=1, platform="cpu"))
    import ase.io
    from ase.build import bulk

    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ase.io.write(folder / "structure.extxyz", bulk("Ar", "fcc", a=5.4, cubic=True).repeat(2))
        targets = true_values(folder, 1.0 if options.tiny else 40.0)
        for case, pooled, length in CASES[1::2] if options.tiny else CASES:
            length, iterations = (0.2 * length, 2) if options.tiny else (length, ITERATIONS)
            outcomes = [
                refined(folder, targets, pooled, length, seed=1000 * seed, iterations=iterations)
                for seed in range(options.seeds)
            ]
            errors = np.sqrt(np.mean(np.square([deviations for deviations, _ in outcomes]), axis=0))
            found[case] = {
                "pool_iterations": pooled,
                "error_percent": dict(zip(TRUTH, (100 * errors).round(4).tolist(), strict=True)),
                "sampled_ps": round(float(np.mean([sampled for _, sampled in outcomes])) / 1000, 3),
            }
    measure.write({"targets": targets, "seeds": options.seeds, "cases": found}, options.output)


if __name__ == "__main__":
    main()
