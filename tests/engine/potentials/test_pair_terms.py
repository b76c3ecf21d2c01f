"""Pair and angle terms: NumPy loops, ase, finite differences, padding, precision, continuity, refused input."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.lj import LennardJones as AseLennardJones
from jaxtyping import Array, Float

from aiida_difftre.engine.contract.jobs import PotentialSpec, TermSpec
from aiida_difftre.engine.contract.term_options import STILLINGER_WEBER_REDUCED, of_pairs
from aiida_difftre.engine.geometry import lattice, neighbor_list
from aiida_difftre.engine.potentials.derivatives import forces, virial
from aiida_difftre.engine.potentials.lennard_jones import LennardJones
from aiida_difftre.engine.potentials.pair_spline import PairSpline
from aiida_difftre.engine.potentials.pairs import PairDistances, SwitchedPairs, of_pair, switch
from aiida_difftre.engine.potentials.potential import Potential, build
from aiida_difftre.engine.potentials.repulsion import Repulsion
from aiida_difftre.engine.potentials.stillinger_weber import StillingerWeber
from aiida_difftre.engine.potentials.stillinger_weber_alloy import StillingerWeberAlloy
from aiida_difftre.engine.potentials.term import Environment, Parameters, species_index
from tests.fixtures.engine import energy_and_gradient

EPSILON = {"C-C": 0.30, "C-O": 0.20, "O-O": 0.10}
SIGMA = {"C-C": 2.0, "O-C": 2.2, "O-O": 2.4}
TWO = {
    "lennard_jones": (5.0, {"epsilon": EPSILON, "sigma": SIGMA}),
    "repulsion": (4.0, {"epsilon": EPSILON, "sigma": SIGMA, "exponent": 9}),
    "dispersion": (5.0, {"c6": EPSILON, "radius": SIGMA}),
    "pair_spline": (4.5, {"inner": 2.0, "knots": 12}),
    "stillinger_weber": (2.0951 * 1.8, {}),
}


def potential(name: str, species: list[str], cutoff: float, hyperparameters: dict[str, Any]) -> Potential:
    term = TermSpec(architecture=name, cutoff=cutoff, hyperparameters=hyperparameters)
    return build(PotentialSpec(species=species, terms=[term]))


def random_alloy(seed: int = 0) -> Atoms:
    """A distorted triclinic cell, smaller than twice the cutoffs, with two species."""
    rng = np.random.default_rng(seed)
    atoms = bulk("C", "fcc", a=4.2, cubic=True).repeat((2, 1, 1))
    atoms.set_cell(atoms.cell.array + rng.normal(scale=0.15, size=(3, 3)), scale_atoms=True)
    atoms.positions += rng.normal(scale=0.12, size=(len(atoms), 3))
    atoms.symbols[1::3] = "O"
    return atoms


def environment(
    atoms: Atoms, species: list[str], cutoff: float, dtype: Any = jnp.float64, capacity: int | None = None
) -> tuple[Environment, neighbor_list.NeighborList]:
    positions = jnp.asarray(atoms.get_scaled_positions(wrap=False))
    cell = jnp.asarray(atoms.cell.array)
    shifts = lattice.images(atoms.cell.array, cutoff)
    neighbors = neighbor_list.build(positions, cell, cutoff, capacity or 200, shifts)
    index = jnp.asarray(species_index(atoms.get_chemical_symbols(), species))
    vectors = neighbor_list.displacements(positions, cell, neighbors).astype(dtype)
    return Environment(vectors, neighbors.mask, index, index[neighbors.index]), neighbors


def parameters_of(term: Any, seed: int = 1) -> dict[str, Any]:
    """Initial parameters, moved a little, so that nothing is zero or symmetric."""
    rng = np.random.default_rng(seed)
    return {
        key: jnp.asarray(value * rng.uniform(0.95, 1.05, value.shape) + 0.02 * rng.normal(size=value.shape))
        for key, value in term.init(jax.random.key(0)).items()
    }


def neighbour_vectors(atoms: Atoms, cutoff: float) -> list[list[tuple[int, np.ndarray]]]:
    """Neighbours by brute force over periodic images."""
    reach = range(-4, 5)
    result: list[list[tuple[int, np.ndarray]]] = []
    for start in atoms.positions:
        found = []
        for j, end in enumerate(atoms.positions):
            for shift in itertools.product(reach, repeat=3):
                vector = end + np.array(shift) @ atoms.cell.array - start
                distance = np.linalg.norm(vector)
                if 1e-9 < distance < cutoff:
                    found.append((j, vector))
        result.append(found)
    return result


def pair_name(a: str, b: str) -> str:
    return "-".join(sorted((a, b)))


def reference_pair(name: str, r: float, epsilon: float, sigma: float) -> float:
    cutoff = TWO[name][0]
    t = min(max((r - 0.9 * cutoff) / (0.1 * cutoff), 0.0), 1.0)
    smooth = 1 - 10 * t**3 + 15 * t**4 - 6 * t**5
    if name == "lennard_jones":
        return 4 * epsilon * ((sigma / r) ** 12 - (sigma / r) ** 6) * smooth
    if name == "dispersion":
        return -epsilon / (r**6 + sigma**6) * smooth
    return epsilon * (sigma / r) ** 9 * smooth


@pytest.mark.parametrize("name", ["lennard_jones", "repulsion", "dispersion"])
def test_pair_energy_against_a_double_loop(name: str) -> None:
    cutoff, hyperparameters = TWO[name]
    atoms, model = random_alloy(), potential(name, ["C", "O"], cutoff, hyperparameters)
    env, _ = environment(atoms, ["C", "O"], cutoff + 0.7)
    sigma = {pair_name(*key.split("-")): value for key, value in SIGMA.items()}
    symbols = atoms.get_chemical_symbols()
    expected = np.zeros(len(atoms))
    for i, neighbours in enumerate(neighbour_vectors(atoms, cutoff)):
        for j, v in neighbours:
            pair = pair_name(symbols[i], symbols[j])
            expected[i] += 0.5 * reference_pair(name, float(np.linalg.norm(v)), EPSILON[pair], sigma[pair])
    energies = jax.jit(model.energy)(model.init(jax.random.key(0)), model.project(env))
    np.testing.assert_allclose(energies, expected, rtol=1e-12, atol=1e-12)


def test_forces_of_the_dynamics_are_those_of_the_gradient() -> None:
    """Pairwise, radial and other many-body terms together, by components, with padding and a skin."""
    atoms = random_alloy()
    shape = {"n_radial": 3, "hidden": [5]}
    networks = (("moment_network", (4.0, {**shape, "rank": rank})) for rank in (2, 0))
    terms = [
        TermSpec(architecture=name, cutoff=cutoff, hyperparameters=hyperparameters)
        for name, (cutoff, hyperparameters) in (*TWO.items(), *networks)
    ]
    model = build(PotentialSpec(species=["C", "O"], terms=terms))
    parameters = model.init(jax.random.key(0))
    parameters["terms"]["3_pair_spline"]["control_points"] += np.linspace(1, 0, 12)
    env, listed = environment(atoms, ["C", "O"], 5.4)

    @jax.jit
    def both(parameters: Any, positions: Any) -> Any:
        _, gradient = energy_and_gradient(model, parameters, env)
        cell = jnp.asarray(atoms.cell.array)
        parts = neighbor_list.components(positions, cell, neighbor_list.neighbors(listed, cell))
        fast, trace = model.forces_and_virial(parameters, parts, env, listed.index)
        slow = forces(gradient, listed.index)
        return fast, trace, slow, jnp.trace(virial(gradient, env.displacements)), jnp.stack(parts, -1)

    fast, trace, slow, expected, vectors = both(parameters, jnp.asarray(atoms.get_scaled_positions(wrap=False)))
    np.testing.assert_allclose(vectors, env.displacements, atol=1e-12)
    assert np.abs(slow).max() > 0.1
    np.testing.assert_allclose(fast, slow, rtol=1e-9, atol=1e-9)
    assert float(trace) == pytest.approx(float(expected), rel=1e-9)


def test_lennard_jones_agrees_with_ase() -> None:
    """No pair lies between the onset and the cutoff, where the two switches differ."""
    atoms = bulk("Ar", "fcc", a=5.3, cubic=True).repeat(2)
    atoms.rattle(0.02, seed=3)
    cutoff, onset = 7.2, 6.9  # the third and fourth shells lie at 6.49 and 7.50 Å
    atoms.calc = AseLennardJones(epsilon=0.0104, sigma=3.4, rc=cutoff, ro=onset, smooth=True)
    term = {"epsilon": 0.0104, "sigma": 3.4, "onset": onset}
    model = potential("lennard_jones", ["Ar"], cutoff, term)
    env, neighbors = environment(atoms, ["Ar"], cutoff)
    parameters = model.init(jax.random.key(0))
    energy, gradient = energy_and_gradient(model, parameters, env)
    assert float(energy) == pytest.approx(atoms.get_potential_energy(), rel=1e-10)
    np.testing.assert_allclose(forces(gradient, neighbors.index), atoms.get_forces(), atol=1e-10)


def triple_loop(atoms: Atoms, values: dict[str, float], cutoff: float) -> np.ndarray:
    energies = []
    for neighbours in neighbour_vectors(atoms, cutoff):
        energy = 0.0
        for _, v in neighbours:
            x = np.linalg.norm(v) / values["sigma"]
            bracket = values["B"] * x**-4 - 1
            energy += 0.5 * values["A"] * bracket * np.exp(1 / (x - cutoff / values["sigma"]))
        for (_, v), (_, w) in itertools.combinations(neighbours, 2):
            a, b = np.linalg.norm(v), np.linalg.norm(w)
            decay = values["gamma"] * values["sigma"]
            factor = np.exp(decay / (a - cutoff)) * np.exp(decay / (b - cutoff))
            energy += values["lambda"] * (v @ w / a / b + 1 / 3) ** 2 * factor
        energies.append(values["epsilon"] * energy)
    return np.array(energies)


def test_stillinger_weber_against_a_triple_loop() -> None:
    atoms = bulk("Si", "diamond", a=5.2, cubic=True)
    atoms.set_cell(atoms.cell.array + np.random.default_rng(2).normal(scale=0.1, size=(3, 3)), scale_atoms=True)
    atoms.rattle(0.15, seed=4)
    cutoff = 1.8 * 2.0951
    model = potential("stillinger_weber", ["Si"], cutoff, {})
    env, _ = environment(atoms, ["Si"], cutoff + 0.5)
    expected = triple_loop(atoms, {**STILLINGER_WEBER_REDUCED, "epsilon": 2.1683, "sigma": 2.0951}, cutoff)
    energies = jax.jit(model.energy)(model.init(jax.random.key(0)), model.project(env))
    np.testing.assert_allclose(energies, expected, rtol=1e-11)


def test_silicon_cohesive_energy() -> None:
    atoms = bulk("Si", "diamond", a=5.431)
    model = potential("stillinger_weber", ["Si"], 1.8 * 2.0951, {})
    env, _ = environment(atoms, ["Si"], 4.0)
    assert float(model.total(model.init(jax.random.key(0)), env)) / 2 == pytest.approx(-4.3366, abs=2e-4)


def test_diamond_preset() -> None:
    model = potential("stillinger_weber", ["C"], 1.8 * 1.4, {"preset": "diamond"})
    term = model.terms[0]
    assert isinstance(term, StillingerWeber)
    assert dict(term.initial)["epsilon"] == pytest.approx(2.0729, abs=1e-4)
    assert dict(term.initial)["sigma"] == 1.4


@pytest.mark.parametrize("name", TWO)
def test_forces_and_parameter_gradients_by_finite_differences(name: str) -> None:
    cutoff, hyperparameters = TWO[name]
    atoms, model = random_alloy(), potential(name, ["C", "O"], cutoff, hyperparameters)
    term = model.terms[0]
    parameters = parameters_of(term)
    env, neighbors = environment(atoms, ["C", "O"], cutoff + 0.5)
    total = jax.jit(lambda p, vectors: jnp.sum(term.energy(p, term.project(env._replace(displacements=vectors)))))
    cell = jnp.asarray(atoms.cell.array)
    start = jnp.asarray(atoms.get_scaled_positions(wrap=False))

    def moved(atom: int, axis: int, step: float) -> float:
        positions = (
            start
            + jnp.linalg.solve(cell.T, jnp.zeros(3).at[axis].set(step)) * (jnp.arange(len(atoms)) == atom)[:, None]
        )
        return float(total(parameters, neighbor_list.displacements(positions, cell, neighbors)))

    gradient = jax.grad(total, argnums=1)(parameters, env.displacements)
    force = forces(jnp.where(env.mask[..., None], gradient, 0.0), neighbors.index)
    for atom, axis in [(0, 0), (3, 1), (4, 2)]:
        numerical = -(moved(atom, axis, 1e-5) - moved(atom, axis, -1e-5)) / 2e-5
        assert float(force[atom, axis]) == pytest.approx(numerical, rel=1e-6, abs=1e-7)

    slopes = jax.grad(total)(parameters, env.displacements)
    assert set(slopes) == set(parameters)
    for key, values in parameters.items():
        for index in list(np.ndindex(values.shape))[:4]:
            ends = [
                float(total({**parameters, key: values.at[index].add(step)}, env.displacements))
                for step in (-1e-5, 1e-5)
            ]
            assert float(slopes[key][index]) == pytest.approx((ends[1] - ends[0]) / 2e-5, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("name", TWO)
def test_padding_changes_nothing_and_all_derivatives_stay_finite(name: str, dtype: Any) -> None:
    cutoff, hyperparameters = TWO[name]
    atoms, model = random_alloy(), potential(name, ["C", "O"], cutoff, hyperparameters)
    term = model.terms[0]
    parameters = parameters_of(term)
    _, neighbors = environment(atoms, ["C", "O"], cutoff, dtype)
    tight, _ = environment(atoms, ["C", "O"], cutoff, dtype, capacity=int(neighbors.needed))
    padded, _ = environment(atoms, ["C", "O"], cutoff, dtype)

    def total(p: Any, vectors: Any, env: Environment) -> Any:
        return jnp.sum(term.energy(p, term.project(env._replace(displacements=vectors))))

    def everything(env: Environment) -> Any:
        """Gradients, and the parameter gradient of a second directional derivative, as the stiffness needs it."""
        first = jax.value_and_grad(total, argnums=(0, 1))(parameters, env.displacements, env)

        def curvature(p: Any) -> Any:
            along = lambda s: total(p, env.displacements * (1 + s), env)  # noqa: E731
            zero = jnp.zeros((), dtype)
            return jax.jvp(lambda s: jax.jvp(along, (s,), (jnp.ones((), dtype),))[1], (zero,), (jnp.ones((), dtype),))[
                1
            ]

        return first, jax.grad(curvature)(parameters)

    (value, (slopes, gradient)), second = jax.jit(everything)(padded)
    reference = float(total(parameters, tight.displacements, tight))
    assert value.dtype == dtype
    assert float(value) == pytest.approx(reference, rel=1e-4 if dtype == jnp.float32 else 1e-12)
    for leaf in jax.tree.leaves((slopes, gradient, second)):
        assert np.isfinite(leaf).all()
    batched = jax.vmap(lambda v: total(parameters, v, padded))(jnp.stack([padded.displacements] * 2))
    np.testing.assert_allclose(batched, value, rtol=1e-5)


@pytest.mark.parametrize("name", TWO)
def test_energy_goes_smoothly_to_zero_at_the_cutoff(name: str) -> None:
    cutoff, hyperparameters = TWO[name]
    model = potential(name, ["C", "O"], cutoff, hyperparameters)
    parameters = parameters_of(model.terms[0])

    def dimer(r: Any) -> Any:
        vectors = jnp.zeros((1, 1, 3)).at[0, 0, 2].set(r)
        env = Environment(vectors, jnp.ones((1, 1), bool), jnp.zeros(1, int), jnp.ones((1, 1), int))
        return model.terms[0].energy(parameters, model.terms[0].project(env))[0]

    slope, curvature = jax.grad(dimer), jax.grad(jax.grad(dimer))
    near = cutoff - 1e-6
    for r in (near, cutoff, cutoff + 0.1):
        assert abs(dimer(r)) < 1e-12
        assert abs(slope(r)) < 1e-8
        assert abs(curvature(r)) < 1e-3


def test_spline_reproduces_scipy_and_is_a_line_below_its_first_knot() -> None:
    from scipy.interpolate import BSpline

    term = PairSpline.from_spec(("C",), 4.0, {"inner": 1.0, "knots": 8})
    points = jnp.asarray(np.random.default_rng(0).normal(size=(1, 8)))
    step = 3.0 / 9
    assert term.positions[-1] == pytest.approx(1.0 + 7 * step)
    knots = 1.0 + step * np.arange(-3, 13)
    coefficients = np.concatenate([2 * points[0, :1] - points[0, 1:2], points[0], np.zeros(3)])
    reference = BSpline(knots, coefficients, 3)

    def dimer(r: Any) -> Any:
        vectors = jnp.zeros((1, 1, 3)).at[0, 0, 0].set(r)
        env = Environment(vectors, jnp.ones((1, 1), bool), jnp.zeros(1, int), jnp.zeros((1, 1), int))
        return 2 * term.energy({"control_points": points}, term.project(env))[0]

    r = np.linspace(1.0, 3.999, 50)
    np.testing.assert_allclose(jax.vmap(dimer)(r), reference(r), atol=1e-13)
    below = np.array([0.2, 0.5, 0.9])
    line = reference(1.0) + reference(1.0, 1) * (below - 1.0)
    np.testing.assert_allclose(jax.vmap(dimer)(below), line, atol=1e-12)


def test_spline_starts_through_its_values() -> None:
    values = np.random.default_rng(1).normal(size=8)
    hyperparameters = {"inner": 1.0, "knots": 8, "values": {"O-C": values.tolist()}}
    term = PairSpline.from_spec(("C", "O"), 4.0, hyperparameters)
    parameters = term.init(jax.random.key(0))

    def dimer(r: Any, neighbor: int) -> Any:
        vectors = jnp.zeros((1, 1, 3)).at[0, 0, 0].set(r)
        env = Environment(vectors, jnp.ones((1, 1), bool), jnp.zeros(1, int), jnp.full((1, 1), neighbor))
        return 2 * term.energy(parameters, term.project(env))[0]

    np.testing.assert_allclose([dimer(r, 1) for r in term.positions], values, atol=1e-12)
    assert all(dimer(r, 0) == 0 for r in term.positions)


def test_switch_ends() -> None:
    np.testing.assert_allclose(switch(jnp.array([0.0, 3.0, 3.5, 4.0, 9.0]), 3.0, 4.0), [1, 1, 0.5, 0, 0], atol=1e-12)


def test_values_by_pair_in_either_order() -> None:
    assert of_pairs("sigma", SIGMA, ("C", "O")) == (2.0, 2.2, 2.4)
    assert of_pairs("sigma", 3, ("C", "O")) == (3.0, 3.0, 3.0)


@pytest.mark.parametrize(
    ("cls", "hyperparameters", "message"),
    [
        (LennardJones, {"sigma": 3.0}, "epsilon is missing; give a value"),
        (LennardJones, {"epsilon": -0.1, "sigma": 3.0}, r"epsilon = -0\.1: must be above 0 and at most 1000 eV"),
        (LennardJones, {"epsilon": "deep", "sigma": 3.0}, "epsilon = 'deep': must be a number"),
        (LennardJones, {"epsilon": 0.1, "sigma": 3.0, "depth": 1}, "'depth'"),
        (LennardJones, {"epsilon": 0.1, "sigma": 3.0, "onset": 6.0}, r"onset = 6\.0"),
        (LennardJones, {"epsilon": {"Ar-Xe": 0.1}, "sigma": 3.0}, "'Ar-Xe'"),
        (LennardJones, {"epsilon": {"Ar-Ar": "x"}, "sigma": 3.0}, "the value of 'Ar-Ar' must be a number"),
        (LennardJones, {"epsilon": 0.1, "sigma": 1e9}, "sigma = 1000000000.0: must be above 0 and at most 20 Å"),
        (LennardJones, {"epsilon": {}, "sigma": 3.0}, "no value for the pair 'Ar-Ar'"),
        (Repulsion, {"epsilon": 0.1, "sigma": 3.0, "exponent": 0.5}, r"exponent = 0\.5"),
        (PairSpline, {"inner": 5.5}, r"inner = 5\.5"),
        (PairSpline, {"knots": 1}, "knots = 1"),
        (PairSpline, {"knots": 3, "values": [0.1, 0.2]}, "values of .* must list 3 energies .* got 2 of them"),
        (PairSpline, {"knots": 2, "values": [0.1, None]}, r"values\[1\] = None"),
        (PairSpline, {"knots": 2, "values": {"X-Y": [0.1, 0.2]}}, "pair 'X-Y'"),
        (StillingerWeber, {}, r"cutoff = 5\.0 Å must be a·sigma = 3\.77"),
        (StillingerWeber, {"preset": "tin"}, "preset = 'tin'"),
        (StillingerWeber, {"preset": ["tin"]}, r"preset = \['tin'\]"),
        (StillingerWeber, {"lambd": 20}, "'lambd'"),
        (StillingerWeber, {"epsilon": {"Ar-Ar": 2.0}}, "one set of parameters for all species; give one number"),
        (StillingerWeberAlloy, {"epsilon": 1, "sigma": 2}, r"cutoff = 5\.0 Å must be the largest a·sigma = 3\.6 Å"),
        (
            StillingerWeberAlloy,
            {"epsilon": 1, "sigma": 2, "a": 2.5, "lambda": {"Ar-Xe-Ar": 2}},
            "triplet 'Ar-Xe-Ar'; give the ce",
        ),
        (
            StillingerWeberAlloy,
            {"epsilon": 1, "sigma": 2, "a": 2.5, "lambda": {}},
            "no value for the triplet 'Ar-Ar-Ar'",
        ),
        (
            StillingerWeberAlloy,
            {"epsilon": 1, "sigma": 2, "a": 2.5, "lambda": -1},
            "lambda = -1 of Ar-Ar-Ar: must be at least 0",
        ),
        (StillingerWeber, {"p": 2, "q": 2}, "p = 2.0 and q = 2.0 must satisfy"),
        (StillingerWeber, {"p": 0}, "p = 0"),
    ],
)
def test_refused_hyperparameters(cls: Any, hyperparameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cls.from_spec(("Ar",), 5.0, hyperparameters)


def test_a_pair_term_of_ones_own_states_its_fields_and_the_energy_of_a_pair() -> None:
    @dataclass(frozen=True)
    class Coulomb(SwitchedPairs):
        strength: tuple[float, ...]
        softening: tuple[float, ...]

        trained = ("strength",)
        fixed = ("softening",)

        def bare_energy(self, parameters: Parameters, pairs: PairDistances) -> Float[Array, "atoms neighbors"]:
            return of_pair(parameters["strength"], pairs) / (pairs.distance + self.softening[0])

    term = Coulomb.from_spec(
        ("Na", "Cl"), 5.0, {"strength": {"Cl-Na": 2.0, "Na-Na": 3.0, "Cl-Cl": 4.0}, "softening": 1}
    )
    assert term.onset == 4.5
    parameters = term.init(jax.random.key(0))
    assert list(parameters) == ["strength"]
    # Na with a Cl at 3 Å, and one beyond the cutoff: half of 2/(3 + 1).
    vectors = jnp.array([[[3.0, 0.0, 0.0], [0.0, 6.0, 0.0]]])
    environment = Environment(vectors, jnp.ones((1, 2), bool), jnp.array([0]), jnp.array([[1, 1]]))
    assert float(term.energy(parameters, term.project(environment))[0]) == pytest.approx(0.25)
    with pytest.raises(
        ValueError, match="unknown hyperparameter 'charge'; known: feynman_hibbs, onset, softening, strength, tail"
    ):
        Coulomb.from_spec(("Na", "Cl"), 5.0, {"charge": 1})
