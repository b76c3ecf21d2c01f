"""Errors of averages over pools of correlated trajectories beside the scatter of repeats: both are to agree.

    python tests/benchmarks/pool_errors.py [--runs 300] [--seed 0] [--output FILE]

The pair of Lennard-Jones atoms of ``coverage.py``, whose averages are known exactly. Potentials with wells of other
depths sampled the earlier members of each pool. A walker repeats its snapshot with the probability that gives its
trajectory the statistical inefficiency g. For each observable: the stated errors over the root mean square of the
deviations from the truth (``stated``), and these deviations over those of the newest trajectory alone (``left``), which
is what the earlier trajectories are of use for.
"""

from __future__ import annotations

import zlib
from typing import Any, NamedTuple

import coverage as pairs
import measure
import numpy as np
from numpy.typing import NDArray

from aiida_difftre.engine.contract.observables import ObservableRequest
from aiida_difftre.engine.contract.settings import Machine
from aiida_difftre.engine.contract.trajectories import Trajectory
from aiida_difftre.engine.contract.update_settings import PoolSettings
from aiida_difftre.engine.runtime import device

REPLICATES = 100
"""Of the bootstrap, half as many as in predictions."""


class Sampled(NamedTuple):
    """A trajectory of a pool.

    Args:
        depth: Of the well of the potential that sampled it, over that of the potential that is asked for.
        inefficiency: Statistical inefficiency g of its snapshots.
        snapshots: Their number.
        walkers: Number of walkers.
    """

    depth: float = 1.0
    inefficiency: float = 1.0
    snapshots: int = 400
    walkers: int = 4


POOLS = {
    "alike": [Sampled(inefficiency=3), Sampled(0.85, 3), Sampled(1.2, 3)],
    "other lengths and walkers": [Sampled(inefficiency=3), Sampled(0.85, 3, 800, 8), Sampled(1.2, 3, 200, 2)],
    "correlated three times": [Sampled(inefficiency=2), Sampled(0.85, 6)],
    "mostly repetition": [Sampled(), Sampled(0.85, 10)],
    "mostly repetition, five times the snapshots": [Sampled(), Sampled(0.85, 30, 2000)],
    "newest mostly repetition": [Sampled(inefficiency=10), Sampled(0.85)],
    "a single slow walker": [Sampled(), Sampled(0.85, 20, 400, 1)],
}
"""The newest trajectory first; it is of the potential that is asked for."""

OBSERVABLES = ("potential_energy", "rdf", "pressure")


