"""Gauss-Newton steps in the metric of the ensemble: against their equations, finite differences, and what they cost."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aiida_difftre.engine import units
from aiida_difftre.engine.contract.jobs import LossSettings, UpdateSettings
from aiida_difftre.engine.errors import EngineError, ExitStatus
from aiida_difftre.engine.refinement import gauss_newton, objective
from aiida_difftre.engine.refinement.gauss_newton import Linear, TrustRegion, solve
from aiida_difftre.engine.refinement.minimise import Outcome, minimise
from aiida_difftre.engine.refinement.objective import PreparedStatePoint
from aiida_difftre.engine.reweighting.weights import effective_size
from aiida_difftre.engine.runtime.progress import Silent
from tests.fixtures.engine import argon, build, network, prepared, rattled, target

POTENTIAL = build("pair_spline", ["Ar"], 5.0, inner=2.8, knots=8)
CENTRES = np.arange(3.05, 5.0, 0.1).tolist()
FAR = 1e6
"""A radius that bounds nothing."""


def start() -> dict:
    parameters = POTENTIAL.init(jax.random.key(0))
    points = 0.02 * np.linspace(1, -1, 8)[None]
    return {**parameters, "terms": {"0_pair_spline": {"control_points": jnp.asarray(points)}}}


def settings_of(**given: Any) -> UpdateSettings:
    optimizer = {"name": "gauss_newton"}
    return UpdateSettings.model_validate({"bootstrap": 10, "gate": 0.2, "optimizer": optimizer, **given})


def data(settings: UpdateSettings, *more: Any) -> PreparedStatePoint:
    trajectory = rattled(
        POTENTIAL, start(), argon(2), snapshots=200, amplitude=0.25, temperature=85.0, walkers=4, seed=1
    )
    targets = [target("rdf", np.ones(len(CENTRES)), error=0.05, grid=CENTRES), *more]
    return prepared(POTENTIAL, start(), trajectory, targets, settings, label="liquid")


def minimise_from_start(point: PreparedStatePoint, settings: UpdateSettings) -> Outcome:
    whole = objective.Objective([point], settings, start(), None)
    return minimise(whole, POTENTIAL, seed=0, progress=Silent())


def quantities(points: list[PreparedStatePoint], parameters: dict) -> dict:
    return objective.evaluate(points, parameters).quantities


def at(points: list[PreparedStatePoint], parameters: dict) -> objective.Point:
    """The loss of the targets alone."""
    return objective.Objective(points, settings_of(), parameters, None)(parameters)


def step(points: list[PreparedStatePoint], radius: float = FAR, damping: float = 1e-6) -> dict:
    region = TrustRegion(radius, damping)
    return gauss_newton.step(points, at(points, start()), POTENTIAL.trainable(start()), region)[0]


def problem(samples: int, parameters: int, residuals: int = 5) -> tuple[Linear, np.ndarray, np.ndarray, np.ndarray]:
    """A problem, e, the arrays of its parameters, and M for a damping of 0.3."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(samples, parameters))
    linear = Linear(rng.normal(size=residuals), rng.normal(size=(residuals, parameters)), rows)
    arrays = np.repeat([0, 2], [3, parameters - 3])
    matrix = rows.T @ rows
    mean = np.array([np.diag(matrix)[:3].mean()] * 3 + [np.diag(matrix)[3:].mean()] * (parameters - 3))
    return linear, rng.normal(size=parameters), arrays, matrix + 0.3 * np.diag(mean)


@pytest.mark.parametrize("shape", [(40, 7), (7, 40)])
@pytest.mark.parametrize("further", [0.0, 1.0])
def test_the_step_solves_its_equations(shape: tuple[int, int], further: float) -> None:
    linear, e, arrays, metric = problem(*shape)
    for radius in (0.01, 0.1):
        delta, is_bounded = solve(linear, further * e, arrays, TrustRegion(radius, 0.3))
        assert is_bounded
        assert delta @ metric @ delta == pytest.approx(radius**2, rel=1e-6)
        # JᵀJ δ + Jᵀr + e = -λ M δ with one positive λ.
        r, j, _ = linear
        left = j.T @ (r + j @ delta) + further * e
        right = metric @ delta
        weight = -(left @ right) / (right @ right)
        assert weight > 0
        np.testing.assert_allclose(left, -weight * right, rtol=1e-6, atol=1e-8 * np.abs(left).max())


