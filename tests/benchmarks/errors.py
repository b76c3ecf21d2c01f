"""Stated errors of short runs of a liquid beside the scatter of the runs: both are to agree.

    python tests/benchmarks/errors.py [--runs 100] [--walkers 4] [--segments 1 2 4] [--seed 0] [--output FILE]

Lennard-Jones argon, 32 atoms at 140 K and the density of the liquid. All walkers are sampled together. A long run is a
few of them, a shorter one a part of the time of these; each is a trajectory of its own, whose observables are predicted
with errors. For each observable the stated errors are divided by the standard deviation of the predictions.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import measure

from aiida_difftre.engine.contract.jobs import LangevinSpec, Machine, SamplingSettings
from aiida_difftre.engine.contract.observables import ObservableRequest
from aiida_difftre.engine.contract.state_points import StatePoint
from aiida_difftre.engine.runtime import device

TEMPERATURE, LATTICE, CUTOFF = 150.0, 6.0, 5.5
STRIDE_FS = 80.0
SEGMENTS, SNAPSHOTS = 4, 24
"""Short runs in a long one, and snapshots of each walker in a short one."""

BORN_STRIDE = 4
"""Its multiples by three, the axes in turn, are the snapshots of a walker."""

REPLICATES = 200
"""Of the bootstrap, as in predictions."""

OBSERVABLES = {
    "U": {"observable": "potential_energy"},
    "P": {"observable": "pressure"},
    "C_V": {"observable": "heat_capacity", "options": {"kind": "cv"}},
    "g(r)": {"observable": "rdf", "grid": [3.35 + 0.1 * number for number in range(22)]},
    "S(q)": {"observable": "structure_factor", "grid": [1.2 + 0.2 * number for number in range(20)]},
    "C": {"observable": "stiffness", "options": {"born_stride": BORN_STRIDE}},
}


def sampled(walkers: int, *, tiny: bool, seed: int) -> tuple[Any, Any, Any]:
    """Potential, parameters, and one trajectory of all walkers."""
    import jax
    from ase.build import bulk

    from aiida_difftre.engine.contract.jobs import PotentialSpec, TermSpec
    from aiida_difftre.engine.potentials import potential as potentials
    from aiida_difftre.engine.runtime.progress import Silent
    from aiida_difftre.engine.sampling import protocol
    from aiida_difftre.engine.sampling.starts import Start

    term = TermSpec(architecture="lennard_jones", cutoff=CUTOFF, hyperparameters={"epsilon": 0.0104, "sigma": 3.4})
    potential = potentials.build(PotentialSpec(species=["Ar"], terms=[term]))
    parameters = potential.init(jax.random.key(0))
    atoms = bulk("Ar", "fcc", a=LATTICE, cubic=True).repeat(2)
    positions = atoms.get_scaled_positions()[None].repeat(walkers, 0)
    settings = SamplingSettings(
        walkers=walkers, timestep_fs=4.0, equilibration_fs=160.0 if tiny else 6000.0,
        production_fs=SEGMENTS * SNAPSHOTS * STRIDE_FS, stride_fs=STRIDE_FS,
        thermostat=LangevinSpec(friction_per_ps=1.0),
    )  # fmt: skip
    start = Start(positions, None, atoms.cell.array, tuple(atoms.symbols))
    run = protocol.Run(Machine(threads=1, platform="cpu"), seed, Silent())
    trajectory = protocol.sample(potential, parameters, start, StatePoint(TEMPERATURE), settings, run)
    return potential, parameters, trajectory


def in_runs(trajectory: Any, walkers: int) -> Any:
    """The same snapshots group by group of walkers, in each group segment by segment."""
    import numpy as np

    count = len(trajectory.last_positions)
    order = np.arange(len(trajectory.energies)).reshape(count // walkers, walkers, SEGMENTS, SNAPSHOTS)
    order = order.swapaxes(1, 2).ravel()
    fields = ("positions", "energies", "walkers", "times", "temperatures", "scales")
    return dataclasses.replace(trajectory, **{name: getattr(trajectory, name)[order] for name in fields})


def compared(ref: Any, quantities: dict[str, Any], segments: int, walkers: int) -> dict[str, Any]:
    """Stated errors over the scatter of runs, by observable.

    Args:
        ref: all runs.
        quantities: of all snapshots.
        segments: in a run.
        walkers: in a run.
    """
    import jax
    import jax.numpy as jnp
    import numpy as np

    from aiida_difftre.engine.reweighting import predictions

    size = segments * walkers * SNAPSHOTS
    numbers = np.tile(np.repeat(np.arange(walkers, dtype=np.int32), SNAPSHOTS), segments)
    weight = np.full(size, 1 / size)
    resampled = predictions.resampling(ref)
    averages = jax.jit(
        lambda rows, features, volumes: dataclasses.replace(ref, features=features, volumes=volumes).averages(
            rows, weight
        )
    )
    found: dict[str, list[Any]] = {name: [] for name in OBSERVABLES}
    independent = []
    for run in range(len(ref.energies) // size):
        part = slice(run * size, (run + 1) * size)
        fewer = slice(part.start // BORN_STRIDE, part.stop // BORN_STRIDE)
        features = {name: values[part] for name, values in ref.features.items()}
        rows = {name: values[fewer if "born" in name else part] for name, values in quantities.items()}
        held = dataclasses.replace(ref, walkers=numbers, volumes=ref.volumes[part], features=features)
        errors = predictions.statistical_errors(
            held, rows, weight, replicates=REPLICATES, seed=run, resampled=resampled
        )
        independent.append(size / held.inefficiency(rows))
        values = averages({name: jnp.asarray(array) for name, array in rows.items()}, features, held.volumes)
        for name, value, error in zip(OBSERVABLES, values, errors, strict=True):
            found[name].append((np.asarray(value), error))
    result: dict[str, Any] = {
        name: agreement(*(np.array(column) for column in zip(*pairs, strict=True)), SEGMENTS // segments)
        for name, pairs in found.items()
    }
    return {"runs": len(independent), "independent_samples": float(np.median(independent)), **result}


def agreement(values: Any, errors: Any, together: int) -> dict[str, float]:
    """Mean, and root of the mean square, of stated errors over the scatter; averages over the values of an observable.

    Args:
        values: (runs, values).
        errors: (runs, values).
        together: consecutive runs of the same walkers, which the uncertainties of the ratios keep together.
    """
    import numpy as np

    def ratios(chosen: Any) -> Any:
        scatter = np.std(values[chosen], axis=0, ddof=1)
        stated = np.mean(errors[chosen], axis=0), np.sqrt(np.mean(errors[chosen] ** 2, axis=0))
        return np.array([np.mean(stated[0] / scatter), np.mean(stated[1] / scatter)])

    groups = np.arange(len(values)).reshape(-1, together)
    random = np.random.default_rng(0)
    draws = [ratios(groups[random.integers(len(groups), size=len(groups))].ravel()) for _ in range(200)]
    mean, root = ratios(groups.ravel())
    uncertainty = np.std(draws, axis=0, ddof=1)
    return {
        "scatter": float(np.mean(np.std(values, axis=0, ddof=1))),
        "ratio": float(mean),
        "uncertainty": float(uncertainty[0]),
        "rms_ratio": float(root),
        "rms_uncertainty": float(uncertainty[1]),
    }


def main() -> None:
    """Command line."""
    from aiida_difftre.engine.reweighting.reference import prepare_reference

    parser = measure.parser(__doc__)
    parser.set_defaults(runs=100)
    parser.add_argument("--walkers", type=int, default=4, help="of each run")
    parser.add_argument("--segments", type=int, nargs="*", default=[1, 2, SEGMENTS], help="parts of the long runs")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    groups = 3 if options.tiny else options.runs
    machine = Machine(threads=1, platform="cpu")
    device.configure(machine)
    potential, parameters, trajectory = sampled(groups * options.walkers, tiny=options.tiny, seed=options.seed)
    requests = [ObservableRequest(**{**content, "label": name}) for name, content in OBSERVABLES.items()]
    ref = prepare_reference(potential, parameters, in_runs(trajectory, options.walkers), requests, machine)
    quantities = ref.snapshots.evaluate(parameters)
    found = {
        f"{segments * SNAPSHOTS * STRIDE_FS / 1000:g} ps": compared(ref, quantities, segments, options.walkers)
        for segments in options.segments
    }
    content = {"versions": measure.versions(machine), "walkers": options.walkers, "lengths": found}
    measure.write(content, options.output)


if __name__ == "__main__":
    main()
