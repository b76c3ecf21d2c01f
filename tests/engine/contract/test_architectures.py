"""Names of terms and of their hyperparameters: those of the classes; what is not known is refused without JAX."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from aiida_difftre.engine.contract.architectures import check, registry
from aiida_difftre.engine.contract.jobs import PretrainJob
from aiida_difftre.engine.contract.settings import PotentialSpec
from aiida_difftre.engine.contract.term_registry import OPTIONS
from aiida_difftre.engine.contract.validation import validate
from aiida_difftre.engine.errors import EngineError
from aiida_difftre.engine.potentials.potential import build
from aiida_difftre.engine.potentials.term import Environment


def spec(architecture: str, **hyperparameters: Any) -> PotentialSpec:
    term = {"architecture": architecture, "cutoff": 5.0, "hyperparameters": hyperparameters}
    return PotentialSpec.model_validate({"species": ["Ar"], "terms": [term]})


@pytest.mark.parametrize("name", sorted(name for name, point in registry().items() if "aiida_difftre" in point.value))
def test_known_hyperparameters_are_those_of_the_class(name: str) -> None:
    with pytest.raises(ValueError, match="unknown hyperparameter 'zzzz'; known: ") as caught:
        registry()[name].load().from_spec(("C",), 3.0, {"zzzz": 1})
    assert str(caught.value).split("known: ")[1].split(", ") == OPTIONS[name].names()


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown architecture 'lenard_jones'; registered: .* lennard_jones"):
        check(spec("lenard_jones"))
    with pytest.raises(
        ValueError, match="'lennard_jones': unknown hyperparameter 'depth'; known: epsilon, feynman_hibbs, onset"
    ):
        check(spec("lennard_jones", epsilon=0.01, depth=1))


def test_values_that_a_network_does_not_take_are_refused_where_an_input_is_read() -> None:
    with pytest.raises(ValueError, match=r"potential: potential term 'moment_network': hidden = 48: .* list"):
        validate(PretrainJob, {"potential": spec("moment_network", hidden=48).model_dump()})
    check(spec("moment_network", hidden=[48], n_radial=8, rank=0, activation="tanh", output_scale=0))


ARGON_XENON = ["Ar", "Xe"]


@pytest.mark.parametrize(
    ("architecture", "hyperparameters", "message"),
    [
        ("lennard_jones", {"epsilon": "x", "sigma": 3.4}, "epsilon = 'x': must be a number"),
        ("lennard_jones", {"epsilon": 0.01, "sigma": {"Ar-Kr": 3.4}}, "sigma has a value for the pair 'Ar-Kr'"),
        ("lennard_jones", {"epsilon": 0.01, "sigma": {"Xe-Ar": 3.4}}, "sigma has no value for the pair 'Ar-Ar'"),
        ("lennard_jones", {"epsilon": 0.01, "sigma": {"Xe-Ar": 3.4, "Ar-Xe": 3.5}}, "two values for the pair 'Ar-Xe'"),
        ("lennard_jones", {"epsilon": [0.01], "sigma": 3.4}, r"epsilon = \[0.01\]: must be a number, or a mapping"),
        ("lennard_jones", {"epsilon": True, "sigma": 3.4}, "epsilon = True: must be a number"),
        (
            "repulsion",
            {"epsilon": 0.1, "sigma": 3.0, "exponent": 99},
            "exponent = 99: must be at least 1",
        ),
        ("pair_spline", {"values": {"Ar-Kr": [0.1]}}, "pair 'Ar-Kr'"),
        ("pair_spline", {"values": "abc"}, "values = 'abc'"),
        ("external_polynomial", {"coefficients": [[1.0]]}, r"coefficients\[0\]"),
        ("external_spline", {"knots": 10**9}, "knots = 1000000000"),
        ("moment_network", {"hidden": [10**9]}, r"hidden\[0\] = 1000000000: must be at least 1 and at most 4096"),
        ("stillinger_weber", {"sigma": {"Ar-Xe": 2.0}}, "stillinger_weber has one set of parameters for all species"),
    ],
)
def test_values_are_refused_where_an_input_is_read(
    architecture: str, hyperparameters: dict[str, Any], message: str
) -> None:
    term = {"architecture": architecture, "cutoff": 5.0, "hyperparameters": hyperparameters}
    with pytest.raises(ValueError, match=rf"potential: potential term '{architecture}': .*{message}"):
        validate(PretrainJob, {"potential": {"species": ARGON_XENON, "terms": [term]}})


def test_hyperparameters_are_finite() -> None:
    term = {"architecture": "dispersion", "cutoff": 5.0, "hyperparameters": {"c6": float("inf"), "radius": 3.0}}
    with pytest.raises(ValueError, match=r"hyperparameters\.c6 = inf must be a finite number"):
        validate(PretrainJob, {"potential": {"species": ARGON_XENON, "terms": [term]}})


def test_a_daemon_checks_hyperparameters_without_jax() -> None:
    program = (
        "import sys; from aiida_difftre.engine.contract.architectures import check; "
        "from aiida_difftre.engine.contract.settings import PotentialSpec; "
        "term = dict(architecture='lennard_jones', cutoff=5.0, hyperparameters=dict(epsilon='x', sigma=3.0))\n"
        "try: check(PotentialSpec(species=['Ar'], terms=[term]))\n"
        "except ValueError as error: print(error)\n"
        "print('jax' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[0].startswith("potential term 'lennard_jones': epsilon = 'x'")
    assert done.stdout.splitlines()[1] == "False"


def test_a_term_of_another_package_is_known_by_its_entry_point(plugin_term: str) -> None:
    # Its hyperparameters are known to its class alone.
    assert check(spec(plugin_term, width=1)).terms[0].architecture == plugin_term
    with pytest.raises(
        EngineError, match="'gaussian': unknown hyperparameter 'width'; known: feynman_hibbs, height, onset"
    ):
        build(spec(plugin_term, width=1))
    potential = build(spec(plugin_term, height=0.5))
    environment = Environment(
        jnp.array([[[2.0, 0.0, 0.0]]]), jnp.ones((1, 1), bool), jnp.zeros(1, int), jnp.zeros((1, 1), int)
    )
    found = potential.total(potential.init(jax.random.key(0)), environment)
    assert float(found) == pytest.approx(0.25 * math.exp(-4))
