"""What trajectories of earlier iterations spare: the error of a refined potential against the steps sampled; JSON.

    python tests/benchmarks/pool.py --systems argon --ways alone pooled --seeds 8 --output pool.json

Potentials whose true parameters are known: Lennard-Jones argon (32 atoms, 85 K) and Stillinger-Weber diamond (64 atoms,
300 K), whose epsilon and sigma are refined. Energy and pressure of the truth, from a trajectory that is forty times as
long, are the targets of a refinement that starts elsewhere. The targets have errors far below those of the simulation,
so that what separates the result from the truth is the noise of the trajectories. The error is the root mean square,
over seeds, of the deviation of each parameter from the truth, %: of the potential that is returned, of the one whose
own trajectory agrees best, and of that of the last iteration.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import measure
import numpy as np

WALKERS, CONTINUED = 4, 0.1
"""Walkers, and the time that a continued trajectory is equilibrated again, over that of production."""

SEED_STEP = 7919
"""Between seeds."""


@dataclass(frozen=True)
class System:
    """A system with a known truth.

    Args:
        species: Its element.
        term: Architecture, cutoff and hyperparameters of the potential.
        truth: True values of the parameters that are refined.
        start: Values from which the refinement starts.
        temperature: Temperature, K.
        timestep_fs: Step of time, fs.
        production_fs: Sampled time of each walker, fs.
        lattice: Arguments of :func:`ase.build.bulk` for the cubic cell, of which the box has two in each direction.
    """

    species: str
    term: dict[str, Any]
    truth: dict[str, float]
    start: dict[str, float]
    temperature: float
    timestep_fs: float
    production_fs: float
    lattice: dict[str, Any]


SYSTEMS = {
    "argon": System(
        "Ar",
        {"architecture": "lennard_jones", "cutoff": 5.0, "hyperparameters": {"epsilon": 0.0104, "sigma": 3.4}},
        {"epsilon": 0.0104, "sigma": 3.40},
        {"epsilon": 0.0112, "sigma": 3.42}, 85.0, 4.0, 2000.0, {"crystalstructure": "fcc", "a": 5.4},
    ),
    "diamond": System(
        "C", {"architecture": "stillinger_weber", "cutoff": 2.52, "hyperparameters": {"preset": "diamond"},
              "trainable": ["epsilon", "sigma"]},
        {"epsilon": 2.0729, "sigma": 1.400}, {"epsilon": 2.25, "sigma": 1.405}, 300.0, 1.0, 500.0,
        {"crystalstructure": "diamond", "a": 3.62},
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Way:
    """A way to refine.

    Args:
        length: Length of the trajectories, over that of the system.
        iterations: Number of updates.
        gate: Gate of the updates, and with it the largest loss of a step.
        loop: Further settings of the loop.
    """

    length: float = 1.0
    iterations: int = 6
    gate: tuple[float, float] = (0.3, 0.6)
    loop: dict[str, Any] = field(default_factory=dict)


POOLED = {"pool_iterations": 4}
CAREFUL = {"gate": (0.9, 0.3), "iterations": 12}
WAYS = {
    "alone": Way(),
    "pooled": Way(loop=POOLED),
    "alone, twice as long": Way(2.0),
    "pooled, half as long": Way(0.5, loop=POOLED),
    "alone, short steps": Way(**CAREFUL),
    "pooled, short steps, sampled where needed": Way(**CAREFUL, loop={**POOLED, "resample_below": 1.0}),
}


def sampling(system: System, length: float) -> dict[str, Any]:
    """Settings of trajectories."""
    return {
        "timestep_fs": system.timestep_fs, "equilibration_fs": 0.2 * system.production_fs,
        "production_fs": system.production_fs * length, "stride_fs": 10 * system.timestep_fs, "walkers": WALKERS,
    }  # fmt: skip


def term_name(system: System) -> str:
    """The key of the term among the parameters."""
    return f"0_{system.term['architecture']}"


def potential(folder: Path, system: System, values: dict[str, float], name: str) -> str:
    """Write a potential of the system; its file's name."""
    import jax
    import jax.numpy as jnp

    from aiida_difftre.engine.contract.settings import PotentialSpec, TermSpec
    from aiida_difftre.engine.potentials.potential import build, save

    made = build(PotentialSpec(species=[system.species], terms=[TermSpec.model_validate(system.term)]))
    parameters = made.init(jax.random.key(0))
    term = parameters["terms"][term_name(system)]
    changed = {**term, **{key: jnp.full_like(term[key], value) for key, value in values.items()}}
    save(folder / name, made, {**parameters, "terms": {term_name(system): changed}})
    return name


def true_values(folder: Path, system: System, length: float) -> dict[str, float]:
    """Energy (eV/atom) and pressure (GPa) of the true potential, from a long trajectory."""
    from aiida_difftre.engine.contract.jobs import SampleJob
    from aiida_difftre.engine.jobs import sample
    from aiida_difftre.engine.runtime.progress import Silent

    job = SampleJob.model_validate(
        {
            "potential": potential(folder, system, system.truth, "truth.safetensors"), "seed": 99,
            "temperature": system.temperature, "sampling": sampling(system, length),
            "observables": [{"observable": "potential_energy"}, {"observable": "pressure"}],
        }
    )  # fmt: skip
    return {one.observable: one.values[0] for one in sample.run(job, folder, Silent()).predictions}


