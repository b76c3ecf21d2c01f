"""Matching: linearised against direct predictions, finite differences, loss and errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ase.io
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator

from aiida_difftre.engine.contract.jobs import DatasetWeights, LossSettings, Machine, PotentialSpec, TermSpec
from aiida_difftre.engine.matching import configurations as dataset
from aiida_difftre.engine.matching import matching, prediction
from aiida_difftre.engine.matching.prediction import (
    Predicted,
    jacobian_bytes,
    linearise,
    predict_directly,
    predict_linearised,
)
from aiida_difftre.engine.potentials.parameters import without_references
from aiida_difftre.engine.potentials.potential import Potential, build
from aiida_difftre.engine.potentials.term import Parameters
from aiida_difftre.engine.units import EV_PER_A3_IN_GPA


def model() -> tuple[Potential, Parameters]:
    terms = [
        TermSpec(architecture="lennard_jones", cutoff=3.4, hyperparameters={"epsilon": 0.1, "sigma": 1.5}),
        TermSpec(architecture="moment_network", cutoff=3.0, hyperparameters={"n_radial": 3, "hidden": [6]}),
    ]
    potential = build(PotentialSpec(species=["C", "O"], terms=terms))
    parameters = potential.init(jax.random.key(0))
    return potential, {**parameters, "atomic_energies": jnp.array([-100.0, -400.0])}


def frames() -> list[Atoms]:
    rng = np.random.default_rng(0)
    crystal = bulk("C", "diamond", a=3.6, cubic=True)
    crystal.symbols[2] = "O"
    primitive = bulk("C", "diamond", a=3.7)
    for atoms in (crystal, primitive):
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + rng.uniform(-0.05, 0.05, (3, 3))), scale_atoms=True)
        atoms.positions += rng.normal(scale=0.05, size=(len(atoms), 3))
    return [crystal, primitive]


def test_linearised_equals_direct_and_so_do_parameter_gradients() -> None:
    potential, parameters = model()
    configurations = dataset.pad(frames(), potential.spec.species, potential.cutoff)
    free = without_references(parameters, jnp.float64)
    batch = linearise(potential, configurations, jnp.float64)
    assert batch.jacobian.nbytes == jacobian_bytes(potential, configurations, jnp.float64)

    def value(p: Parameters, predict: Any, features: Any) -> Any:
        parts = predict(potential, p, features)
        return jnp.sum(parts.energy) + jnp.sum(parts.forces**2) + jnp.sum(parts.stress**2), parts

    results = [
        jax.jit(jax.value_and_grad(lambda p, f=f, b=b: value(p, f, b), has_aux=True))(free)
        for f, b in ((predict_linearised, batch), (predict_directly, configurations))
    ]
    for linear, direct in zip(*(jax.tree.leaves(result) for result in results), strict=True):
        np.testing.assert_allclose(linear, direct, rtol=1e-9, atol=1e-9)


def test_forces_and_stress_by_finite_differences() -> None:
    potential, parameters = model()
    free = without_references(parameters, jnp.float64)
    predict = jax.jit(lambda c: predict_directly(potential, free, c))
    base = frames()

    def predicted(atoms: Atoms) -> Predicted:
        return predict(dataset.pad([atoms], potential.spec.species, potential.cutoff, 8, 80))

    parts = predicted(base[0])
    energies = []
    for step in (1e-4, -1e-4):
        moved = base[0].copy()
        moved.positions[2, 1] += step
        energies.append(float(predicted(moved).energy[0]))
    assert float(parts.forces[0, 2, 1]) == pytest.approx(-(energies[0] - energies[1]) / 2e-4, rel=1e-6)
    for component, (i, j) in enumerate([(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]):
        energies = []
        for step in (1e-4, -1e-4):
            strain = np.zeros((3, 3))
            strain[i, j] += step / 2
            strain[j, i] += step / 2
            moved = base[0].copy()
            moved.set_cell(moved.cell.array @ (np.eye(3) + strain), scale_atoms=True)
            energies.append(float(predicted(moved).energy[0]))
        expected = (energies[0] - energies[1]) / 2e-4 / base[0].cell.volume
        assert float(parts.stress[0, component]) == pytest.approx(expected, rel=1e-6, abs=1e-8)


def labels(**changes: Any) -> dataset.Labels:
    given = dataset.Labels(
        np.array([1.0, 2.0]),
        np.zeros((2, 2, 3)),
        np.zeros((2, 6)),
        np.ones(2),
        np.array([1.0, 0.0]),
        np.array([0.0, 1.0]),
    )
    return given._replace(**changes)


def test_loss_counts_labelled_parts_only() -> None:
    real = np.array([[1.0, 1.0], [1.0, 0.0]])
    predicted = Predicted(jnp.array([1.2, 2.1]), jnp.full((2, 2, 3), 0.5), jnp.full((2, 6), 0.01))
    weights = DatasetWeights(energy=100, force=1, stress=1e4)
    value = matching.loss(predicted, labels(), real, weights)
    assert float(value) == pytest.approx(100 * (0.1**2 + 0.1**2) / 2 + 0.5**2 + 1e4 * 0.01**2)


def test_errors_with_units_and_without_offset() -> None:
    real = np.array([[1.0, 1.0], [1.0, 0.0]])
    predicted = Predicted(jnp.array([1.2, 2.3]), jnp.full((2, 2, 3), 0.5), jnp.full((2, 6), 0.01))
    found = matching.errors(predicted, labels(), real)
    assert found["energy_mae"] == pytest.approx(200)
    assert found["energy_shifted_rmse"] == pytest.approx(100)
    assert found["force_rmse"] == pytest.approx(500)
    assert found["stress_mae"] == pytest.approx(0.01 * EV_PER_A3_IN_GPA)
    assert "stress_mae" not in matching.errors(predicted, labels(has_stress=np.zeros(2)), real)


@pytest.mark.parametrize(("limit", "batch_size"), [(0, 0), (1 << 30, 1)])
def test_matching_loss_of_a_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int, batch_size: int
) -> None:
    monkeypatch.setattr(prediction, "JACOBIAN_LIMIT", limit)
    potential, parameters = model()
    given = frames()
    for atoms in given:
        energy = -100.0 * len(atoms) - 300.0 * sum(symbol == "O" for symbol in atoms.get_chemical_symbols())
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=np.zeros((len(atoms), 3)), stress=np.zeros(6))
    path = tmp_path / "dataset.extxyz"
    ase.io.write(path, given)
    settings, machine = LossSettings(dataset_weight=0.5), Machine(precision="float64", batch_size=batch_size)
    evaluate = matching.matching_loss(potential, path, settings, machine)
    assert evaluate is not None
    value, gradient = evaluate(parameters)

    configurations = dataset.pad(given, potential.spec.species, potential.cutoff)
    predicted = predict_directly(potential, without_references(parameters, jnp.float64), configurations)
    labels = configurations.labels._replace(energy=np.zeros(2))
    expected = 0.5 * matching.loss(predicted, labels, jnp.asarray(configurations.real), settings.dataset_weights)
    assert value == pytest.approx(float(expected), rel=1e-6)

    np.testing.assert_array_equal(gradient["atomic_energies"], 0)
    step = 1e-6
    ends = []
    for sign in (1, -1):
        moved = jax.tree.map(lambda leaf: leaf, parameters)
        moved["terms"]["0_lennard_jones"]["sigma"] = (
            parameters["terms"]["0_lennard_jones"]["sigma"].at[1].add(sign * step)
        )
        ends.append(evaluate(moved)[0])
    slope = gradient["terms"]["0_lennard_jones"]["sigma"][1]
    assert float(slope) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-5)


def test_no_matching_loss_without_dataset_or_weight(tmp_path: Path) -> None:
    potential, _ = model()
    assert matching.matching_loss(potential, None, LossSettings(dataset_weight=1.0), Machine()) is None
    assert matching.matching_loss(potential, tmp_path / "absent", LossSettings(), Machine()) is None