def correlated(sampled: Sampled, random: np.random.Generator) -> Trajectory:
    """A trajectory whose snapshots are drawn anew now and then only."""
    theta = pairs.START * [sampled.depth, 1.0]
    count, walkers = sampled.snapshots, np.repeat(np.arange(sampled.walkers), sampled.snapshots // sampled.walkers)
    is_new = random.random(count) < 2 / (1 + sampled.inefficiency)
    is_new[np.flatnonzero(np.diff(walkers, prepend=-1))] = True
    vectors = pairs.snapshots(theta, int(is_new.sum()), random)[np.cumsum(is_new) - 1]
    positions = (np.stack([np.zeros_like(vectors), vectors], axis=1) / pairs.BOX).astype(np.float32)
    r = np.linalg.norm(positions[:, 1].astype(np.float64) * pairs.BOX, axis=1)
    return Trajectory(
        positions=positions, cell=pairs.BOX * np.eye(3), species=("Ar", "Ar"),
        energies=2 * pairs.features(theta, r)["potential_energy"][:, 0], walkers=walkers.astype(np.int32),
        times=np.arange(count) + 1.0, temperatures=np.full(count, pairs.TEMPERATURE),
        last_positions=positions[-1:].astype(np.float64), last_velocities=np.zeros((1, 2, 3)),
        temperature=pairs.TEMPERATURE, scales=np.ones(count), last_scales=np.ones(1),
    )  # fmt: skip


def averaged(potential: Any, start: Any, members: list[Sampled], random: np.random.Generator, program: Any) -> Any:
    """Averages over a pool and over its newest trajectory, and the stated errors of the former; all in a row."""
    import jax

    from aiida_difftre.engine.reweighting import predictions
    from aiida_difftre.engine.reweighting.mixture import prepare_pooled
    from aiida_difftre.engine.reweighting.pool import EarlierTrajectory, pool

    newest, *earlier = (
        EarlierTrajectory(str(number), correlated(sampled, random), with_depth(start, sampled.depth))
        for number, sampled in enumerate(members)
    )
    settings = PoolSettings(overlap=0.01, max_snapshots=10**6)
    found = pool(potential, newest.parameters, newest, earlier, settings)
    if len(found.members) < len(members):
        raise SystemExit(f"a trajectory was left out: {found.records}")
    ref = prepare_pooled(potential, newest.parameters, found, requests(), Machine(precision="float64"))
    quantities = ref.snapshots.evaluate(newest.parameters)
    weight = np.asarray(ref.weights(jax.numpy.asarray(quantities["energy"])))
    program = program or predictions.resampling(ref)
    errors = predictions.statistical_errors(
        ref, quantities, weight, replicates=REPLICATES, seed=int(random.integers(1 << 30)), resampled=program
    )
    values = features(ref, quantities)
    own = values[: members[0].snapshots].mean(axis=0)
    return weight @ values, own, np.concatenate([np.ravel(error) for error in errors]), program


def features(ref: Any, quantities: dict[str, Any]) -> NDArray[Any]:
    """What is averaged, of each snapshot: (snapshots, values)."""
    stress = np.asarray(quantities["stress"])[:, :3].mean(axis=1)
    ideal = 2 * pairs.BOLTZMANN * pairs.TEMPERATURE / pairs.BOX**3 * pairs.EV_PER_A3_IN_GPA
    energy = quantities["energy"] / 2
    return np.column_stack([energy, np.asarray(ref.features["rdf"]), ideal - stress])


def requests() -> list[ObservableRequest]:
    """The observables, in the order of :data:`OBSERVABLES`."""
    return [
        ObservableRequest(observable="potential_energy"),
        ObservableRequest(observable="rdf", grid=pairs.CENTRES.tolist(), options={"self_pairs": False}),
        ObservableRequest(observable="pressure"),
    ]


def with_depth(start: Any, depth: float) -> Any:
    """Parameters with another depth of the well; the same object for the same depth."""
    if depth == 1.0:
        return start
    terms = {name: {**term, "epsilon": depth * term["epsilon"]} for name, term in start["terms"].items()}
    return {**start, "terms": terms}


def compared(potential: Any, start: Any, members: list[Sampled], runs: int, seed: int) -> dict[str, Any]:
    """Repeat a pool."""
    random, program = np.random.default_rng(seed), None
    exact = pairs.exact(pairs.START)
    truth = np.concatenate([exact[name] for name in OBSERVABLES])
    names = np.repeat(OBSERVABLES, [len(exact[name]) for name in OBSERVABLES])
    rows = []
    for _ in range(runs):
        value, own, error, program = averaged(potential, start, members, random, program)
        rows.append((value - truth, own - truth, error))
    deviations, alone, errors = (np.array(column) for column in zip(*rows, strict=True))
    scatter, own_scatter = (np.sqrt(np.mean(one**2, axis=0)) for one in (deviations, alone))
    bias = deviations.mean(axis=0) / (deviations.std(axis=0, ddof=1) / np.sqrt(runs))
    return {
        name: {
            "stated": round(float(np.mean((np.sqrt(np.mean(errors**2, axis=0)) / scatter)[names == name])), 3),
            "left": round(float(np.mean((scatter / own_scatter)[names == name])), 3),
            "bias": round(float(np.abs(bias[names == name]).max()), 2),
        }
        for name in OBSERVABLES
    }


def main() -> None:
    """Command line."""
    parser = measure.parser(__doc__)
    parser.set_defaults(runs=300)
    parser.add_argument("--pools", nargs="+", choices=list(POOLS), default=list(POOLS))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    machine = Machine(threads=1, platform="cpu", precision="float64")
    device.configure(machine)
    import jax

    from aiida_difftre.engine.contract.settings import PotentialSpec, TermSpec
    from aiida_difftre.engine.potentials import potential as potentials

    hyperparameters = {"epsilon": pairs.START[0], "sigma": pairs.START[1], "onset": pairs.ONSET}
    term = TermSpec(architecture="lennard_jones", cutoff=pairs.CUTOFF, hyperparameters=hyperparameters)
    potential = potentials.build(PotentialSpec(species=["Ar"], terms=[term]))
    start = potential.init(jax.random.key(0))
    runs = 5 if options.tiny else options.runs
    found = {
        name: compared(potential, start, POOLS[name], runs, options.seed + zlib.crc32(name.encode()))
        for name in options.pools
    }
    measure.write({"versions": measure.versions(machine), "runs": runs, "pools": found}, options.output)


if __name__ == "__main__":
    main()
