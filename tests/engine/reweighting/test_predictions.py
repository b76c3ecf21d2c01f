"""Weights and reweighted averages against an exactly solvable system: two atoms in a periodic box.

Their separation is drawn independently from the Boltzmann distribution, so that averages, their changes with the
parameters and their errors are known by quadrature.
"""

from __future__ import annotations

import dataclasses
from functools import cache

import jax.numpy as jnp
import numpy as np
import pytest
from ase import Atoms

from aiida_difftre.engine import units
from aiida_difftre.engine.contract.jobs import UpdateSettings
from aiida_difftre.engine.contract.observables import ObservableRequest
from aiida_difftre.engine.contract.trajectories import Trajectory
from aiida_difftre.engine.potentials.term import Parameters
from aiida_difftre.engine.refinement import objective
from aiida_difftre.engine.reweighting import statistics
from aiida_difftre.engine.reweighting.predictions import predict_trajectory, reweighted_predictions, statistical_errors
from aiida_difftre.engine.reweighting.reference import Reference, prepare_reference
from tests.fixtures.engine import DOUBLE, lennard_jones, prepared, target, trajectory

EDGE, CUTOFF, TEMPERATURE = 13.0, 6.0, 120.0
KT = units.BOLTZMANN * TEMPERATURE
POTENTIAL, PARAMETERS = lennard_jones(CUTOFF)
OBSERVABLES = ["potential_energy", "pressure"]
SAMPLES = 4096


def changed(epsilon: float, sigma: float) -> Parameters:
    term = {"epsilon": jnp.array([epsilon]), "sigma": jnp.array([sigma])}
    return {**PARAMETERS, "terms": {"0_lennard_jones": term}}


