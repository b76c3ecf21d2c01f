"""Stated errors of short runs of a liquid beside the scatter of the runs: both are to agree.

    python tests/benchmarks/errors.py [--runs 24] [--walkers 4] [--seed 0] [--output FILE]

Lennard-Jones argon, 32 atoms at 140 K and the density of the liquid. All walkers are sampled together. A long run is a
few of them, a short one a quarter of the time of these; each is a trajectory of its own, whose observables are
predicted with errors. For each observable the root of the mean square of the stated errors is divided by the standard
deviation of the predictions.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import measure

from aiida_difftre.engine.contract.jobs import Machine, SamplingSettings
from aiida_difftre.engine.contract.observables import ObservableRequest
from aiida_difftre.engine.runtime import device

TEMPERATURE, LATTICE, CUTOFF = 140.0, 5.73, 5.5
STRIDE_FS = 80.0
SEGMENTS, SNAPSHOTS = 4, 24
"""Short runs in a long one, and snapshots of each walker in a short one."""

BORN_STRIDE = 4
"""Its multiples by three, the axes in turn, are the snapshots of a run."""

OBSERVABLES = {
    "U": {"observable": "potential_energy"},
    "P": {"observable": "pressure"},
    "C_V": {"observable": "heat_capacity", "options": {"kind": "cv"}},
    "g(r)": {"observable": "rdf", "grid": [3.35 + 0.1 * number for number in range(22)]},
    "C": {"observable": "stiffness", "options": {"born_stride": BORN_STRIDE}},
}


def sampled(walkers: int, *, tiny: bool, seed: int) -> tuple[Any, Any, Any]:
    """Potential, parameters, and one trajectory of all walkers."""
    import jax
    from ase.build import bulk

    from aiida_difftre.engine.contract.jobs import PotentialSpec, TermSpec
    from aiida_difftre.engine.jobs.sample import Start, simulate
    from aiida_difftre.engine.potentials import potential as potentials
    from aiida_difftre.engine.runtime.progress import Silent

    term = TermSpec(architecture="lennard_jones", cutoff=CUTOFF, hyperparameters={"epsilon": 0.0104, "sigma": 3.4})
    potential = potentials.build(PotentialSpec(species=["Ar"], terms=[term]))
    parameters = potential.init(jax.random.key(0))
    atoms = bulk("Ar", "fcc", a=LATTICE, cubic=True).repeat(2)
    positions = atoms.get_scaled_positions()[None].repeat(walkers, 0)
    settings = SamplingSettings(
        walkers=walkers, timestep_fs=4.0, equilibration_fs=160.0 if tiny else 6000.0,
        production_fs=SEGMENTS * SNAPSHOTS * STRIDE_FS, stride_fs=STRIDE_FS,
        thermostat={"name": "langevin", "friction_per_ps": 1.0},
    )  # fmt: skip
    start = Start(positions, None, atoms.cell.array, tuple(atoms.symbols))
    trajectory = simulate(
        potential, parameters, start, temperature=TEMPERATURE, settings=settings,
        machine=Machine(threads=1, platform="cpu"), seed=seed, progress=Silent(),
    )  # fmt: skip
    return potential, parameters, trajectory


def in_runs(trajectory: Any, walkers: int) -> Any:
    """The same snapshots group by group of walkers, in each group segment by segment."""
    import numpy as np

    count = len(trajectory.last_positions)
    order = np.arange(len(trajectory.energies)).reshape(count // walkers, walkers, SEGMENTS, SNAPSHOTS)
    order = order.swapaxes(1, 2).ravel()
    fields = ("positions", "energies", "walkers", "times", "temperatures", "scales")
    return dataclasses.replace(trajectory, **{name: getattr(trajectory, name)[order] for name in fields})


def compared(ref: Any, quantities: dict[str, Any], segments: int, walkers: int) -> dict[str, dict[str, float]]:
    """By observable the scatter of the runs, what they state, and the ratio, as a mean over its values.

    Args:
        ref: all runs.
        quantities: of all snapshots.
        segments: in a run.
        walkers: in a run.
    """
    import jax.numpy as jnp
    import numpy as np

    from aiida_difftre.engine.reweighting import reference as reweighting

    size = segments * walkers * SNAPSHOTS
    numbers = np.tile(np.repeat(np.arange(walkers, dtype=np.int32), SNAPSHOTS), segments)
    found: dict[str, list[Any]] = {name: [] for name in OBSERVABLES}
    independent = []
    for run in range(len(ref.energies) // size):
        part = slice(run * size, (run + 1) * size)
        features = {name: values[part] for name, values in ref.features.items()}
        held = dataclasses.replace(ref, walkers=numbers, volumes=ref.volumes[part], features=features)
        fewer = slice(part.start // BORN_STRIDE, part.stop // BORN_STRIDE)
        rows = {name: values[fewer if "born" in name else part] for name, values in quantities.items()}
        weight = np.full(size, 1 / size)
        averages = held.averages({name: jnp.asarray(values) for name, values in rows.items()}, jnp.asarray(weight))
        errors = reweighting.statistical_errors(held, rows, weight, replicates=100, seed=run)
        independent.append(size / reweighting.inefficiency(held, rows))
        for name, value, error in zip(OBSERVABLES, averages, errors, strict=True):
            found[name].append((np.asarray(value), error))
    result = {}
    for name, pairs in found.items():
        values, errors = (np.array(column) for column in zip(*pairs, strict=True))
        scatter, stated = np.std(values, axis=0, ddof=1), np.sqrt(np.mean(errors**2, axis=0))
        ratio = float(np.mean(stated / scatter))
        result[name] = {"scatter": float(np.mean(scatter)), "stated": float(np.mean(stated)), "ratio": ratio}
    result["independent samples"] = {"median": float(np.median(independent))}
    return result


def main() -> None:
    """Command line."""
    from aiida_difftre.engine.reweighting import reference as reweighting

    parser = measure.parser(__doc__)
    parser.set_defaults(runs=24)
    parser.add_argument("--walkers", type=int, default=4, help="of each run")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    groups = 3 if options.tiny else options.runs
    machine = Machine(threads=1, platform="cpu")
    device.configure(machine)
    potential, parameters, trajectory = sampled(groups * options.walkers, tiny=options.tiny, seed=options.seed)
    requests = [ObservableRequest(**{**content, "label": name}) for name, content in OBSERVABLES.items()]
    ref = reweighting.reference(
        potential, parameters, in_runs(trajectory, options.walkers), requests, temperature=TEMPERATURE, machine=machine
    )
    quantities = ref.snapshots.evaluate(parameters)
    found = {
        f"{segments * SNAPSHOTS * STRIDE_FS / 1000:g} ps": compared(ref, quantities, segments, options.walkers)
        for segments in (1, SEGMENTS)
    }
    content = {"versions": measure.versions(machine), "walkers": options.walkers, "groups": groups, "lengths": found}
    measure.write(content, options.output)


if __name__ == "__main__":
    main()
