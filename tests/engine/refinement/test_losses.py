"""Losses: chi², mean squared error, roles and weights."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from aiida_difftre.engine.refinement import losses
from aiida_difftre.engine.refinement.losses import TargetTerm
from tests.fixtures.engine import target

TERMS = [
    TargetTerm(target("stiffness", [100.0, 50.0, 40.0], error=3.0, weight=2.0), np.array([4.0, 0.0, 0.0])),
    TargetTerm(target("pressure", [1.0], error=0.5, role="selection"), np.array([0.0])),
    TargetTerm(target("potential_energy", [-1.0], error=0.1, weight=0.0), np.array([0.0])),
]
PREDICTIONS = [np.array([110.0, 53.0, 40.0]), np.array([2.0]), np.array([-0.9])]


def test_loss() -> None:
    predictions = [jnp.asarray(p) for p in PREDICTIONS]
    chi2 = (100 / 25 + 9 / 9 + 0) / 3
    assert float(losses.target_loss(predictions, TERMS, "chi2")) == pytest.approx(2 * chi2)
    assert float(losses.target_loss(predictions, TERMS, "mse")) == pytest.approx(2 * 109 / 3)


def test_reduced_chi2() -> None:
    assert losses.reduced_chi2(PREDICTIONS, TERMS, "selection") == pytest.approx(4.0)
    assert losses.reduced_chi2(PREDICTIONS, TERMS, "training") == pytest.approx(5 / 3)
    assert losses.reduced_chi2(PREDICTIONS[:1], TERMS[:1], "selection") is None


@pytest.mark.parametrize("kind", ["chi2", "mse"])
def test_noise_is_the_mean_loss_of_predictions_that_scatter_about_the_targets(kind: str) -> None:
    rng = np.random.default_rng(0)
    drawn = [
        float(
            losses.target_loss(
                [t.target.values + t.simulation_errors * rng.normal(size=len(t.target.values)) for t in TERMS],
                TERMS,
                kind,
            )
        )
        for _ in range(2000)
    ]
    assert losses.noise(TERMS, kind) == pytest.approx(np.mean(drawn), rel=0.1)
