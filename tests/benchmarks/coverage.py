"""Posterior bands beside known truths: how often the truth lies within one and two standard deviations.

    python tests/benchmarks/coverage.py [--runs 50] [--snapshots 2000] [--width 0.15] [--plain] [--output FILE]

Two Lennard-Jones atoms in a box, whose averages are integrals over one distance: truths, measurements and snapshots are
exact. For each of the repeated experiments a truth is drawn from the prior; g(r) at five distances and the energy are
measured with Gaussian errors; a refinement begins at the middle of the prior, samples and reweights a few times, and
holds on to its start as the prior does (with ``--plain`` to nothing, as ``difftre refine`` does); ``difftre assess``
then looks at fresh snapshots of the refined potential. The pressure is held out.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import measure
import numpy as np
from numpy.typing import NDArray

from aiida_difftre.engine.contract.assess_job import AssessJob
from aiida_difftre.engine.contract.jobs import POTENTIAL_IN, TRAJECTORY, Machine
from aiida_difftre.engine.contract.targets import Target
from aiida_difftre.engine.contract.trajectories import Trajectory, write_trajectory
from aiida_difftre.engine.contract.validation import validate
from aiida_difftre.engine.runtime import device
from aiida_difftre.engine.units import BOLTZMANN, EV_PER_A3_IN_GPA

TEMPERATURE, BOX, CUTOFF, ONSET = 85.0, 10.0, 4.9, 4.4
START = np.array([0.0103, 3.4])
"""Depth of the well, eV, and distance of zero energy, Å: the middle of the prior."""

CENTRES = np.array([3.4, 3.7, 4.0, 4.3, 4.6])
PAIRS = [3.3, 3.6, 3.82, 4.2]
ERRORS = {"rdf": 0.2, "potential_energy": 0.0004}
UNITS = {"rdf": "1", "potential_energy": "eV/atom", "pressure": "GPa"}
ROUNDS = 4
"""Of sampling and reweighting."""

SHELL = np.linspace(2.2, CUTOFF, 6001)
"""Distances within the cutoff; closer than the first there is nothing."""


def pair(theta: NDArray[Any], r: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Energy of the pair, eV, and its derivative by the distance, eV/Å, as the engine's term has them."""
    epsilon, sigma = theta
    attraction = (sigma / r) ** 6
    bare, slope = 4 * epsilon * (attraction**2 - attraction), -24 * epsilon * (2 * attraction**2 - attraction) / r
    x = np.clip((r - ONSET) / (CUTOFF - ONSET), 0.0, 1.0)
    smooth, fall = 1 - x**3 * (10 - 15 * x + 6 * x**2), -30 * x**2 * (1 - x) ** 2 / (CUTOFF - ONSET)
    return bare * smooth, slope * smooth + bare * fall