@pytest.mark.parametrize("shape", [(40, 7), (7, 40)])
def test_noise_holds_the_step_back(shape: tuple[int, int]) -> None:
    linear, e, arrays, metric = problem(*shape)
    r, j, _ = linear
    way = 0.1 * np.random.default_rng(2).normal(size=shape[1])
    for noise in (0.01, 3.0):
        delta, is_bounded = solve(linear, e, arrays, TrustRegion(FAR, 0.3, noise), way=way)
        assert not is_bounded
        slope = j.T @ (r + j @ delta) + e + noise * metric @ (way + delta)
        np.testing.assert_allclose(slope, 0, atol=1e-7 * np.abs(j.T @ r).max())
        bounded, _ = solve(linear, e, arrays, TrustRegion(0.05, 0.3, noise), way=way)
        assert bounded @ metric @ bounded == pytest.approx(0.05**2, rel=1e-6)


def test_expected_loss_on_a_fresh_trajectory() -> None:
    """What a step promises beyond what it keeps is ν δᵀFδ: the covariance that predicts has that error."""
    rng = np.random.default_rng(0)
    samples, features = 400, 30
    observable_of = rng.normal(size=(features, 12))
    direction = rng.normal(size=features)
    direction *= 0.5 / np.linalg.norm(direction)  # δᵀFδ = 0.25 for normal features of unit covariance
    excess, noise = [], []
    for _ in range(200):
        x = rng.normal(size=(samples, features))
        observable = x @ observable_of
        found = np.cov(observable.T, x @ direction)[-1, :-1]
        excess.append(np.sum((found - direction @ observable_of) ** 2))
        noise.append(np.sum(observable.var(0, ddof=1) / samples))
    # Normal variables add Cov², here at most as much again.
    assert 1 <= np.mean(excess) / (0.25 * np.mean(noise)) < 1.3


def test_near_and_far() -> None:
    linear, e, arrays, metric = problem(40, 7, residuals=3)
    r, j, _ = linear
    near, _ = solve(linear, np.zeros(7), arrays, TrustRegion(FAR, 0.3))
    np.testing.assert_allclose(j @ near, -r, rtol=1e-6)
    far, _ = solve(linear, 0 * e, arrays, TrustRegion(1e-6, 0.3))
    natural = -np.linalg.solve(metric, j.T @ r)
    np.testing.assert_allclose(far / np.linalg.norm(far), natural / np.linalg.norm(natural), rtol=1e-4, atol=1e-5)


def test_free_of_units() -> None:
    linear, e, arrays, _ = problem(40, 7)
    units = np.where(arrays == 0, 1e-4, 1e3)
    expected, _ = solve(linear, e, arrays, TrustRegion(0.1, 0.3))
    other = Linear(linear.residuals, linear.jacobian / units, linear.rows / units)
    np.testing.assert_allclose(solve(other, e / units, arrays, TrustRegion(0.1, 0.3))[0], expected * units, rtol=1e-6)


def test_what_the_snapshots_do_not_tell_stays() -> None:
    rows = np.array([[1.0, 1e-6, 0.0], [-1.0, 1e-6, 0.0]])
    linear = Linear(np.array([1.0]), np.array([[2.0, 1e-6, 0.0]]), rows)
    found, _ = solve(linear, np.zeros(3), np.zeros(3, int), TrustRegion(0.1, 0.1))
    assert found[0] == pytest.approx(-0.1 / np.sqrt(2), rel=0.05)
    assert abs(found[1]) < 1e-5
    assert found[2] == 0
    # Of two arrays the one that changes no energy stays, and the other one moves.
    half, _ = solve(linear, np.zeros(3), np.array([0, 0, 1]), TrustRegion(0.1, 0.1))
    assert half[0] < -0.05
    assert half[2] == 0
    still = Linear(np.ones(1), np.ones((1, 2)), np.zeros((2, 2)))
    none, is_bounded = solve(still, np.zeros(2), np.zeros(2, int), TrustRegion(0.1, 0.1))
    assert not none.any()
    assert not is_bounded
    met = linear._replace(residuals=np.zeros(1))
    assert not solve(met, np.zeros(3), np.zeros(3, int), TrustRegion(0.1, 0.1))[0].any()


