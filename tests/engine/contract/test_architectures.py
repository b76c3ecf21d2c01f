"""Names of terms and of their hyperparameters: those of the classes; what is not known is refused without JAX."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from aiida_difftre.engine.contract.architectures import HYPERPARAMETERS, check, registry
from aiida_difftre.engine.contract.jobs import PretrainJob, validate
from aiida_difftre.engine.contract.settings import PotentialSpec
from aiida_difftre.engine.errors import EngineError
from aiida_difftre.engine.potentials.potential import Environment, build


def spec(architecture: str, **hyperparameters: Any) -> PotentialSpec:
    term = {"architecture": architecture, "cutoff": 5.0, "hyperparameters": hyperparameters}
    return PotentialSpec.model_validate({"species": ["Ar"], "terms": [term]})


@pytest.mark.parametrize("name", sorted(name for name, point in registry().items() if "aiida_difftre" in point.value))
def test_known_hyperparameters_are_those_of_the_class(name: str) -> None:
    with pytest.raises(ValueError, match="unknown hyperparameter 'nonsense'; known: ") as caught:
        registry()[name].load().from_spec(("C",), 3.0, {"nonsense": 1})
    assert str(caught.value).split("known: ")[1].split(", ") == sorted(HYPERPARAMETERS[name])


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown architecture 'lenard_jones'; registered: .* lennard_jones"):
        check(spec("lenard_jones"))
    with pytest.raises(ValueError, match="'lennard_jones': unknown hyperparameter 'depth'; known: epsilon, onset"):
        check(spec("lennard_jones", epsilon=0.01, depth=1))


def test_values_that_a_network_does_not_take_are_refused_where_an_input_is_read() -> None:
    with pytest.raises(ValueError, match=r"potential: potential term 'moment_network': hidden = 48 must be a list"):
        validate(PretrainJob, {"potential": spec("moment_network", hidden=48).model_dump()})
    check(spec("moment_network", hidden=[48], n_radial=8, rank=0, activation="tanh", output_scale=0))


def test_a_term_of_another_package_is_known_by_its_entry_point(plugin_term: str) -> None:
    # Its hyperparameters are known to its class alone.
    assert check(spec(plugin_term, width=1)).terms[0].architecture == plugin_term
    with pytest.raises(EngineError, match="'gaussian': unknown hyperparameter 'width'; known: height, onset"):
        build(spec(plugin_term, width=1))
    potential = build(spec(plugin_term, height=0.5))
    environment = Environment(
        jnp.array([[[2.0, 0.0, 0.0]]]), jnp.ones((1, 1), bool), jnp.zeros(1, int), jnp.zeros((1, 1), int)
    )
    found = potential.total(potential.init(jax.random.key(0)), environment)
    assert float(found) == pytest.approx(0.25 * math.exp(-4))