def refined(
    folder: Path, system: System, targets: dict[str, float], way: Way, *, seed: int
) -> tuple[list[list[float]], float, int]:
    """Relative deviations of the parameters from the truth, time that all walkers sampled (fs), and samplings.

    The deviations are those of the potential that is returned, of that with the lowest chi², and of the last one.
    """
    from aiida_difftre.engine.contract.jobs import POTENTIAL_OUT, RefineJob
    from aiida_difftre.engine.jobs import refine
    from aiida_difftre.engine.potentials.potential import load
    from aiida_difftre.engine.runtime.progress import Silent

    units = {"potential_energy": ("eV/atom", 1e-6), "pressure": ("GPa", 1e-5)}
    measured = [
        {
            "observable": name, "unit": units[name][0], "values": [value], "errors": [units[name][1]],
            "citation": "the true potential", "conditions": {"temperature": system.temperature},
        }
        for name, value in targets.items()
    ]  # fmt: skip
    gate, most = way.gate
    job = RefineJob.model_validate(
        {
            "potential": potential(folder, system, system.start, "start.safetensors"), "seed": seed,
            "sampling": sampling(system, way.length),
            "state_points": [{"label": "truth", "temperature": system.temperature, "targets": measured}],
            "max_iterations": way.iterations, "patience": way.iterations, "chi2_stop": 0.0, **way.loop,
            "continued_equilibration_fs": CONTINUED * system.production_fs,
            "update": {
                "optimizer": {"name": "gauss_newton"}, "gate": gate, "max_step_loss": most, "bootstrap": 50,
            },
        }
    )  # fmt: skip
    judge, judged = refine._judge, []

    def noticed(setup: Any, course: Any) -> None:
        judged.append(course.reference.parameters)
        judge(setup, course)

    with mock.patch.object(refine, "_judge", noticed):
        results = refine.run(job, folder, Silent())
    assert results.selected is not None
    chosen = (load(folder / POTENTIAL_OUT)[1], judged[results.selected.leader or 0], judged[-1])
    terms = [found["terms"][term_name(system)] for found in chosen]
    deviations = [
        [float(np.asarray(term[name]).ravel()[0]) / true - 1 for name, true in system.truth.items()] for term in terms
    ]
    sampled = [one.production_fs for one in results.iterations if not one.held]
    return deviations, WALKERS * sum(sampled), len(sampled)


def measured(system: System, ways: list[str], seeds: int, folder: Path, *, tiny: bool) -> dict[str, Any]:
    """Refine a system in some ways with each seed."""
    import ase.io
    from ase.build import bulk

    ase.io.write(folder / "structure.extxyz", bulk(system.species, cubic=True, **system.lattice).repeat(2))
    targets = true_values(folder, system, 1.0 if tiny else 40.0)
    found: dict[str, Any] = {}
    for name in ways:
        way = WAYS[name]
        if tiny and "pooled" not in name:
            continue
        if tiny:
            way = Way(0.6 * way.length, 2, way.gate, way.loop | ({"resample_below": 0.1} if "needed" in name else {}))
        outcomes = [refined(folder, system, targets, way, seed=SEED_STEP * (1 + seed)) for seed in range(seeds)]
        percent = 100 * np.array([deviations for deviations, *_ in outcomes])  # (seeds, potentials, parameters)
        potentials = ("returned", "lowest", "last")
        errors = np.sqrt(np.mean(np.square(percent), axis=0)).round(4).tolist()
        found[name] = {
            "error_percent": {
                which: dict(zip(system.truth, of, strict=True)) for which, of in zip(potentials, errors, strict=True)
            },
            "deviations_percent": {
                which: percent[:, index].round(4).tolist() for index, which in enumerate(potentials)
            },
            "sampled_ps": round(float(np.mean([sampled for _, sampled, _ in outcomes])) / 1000, 3),
            "samplings": round(float(np.mean([count for *_, count in outcomes])), 2),
        }
    return {"targets": targets, "cases": found}


def main() -> None:
    """Measure the systems."""
    parser = measure.parser(__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--systems", nargs="+", choices=sorted(SYSTEMS), default=sorted(SYSTEMS))
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    options = parser.parse_args()
    from aiida_difftre.engine.contract.settings import Machine
    from aiida_difftre.engine.runtime import device

    device.configure(Machine(threads=1, platform="cpu"))
    found: dict[str, Any] = {}
    for name in options.systems:
        with tempfile.TemporaryDirectory() as folder:
            found[name] = measured(SYSTEMS[name], options.ways, options.seeds, Path(folder), tiny=options.tiny)
        # After each: the next may take long.
        measure.write({"seeds": options.seeds, "systems": found}, options.output)


if __name__ == "__main__":
    main()