def test_jacobian_by_finite_differences() -> None:
    """Of observables of positions, from the derivatives of energies; of stress, by vector-Jacobian products as well."""
    wanted = [target("stress", [0.1, -0.2, 0.0, 0.1, 0.0, 0.1], weight=0.7)]
    point = data(settings_of(), *wanted)
    movable = [bool(moves) for moves in jax.tree.leaves(POTENTIAL.trainable(start()))]
    found = gauss_newton._linear(point, start(), quantities([point], start())[point.label], movable)

    def residuals(length: float, direction: np.ndarray) -> np.ndarray:
        moved = start()
        moved["terms"]["0_pair_spline"]["control_points"] += length * jnp.asarray(direction)
        values = point.reference.snapshots.evaluate(moved)
        return np.asarray(point.jacobian({key: jnp.asarray(value) for key, value in values.items()})[1])

    direction = np.random.default_rng(1).normal(size=(1, 8))
    change = (residuals(1e-6, direction) - residuals(-1e-6, direction)) / 2e-6
    whole = np.zeros(found.jacobian.shape[1])
    whole[-8:] = direction[0]
    assert len(change) == len(CENTRES) + 6
    np.testing.assert_allclose(found.jacobian @ whole, change, rtol=1e-5, atol=1e-6 * np.abs(change).max())
    np.testing.assert_allclose(found.residuals, residuals(0.0, direction), rtol=1e-12)


def test_what_a_step_costs_on_snapshots_of_unequal_weight() -> None:
    """F = Cov(∂U/∂θ, ∂U/∂θ)/kT² of the weighted snapshots, by finite differences of their energies."""
    point = data(settings_of())
    parameters, h = start(), 1e-5

    def energies(points: np.ndarray) -> np.ndarray:
        parameters["terms"]["0_pair_spline"]["control_points"] = jnp.asarray(points)
        return np.asarray(point.reference.snapshots.energies(parameters))

    sampled = np.asarray(parameters["terms"]["0_pair_spline"]["control_points"])
    here = sampled + 1e-3 * np.linspace(-1, 1, 8)
    slopes = np.stack([energies(here + h * axis) - energies(here - h * axis) for axis in np.eye(8)], 1) / (2 * h)
    weight = np.exp(-(energies(here) - energies(sampled)) / (units.BOLTZMANN * 85.0))
    weight /= weight.sum()
    assert weight.max() > 1.2 / len(weight)
    expected = np.cov(slopes.T, aweights=weight, ddof=0) / (units.BOLTZMANN * 85.0) ** 2
    energies(here)
    free = POTENTIAL.trainable(parameters)
    movable = [bool(moves) for moves in jax.tree.leaves(free)]
    values = quantities([point], parameters)
    rows = gauss_newton._linear(point, parameters, values["liquid"], movable).rows[:, -8:]
    np.testing.assert_allclose(rows.T @ rows, expected, rtol=1e-6, atol=1e-8 * expected.max())
    # The way from the parameters that sampled is held back by the noise: with nothing else to gain, it is undone.
    held = TrustRegion(FAR, damping=1e-3, noise=1e12)
    deaf = gauss_newton.step([point], at([point], parameters), free, held, start=start())[0]
    undone = np.asarray(deaf["terms"]["0_pair_spline"]["control_points"])
    np.testing.assert_allclose(undone, sampled - here, rtol=1e-4, atol=1e-8)


def test_gradient_norm_and_further_terms() -> None:
    settings = settings_of(loss=LossSettings(anchor_weight=3.0))
    point = data(settings)
    anchor = jax.tree.map(lambda leaf: leaf + 0.01, start())
    whole = objective.Objective([point], settings, anchor, None)
    here = whole(start())
    free = POTENTIAL.trainable(start())
    moved, norm, _ = gauss_newton.step([point], here, free, TrustRegion(radius=1e-4, damping=1e-6))
    slopes = whole.gradient(here)
    assert norm == pytest.approx(float(jnp.linalg.norm(slopes["terms"]["0_pair_spline"]["control_points"])), rel=1e-8)
    assert whole(jax.tree.map(jnp.add, start(), moved)).loss < here.loss


def test_length_is_that_of_lost_samples() -> None:
    point = data(settings_of())
    snapshots = point.reference.snapshots
    for radius in (0.05, 0.1):
        moved = step([point], radius=radius)
        assert not np.asarray(moved["atomic_energies"]).any()
        weight = np.asarray(
            point.reference.weights(jnp.asarray(snapshots.energies(jax.tree.map(jnp.add, start(), moved))))
        )
        lost = -np.log(effective_size(weight).kish / len(weight))
        assert lost == pytest.approx(radius**2, rel=0.15)
    # The derivatives of single energies are those of the one vector-Jacobian product.
    cotangent = np.random.default_rng(0).normal(size=200)
    single = snapshots.energy_slopes(start())["terms"]["0_pair_spline"]["control_points"]
    joined = snapshots.pullback(start(), {"energy": cotangent})["terms"]["0_pair_spline"]["control_points"]
    np.testing.assert_allclose(np.tensordot(cotangent, single, 1), joined, rtol=1e-9, atol=1e-12)


