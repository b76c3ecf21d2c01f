"""Trajectories of several potentials as one: a pair of atoms on a grid, whose averages are known exactly."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase import Atoms
from scipy import special

from aiida_difftre.engine import units
from aiida_difftre.engine.contract.base_arrays import BaseArrays
from aiida_difftre.engine.contract.reasons import Reason
from aiida_difftre.engine.contract.state_points import StatePoint
from aiida_difftre.engine.contract.targets import Conditions, Target
from aiida_difftre.engine.contract.trajectories import Trajectory
from aiida_difftre.engine.contract.update_settings import PoolSettings, UpdateSettings
from aiida_difftre.engine.errors import EngineError
from aiida_difftre.engine.potentials.term import Parameters
from aiida_difftre.engine.refinement import objective
from aiida_difftre.engine.refinement.minimise import minimise
from aiida_difftre.engine.refinement.objective import Objective, PreparedStatePoint, SampledStatePoint, prepare
from aiida_difftre.engine.reweighting.mixture import prepare_pooled
from aiida_difftre.engine.reweighting.pool import EarlierTrajectory, Pool, _Member, pool
from aiida_difftre.engine.reweighting.reference import Reference
from aiida_difftre.engine.runtime.progress import Silent
from aiida_difftre.engine.snapshots import snapshots
from tests.fixtures.engine import DOUBLE, lennard_jones, opposed, trajectory

TEMPERATURE, SAMPLES = 60.0, 400
KT = units.BOLTZMANN * TEMPERATURE
POTENTIAL, START = lennard_jones(cutoff=4.9)
CELL = 10.0 * np.eye(3)
DIMER = Atoms("Ar2", cell=[10.0] * 3, pbc=True)


def scaled(factor: float) -> Parameters:
    """The well made deeper."""
    terms = {name: {**term, "epsilon": factor * term["epsilon"]} for name, term in START["terms"].items()}
    return {**START, "terms": terms}


@cache
def grid() -> np.ndarray:
    """The second atom at every point of a grid, fractional, (points, 2, 3)."""
    axis = (np.arange(20) + 0.5) / 20
    second = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    return np.stack([np.zeros_like(second), second], 1).astype(np.float32)


@cache
def energies(factor: float) -> np.ndarray:
    return snapshots.energies(POTENTIAL, scaled(factor), grid(), DIMER.cell.array, ("Ar", "Ar"))


def probabilities(factor: float) -> np.ndarray:
    weight = np.exp(-(energies(factor) - energies(factor).min()) / KT)
    return weight / weight.sum()


def sampled(factor: float, seed: int, count: int = SAMPLES) -> Trajectory:
    """Independent draws from the ensemble of a potential."""
    chosen = np.random.default_rng(seed).choice(len(grid()), size=count, p=probabilities(factor))
    return trajectory(POTENTIAL, scaled(factor), DIMER, grid()[chosen], temperature=TEMPERATURE, walkers=4)


def in_opposed_order(of: Trajectory) -> Trajectory:
    """Of a statistical inefficiency of one: MBAR of pymbar knows no other."""
    order = opposed(of.energies)
    return dataclasses.replace(of, positions=of.positions[order], energies=of.energies[order])


def earlier(factor: float, seed: int, **changes: Any) -> EarlierTrajectory:
    return EarlierTrajectory(f"at_{factor:g}", dataclasses.replace(sampled(factor, seed), **changes), scaled(factor))


def pooled(
    newest: Trajectory, *others: EarlierTrajectory, most: int = 10**6, overlap: float = 0.1, sampled_by: float = 1.0
) -> Pool:
    by = START if sampled_by == 1.0 else scaled(sampled_by)
    settings = PoolSettings(overlap=overlap, max_snapshots=most)
    return pool(POTENTIAL, START, EarlierTrajectory("newest", newest, by), others, settings)


def weights(ref: Reference, factor: float) -> np.ndarray:
    return np.asarray(ref.weights(jnp.asarray(ref.snapshots.energies(scaled(factor)))))


def test_a_pool_of_one_has_the_weights_of_its_trajectory() -> None:
    """To machine precision, and the softmax elsewhere; also where it was sampled with other parameters."""
    newest = sampled(1.0, 0)
    ref = prepare_pooled(POTENTIAL, START, pooled(newest), [], DOUBLE)
    assert ref.pooled is None
    assert np.all(weights(ref, 1.0) == 1 / SAMPLES)
    kept = prepare_pooled(POTENTIAL, START, pooled(sampled(1.2, 0), sampled_by=1.2), [], DOUBLE)
    np.testing.assert_allclose(weights(kept, 1.2), 1 / SAMPLES, rtol=1e-12)
    own, wanted = (kept.snapshots.energies(scaled(factor)) for factor in (1.2, 0.9))
    np.testing.assert_allclose(weights(kept, 0.9), special.softmax(-(wanted - own) / KT), rtol=1e-12)
    with pytest.raises(EngineError, match="'newest' was not sampled with the potential that is given for it"):
        pooled(newest, sampled_by=1.2)


def test_weights_are_those_of_pymbar() -> None:
    newest, *others = (in_opposed_order(sampled(factor, seed)) for seed, factor in enumerate((1.0, 0.8, 1.3)))
    found = pooled(newest, *(EarlierTrajectory("", one, scaled(f)) for one, f in zip(others, (0.8, 1.3), strict=True)))
    assert [member.is_used for member in found.records] == [True, True]
    ref = prepare_pooled(POTENTIAL, START, found, [], DOUBLE)
    at = [ref.snapshots.energies(parameters) / KT for parameters in (START, scaled(0.8), scaled(1.3), scaled(1.15))]
    from pymbar import MBAR

    solved = MBAR(np.stack(at), np.array([SAMPLES] * 3 + [0]), solver_protocol="robust")
    np.testing.assert_allclose(weights(ref, 1.15), solved.weights()[:, -1], rtol=1e-8, atol=1e-15)


def test_potentials_of_another_form_give_their_own_energies() -> None:
    """Here with a shorter cutoff; weights are those of pymbar."""
    other, parameters = lennard_jones(cutoff=4.2)
    held = in_opposed_order(sampled(1.1, 1))
    held = dataclasses.replace(held, energies=snapshots.energies(other, parameters, held.positions, CELL, ("Ar", "Ar")))
    with pytest.raises(EngineError, match="'shorter' was not sampled with the potential"):
        pooled(sampled(1.0, 0), EarlierTrajectory("shorter", held, parameters))
    found = pooled(in_opposed_order(sampled(1.0, 0)), EarlierTrajectory("shorter", held, parameters, other))
    ref = prepare_pooled(POTENTIAL, START, found, [], DOUBLE)
    own = snapshots.energies(other, parameters, found.trajectory.positions, CELL, ("Ar", "Ar"))
    from pymbar import MBAR

    at = np.stack([ref.snapshots.energies(START), own, ref.snapshots.energies(scaled(0.9))]) / KT
    solved = MBAR(at, np.array([SAMPLES, SAMPLES, 0]), solver_protocol="robust")
    np.testing.assert_allclose(weights(ref, 0.9), solved.weights()[:, -1], rtol=1e-8, atol=1e-15)


def test_a_trajectory_that_repeats_itself_counts_as_what_is_in_it() -> None:
    """Each of its snapshots stands ten times in a row: weights are nearly those of pymbar without the copies."""
    newest, once = sampled(1.0, 0), sampled(1.2, 1)
    often = {name: np.repeat(getattr(once, name), 10, axis=0) for name in ("positions", "energies", "walkers")}
    often |= {name: np.repeat(getattr(once, name), 10) for name in ("times", "temperatures", "scales")}
    copied = dataclasses.replace(once, **often)
    ref = prepare_pooled(POTENTIAL, START, pooled(newest, EarlierTrajectory("", copied, scaled(1.2))), [], DOUBLE)
    own = weights(ref, 1.1)
    found = np.concatenate([own[:SAMPLES], own[SAMPLES:].reshape(SAMPLES, 10).sum(1)])
    from pymbar import MBAR

    positions = np.concatenate([newest.positions, once.positions])
    at = [snapshots.energies(POTENTIAL, scaled(f), positions, CELL, ("Ar", "Ar")) / KT for f in (1.0, 1.2, 1.1)]
    expected = MBAR(np.stack(at), np.array([SAMPLES, SAMPLES, 0]), solver_protocol="robust").weights()[:, -1]
    # What tells g tells it to some ten percent.
    np.testing.assert_allclose(found, expected, rtol=0.15)
    assert ref.whole_size > 0.95 * len(own)
    assert ref.inefficiency({"energy": ref.snapshots.energies(START)}) == pytest.approx(11 / 2, rel=0.15)


def test_averages_and_their_errors() -> None:
    """Of repeated runs: no bias, errors that are those of the scatter, and smaller than of the newest alone."""
    exact = float(probabilities(1.0) @ energies(1.0)) / 2
    alone, all_three = [], []
    target = energy_target(exact)
    for seed in range(0, 48, 3):
        newest = sampled(1.0, seed)
        for others, found in (((), alone), ((earlier(0.85, seed + 1), earlier(1.2, seed + 2)), all_three)):
            point = prepared(newest, target, others)
            weight = np.asarray(point.reference.weights(jnp.asarray(point.reference.snapshots.energies(START))))
            value = weight @ point.reference.snapshots.energies(START) / 2
            found.append((value - exact, point.terms[0].simulation_errors[0]))
    deviations, errors = np.array(all_three).T
    scatter = np.sqrt(np.mean(deviations**2))
    assert abs(deviations.mean()) < 3 * scatter / np.sqrt(len(deviations))
    assert 0.7 < np.mean(errors) / scatter < 1.5
    assert np.mean(errors) < 0.75 * np.mean(np.array(alone)[:, 1])


def energy_target(value: float) -> Target:
    return Target(
        observable="potential_energy", unit="eV/atom", values=[value], errors=[1e-4], citation="of this test",
        conditions=Conditions(temperature=TEMPERATURE),
    )  # fmt: skip


def prepared(newest: Trajectory, target: Target, others: tuple[EarlierTrajectory, ...]) -> PreparedStatePoint:
    point = SampledStatePoint("dimer", newest, [target], StatePoint(TEMPERATURE, None), others)
    return prepare(POTENTIAL, START, point, UpdateSettings(bootstrap=50), DOUBLE, seed=1)


def test_the_potential_is_judged_by_its_own_trajectory() -> None:
    """With the same numbers as without a pool, though all snapshots are evaluated once."""
    target = energy_target(0.0)
    alone, both = (prepared(sampled(1.0, 0), target, others) for others in ((), (earlier(1.1, 1),)))
    (own,), (expected,) = both.before, alone.before
    np.testing.assert_allclose([own.values, own.errors], [expected.values, expected.errors], rtol=1e-12)
    assert len(both.reference.energies) == 2 * len(alone.reference.energies)
    assert both.pool[0].overlap == pytest.approx(1, abs=0.3)


def test_the_memory_of_the_job_bounds_what_a_pool_keeps() -> None:
    """Where nothing may be kept, energies are those of before, batch by batch."""
    one, much = earlier(1.1, 1), DOUBLE.model_copy(update={"batch_size": 50})
    little = much.model_copy(update={"snapshot_cache_mib": 0.0})
    kept, without = (_Member(POTENTIAL, one, machine) for machine in (much, little))
    assert kept.nbytes > 2 * without.nbytes
    found = [
        pool(POTENTIAL, START, EarlierTrajectory("newest", sampled(1.0, 0), START), [one], PoolSettings(), machine)
        for machine in (much, little)
    ]
    assert found[0].records[0].overlap == pytest.approx(found[1].records[0].overlap, rel=1e-12)


def test_a_potential_that_sampled_nothing_is_judged_by_all_trajectories() -> None:
    """With errors that are larger than those of its own trajectory of as many snapshots."""
    exact = float(probabilities(1.0) @ energies(1.0)) / 2
    point = SampledStatePoint(
        "dimer",
        sampled(1.3, 0),
        [energy_target(exact)],
        StatePoint(TEMPERATURE, None),
        (earlier(1.2, 1),),
        (scaled(1.3), POTENTIAL),
    )
    found = prepare(POTENTIAL, START, point, UpdateSettings(bootstrap=50), DOUBLE, seed=1)
    own = prepared(sampled(1.0, 0, 2 * SAMPLES), energy_target(exact), ())
    (value,), (error,) = found.before[0].values, found.before[0].errors
    assert abs(value - exact) < 3 * error
    assert error > own.before[0].errors[0]
    assert found.newest_size == SAMPLES
    assert found.agreement[0].points.simulation_errors[0] == error


def test_only_the_newest_trajectory_tells_that_a_potential_has_converged() -> None:
    """As the loop judges: an update makes no step where that agrees, and tries one where the pool alone does."""
    newest, other = sampled(1.0, 0), earlier(1.1, 1)
    point = prepared(newest, energy_target(0.0), (other,))
    own = point.before[0].values[0]
    pool_says = float(objective.evaluate([point], START).predictions["dimer"][0][0])
    assert abs(own - pool_says) > 1e-5
    settings = UpdateSettings(bootstrap=50, chi2_converged=1e-3, max_steps=1)
    for value, has_converged in ((own, True), (pool_says + 1e-7, False)):
        aim = prepared(newest, energy_target(value), (other,))
        outcome = minimise(Objective([aim], settings, START, None), POTENTIAL, seed=0, progress=Silent())
        assert (outcome.reason is Reason.CHI2) == has_converged


def test_the_gradient_of_a_pooled_loss() -> None:
    """Against finite differences."""
    target = energy_target(-0.004)
    point = prepared(sampled(1.0, 0), target, (earlier(1.2, 1),))
    at = scaled(1.05)
    found = objective.gradient([point], at, objective.evaluate([point], at))
    slope = jax.tree.leaves({name: term["epsilon"] for name, term in found["terms"].items()})[0]
    start = jax.tree.leaves({name: term["epsilon"] for name, term in START["terms"].items()})[0]
    up, down = (objective.evaluate([point], scaled(factor)).loss for factor in (1.0501, 1.0499))
    assert float(np.sum(slope * start)) == pytest.approx((up - down) / 2e-4, rel=1e-5)


def first(of: Trajectory, count: int) -> Trajectory:
    """The first snapshots of each walker."""
    kept = np.concatenate([np.flatnonzero(of.walkers == walker)[:count] for walker in np.unique(of.walkers)])
    names = ("positions", "energies", "walkers", "times", "temperatures", "scales")
    return dataclasses.replace(of, **{name: getattr(of, name)[kept] for name in names})


def test_no_snapshot_counts_twice() -> None:
    """The same run by two names, and one that went on for longer with the same seeds."""
    newest, one = sampled(1.0, 0), earlier(1.1, 1)
    copy, again = (dataclasses.replace(one, label=label) for label in ("copy", "again"))
    part = dataclasses.replace(one, label="part", trajectory=first(one.trajectory, 30))
    whole = EarlierTrajectory("whole", sampled(1.0, 0, SAMPLES), START)
    found = pooled(first(newest, 50), whole, copy, again, part)
    assert [member.is_used for member in found.records] == [False, True, False, False]
    assert found.records[0].reason == "it is 'newest' once more, or a part of it"
    assert found.records[2].reason == found.records[3].reason == "it is 'copy' once more, or a part of it"
    assert found.counts.tolist() == [200, SAMPLES]


def test_born_terms_of_a_base_that_targets_of_before_asked_for() -> None:
    """They are left out where nothing needs them, and so is a trajectory that lacks those that are needed."""

    def with_base(seed: int, stride: int) -> EarlierTrajectory:
        born = np.zeros((-(-SAMPLES // stride), 6, 6)) if stride else None
        base = BaseArrays("0" * 64, np.zeros(SAMPLES), np.zeros((SAMPLES, 6)), born, stride)
        return earlier(1.0, seed, base=base)

    newest = with_base(0, 0)
    found = pool(POTENTIAL, scaled(1.0), newest, [with_base(1, 2)], PoolSettings())
    assert found.is_pooled
    assert found.trajectory.base is not None
    assert (found.trajectory.base.born, found.trajectory.base.born_stride) == (None, 0)
    found = pool(POTENTIAL, scaled(1.0), with_base(0, 2), [with_base(1, 0), with_base(2, 2)], PoolSettings())
    assert [member.is_used for member in found.records] == [False, True]
    assert found.records[0].reason == "of Born terms of the base it has none, and the newest one for every 2"


def test_what_does_not_overlap_or_fit_is_left_out_or_refused() -> None:
    newest = sampled(1.0, 0)
    found = pooled(newest, earlier(1.1, 1), earlier(6.0, 2), earlier(0.9, 3), overlap=0.3)
    assert [member.is_used for member in found.records] == [True, False, True]
    assert "less than 0.3 of it overlaps" in found.records[1].reason
    crowded = pooled(newest, earlier(1.1, 1), earlier(0.9, 3), most=2 * SAMPLES)
    assert [member.is_used for member in crowded.records] == [True, False]
    assert "at most 800 snapshots" in crowded.records[1].reason
    foreign = pooled(newest, earlier(1.1, 1, reference_energies=np.zeros(SAMPLES)))
    assert foreign.records[0].reason == "another program sampled it"
    with pytest.raises(EngineError, match=r"'at_1.1' has another species than the newest one; give those of the same"):
        pooled(newest, earlier(1.1, 1, species=("Ar", "Kr")))
    assert (
        pooled(newest, earlier(1.1, 1, pressure=0.1)).records[0].reason
        == "its ensemble is NPT, and that of the newest NVT"
    )
    assert pooled(newest, earlier(1.1, 1, cell=11 * np.eye(3))).records[0].reason == "it has another cell"
    with pytest.raises(EngineError, match=r"'at_1.5' was not sampled with the potential that is given for it"):
        pooled(newest, dataclasses.replace(earlier(1.5, 1), parameters=START))
