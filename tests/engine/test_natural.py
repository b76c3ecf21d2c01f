"""The natural gradient: against its formula, in what it costs in effective samples, free of units, in an update."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aiida_difftre.engine import natural, objective, reweighting, update
from aiida_difftre.engine.errors import EngineError, ExitStatus
from aiida_difftre.engine.jobs import UpdateSettings
from aiida_difftre.engine.progress import Silent
from tests.fixtures.engine import DOUBLE, argon, build, rattled, target

POTENTIAL = build("pair_spline", ["Ar"], 5.0, inner=2.8, knots=8)
CENTRES = np.arange(3.05, 5.0, 0.1).tolist()


def start() -> dict:
    parameters = POTENTIAL.init(jax.random.key(0))
    points = 0.02 * np.linspace(1, -1, 8)[None]
    return {**parameters, "terms": {"0_pair_spline": {"control_points": jnp.asarray(points)}}}


def data(settings: UpdateSettings) -> objective.Data:
    trajectory = rattled(
        POTENTIAL, start(), argon(2), snapshots=200, amplitude=0.25, temperature=85.0, walkers=4, seed=1
    )
    targets = [target("rdf", np.ones(len(CENTRES)), error=0.05, grid=CENTRES)]
    return objective.prepare(
        "liquid", POTENTIAL, start(), trajectory, targets, temperature=85.0, settings=settings, machine=DOUBLE, seed=0
    )


@pytest.mark.parametrize("shape", [(40, 7), (7, 40)])
def test_both_ways_to_solve_are_the_formula(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    rows, gradient = rng.normal(size=shape), rng.normal(size=shape[1])
    arrays = np.repeat([0, 2], [3, shape[1] - 3])
    matrix = rows.T @ rows
    mean = np.array([np.diag(matrix)[:3].mean()] * 3 + [np.diag(matrix)[3:].mean()] * (shape[1] - 3))
    expected = np.linalg.solve(matrix + 0.3 * np.diag(mean), gradient)
    expected /= np.sqrt(gradient @ expected)
    np.testing.assert_allclose(natural.solve(rows, gradient, 0.3, arrays), expected, rtol=1e-9)
    # Other units of the arrays: the same change of the potential.
    units = np.where(arrays == 0, 1e-4, 1e3)
    found = natural.solve(rows / units, gradient / units, 0.3, arrays)
    np.testing.assert_allclose(found, expected * units, rtol=1e-9)


def test_what_the_snapshots_do_not_tell_stays() -> None:
    rows = np.array([[1.0, 1e-6, 0.0], [-1.0, 1e-6, 0.0]])
    found = natural.solve(rows, np.array([2.0, 1e-6, 0.0]), 0.1, np.zeros(3, int))
    assert found[0] == pytest.approx(1 / np.sqrt(2), rel=0.05)
    assert abs(found[1]) < 1e-4
    assert found[2] == 0
    assert not natural.solve(np.zeros((2, 2)), np.ones(2), 0.1, np.zeros(2, int)).any()


def test_length_is_that_of_lost_samples() -> None:
    settings = UpdateSettings(bootstrap=10)
    point = data(settings)
    parameters = start()
    found = objective.Objective([point], settings, parameters, None)
    slopes = found.gradient(found(parameters))
    free = POTENTIAL.trainable(parameters)
    step = natural.direction([point], parameters, slopes, free, 1e-6)
    assert not np.asarray(step["atomic_energies"]).any()
    snapshots = point.reference.snapshots
    for length in (0.05, 0.1):
        moved = jax.tree.map(lambda p, d, n=length: p - n * d, parameters, step)
        weight = np.asarray(point.reference.weights(jnp.asarray(snapshots.energies(moved))))
        lost = -np.log(reweighting.effective_size(weight).kish / len(weight))
        assert lost == pytest.approx(length**2, rel=0.15)
    # The derivatives of single energies are those of the one vector-Jacobian product.
    cotangent = np.random.default_rng(0).normal(size=200)
    single = snapshots.energy_slopes(parameters)["terms"]["0_pair_spline"]["control_points"]
    joined = snapshots.pullback(parameters, {"energy": cotangent})["terms"]["0_pair_spline"]["control_points"]
    np.testing.assert_allclose(np.tensordot(cotangent, single, 1), joined, rtol=1e-9, atol=1e-12)


def test_an_update_gets_further_for_the_same_samples() -> None:
    sgd = {"name": "sgd", "learning_rate": 0.5, "clip_norm": None}
    adam = {"name": "adam", "options": {"b1": 0.1, "b2": 0.4}, "learning_rate": 2e-3, "clip_norm": None}
    losses = []
    for given in ({"natural_gradient": True, "optimizer": sgd}, {"optimizer": adam}):
        settings = UpdateSettings.model_validate({"gate": 0.2, "max_steps": 20, "bootstrap": 10, **given})
        outcome = update.minimise(POTENTIAL, start(), [data(settings)], settings, seed=0, progress=Silent())
        course = [entry["loss"] for entry in outcome.history]
        assert all(b <= a for a, b in itertools.pairwise(course))
        losses.append(min(entry["loss"] for entry in outcome.history if entry["n_eff_fraction"] > 0.3) / course[0])
    assert losses[0] < losses[1]


def test_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(natural, "LARGEST_BYTES", 100)
    settings = UpdateSettings(bootstrap=10, natural_gradient=True)
    with pytest.raises(EngineError, match="natural_gradient: false") as caught:
        update.minimise(POTENTIAL, start(), [data(settings)], settings, seed=0, progress=Silent())
    assert caught.value.status == ExitStatus.INVALID_INPUT
