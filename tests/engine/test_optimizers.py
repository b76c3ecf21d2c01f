"""Optimizers by name: every listed one steps, unknown names and options are refused."""

from __future__ import annotations

import inspect
from typing import Any

import jax.numpy as jnp
import optax
import pytest

from aiida_difftre.engine.contract.jobs import OptimizerSpec, PretrainJob
from aiida_difftre.engine.contract.optimizer_options import OPTAX
from aiida_difftre.engine.contract.validation import validate
from aiida_difftre.engine.optimizers import cosine, exponential, make


@pytest.mark.parametrize("name", OPTAX)
def test_every_listed_optimizer_steps_downhill(name: str) -> None:
    optimizer = make(OptimizerSpec(name=name), optax.constant_schedule(1e-2))
    parameters = {"x": jnp.array([1.0, -2.0])}
    updates, _ = optimizer.update(parameters, optimizer.init(parameters), parameters)
    assert float(jnp.vdot(updates["x"], parameters["x"])) < 0


def test_learning_rates() -> None:
    spec = OptimizerSpec(learning_rate=0.1, final_learning_rate_fraction=0.01)
    assert cosine(spec, 10)(0) == pytest.approx(0.1)
    assert cosine(spec, 10)(10) == pytest.approx(0.001)
    assert exponential(spec)(1000) == pytest.approx(0.1)
    falling = exponential(spec.model_copy(update={"decay_steps": 10}))
    assert float(falling(5)) == pytest.approx(0.01, rel=1e-5)
    assert float(falling(50)) == pytest.approx(0.001, rel=1e-5)


def test_clipping() -> None:
    optimizer = make(OptimizerSpec(name="sgd", clip_norm=1.0), optax.constant_schedule(1.0))
    gradient = {"x": jnp.array([30.0, 40.0])}
    updates, _ = optimizer.update(gradient, optimizer.init(gradient), gradient)
    assert float(jnp.linalg.norm(updates["x"])) == pytest.approx(1.0)


def test_known_options_are_those_of_optax() -> None:
    for name, options in OPTAX.items():
        assert set(options) <= set(inspect.signature(getattr(optax, name)).parameters) - {"learning_rate"}, name


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "adm"}, "unknown optimizer 'adm'; known: .* adam, .* gauss_newton"),
        ({"name": "apply_updates"}, "'apply_updates'"),
        ({"options": {"beta": 0.1}}, "'adam' has no option 'beta'; its options: b1, b2"),
        ({"options": {"learning_rate": 0.1}}, "'learning_rate'"),
        ({"options": {"mu_dtype": "float3"}}, "mu_dtype = 'float3' must be one of bfloat16, float16"),
        ({"name": "gauss_newton", "options": {"damping": 0}}, "damping = 0"),
        ({"name": "gauss_newton", "options": {"damping": "much"}}, "damping = 'much'"),
        ({"name": "gauss_newton", "options": {"damping": True}}, "damping = True"),
        ({"name": "gauss_newton", "options": {"b1": 0.1}}, "'b1'; its options: damping"),
    ],
)
def test_refused(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OptimizerSpec(**spec)


def test_gauss_newton_is_for_updates_alone() -> None:
    with pytest.raises(ValueError, match=r"'gauss_newton' is for updates alone; for pretraining: .* adam"):
        validate(PretrainJob, {"initial_potential": "potential.safetensors", "optimizer": {"name": "gauss_newton"}})