def features(theta: NDArray[Any], r: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """What is averaged, for pairs at the distances ``r``; beyond the cutoff there is no interaction."""
    inside = r < CUTOFF
    energy, slope = (np.where(inside, part, 0.0) for part in pair(theta, np.where(inside, r, CUTOFF)))
    half = (CENTRES[1] - CENTRES[0]) / 2
    edges = np.append(CENTRES - half, CENTRES[-1] + half)
    shells = 4 / 3 * np.pi * np.diff(edges**3)
    counts = (r[:, None] >= edges[:-1]) & (r[:, None] < edges[1:])
    pressure = (2 * BOLTZMANN * TEMPERATURE - r * slope / 3) / BOX**3 * EV_PER_A3_IN_GPA
    return {
        "rdf": counts * BOX**3 / shells, "potential_energy": energy[:, None] / 2, "pressure": pressure[:, None],
    }  # fmt: skip


def shell_weights(theta: NDArray[Any]) -> tuple[NDArray[Any], float]:
    """Weights of the distances within the cutoff, and of all space beyond."""
    inside = 4 * np.pi * SHELL**2 * np.exp(-pair(theta, SHELL)[0] / (BOLTZMANN * TEMPERATURE)) * (SHELL[1] - SHELL[0])
    return inside, BOX**3 - 4 / 3 * np.pi * CUTOFF**3


def exact(theta: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """The averages."""
    inside, outside = shell_weights(theta)
    found, total = features(theta, SHELL), inside.sum() + outside
    beyond = features(theta, np.array([CUTOFF + 1.0]))
    return {name: (inside @ found[name] + outside * beyond[name][0]) / total for name in found}


def snapshots(theta: NDArray[Any], count: int, random: np.random.Generator) -> NDArray[Any]:
    """Independent vectors from one atom to the other, (snapshots, 3), Å."""
    inside, outside = shell_weights(theta)
    cumulated = np.cumsum(inside)
    near = random.random(count) * (cumulated[-1] + outside) < cumulated[-1]
    r = np.interp(random.random(count) * cumulated[-1], cumulated, SHELL)
    direction = random.normal(size=(count, 3))
    vectors = r[:, None] * direction / np.linalg.norm(direction, axis=1, keepdims=True)
    beyond = random.uniform(-BOX / 2, BOX / 2, (4 * count, 3))
    beyond = beyond[np.linalg.norm(beyond, axis=1) > CUTOFF][:count]
    return np.where(near[:, None], vectors, beyond)


def refined(
    measured: dict[str, NDArray[Any]],
    widths: NDArray[Any] | None,
    count: int,
    random: np.random.Generator,
) -> NDArray[Any]:
    """Parameters that meet the measurements, by sampling and reweighting."""
    from scipy.optimize import least_squares

    theta = START.copy()
    for _ in range(ROUNDS):
        r = np.linalg.norm(snapshots(theta, count, random), axis=1)
        sampled = features(theta, r)
        errors = {
            name: np.hypot(ERRORS[name], sampled[name].std(axis=0) / np.sqrt(count)) for name in measured
        }  # of experiment and of sampling
        energy = 2 * sampled["potential_energy"][:, 0]

        def residuals(scaled: NDArray[Any], r: Any = r, energy: Any = energy, errors: Any = errors) -> NDArray[Any]:
            new = START * scaled
            found = features(new, r)
            weight = np.exp(-(2 * found["potential_energy"][:, 0] - energy) / (BOLTZMANN * TEMPERATURE))
            weight = weight / weight.sum()
            parts = [(weight @ found[name] - measured[name]) / errors[name] for name in measured]
            if widths is not None:
                parts.append((new - START) / widths)
            return np.concatenate(parts)

        # No farther than what the snapshots can tell.
        limits = (np.maximum(theta / START * 0.8, [0.2, 0.8]), theta / START * [1.25, 1.1])
        theta = START * least_squares(residuals, theta / START, bounds=limits).x
    return theta


class Engine:
    """``difftre assess`` of potentials of this system.

    Args:
        folder: Where its files lie.
        width: Width of the prior, kT per atom.
    """

    def __init__(self, folder: Path, width: float) -> None:
        from aiida_difftre.engine.contract.jobs import PotentialSpec, TermSpec
        from aiida_difftre.engine.potentials import potential as potentials

        hyperparameters = {"epsilon": START[0], "sigma": START[1], "onset": ONSET}
        term = TermSpec(architecture="lennard_jones", cutoff=CUTOFF, hyperparameters=hyperparameters)
        self.potential = potentials.build(PotentialSpec(species=["Ar"], terms=[term]))
        self.folder, self.width = folder, width

    def assess(self, theta: NDArray[Any], vectors: NDArray[Any], measured: dict[str, NDArray[Any]]) -> Any:
        """The assessment on given snapshots."""
        import jax
        import jax.numpy as jnp

        from aiida_difftre.engine.jobs import assess
        from aiida_difftre.engine.potentials import potential as potentials
        from aiida_difftre.engine.runtime.progress import Silent

        start = self.potential.init(jax.random.key(0))
        terms = {"0_lennard_jones": {"epsilon": jnp.array([theta[0]]), "sigma": jnp.array([theta[1]])}}
        potentials.save(self.folder / POTENTIAL_IN, self.potential, {**start, "terms": terms})
        positions = np.stack([np.zeros_like(vectors), vectors], axis=1) / BOX
        positions = positions.astype(np.float32)
        count = len(positions)
        r = np.linalg.norm(positions[:, 1].astype(np.float64) * BOX, axis=1)
        walkers = np.repeat(np.arange(4, dtype=np.int32), count // 4)
        trajectory = Trajectory(
            positions=positions, cell=BOX * np.eye(3), species=("Ar", "Ar"),
            energies=2 * features(theta, r)["potential_energy"][:, 0], walkers=walkers,
            times=np.tile(np.arange(count // 4) + 1.0, 4), temperatures=np.full(count, TEMPERATURE),
            last_positions=positions[-4:].astype(np.float64), last_velocities=np.zeros((4, 2, 3)),
            temperature=TEMPERATURE, scales=np.ones(count), last_scales=np.ones(4),
        )  # fmt: skip
        write_trajectory(self.folder / TRAJECTORY, trajectory)
        targets = [self._target(name, values).model_dump() for name, values in measured.items()]
        targets.append(self._target("pressure", np.zeros(1)).model_dump())
        point = {"label": "pair", "temperature": TEMPERATURE, "targets": targets}
        content = {
            "state_points": [point], "prior_width": self.width, "pair_distances": PAIRS,
            "machine": {"precision": "float64", "threads": 1, "platform": "cpu"},
        }  # fmt: skip
        return assess.run(validate(AssessJob, content), self.folder, Silent())

    @staticmethod
    def _target(name: str, values: NDArray[Any]) -> Target:
        content: dict[str, Any] = {
            "observable": name, "values": values.tolist(), "unit": UNITS[name], "error_source": "assumed",
            "errors": [ERRORS.get(name, 1.0)] * len(values), "conditions": {"temperature": TEMPERATURE},
            "citation": "drawn", "role": "training" if name in ERRORS else "test",
        }  # fmt: skip
        if name == "rdf":
            content |= {"grid": CENTRES.tolist(), "options": {"self_pairs": False}}
        return Target(**content)


def prior(engine: Engine, count: int, random: np.random.Generator) -> NDArray[Any]:
    """Widths of the two parameters before the experiment, from the bands that the engine tells of pair energies."""
    found = engine.assess(
        START, snapshots(START, count, random), {"potential_energy": exact(START)["potential_energy"]}
    )
    (band,) = found.pairs
    step = 1e-5
    slopes = np.array(
        [(pair(START * (1 + step * axis), np.array(PAIRS))[0] - band.energies) / step for axis in np.eye(2)]
    )
    # The squares of the bands are sums of the squares of the slopes times the widths.
    squares, *_ = np.linalg.lstsq((slopes.T / START) ** 2, np.array(band.prior_errors) ** 2, rcond=None)
    if not np.allclose(exact(START)["potential_energy"], found.state_points["pair"][0].values, atol=5e-4):
        raise SystemExit("the engine's energies are not those of this script")
    return np.sqrt(squares)


def coverage(runs: int, count: int, width: float, *, plain: bool, seed: int) -> dict[str, Any]:
    """Repeat the experiment.

    Returns:
        For each quantity the parts of the truths within one and two standard deviations, the root mean square of the
        deviations in units of them, and how much narrower than before the experiment it is known.
    """
    random = np.random.default_rng(seed)
    pulls: dict[str, list[float]] = {}
    narrower: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        engine = Engine(Path(folder), width)
        widths = prior(engine, count, random)
        for _ in range(runs):
            truth = START + widths * random.normal(size=2)
            real = exact(truth)
            measured = {name: real[name] + ERRORS[name] * random.normal(size=len(real[name])) for name in ERRORS}
            theta = refined(measured, None if plain else widths, count, random)
            found = engine.assess(theta, snapshots(theta, count, random), measured)
            for target in found.state_points["pair"]:
                errors = np.hypot(target.model_errors, target.sampling_errors)
                for number, (value, error) in enumerate(zip(target.values, errors, strict=True)):
                    name = f"{target.observable} {CENTRES[number]:g} Å" if target.grid else target.observable
                    pulls.setdefault(name, []).append((value - real[target.observable][number]) / error)
                    share = target.model_errors[number] / target.prior_errors[number]
                    narrower.setdefault(name, []).append(share)
            (band,) = found.pairs
            for number, distance in enumerate(PAIRS):
                off = pair(theta, np.array([distance]))[0][0] - pair(truth, np.array([distance]))[0][0]
                pulls.setdefault(f"u({distance:g} Å)", []).append(off / band.errors[number])
                narrower.setdefault(f"u({distance:g} Å)", []).append(band.errors[number] / band.prior_errors[number])
    return {
        "widths": widths.tolist(),
        "quantities": {
            name: {
                "within_1": float(np.mean(np.abs(found) < 1)),
                "within_2": float(np.mean(np.abs(found) < 2)),
                "rms": float(np.sqrt(np.mean(np.square(found)))),
                "left": float(np.mean(narrower[name])),
            }
            for name, found in pulls.items()
        },
    }


def main() -> None:
    """Command line."""
    parser = measure.parser(__doc__)
    parser.set_defaults(runs=50)
    parser.add_argument("--snapshots", type=int, default=2000, help="of each trajectory")
    parser.add_argument("--width", type=float, default=0.15, help="of the prior, kT per atom")
    parser.add_argument("--plain", action="store_true", help="refine without holding on to the start")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    machine = Machine(threads=1, platform="cpu", precision="float64")
    device.configure(machine)
    runs, count = (4, 400) if options.tiny else (options.runs, options.snapshots)
    found = coverage(runs, count, options.width, plain=options.plain, seed=options.seed)
    content = {"versions": measure.versions(machine), "runs": runs, "snapshots": count, "prior_width": options.width}
    measure.write(content | found, options.output)


if __name__ == "__main__":
    main()
