"""The prior of smooth pair splines: against derivatives of the energy, finite differences, and on noise."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pydantic import ValidationError

from aiida_difftre.engine.contract.jobs import LossSettings, PotentialSpec, UpdateSettings
from aiida_difftre.engine.errors import EngineError, ExitStatus
from aiida_difftre.engine.potentials import potential as potentials
from aiida_difftre.engine.potentials.pair_spline import PairSpline
from aiida_difftre.engine.potentials.pairs import PairDistances
from aiida_difftre.engine.refinement import gauss_newton, objective
from aiida_difftre.engine.refinement.curvature import curvature_prior
from aiida_difftre.engine.refinement.minimise import minimise
from aiida_difftre.engine.runtime.progress import Silent
from tests.fixtures.engine import argon, build, prepared, rattled, target

KNOTS = 24
POTENTIAL = build("pair_spline", ["Ar"], 5.0, inner=2.8, knots=KNOTS)
CENTRES = np.arange(3.025, 5.0, 0.05).tolist()
WIDTH = 0.003


def parameters_of(points: Any) -> dict:
    return {"atomic_energies": jnp.zeros(1), "terms": {"0_pair_spline": {"control_points": jnp.asarray(points)}}}


def settings_of(**loss: Any) -> UpdateSettings:
    optimizer = {"name": "gauss_newton", "options": {"damping": 1e-3}}
    settings = {"bootstrap": 10, "gate": 0.2, "max_steps": 6, "optimizer": optimizer, "loss": loss}
    return UpdateSettings.model_validate(settings)


def rows_of(parameters: dict) -> np.ndarray:
    return np.asarray(parameters["terms"]["0_pair_spline"]["control_points"])


def test_curvatures_are_the_second_derivatives_of_the_energy() -> None:
    term = build("pair_spline", ["Ar", "Ne"], 5.0, inner=2.8, knots=7).terms[0]
    assert isinstance(term, PairSpline)
    points = jnp.asarray(np.random.default_rng(0).normal(size=(3, 7)))
    distances, matrix = term.curvatures()
    for pair in range(3):

        def energy(distance: Any, pair: int = pair) -> Any:
            at = PairDistances(jnp.array([[distance]]), jnp.array([[True]]), jnp.array([[pair]]))
            return term.pair_energy({"control_points": points}, at)[0, 0]

        expected = [jax.grad(jax.grad(energy))(float(distance) + 1e-9) for distance in distances]
        np.testing.assert_allclose(matrix @ points[pair], expected, rtol=1e-5)


def test_gradient_and_step_see_the_prior() -> None:
    settings = settings_of(curvature_width=WIDTH)
    spec = POTENTIAL.spec.model_copy(update={"terms": [*POTENTIAL.spec.terms, *POTENTIAL.spec.terms]})
    two = potentials.build(spec)
    prior = curvature_prior(two, settings.loss.curvature_width)
    assert prior is not None
    rng = np.random.default_rng(1)
    names = two.names()
    terms = {name: {"control_points": jnp.asarray(1e-3 * rng.normal(size=(1, KNOTS)))} for name in names}
    begin = {"atomic_energies": jnp.zeros(1), "terms": terms}
    trajectory = rattled(two, begin, argon(2), snapshots=30, amplitude=0.25, temperature=85.0)
    point = prepared(two, begin, trajectory, [target("rdf", np.ones(5), error=0.05, grid=CENTRES[:5])], settings)
    whole = objective.Objective([point], settings, begin, None, prior)
    here = whole(begin)
    assert here.extra_loss == pytest.approx(prior.penalty(begin))
    slopes = whole.gradient(here)
    for name, place in ((names[0], 3), (names[1], KNOTS - 1)):

        def moved(change: float, name: str = name, place: int = place) -> float:
            points = begin["terms"][name]["control_points"].at[0, place].add(change)
            return whole({**begin, "terms": {**begin["terms"], name: {"control_points": points}}}).loss

        numerical = (moved(1e-7) - moved(-1e-7)) / 2e-7
        assert float(slopes["terms"][name]["control_points"][0, place]) == pytest.approx(numerical, rel=1e-5)
    _, norm, _ = gauss_newton.step([point], here, two.trainable(begin), gauss_newton.TrustRegion(0.1, 1.0), prior=prior)
    moving = [np.asarray(slopes["terms"][name]["control_points"]).ravel() for name in names]
    assert norm == pytest.approx(np.linalg.norm(np.concatenate(moving)), rel=1e-8)


def test_noise_of_a_measured_curve_is_no_ripple_any_more() -> None:
    """A smooth potential, its g(r) with noise: the prior takes the ripples of the fit, and hardly any chi²."""
    ratio = 3.6 / np.linspace(2.8, 5.0, KNOTS + 2)[None, :KNOTS]
    truth = parameters_of(0.0005 * (ratio**12 - 1.5 * ratio**6) * (5 - 3.6 / ratio))
    begin = parameters_of(np.zeros((1, KNOTS)))
    trajectory = rattled(POTENTIAL, begin, argon(2), snapshots=200, amplitude=0.25, temperature=85.0, walkers=4, seed=1)
    exact = prepared(POTENTIAL, begin, trajectory, [target("rdf", np.ones(len(CENTRES)), grid=CENTRES)], settings_of())
    curve = objective.evaluate([exact], truth).predictions["point"][0]
    noisy = curve + 0.05 * np.random.default_rng(0).normal(size=len(curve))
    found = {}
    for width in (None, WIDTH):
        settings = settings_of(curvature_width=width)
        point = prepared(POTENTIAL, begin, trajectory, [target("rdf", noisy, error=0.05, grid=CENTRES)], settings)
        whole = objective.Objective([point], settings, begin, None, curvature_prior(POTENTIAL, width))
        outcome = minimise(whole, POTENTIAL, seed=0, progress=Silent())
        ripples = np.diff(rows_of(outcome.parameters) - rows_of(truth), n=2)[0, 6:]
        found[width] = float(np.sqrt(np.mean(ripples**2))), outcome.history[-1].chi2
    assert found[WIDTH][0] < 0.1 * found[None][0]
    assert found[WIDTH][1] < found[None][1] + 0.3
    assert found[WIDTH][1] < 1


def test_refused() -> None:
    lennard = build("lennard_jones", ["Ar"], 5.0, epsilon=0.01, sigma=3.4)
    fixed = POTENTIAL.spec.terms[0].model_copy(update={"trainable": False})
    still = potentials.build(PotentialSpec(species=["Ar"], terms=[fixed]))
    for potential, message in ((lennard, "its terms are lennard_jones"), (still, "its pair_spline is not trained")):
        assert curvature_prior(potential, None) is None
        with pytest.raises(EngineError, match=rf"curvature_width is 0\.003 eV/Å².*{message}; leave it out") as caught:
            curvature_prior(potential, WIDTH)
        assert caught.value.status is ExitStatus.INVALID_INPUT
    for width in (0.0, -1.0, 1e3, "smooth"):
        with pytest.raises(ValidationError, match="curvature_width"):
            LossSettings(curvature_width=width)  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match=r"curvature_width = 0\.003 counts in units of errors.*take kind: chi2"):
        LossSettings(kind="mse", curvature_width=WIDTH)
