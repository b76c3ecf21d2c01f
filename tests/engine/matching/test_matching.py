"""Matching: linearised against direct predictions, finite differences, loss and errors."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase import Atoms

from aiida_difftre.engine.contract.jobs import DatasetWeights
from aiida_difftre.engine.matching import configurations as dataset
from aiida_difftre.engine.matching import matching
from aiida_difftre.engine.matching.prediction import (
    Predicted,
    jacobian_bytes,
    linearise,
    predict_directly,
    predict_linearised,
)
from aiida_difftre.engine.potentials.parameters import without_references
from aiida_difftre.engine.potentials.term import Parameters
from aiida_difftre.engine.units import EV_PER_A3_IN_GPA
from tests.fixtures.mixed_configurations import frames, model


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