def energy_and_slope(r: np.ndarray, epsilon: float, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """The pair energy written anew, and its derivative."""
    x = (sigma / r) ** 6
    bare, slope = 4 * epsilon * (x * x - x), 4 * epsilon * (6 * x - 12 * x * x) / r
    t = np.clip((r - 0.9 * CUTOFF) / (0.1 * CUTOFF), 0, 1)
    switch, turn = 1 - 10 * t**3 + 15 * t**4 - 6 * t**5, -30 * t**2 * (1 - t) ** 2 / (0.1 * CUTOFF)
    return bare * switch, slope * switch + bare * turn


def exact(epsilon: float, sigma: float) -> np.ndarray:
    """Energy per atom (eV) and pressure (GPa) by quadrature over the separation; beyond the cutoff U = 0."""
    r, width = np.linspace(1.0, CUTOFF, 40001, retstep=True)
    energy, slope = energy_and_slope(r, epsilon, sigma)
    measure = 4 * np.pi * r**2 * np.exp(-energy / KT) * width
    total = EDGE**3 - 4 / 3 * np.pi * CUTOFF**3 + measure.sum()
    mean, virial = (measure * energy).sum() / total, (measure * r * slope).sum() / total
    return np.array([mean / 2, (2 * KT - virial / 3) / EDGE**3 * units.EV_PER_A3_IN_GPA])


@cache
def dimers() -> Trajectory:
    """Independent snapshots, by rejection."""
    rng = np.random.default_rng(7)
    separation = rng.uniform(-EDGE / 2, EDGE / 2, size=(60 * SAMPLES, 3))
    r = np.maximum(np.linalg.norm(separation, axis=1), 1.0)
    energy = np.where(r < CUTOFF, energy_and_slope(r, 0.0104, 3.4)[0], 0.0)
    kept = separation[rng.random(len(r)) < np.exp(-(energy + 0.0104) / KT)][:SAMPLES]
    positions = rng.random((SAMPLES, 1, 3)) + np.stack([np.zeros_like(kept), kept], 1) / EDGE
    atoms = Atoms("Ar2", cell=EDGE * np.eye(3), pbc=True)
    return trajectory(POTENTIAL, PARAMETERS, atoms, positions, temperature=TEMPERATURE, walkers=4)


@cache
def reference() -> Reference:
    requests = [ObservableRequest(observable=name) for name in OBSERVABLES]
    return prepare_reference(POTENTIAL, PARAMETERS, dimers(), requests, DOUBLE)


def predicted(parameters: Parameters) -> tuple[np.ndarray, np.ndarray]:
    found, _ = reweighted_predictions(reference(), parameters, replicates=100, seed=0)
    return np.array([p.values[0] for p in found]), np.array([p.errors[0] for p in found])


@pytest.mark.parametrize(("epsilon", "sigma"), [(0.0104, 3.4), (0.0115, 3.4), (0.0100, 3.45)])
def test_reweighted_averages_are_those_of_the_changed_system(epsilon: float, sigma: float) -> None:
    values, errors = predicted(changed(epsilon, sigma))
    assert np.all(np.abs(values - exact(epsilon, sigma)) < 3.5 * errors)
    # The changes are resolved: the test would notice weights with the wrong sign.
    assert np.all(errors < np.abs(exact(0.0115, 3.4) - exact(0.0104, 3.4)))


def sampled_slopes(number: int) -> tuple[np.ndarray, np.ndarray]:
    """d<a>/dθ = <da> - (<a dU> - <a><dU>)/kT over the snapshots in NumPy, with standard errors."""
    x = dimers().positions.astype(np.float64)
    separation = x[:, 1] - x[:, 0]
    r = np.linalg.norm((separation - np.round(separation)) * EDGE, axis=1)

    def energy_and_feature(epsilon: float, sigma: float) -> tuple[np.ndarray, np.ndarray]:
        energy, slope = energy_and_slope(r, epsilon, sigma)
        energy, slope = np.where(r < CUTOFF, energy, 0), np.where(r < CUTOFF, slope, 0)
        pressure = (2 * KT - r * slope / 3) / EDGE**3 * units.EV_PER_A3_IN_GPA
        return energy, (energy / 2, pressure)[number]

    h, slopes, errors = 1e-5, [], []
    for a, b in ((0.0104 * h, 0.0), (0.0, 3.4 * h)):
        up, down = energy_and_feature(0.0104 + a, 3.4 + b), energy_and_feature(0.0104 - a, 3.4 - b)
        d_energy, d_feature = ((x - y) / (2 * (a + b)) for x, y in zip(up, down, strict=True))
        feature = energy_and_feature(0.0104, 3.4)[1]
        each = d_feature - (feature - feature.mean()) * (d_energy - d_energy.mean()) / KT
        slopes.append(each.mean())
        errors.append(each.std() / np.sqrt(SAMPLES))
    return np.array(slopes), np.array(errors)


@pytest.mark.parametrize("number", [0, 1])
def test_gradient_is_that_of_the_exact_averages(number: int) -> None:
    """d<U>/dθ and dP/dθ: as sampled, to rounding; as the quadrature's finite differences, to sampling error."""
    # With one value of 0 and a mean squared error the loss is A², so that dA/dθ = dL/dθ/2A.
    settings = UpdateSettings(loss={"kind": "mse"}, bootstrap=10)
    data = prepared(POTENTIAL, PARAMETERS, dimers(), [target(OBSERVABLES[number], [0.0])], settings, label="dimer")
    evaluation = objective.evaluate([data], PARAMETERS)
    gradient = objective.gradient([data], PARAMETERS, evaluation)["terms"]["0_lennard_jones"]
    average = evaluation.predictions["dimer"][0][0]
    assert evaluation.loss == pytest.approx(average**2, rel=1e-12)
    found = np.array([float(gradient["epsilon"][0]), float(gradient["sigma"][0])]) / (2 * average)
    sampled, errors = sampled_slopes(number)
    np.testing.assert_allclose(found, sampled, rtol=1e-4, atol=1e-4 * errors.min())
    h = 1e-4
    up, down = exact(0.0104 * (1 + h), 3.4), exact(0.0104 * (1 - h), 3.4)
    wide, narrow = exact(0.0104, 3.4 * (1 + h)), exact(0.0104, 3.4 * (1 - h))
    expected = np.array([(up - down)[number] / 0.0104, (wide - narrow)[number] / 3.4]) / (2 * h)
    assert np.all(np.abs(found - expected) < 3.5 * errors)


def test_bootstrap_errors_cover_the_scatter() -> None:
    """Of 64 independent parts of the trajectory."""
    ref, parts = reference(), 64
    values = ref.snapshots.evaluate(PARAMETERS)
    each = SAMPLES // parts
    found, errors = [], []
    weight = np.full(each, 1 / each)
    for part in range(parts):
        rows = slice(part * each, (part + 1) * each)
        walkers = np.arange(each, dtype=np.int32) // (each // 2)
        short = dataclasses.replace(ref, walkers=walkers, volumes=ref.volumes[rows])
        quantities = {key: value[rows] for key, value in values.items()}
        averages = short.averages({key: jnp.asarray(value) for key, value in quantities.items()}, jnp.asarray(weight))
        found.append(np.concatenate([np.asarray(a) for a in averages]))
        stated = statistical_errors(short, quantities, weight, replicates=60, seed=part)
        errors.append(np.concatenate(stated))
    ratio = np.std(found, axis=0, ddof=1) / np.sqrt(np.mean(np.square(errors), axis=0))
    assert np.all(ratio > 1 / 1.5)
    assert np.all(ratio < 1.5)


def test_the_error_of_a_fluctuation_is_that_of_its_influences_and_counts_its_bias() -> None:
    """C_V of correlated energies of unequal weight, written anew in NumPy with influences by finite differences."""
    rng, count = np.random.default_rng(5), 60
    energy, walkers = 0.02 * rng.normal(size=count), np.repeat(np.arange(2, dtype=np.int32), 30)
    for k in range(1, count):
        energy[k] += 0.7 * energy[k - 1]
    weight = rng.uniform(0.5, 1.5, size=count)
    weight /= weight.sum()

    def capacity(factors: np.ndarray) -> np.ndarray:
        w = factors * weight
        w /= w.sum(-1, keepdims=True)
        deviation = energy - (w @ energy)[..., None]
        variance = np.sum(w * deviation**2, axis=-1) / (1 - np.sum(w**2, axis=-1))
        return units.JOULE_PER_MOL * variance / (KT * TEMPERATURE) / 2

    g = float(statistics.statistical_inefficiency(energy[:, None], walkers).max())
    assert g > 1.5
    counts = statistics.block_bootstrap_counts(walkers, g, 50, 3)
    counts /= (counts @ weight)[:, None]
    shifts = 1e-5 * np.eye(count)
    influences = (capacity(1 + shifts) - capacity(1 - shifts)) / 2e-5
    changes, first = capacity(counts) - capacity(np.ones(count)), counts @ influences
    known = statistics.mean_variance(count * influences[:, None], walkers, g).variance[0]
    bias = np.mean(changes - first)
    square = known * np.var(changes) / np.var(first) + 4 * bias**2
    assert 4 * bias**2 > 0.01 * square
    requests = [ObservableRequest(observable="heat_capacity", options={"kind": "cv"})]
    ref = prepare_reference(POTENTIAL, PARAMETERS, dimers(), requests, DOUBLE)
    short = dataclasses.replace(ref, walkers=walkers, volumes=ref.volumes[:count])
    found = statistical_errors(short, {"energy": energy}, weight, replicates=50, seed=3)
    assert found[0][0] == pytest.approx(np.sqrt(square), rel=1e-5)


def test_no_observable_no_prediction() -> None:
    found = predict_trajectory(POTENTIAL, PARAMETERS, dimers(), [], machine=DOUBLE, seed=0)
    assert found == []
