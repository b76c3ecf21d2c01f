"""Trajectories at other temperatures and pressures in a pool: an oscillator in a cell whose volume is known exactly."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aiida_difftre.engine import units
from aiida_difftre.engine.contract.settings import PotentialSpec, TermSpec
from aiida_difftre.engine.contract.state_points import StatePoint
from aiida_difftre.engine.contract.trajectories import Trajectory
from aiida_difftre.engine.contract.update_settings import PoolSettings
from aiida_difftre.engine.potentials.potential import build
from aiida_difftre.engine.potentials.term import Parameters
from aiida_difftre.engine.reweighting.mixture import prepare_pooled
from aiida_difftre.engine.reweighting.pool import EarlierTrajectory, neighbours, pool
from aiida_difftre.engine.reweighting.weights import reduced_energies
from tests.fixtures.engine import DOUBLE, opposed

FIELD = TermSpec(architecture="external_polynomial", cutoff=2.0, hyperparameters={"coefficients": [0.0, 0.0, 20.0]})
POTENTIAL = build(PotentialSpec(species=["Ar"], terms=[FIELD]))
START = POTENTIAL.init(jax.random.key(0))
HERE = StatePoint(300.0, 1.0)
SHAPE = 60.0
"""p(V) ~ V^59 exp(-PV/kT), with the mean 60 kT/P."""
COUNT = 3000


def spring(constant: float) -> Parameters:
    """A field of k s² (eV), with s in units of the cell."""
    terms = {name: {"coefficients": jnp.array([0.0, 0.0, constant])} for name in START["terms"]}
    return {**START, "terms": terms}


def sampled(label: str, constant: float, point: StatePoint, seed: int, size: float = 8.0) -> EarlierTrajectory:
    """Draws of the place and the volume, as multiples of a cube of some size (Å), whose inefficiency is one."""
    rng, kT = np.random.default_rng(seed), units.BOLTZMANN * point.temperature
    places = np.full((COUNT, 1, 3), 0.5, np.float32)
    places[:, 0, 0] += rng.normal(size=COUNT) * np.sqrt(kT / (2 * constant))
    places = places[opposed((places[:, 0, 0] - 0.5) ** 2)]
    volumes = np.full(COUNT, size**3)
    if point.pressure is not None:
        volumes = rng.gamma(SHAPE, kT / (point.pressure / units.EV_PER_A3_IN_GPA), size=COUNT)
        volumes = volumes[opposed(volumes, seed=1)]
    arrays = {
        "positions": places, "cell": size * np.eye(3),
        "energies": constant * (places[:, 0, 0].astype(float) - 0.5) ** 2,
        "walkers": np.zeros(COUNT, np.int32), "times": np.arange(COUNT) * 1.0,
        "temperatures": np.full(COUNT, point.temperature), "last_positions": places[-1:].astype(float),
        "last_velocities": np.zeros((1, 1, 3)), "scales": np.cbrt(volumes) / size, "last_scales": np.ones(1),
    }  # fmt: skip
    held = Trajectory.from_arrays(arrays, species=("Ar",), temperature=point.temperature, pressure=point.pressure)
    return EarlierTrajectory(label, held, spring(constant))


def test_weights_of_neighbours_are_those_of_pymbar_and_averages_are_exact() -> None:
    """Of potentials, temperatures, pressures and cells of their own; the average has the smaller error."""
    states = {
        "here": (20.0, HERE, 8.0), "hotter": (23.0, StatePoint(330.0, 1.0), 8.0),
        "denser": (20.0, StatePoint(280.0, 1.05), 9.0),
    }  # fmt: skip
    held = [sampled(label, *state[:2], seed, state[2]) for seed, (label, state) in enumerate(states.items())]
    found = pool(POTENTIAL, held[0].parameters, held[0], held[1:], PoolSettings())
    assert [record.is_used for record in found.records] == [True, True]
    ref = prepare_pooled(POTENTIAL, held[0].parameters, found, [], DOUBLE)
    wanted = ref.snapshots.energies(spring(21.0))
    weight = np.asarray(ref.weights(jnp.asarray(wanted)))

    volumes = found.trajectory.volumes
    x = found.trajectory.positions[:, 0, 0].astype(float) - 0.5
    reduced = [reduced_energies(constant * x**2, volumes, point) for constant, point, _ in states.values()]
    reduced.append(reduced_energies(21.0 * x**2, volumes, HERE))
    from pymbar import MBAR

    solved = MBAR(np.stack(reduced), np.array([COUNT] * 3 + [0]), solver_protocol="robust")
    np.testing.assert_allclose(weight, solved.weights()[:, -1], rtol=1e-7, atol=1e-15)

    kT = units.BOLTZMANN * HERE.temperature
    assert weight @ wanted == pytest.approx(kT / 2, rel=0.06)  # three standard errors of some 5000 draws
    mean = SHAPE * kT / (1.0 / units.EV_PER_A3_IN_GPA)
    assert weight @ volumes == pytest.approx(mean, rel=3 / np.sqrt(SHAPE * 5000))
    assert ref.point.volume == pytest.approx(mean, rel=3 / np.sqrt(SHAPE * 5000))
    assert ref.whole_size > 1.5 * COUNT
    # Towards another pressure a gas of 59 atoms hardly overlaps, and the record says so.
    far = sampled("far", 20.0, StatePoint(300.0, 1.5), 4)
    assert not pool(POTENTIAL, held[0].parameters, held[0], [far], PoolSettings()).is_pooled


def test_neighbours_are_of_one_cell_or_shape() -> None:
    fixed = StatePoint(300.0, None)
    pools = {
        "a": [sampled("sampling000", 20.0, fixed, 0)],
        "warm": [sampled("sampling001", 20.0, StatePoint(320.0, None), 1), sampled("sampling000", 20.0, fixed, 1)],
        "larger": [sampled("sampling000", 20.0, fixed, 2, size=9.0)],
        "moving": [sampled("sampling000", 20.0, HERE, 3)],
    }
    assert [one.label for one in neighbours(pools, "a")] == ["neighbour_warm_sampling001", "neighbour_warm_sampling000"]
    assert neighbours(pools, "moving") == []
    pools["moved"] = [sampled("sampling000", 20.0, StatePoint(300.0, 1.1), 4, size=9.0)]
    assert [one.label for one in neighbours(pools, "moving")] == ["neighbour_moved_sampling000"]
