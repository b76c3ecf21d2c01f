"""The band of argon's pair energy that g(r) leaves to a loose model, beside two potentials that met the targets alike.

    python tests/benchmarks/argon_band.py [--walkers 8] [--picoseconds 12] [--output FILE]

Liquid argon at 85 K, 108 atoms, with a spline of 24 points up to 8.5 Å beside the dispersion. The well of two such
potentials that the measured g(r), a pressure and an energy refined is 8.7 and 18.5 meV deep (docs/systems/argon.md).
The potential that is assessed has the pair energy of the refined example, by its published table.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import measure
import numpy as np

from aiida_difftre.engine.contract.assess_job import AssessJob
from aiida_difftre.engine.contract.jobs import POTENTIAL_IN, TRAJECTORY, Machine, SamplingSettings
from aiida_difftre.engine.contract.state_points import StatePoint
from aiida_difftre.engine.contract.trajectories import write_trajectory
from aiida_difftre.engine.contract.validation import validate
from aiida_difftre.engine.runtime import device
from aiida_difftre.engine.runtime.progress import Silent

TEMPERATURE, ATOMS, DENSITY, CUTOFF = 85.0, 108, 0.02125, 8.5
TABLE = {3.3: 6.28, 3.4: -1.97, 3.6: -9.83, 3.8: -11.43, 4.0: -9.77, 4.5: -6.17, 5.0: -3.30, 6.0: -1.19, 7.0: -0.48}
"""Energy of two atoms in the refined example by their distance, Å and meV."""

WELLS = (0.0087, 0.0185)
"""Of the two, eV."""


def pair_energy(r: Any) -> Any:
    """The table, continued as the dispersion outside and by a steep wall inside, eV."""
    from scipy.interpolate import CubicSpline

    distances, energies = np.array(list(TABLE)), np.array(list(TABLE.values())) / 1000
    ends = [*distances, 8.0, 8.5]
    tail = energies[-1] * (distances[-1] / np.array([8.0, 8.5])) ** 6
    inside = CubicSpline(ends, [*energies, *tail])
    wall = energies[0] + inside(distances[0], 1) * distances[0] / 12 * (1 - (distances[0] / r) ** 12)
    return np.where(r < distances[0], wall, inside(np.maximum(r, distances[0])))


def potential_and_parameters() -> tuple[Any, Any]:
    """The loose model with control points of which the sum with the dispersion is nearest to the table."""
    import jax
    import jax.numpy as jnp

    from aiida_difftre.engine.contract.jobs import PotentialSpec, TermSpec
    from aiida_difftre.engine.jobs.assess import pair_energies
    from aiida_difftre.engine.potentials import potential as potentials

    terms = [
        TermSpec(architecture="pair_spline", cutoff=CUTOFF, hyperparameters={"inner": 2.6, "knots": 24}),
        TermSpec(architecture="dispersion", cutoff=CUTOFF, hyperparameters={"c6": 38.0, "radius": 3.0}),
    ]
    potential = potentials.build(PotentialSpec(species=["Ar"], terms=terms))
    parameters = potential.init(jax.random.key(0))
    r = jnp.linspace(2.9, CUTOFF - 0.01, 200)

    def energies(points: Any) -> Any:
        return pair_energies(potential, {**parameters, "terms": {**parameters["terms"], name: points}}, (0, 0), r)

    name = "0_pair_spline"
    start = jax.tree.map(jnp.zeros_like, parameters["terms"][name])
    basis = np.asarray(jax.tree.leaves(jax.jacfwd(energies)(start))[0]).reshape(len(r), -1)
    wanted = pair_energy(np.asarray(r)) - np.asarray(energies(start))
    weight = 1 / (0.0002 + 0.01 * np.abs(wanted))
    points, *_ = np.linalg.lstsq(basis * weight[:, None], wanted * weight, rcond=1e-8)
    fitted = jax.tree.map(lambda leaf: jnp.asarray(points).reshape(leaf.shape).astype(leaf.dtype), start)
    return potential, {**parameters, "terms": {**parameters["terms"], name: fitted}}


def sampled(potential: Any, parameters: Any, machine: Machine, walkers: int, picoseconds: float) -> Any:
    """A trajectory of the liquid, from a crystal that was melted at 300 K."""
    from ase.build import bulk

    from aiida_difftre.engine.runtime.stop import Stop
    from aiida_difftre.engine.sampling import protocol
    from aiida_difftre.engine.sampling.starts import Start

    atoms = bulk("Ar", "fcc", (4 / DENSITY) ** (1 / 3), cubic=True).repeat(3)
    places, cell, symbols = atoms.get_scaled_positions(), atoms.cell.array, ("Ar",) * ATOMS
    start = Start(places[None].repeat(walkers, 0), None, cell, symbols)
    for temperature, before, long in ((300.0, 3000.0, 100.0), (TEMPERATURE, 5000.0, 1000 * picoseconds)):
        settings = SamplingSettings(
            walkers=walkers, timestep_fs=5.0, equilibration_fs=before, production_fs=long, stride_fs=100.0,
            thermostat={"name": "langevin", "friction_per_ps": 2.0},
        )  # fmt: skip
        with tempfile.TemporaryDirectory() as folder, Stop(None) as stop:
            run = protocol.Run(machine, 1, Silent(), stop, Path(folder), None)
            point = StatePoint(temperature, None)
            trajectory = protocol.sample(potential, parameters, start, point, settings, run, born_stride=0)
        start = Start(trajectory.last_positions, None, cell, symbols)
    return trajectory


def main() -> None:
    """Command line."""
    import yaml

    from aiida_difftre.engine.jobs import assess
    from aiida_difftre.engine.potentials import potential as potentials

    parser = measure.parser(__doc__)
    parser.add_argument("--walkers", type=int, default=8)
    parser.add_argument("--picoseconds", type=float, default=12.0, help="of each walker")
    options = parser.parse_args()
    machine = Machine(threads=1, platform="cpu", precision="float64")
    device.configure(machine)
    potential, parameters = potential_and_parameters()
    walkers, length = (2, 1.0) if options.tiny else (options.walkers, options.picoseconds)
    trajectory = sampled(potential, parameters, machine, walkers, length)
    curve = yaml.safe_load((Path(__file__).parents[2] / "examples/argon/targets/rdf.yaml").read_text())
    example = yaml.safe_load((Path(__file__).parents[2] / "examples/argon/quick.yaml").read_text())
    targets = example["state_points"]["liquid"]["targets"]
    found = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        potentials.save(folder / POTENTIAL_IN, potential, parameters)
        write_trajectory(folder / TRAJECTORY, trajectory)
        for named, chosen in (
            ("g(r)", {}),
            ("g(r), pressure, energy", {k: targets[k] for k in ("pressure", "energy")}),
        ):
            given = [{**curve, "label": "rdf"}, *({**content, "label": k} for k, content in chosen.items())]
            point = {"label": "liquid", "temperature": TEMPERATURE, "targets": given}
            content = {"state_points": [point], "machine": machine.model_dump(exclude_unset=True)}
            results = assess.run(validate(AssessJob, content), folder, Silent())
            (band,) = results.pairs
            well = band.well
            found[named] = {
                "chi2": results.chi2, "determined": results.determined, "parameters": results.parameters,
                "well_eV": well.depth, "error_eV": well.error, "prior_error_eV": well.prior_error,
                "off": [(depth - well.depth) / well.error for depth in WELLS],
                "sentences": results.sentences,
            }  # fmt: skip
    content = {"versions": measure.versions(machine), "walkers": walkers, "picoseconds": length, "wells": WELLS}
    measure.write(content | {"targets": found}, options.output)


if __name__ == "__main__":
    main()
