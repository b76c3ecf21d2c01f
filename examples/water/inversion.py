"""Where the paper preset starts: mW with a pair spline by iterated Boltzmann inversion, and a weaker three-body term.

Each iteration samples 270 beads, adds kT ln[g(r)/g_exp(r)] to the spline (D. Reith, M. Pütz and F. Müller-Plathe,
J. Comput. Chem. 24, 1624 (2003)) and a line that ends at the cutoff for the pressure, and moves lambda by how far the
angular distribution is off at 100 degrees. Prints lambda and eV at the knots after each of them; a quarter of a minute
of one core each::

    python examples/water/inversion.py --iterations 10
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import yaml
from numpy.typing import NDArray

from aiida_difftre.engine.contract.jobs import Machine, PotentialSpec, SamplingSettings
from aiida_difftre.engine.contract.observables import ObservableRequest
from aiida_difftre.engine.contract.sampling_settings import LangevinSpec
from aiida_difftre.engine.contract.state_points import StatePoint
from aiida_difftre.engine.contract.trajectories import Trajectory
from aiida_difftre.engine.contract.validation import validate
from aiida_difftre.engine.potentials.potential import build
from aiida_difftre.engine.potentials.term import Parameters
from aiida_difftre.engine.reweighting.predictions import predict_trajectory
from aiida_difftre.engine.runtime import device
from aiida_difftre.engine.runtime.progress import Silent
from aiida_difftre.engine.sampling import protocol
from aiida_difftre.engine.sampling.starts import Start, read_structure, start_on_device
from aiida_difftre.engine.units import BOLTZMANN

FOLDER = Path(__file__).parent
TEMPERATURE = 296.15  # K
INNER, CUTOFF, KNOTS = 2.4, 6.5, 36
SMALLEST = 0.05
"""Of g: below it, its error exceeds it."""
GAIN = 0.8
"""Part of each correction of the spline that is made."""
LAMBDA_GAIN = 14.0
"""By which lambda moves for a difference of the angular distribution of 1/rad; measured: some 20."""
PRESSURE_GAIN = 25.7
"""GPa by which a line of 1 eV at zero distance raises the pressure: (2π/3) ρ² r_c³/4 with g = 1."""

SPEC = validate(PotentialSpec, {
    "species": ["O"],
    "terms": [
        {
            "architecture": "stillinger_weber",
            "cutoff": 4.3065,
            "hyperparameters": {"epsilon": 0.26838, "sigma": 2.3925, "lambda": 23.15},
        },
        {"architecture": "pair_spline", "cutoff": CUTOFF, "hyperparameters": {"inner": INNER, "knots": KNOTS}},
    ],
})  # fmt: skip
SAMPLING = SamplingSettings(
    thermostat=LangevinSpec(friction_per_ps=5.0), timestep_fs=6.0, walkers=4, equilibration_fs=1200.0,
    production_fs=3600.0, stride_fs=120.0, min_distance=1.2,
)  # fmt: skip


class Guess(NamedTuple):
    """Strength of the three-body term, and energies of the spline at its knots, eV."""

    strength: float
    values: NDArray[np.float64]


def parameters(start: Guess) -> Parameters:
    """The parameters of the potential: control points with which the spline goes through the values."""
    matrix = (np.eye(KNOTS, k=-1) + 4 * np.eye(KNOTS) + np.eye(KNOTS, k=1)) / 6
    matrix[0, :2] = 1.0, 0.0
    tree = build(SPEC).init(jax.random.key(0))
    tree["terms"]["0_stillinger_weber"]["lambda"] = jnp.asarray(start.strength)
    tree["terms"]["1_pair_spline"]["control_points"] = jnp.asarray(np.linalg.solve(matrix, start.values))[None]
    return tree


def corrected(start: Guess, targets: dict[str, dict], found: list[NDArray[np.float64]]) -> Guess:
    """The next start, from g(r), the angles and the pressure (GPa) of this one."""
    rdf, adf, (pressure,) = found
    grid, wanted = np.array(targets["rdf"]["grid"]), np.array(targets["rdf"]["values"])
    known = (wanted > SMALLEST) & (rdf > SMALLEST)
    ratio = np.where(known, rdf, 1.0) / np.where(known, wanted, 1.0)
    change = BOLTZMANN * TEMPERATURE * np.log(ratio)
    change[: np.argmax(known)] = change[np.argmax(known)]
    knots = np.linspace(INNER, CUTOFF, KNOTS + 2)[:KNOTS]
    at_knots = np.interp(knots, grid, change) * np.clip(CUTOFF - knots, 0, 1)
    at_knots -= np.clip(pressure, -0.5, 0.5) / PRESSURE_GAIN * (1 - knots / CUTOFF)
    angles = targets["adf"]["grid"]
    off = np.interp(100.0, angles, targets["adf"]["values"]) - np.interp(100.0, angles, adf)
    return Guess(start.strength + LAMBDA_GAIN * float(np.clip(off, -0.25, 0.25)), start.values + GAIN * at_knots)


def main() -> None:
    """Print the start after each iteration."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument(
        "--strength", type=float, default=19.0, help="lambda of the first iteration; 23.15 is that of mW"
    )
    given = parser.parse_args()
    targets = {name: yaml.safe_load((FOLDER / "targets" / f"{name}.yaml").read_text()) for name in ("rdf", "adf")}
    requests = [
        *(ObservableRequest(observable=n, grid=t["grid"], options=t.get("options", {})) for n, t in targets.items()),
        ObservableRequest(observable="pressure"),
    ]
    machine, potential = Machine(threads=1), build(SPEC)
    device.configure(machine)
    structure = read_structure(FOLDER / "beads_270.extxyz")
    start, trajectory = Guess(given.strength, np.zeros(KNOTS)), None
    for number in range(given.iterations):
        trajectory = sample(start, structure, trajectory, number, machine)
        predicted = predict_trajectory(potential, parameters(start), trajectory, requests, machine=machine, seed=0)
        found = [np.asarray(one.values) for one in predicted]
        errors = [np.mean((a - targets[name]["values"]) ** 2) for a, name in zip(found, targets, strict=False)]
        print(f"mean squared errors {errors[0]:.2e}, {errors[1]:.2e}; {found[2][0]:.3f} GPa")
        start = corrected(start, targets, found)
        print(f"lambda: {start.strength:.2f}, values: {[round(float(value), 5) for value in start.values]}", flush=True)


def sample(start: Guess, structure: Start, last: Trajectory | None, number: int, machine: Machine) -> Trajectory:
    """A trajectory with this start, from the last snapshots of the one before."""
    begin, settings = start_on_device(SAMPLING, structure, last)
    run = protocol.Run(machine, number, Silent(), None)
    return protocol.sample(
        build(SPEC), parameters(start), begin, StatePoint(TEMPERATURE, None), settings, run, born_stride=0
    )


if __name__ == "__main__":
    main()
