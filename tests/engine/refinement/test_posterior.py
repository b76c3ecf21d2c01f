"""What targets determine: against the equations with whole matrices, and against finite differences."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aiida_difftre.engine.refinement.posterior import evidence, posterior, prior_widths
from aiida_difftre.engine.refinement.sensitivities import derivatives
from aiida_difftre.engine.reweighting.reference import prepare_reference
from tests.fixtures.engine import DOUBLE, argon, lennard_jones, rattled, target


@pytest.mark.parametrize("shape", [(5, 8), (12, 3)])
def test_posterior_is_the_inverse_of_its_precision(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    jacobian, widths = rng.normal(size=shape), rng.uniform(0.5, 2.0, shape[1])
    asked, measured, errors = rng.normal(size=(4, shape[1])), rng.normal(size=(2, shape[1])), np.array([0.1, 0.3])
    precision = jacobian.T @ jacobian / 3 + np.diag(widths**-2.0)
    found = posterior(jacobian, widths, chi2=3.0)
    covariance = np.linalg.inv(precision)
    np.testing.assert_allclose(found.deviations(asked) ** 2, np.diag(asked @ covariance @ asked.T))
    further = np.linalg.inv(precision + (measured.T / errors**2) @ measured)
    np.testing.assert_allclose(found.after(measured, errors, asked) ** 2, np.diag(asked @ further @ asked.T))
    prior = np.diag(widths**2)
    np.testing.assert_allclose(found.prior_deviations(asked) ** 2, np.diag(asked @ prior @ asked.T))
    # The effective number of parameters, by its definition.
    told = np.trace(np.eye(shape[1]) - covariance @ np.linalg.inv(prior))
    assert found.effective == pytest.approx(told)


def test_a_direction_that_is_nearly_known_keeps_its_digits() -> None:
    found = posterior(np.array([[1e9, 0.0]]), np.ones(2))
    assert found.deviations(np.array([[1.0, 0.0]]))[0] == pytest.approx(1e-9)


def test_the_prior_does_not_depend_on_units() -> None:
    metric, arrays = np.array([4.0, 1.0, 3.0]), np.array([0, 1, 1])
    scale = np.array([10.0, 0.1, 0.1])
    widths = prior_widths(metric, arrays, width=2.0, atoms=5)
    np.testing.assert_allclose(prior_widths(metric / scale**2, arrays, width=2.0, atoms=5), scale * widths)
    # All parameters together: t √N.
    assert np.sum(widths**2 * metric) == pytest.approx(4 * 5)


def test_evidence_finds_the_width_of_what_was_drawn() -> None:
    """Of 200 parameters that the data tell well, drawn with three times the assumed width."""
    rng = np.random.default_rng(1)
    found = posterior(rng.normal(scale=50.0, size=(300, 200)), np.ones(200))
    told = evidence(found, 3 * rng.normal(size=200))
    assert told is not None
    assert told.factor == pytest.approx(3, rel=0.15)
    assert told.effective == pytest.approx(200, rel=0.01)
    assert evidence(found, np.zeros(200)) is None


def test_derivatives_of_averages() -> None:
    """Of an energy (weights and itself), a pressure (a product for each value) and a curve (weights alone)."""
    potential, parameters = lennard_jones()
    trajectory = rattled(potential, parameters, argon(2), snapshots=40, amplitude=0.2, temperature=85.0, seed=1)
    grid = np.arange(3.05, 5.0, 0.3).tolist()
    targets = [target("potential_energy", [0.0]), target("pressure", [0.0]), target("rdf", [1.0] * 7, grid=grid)]
    ref = prepare_reference(potential, parameters, trajectory, [one.request() for one in targets], DOUBLE)

    def averages(quantities: dict) -> jax.Array:
        weight = ref.weights(jnp.asarray(quantities["energy"]))
        return jnp.concatenate(ref.averages({key: jnp.asarray(value) for key, value in quantities.items()}, weight))

    def at(parameters: dict) -> np.ndarray:
        return np.asarray(averages(ref.snapshots.evaluate(parameters)))

    quantities = ref.snapshots.evaluate(parameters)
    cotangents = jax.jacrev(averages)({key: jnp.asarray(value) for key, value in quantities.items()})
    movable = [bool(moves) for moves in jax.tree.leaves(potential.trainable(parameters))]
    jacobian, _ = derivatives(ref, parameters, quantities["energy"], cotangents, movable)
    leaves, structure = jax.tree.flatten(parameters)
    column = 0
    for number, moves in enumerate(movable):
        if not moves:
            continue
        step = 1e-6 * float(leaves[number][0])
        ends = [
            at(jax.tree.unflatten(structure, [leaf + sign * step * (n == number) for n, leaf in enumerate(leaves)]))
            for sign in (1, -1)
        ]
        np.testing.assert_allclose(jacobian[:, column], (ends[0] - ends[1]) / (2 * step), rtol=1e-5, atol=1e-6)
        column += 1
    assert column == jacobian.shape[1] == 2