def test_an_offset_of_the_energy_stays() -> None:
    """The bias of the last layer of a network: no observable tells it, and its derivatives differ by rounding alone."""
    potential, parameters = network(["Ar"], cutoff=5.0)
    trajectory = rattled(potential, parameters, argon(2), snapshots=50, amplitude=0.25, temperature=85.0, seed=1)
    wanted = [target("pressure", [0.5])]
    point = prepared(potential, parameters, trajectory, wanted, settings_of())
    moved, *_ = gauss_newton.step(
        [point], at([point], parameters), potential.trainable(parameters), TrustRegion(radius=0.5, damping=0.02)
    )
    layers = moved["terms"]["0_moment_network"]["mlp"]
    assert not np.asarray(layers["b2"]).any()
    assert np.asarray(layers["w2"]).any()


def test_two_state_points_count_together() -> None:
    """A state point twice: twice the loss and twice the cost, so that a given radius carries less far by sqrt(2)."""
    point = data(settings_of())
    once, twice = step([point], radius=0.1, damping=0.02), step([point, point], radius=0.1 * 2**0.5, damping=0.02)
    np.testing.assert_allclose(*(tree["terms"]["0_pair_spline"]["control_points"] for tree in (once, twice)), rtol=1e-6)


def test_an_update_gets_further_for_the_same_samples() -> None:
    adam = {"name": "adam", "options": {"b1": 0.1, "b2": 0.4}, "learning_rate": 2e-3, "clip_norm": None}
    losses = []
    for given in ({}, {"optimizer": adam}):
        settings = settings_of(max_steps=20, **given)
        outcome = minimise_from_start(data(settings), settings)
        course = [entry.loss for entry in outcome.history]
        assert all(b <= a for a, b in itertools.pairwise(course))
        assert outcome.reason != "no_descent"
        losses.append(min(entry.loss for entry in outcome.history if entry.n_eff_fraction > 0.3) / course[0])
    assert losses[0] < losses[1]


def test_an_update_ends_where_steps_gain_nothing() -> None:
    """The targets cannot all be met: the mean of two is, in a few steps, and no more are made."""
    first = data(settings_of())
    wanted = first.before[0].values
    apart = [target("rdf", np.add(wanted, shift), error=0.02, grid=CENTRES, label=str(shift)) for shift in (-0.2, 0.2)]
    trajectory = rattled(
        POTENTIAL, start(), argon(2), snapshots=200, amplitude=0.25, temperature=85.0, walkers=4, seed=1
    )
    point = prepared(POTENTIAL, start(), trajectory, apart, settings_of())
    outcome = minimise_from_start(point, settings_of(max_steps=20))
    assert outcome.reason == "minimum"
    assert len(outcome.history) < 10


@pytest.mark.parametrize("what", ["residuals", "jacobian", "rows"])
def test_derivatives_that_are_not_finite_end_an_update(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """With rows that are finite, a NaN in J or r would otherwise reach the eigenvalues, which LAPACK refuses."""
    linear = gauss_newton._linear

    def broken(*arguments: Any) -> Linear:
        found = linear(*arguments)
        array = getattr(found, what).copy()
        array.flat[-1] = np.nan
        return found._replace(**{what: array})

    monkeypatch.setattr(gauss_newton, "_linear", broken)
    with pytest.raises(EngineError, match="gradient at step 0 of the update is not finite") as caught:
        minimise_from_start(data(settings_of()), settings_of())
    assert caught.value.status == ExitStatus.NOT_FINITE


def test_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of()
    with monkeypatch.context() as patch:
        patch.setattr(gauss_newton, "LARGEST_BYTES", 100)
        with pytest.raises(EngineError, match=r"optimizer: \{name: adam\}") as caught:
            minimise_from_start(data(settings), settings)
        assert caught.value.status == ExitStatus.INVALID_INPUT
        point = data(settings)
        patch.setattr(gauss_newton, "LARGEST_BYTES", 200 * 8 * 8)  # snapshots, parameters, bytes of a number
        gauss_newton._check_size([point], 8)
        for points, size in (([point, point], 8), ([point], 9)):
            with pytest.raises(EngineError, match="or take fewer snapshots"):
                gauss_newton._check_size(points, size)
    monkeypatch.setattr(gauss_newton, "MOST_PRODUCTS", 5)
    with pytest.raises(EngineError, match="6 points of stress and stiffness targets of 'liquid', at most 5"):
        step([data(settings, target("stress", [0.0] * 6))])
