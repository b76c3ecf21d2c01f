"""The contract tests, run on every registered term, observable and sampler, and on wrong ones that each must find."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.build import bulk
from jaxtyping import Array

from aiida_difftre import testing
from aiida_difftre.engine.contract import architectures, samplers
from aiida_difftre.engine.contract.jobs import PotentialSpec, TermSpec
from aiida_difftre.engine.contract.observables import ObservableRequest, registered
from aiida_difftre.engine.contract.observables import observable as spec_of
from aiida_difftre.engine.contract.trajectories import Trajectory
from aiida_difftre.engine.potentials.potential import Potential
from aiida_difftre.engine.potentials.potential import build as make
from aiida_difftre.engine.potentials.term import Environment, Kind, Parameters, Term
from aiida_difftre.engine.sampling import protocol
from aiida_difftre.testing import observables, potentials
from aiida_difftre.testing import samplers as sampled
from tests.fixtures.engine import alloy, build
from tests.fixtures.exafs import table

jax.config.update("jax_enable_x64", True)

TERMS: dict[str, tuple[float, dict[str, Any]]] = {
    "born_mayer": (4.0, {"amplitude": 300.0, "rho": 0.3}),
    "buckingham": (4.0, {"amplitude": 600.0, "rho": 0.3, "c6": 3.0}),
    "coulomb_dsf": (4.0, {"charges": {"C": 0.8, "O": -0.8}, "formula": "CO", "damping": 0.3}),
    "dispersion": (4.0, {"c6": 3.0, "radius": 1.0}),
    "external_polynomial": (0.1, {"coefficients": [0.0, 0.0, 1.0]}),
    "external_spline": (0.1, {"knots": 6}),
    "lennard_jones": (4.0, {"epsilon": {"C-C": 0.2, "C-O": 0.3, "O-O": 0.1}, "sigma": 2.0, "tail": True}),
    "moment_network": (3.0, {"n_radial": 2, "hidden": [4, 4]}),
    "nequix": (3.0, {"hidden_irreps": "2x0e + 2x1o", "lmax": 1, "n_layers": 2, "radial_mlp_size": 4}),
    "pair_spline": (3.5, {"inner": 1.0, "knots": 8}),
    "repulsion": (3.5, {"epsilon": 0.2, "sigma": 2.0, "exponent": 9}),
    "stillinger_weber": (3.77, {}),
    "stillinger_weber_alloy": (3.6, {"epsilon": 2.0, "sigma": {"C-C": 1.7, "C-O": 1.9, "O-O": 2.0}}),
}
"""Cutoff, Å, and hyperparameters."""

COPPER = bulk("Cu", "fcc", a=3.6, cubic=True).repeat(2)
GRID = [0.5 + 0.25 * k for k in range(12)]
REQUESTS: dict[str, dict[str, Any]] = {
    "adf": {"grid": [3.0 + 6.0 * k for k in range(30)], "options": {"cutoff": 3.0}},
    "compressibility": {},
    "coordination_number": {"options": {"pair": ["Cu", "Cu"], "r_range": [2.0, 3.0]}},
    "density": {},
    "density_profile": {"grid": [0.05 + 0.1 * k for k in range(10)], "options": {"smearing": 0.1}},
    "exafs": {
        "grid": np.arange(3.0, 8.0, 0.5).tolist(),
        "options": {"absorber": "Cu", "s02": 1.0, "e0_shift": 0.0, "paths": table()},
    },
    "heat_capacity": {},
    "neighbor_distance": {"options": {"pair": ["Cu", "Cu"], "r_range": [2.3, 2.8], "measure": "peak"}},
    "potential_energy": {},
    "pressure": {},
    "rdf": {"grid": GRID, "options": {"smearing": 0.25}},
    "stiffness": {"options": {"symmetry": "cubic", "born_stride": 3}},
    "stress": {},
    "structure_factor": {"grid": [2.0 + 0.5 * k for k in range(8)]},
    "thermal_expansion": {},
    "volume": {},
}


@cache
def term_example(name: str) -> testing.PotentialExample:
    cutoff, hyperparameters = TERMS[name]
    terms = [TermSpec(architecture=name, cutoff=cutoff, hyperparameters=hyperparameters)]
    if name == "coulomb_dsf":  # charges without a core would fuse, and are refused
        core = {"epsilon": 0.1, "sigma": 1.0, "exponent": 24}
        terms.append(TermSpec(architecture="repulsion", cutoff=2.0, hyperparameters=core, trainable=False))
    potential = make(PotentialSpec(species=["C", "O"], terms=terms))
    parameters = potential.init(jax.random.key(3))

    def moved(leaf: Array) -> Array:
        """Not zero, where a term starts from zeros."""
        return leaf + 0.1 * (leaf == 0) * jnp.cos(jnp.arange(leaf.size)).reshape(leaf.shape)

    return testing.PotentialExample(
        potential, {**parameters, "terms": jax.tree.map(moved, parameters["terms"])}, alloy()[:4]
    )


@pytest.mark.parametrize("check", testing.POTENTIAL_CHECKS.values(), ids=testing.POTENTIAL_CHECKS.keys())
@pytest.mark.parametrize("name", sorted(architectures.registry()))
def test_every_registered_term(name: str, check: testing.PotentialCheck) -> None:
    assert name in TERMS, f"give an example of the term {name!r}, on which the contract tests are run"
    if name == "nequix":
        pytest.importorskip("nequix.model", reason="nequix is not installed")
    check(term_example(name))


@dataclass(frozen=True)
class Wrong(Term):
    """A Gaussian of the distance with a smooth cutoff, and one fault."""

    fault: str = ""

    @property
    def kind(self) -> Kind:
        return Kind.PAIRWISE if self.fault == "kind" else Kind.GENERAL

    @classmethod
    def from_spec(cls, species: tuple[str, ...], cutoff: float, hyperparameters: dict[str, Any]) -> Self:
        return cls(species, cutoff, **hyperparameters)

    def init(self, key: Array) -> Parameters:
        return {"height": jnp.array(0.5)}

    def project(self, environment: Environment) -> Any:
        return environment

    def energy(self, parameters: Parameters, projected: Environment) -> Array:
        squared, mask = projected.squared_distances(), projected.mask
        if self.fault == "rotation":
            squared = squared + 0.1 * projected.axes()[0] ** 2
        distance = jnp.sqrt(squared if self.fault == "padding" else jnp.where(mask, squared, 1.0))
        if self.fault == "derivative":
            distance = jax.lax.stop_gradient(distance) * 0.5 + 0.5 * distance
        x = jnp.minimum(distance / self.cutoff, 1.0)
        switch = jnp.where(x < 1, 1.0, 0.0) if self.fault == "cutoff" else (1 - x**2) ** 3
        pair = jnp.where(mask, jnp.exp(-(distance**2) / 4) * switch, 0.0)
        energy = parameters["height"] * jnp.sum(pair, -1)
        if self.fault == "kind":
            energy = energy**2
        if self.fault == "order":
            energy = energy * (1 + jnp.arange(len(energy)))
        if self.fault == "size":
            energy = energy * len(energy)
        if self.fault == "place":
            energy = energy * (1 + jnp.asarray(projected.positions)[:, 0] ** 2)
        if self.fault == "digits":
            much = 2e6 * parameters["height"]
            energy = jnp.sqrt((energy + much) ** 2) - much
        return energy


FAULTS = {
    "padding": ("padding_is_ignored", "gradients by the .* are not finite where lists are padded"),
    "cutoff": ("goes_smoothly_to_zero", "energy of C at the cutoff .* jumps by"),
    "derivative": ("forces_are_derivatives", r"forces are not the derivative of the energy"),
    "kind": ("forces_are_derivatives", "forces of molecular dynamics are not .*look at the term's kind"),
    "order": ("invariant_under_permutation", "depends on the order of the atoms"),
    "rotation": ("invariant_under_rotation", "depends on the orientation"),
    "place": ("invariant_under_translation", "depends on where the structure stands"),
    "size": ("extensive", "two cells have not twice the energy"),
    "digits": ("precisions_agree", "of single and double precision disagree"),
}


def wrong(fault: str) -> testing.PotentialExample:
    spec = PotentialSpec(species=["C"], terms=[TermSpec(architecture="wrong", cutoff=3.0)])
    potential = Potential(spec, (Wrong(("C",), 3.0, fault),))
    return testing.PotentialExample(potential, potential.init(jax.random.key(0)), alloy(["C"])[:4])


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_term_is_found(fault: str) -> None:
    name, message = FAULTS[fault]
    with pytest.raises(testing.ContractError, match=message):
        testing.POTENTIAL_CHECKS[name](wrong(fault))


def test_a_wrong_stress_is_found() -> None:
    with pytest.raises(testing.ContractError, match="stress times the volume is not the derivative"):
        potentials.stress_is_a_derivative(wrong("derivative"))


@pytest.mark.parametrize("check", testing.POTENTIAL_CHECKS.values(), ids=testing.POTENTIAL_CHECKS.keys())
def test_without_its_fault_the_term_passes(check: testing.PotentialCheck) -> None:
    check(right())


@cache
def right() -> testing.PotentialExample:
    return wrong("")


@cache
def observable_example(name: str) -> testing.ObservableExample:
    request = ObservableRequest(observable=name, **REQUESTS[name])
    potential = build("lennard_jones", ["Cu"], 3.5, epsilon=0.4, sigma=2.3)
    return testing.ObservableExample(request, COPPER, potential, potential.init(jax.random.key(0)))


@pytest.mark.parametrize("check", testing.OBSERVABLE_CHECKS.values(), ids=testing.OBSERVABLE_CHECKS.keys())
@pytest.mark.parametrize("name", sorted(name for name in registered() if not spec_of(name).is_dynamic))
def test_every_registered_observable(name: str, check: testing.ObservableCheck) -> None:
    assert name in REQUESTS, f"give an example of the observable {name!r}, on which the contract tests are run"
    check(observable_example(name))


class WrongObservable:
    """Another implementation, with one fault, behind the reference of a right one."""

    def __init__(self, right: Any, fault: str) -> None:
        self.right, self.fault, self.static = right, fault, right.static

    def combine(self, inputs: Any, weights: Array, point: Any) -> Array:
        values = self.right.combine(inputs, weights, point)
        if self.fault == "gradient":
            return values + 0.1 * jax.lax.stop_gradient(values)
        if self.fault == "padding":
            return values * len(weights)
        return values * inputs["features"][0, 0]


@pytest.mark.parametrize(
    ("fault", "check", "message"),
    [
        ("gradient", observables.combined_gradients_are_derivatives, "is not that of finite differences"),
        (
            "padding",
            observables.padded_snapshots_are_ignored,
            "snapshots whose weight is zero change the values",
        ),
    ],
)
def test_a_wrong_observable_is_found(fault: str, check: testing.ObservableCheck, message: str) -> None:
    example = replace(observable_example("rdf"))
    reference = observable_example("rdf").reference
    example.__dict__["reference"] = replace(
        reference, implementations=(WrongObservable(reference.implementations[0], fault),)
    )
    with pytest.raises(testing.ContractError, match=message):
        check(example)


def test_an_observable_that_looks_at_the_first_atom_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from aiida_difftre.engine.observables.density import DensityProfile

    features = DensityProfile.features
    monkeypatch.setattr(DensityProfile, "features", lambda self, x, cell: features(self, x[:1], cell))
    example = replace(observable_example("density_profile"))
    with pytest.raises(testing.ContractError, match="depend on the order of the atoms"):
        observables.observable_invariant_under_permutation(example)


@cache
def sampler_example(name: str) -> testing.SamplerExample:
    return testing.SamplerExample(protocol.load(name))


@pytest.mark.parametrize("check", testing.SAMPLER_CHECKS.values(), ids=testing.SAMPLER_CHECKS.keys())
@pytest.mark.parametrize("name", sorted(samplers.registry()))
def test_every_registered_sampler(name: str, check: testing.SamplerCheck) -> None:
    check(sampler_example(name))


def too_warm(potential: Any, parameters: Any, start: Any, point: Any, settings: Any, run: Any) -> Trajectory:
    """Samples exactly, at twice the temperature, with an energy of nothing, and forgets the seed."""
    count = len(start.positions)
    positions = np.random.default_rng(0).normal(0.5, 0.05 * 2**0.5, (count, 1, 3)).astype(np.float32)
    return Trajectory(
        positions=positions, cell=start.cell, species=start.symbols, energies=np.zeros(count),
        walkers=np.arange(count, dtype=np.int32), times=np.ones(count),
        temperatures=2 * point.temperature + np.arange(count), last_positions=positions.astype(float),
        last_velocities=np.zeros(positions.shape), temperature=point.temperature, scales=np.ones(count),
        last_scales=np.ones(count),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (sampled.harmonic_distribution_is_sampled, r"variance of the position .* must be 1"),
        (sampled.temperature_is_held, r"mean temperature \(K\) is 7\d\d"),
        (sampled.energies_are_those_of_the_positions, "not those of the stored positions"),
        (sampled.the_seed_decides, "two seeds give the same trajectory"),
    ],
)
def test_a_wrong_sampler_is_found(check: testing.SamplerCheck, message: str) -> None:
    with pytest.raises(testing.ContractError, match=message):
        check(testing.SamplerExample(too_warm, walkers=256))


@pytest.mark.parametrize("check", testing.SAMPLER_CHECKS.values(), ids=testing.SAMPLER_CHECKS.keys())
def test_the_sampler_of_the_documentation(check: testing.SamplerCheck) -> None:
    check(documented())


def test_the_energies_of_a_sampler_where_jax_is_left_at_single_precision() -> None:
    """As in the tests of another package, which switch nothing on."""
    example = testing.SamplerExample(documented().sampler, walkers=4)
    with jax.enable_x64(False):
        sampled.energies_are_those_of_the_positions(example)


@cache
def documented() -> testing.SamplerExample:
    page = (Path(__file__).parents[1] / "docs" / "howto" / "extend.md").read_text()
    (code,) = re.findall(r"^```python\n# my_package/monte_carlo.py\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    namespace: dict[str, Any] = {}
    exec(code, namespace)
    return testing.SamplerExample(namespace["monte_carlo"])
