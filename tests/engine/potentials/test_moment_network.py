"""The moment network: symmetries, derivatives, padding, smoothness, compilation, refused input."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase import Atoms
from jax.test_util import check_grads
from numpy.polynomial import Chebyshev
from scipy.spatial.transform import Rotation

from aiida_difftre.engine.errors import EngineError, ExitStatus
from aiida_difftre.engine.geometry import lattice, neighbor_list
from aiida_difftre.engine.potentials import moment_network
from aiida_difftre.engine.potentials import potential as potentials
from aiida_difftre.engine.potentials.potential import Potential
from aiida_difftre.engine.potentials.term import Environment, Parameters, species_index
from tests.fixtures.engine import alloy, build, energy_and_gradient, network

SPECIES = {1: ("C",), 2: ("C", "O")}


def environment(
    potential: Potential, atoms: Atoms, *, extra: int = 0, skin: float = 0.0, dtype: Any = jnp.float64
) -> tuple[Environment, neighbor_list.NeighborList]:
    """With ``extra`` padded neighbours, and real ones beyond the cutoff where there is a skin."""
    positions, cell = jnp.asarray(atoms.get_scaled_positions(wrap=False)), jnp.asarray(atoms.cell.array)
    cutoff = potential.cutoff + skin
    needed = int(neighbor_list.build_batch(positions[None], cell, cutoff).needed[0])
    lists = neighbor_list.build(positions, cell, cutoff, needed + extra, lattice.images(cell, cutoff))
    index = jnp.asarray(species_index(atoms.get_chemical_symbols(), potential.spec.species))
    vectors = neighbor_list.displacements(positions, cell, lists).astype(dtype)
    return Environment(vectors, lists.mask, index, index[lists.index]), lists


def energies(potential: Potential, parameters: Parameters, atoms: Atoms, **options: Any) -> np.ndarray:
    return np.asarray(potential.energies(parameters, environment(potential, atoms, **options)[0]))


@pytest.mark.parametrize("kinds", [1, 2])
@pytest.mark.parametrize("rank", [0, 1, 2, 3])
def test_invariant_under_rotation_permutation_translation(rank: int, kinds: int) -> None:
    potential, parameters = network(SPECIES[kinds], rank=rank)
    atoms = alloy(SPECIES[kinds])
    reference = energies(potential, parameters, atoms)
    assert np.ptp(reference) > 1e-3
    rotated = atoms.copy()
    matrix = Rotation.from_rotvec([0.3, -1.1, 0.7]).as_matrix() @ np.diag([1, 1, -1])
    rotated.set_cell(atoms.cell.array @ matrix.T, scale_atoms=True)
    np.testing.assert_allclose(energies(potential, parameters, rotated), reference, rtol=1e-11, atol=1e-12)
    order = np.random.default_rng(1).permutation(len(atoms))
    np.testing.assert_allclose(energies(potential, parameters, atoms[order]), reference[order], atol=1e-12)
    moved = atoms.copy()
    moved.positions += [0.4, -7.3, 2.2]
    np.testing.assert_allclose(energies(potential, parameters, moved), reference, atol=1e-11)


def test_species_matter() -> None:
    potential, parameters = network(SPECIES[2])
    atoms = alloy(SPECIES[2])
    swapped = atoms.copy()
    swapped.symbols = ["O" if symbol == "C" else "C" for symbol in atoms.symbols]
    assert np.abs(energies(potential, parameters, atoms) - energies(potential, parameters, swapped)).min() > 1e-4


@pytest.mark.parametrize(("rank", "kinds"), [(0, 1), (1, 2), (2, 1), (3, 2)])
def test_forces_and_virial_against_finite_differences(rank: int, kinds: int) -> None:
    potential, parameters = network(SPECIES[kinds], rank=rank)
    atoms = alloy(SPECIES[kinds])
    env, lists = environment(potential, atoms)
    value, gradient = energy_and_gradient(potential, parameters, env)
    assert float(value) == pytest.approx(float(np.sum(energies(potential, parameters, atoms))), rel=1e-12)
    force = np.asarray(potentials.forces(gradient, lists.index))
    virial = np.asarray(potentials.virial(gradient, env.displacements))
    total = jax.jit(potential.total)
    cell, step = jnp.asarray(atoms.cell.array), 1e-4

    def energy(positions: np.ndarray, strain: np.ndarray) -> float:
        scaled = jnp.asarray(positions @ np.linalg.inv(atoms.cell.array))
        vectors = neighbor_list.displacements(scaled, cell, lists) @ (jnp.eye(3) + strain)
        return float(total(parameters, env._replace(displacements=vectors)))

    for atom, axis in ((0, 0), (3, 1), (7, 2)):
        shift = np.zeros((8, 3))
        shift[atom, axis] = step
        numerical = -(energy(atoms.positions + shift, np.zeros((3, 3))) - energy(atoms.positions - shift, 0)) / 2 / step
        assert force[atom, axis] == pytest.approx(numerical, rel=1e-6, abs=1e-7)
    for a, b in ((0, 0), (1, 2)):
        strain = np.zeros((3, 3))
        strain[a, b] += step / 2
        strain[b, a] += step / 2
        numerical = (energy(atoms.positions, strain) - energy(atoms.positions, -strain)) / 2 / step
        assert virial[a, b] == pytest.approx(numerical, rel=1e-6, abs=1e-6)
    np.testing.assert_allclose(force.sum(0), 0, atol=1e-11)


@pytest.mark.parametrize("kinds", [1, 2])
def test_padding_and_skin_change_nothing(kinds: int) -> None:
    potential, parameters = network(SPECIES[kinds], rank=3)
    atoms = alloy(SPECIES[kinds])
    plain, _ = environment(potential, atoms)
    padded, _ = environment(potential, atoms, extra=7, skin=0.6)

    def both(env: Environment) -> tuple[Any, Any, Any]:
        gradient = jax.grad(potential.total)(parameters, env)
        return potential.total(parameters, env), gradient, energy_and_gradient(potential, parameters, env)[1].sum(1)

    for a, b in zip(jax.tree.leaves(both(plain)), jax.tree.leaves(both(padded)), strict=True):
        assert np.isfinite(b).all()
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10)


def test_parameter_gradient_against_finite_differences() -> None:
    potential, parameters = network(SPECIES[2])
    env, _ = environment(potential, alloy(SPECIES[2]), extra=3)
    total = jax.jit(potential.total)
    gradient = jax.grad(potential.total)(parameters, env)
    rng = np.random.default_rng(4)
    direction = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape)), parameters)
    slope = sum(float(jnp.vdot(g, d)) for g, d in zip(*map(jax.tree.leaves, (gradient, direction)), strict=True))
    up, down = (jax.tree.map(lambda p, d, s=s: p + s * d, parameters, direction) for s in (1e-5, -1e-5))
    assert slope == pytest.approx(float(total(up, env) - total(down, env)) / 2e-5, rel=1e-6)


def test_radial_functions_are_those_of_numpy() -> None:
    """Values and slopes to the largest order; zero from the cutoff on."""
    x, count = np.linspace(0.1, 1.2, 56), 32
    argument, inside = 1 - 2 * x, np.maximum(1 - x * x, 0)
    values = moment_network.radial_functions(jnp.asarray(x), count)
    slopes = moment_network.radial_slopes(jnp.asarray(x), count)
    assert len(values) == len(slopes) == count
    for k in range(count):
        chebyshev = Chebyshev.basis(k)
        polynomial, slope = chebyshev(argument), -2 * chebyshev.deriv()(argument)
        np.testing.assert_allclose(values[k], inside**3 * polynomial, atol=1e-12)
        np.testing.assert_allclose(slopes[k], inside**3 * slope - 6 * x * inside**2 * polynomial, atol=1e-11)


def test_radial_sums_have_derivatives_of_both_modes() -> None:
    """First and second, against finite differences."""
    x = jnp.asarray(np.random.default_rng(2).uniform(0.2, 1.1, (3, 6)))

    def sums(x: Any) -> Any:
        return moment_network.radial_sums(jnp.asarray(x), 7)

    # The third derivatives are large: a wider step than this has errors of a thousandth in some directions.
    check_grads(sums, (x,), order=2, modes=["fwd", "rev"], rtol=1e-4, eps=1e-6)


def test_smooth_at_the_cutoff() -> None:
    """Energy, slope and curvature of a pair vanish there, and an atom alone has no force."""
    potential, parameters = network(rank=3)

    def pair(r: Any) -> Any:
        vectors = jnp.array([[[1.0, 0.0, 0.0]], [[-1.0, 0.0, 0.0]]]) * r
        env = Environment(vectors, jnp.ones((2, 1), bool), jnp.zeros(2, int), jnp.zeros((2, 1), int))
        return potential.total(parameters, env)

    below, alone = jnp.float64(potential.cutoff - 1e-4), jnp.float64(potential.cutoff + 0.1)
    assert float(pair(below)) == pytest.approx(float(pair(alone)), abs=1e-10)
    assert abs(float(jax.grad(pair)(below))) < 1e-6
    assert abs(float(jax.grad(jax.grad(pair))(below))) < 1e-1
    assert abs(float(jax.grad(pair)(potential.cutoff - 1.0))) > 1e-2
    assert float(jax.grad(pair)(alone)) == 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("repeat", [1, 2])
def test_compiled_agrees_with_uncompiled(repeat: int, dtype: str) -> None:
    potential, parameters = network(SPECIES[2])
    atoms = alloy(SPECIES[2]).repeat((repeat, 1, 1))
    tolerance = {"float32": 3e-5, "float64": 1e-12}[dtype]
    for extra in (0, 5):
        env, _ = environment(potential, atoms, extra=extra, dtype=jnp.dtype(dtype))
        with jax.disable_jit():
            reference = np.asarray(potential.energies(parameters, env))
        np.testing.assert_allclose(jax.jit(potential.energies)(parameters, env), reference, rtol=0, atol=tolerance)


def test_standardise() -> None:
    potential, parameters = network(rank=2)
    term = potential.terms[0]
    env, _ = environment(potential, alloy(("C",)).repeat((2, 1, 1)))
    projected = term.project(env)
    standardised = term.standardise(parameters["terms"]["0_moment_network"], projected)
    invariants = np.asarray(term.invariants(standardised, projected))
    assert invariants.shape == (16, term.n_invariants)
    np.testing.assert_allclose(standardised["mean"], invariants.mean(0), rtol=1e-12)
    assert np.all(np.asarray(standardised["deviation"]) >= invariants.std(0) * (1 - 1e-12))
    buffers = potential.trainable(parameters)["terms"]["0_moment_network"]
    assert buffers["mean"] is False
    assert all(buffers["mlp"].values())


def test_zero_residual_learns() -> None:
    """Exactly zero energies; the last layer has a gradient, and after its first step the others have one, too."""
    potential, parameters = network(output_scale=0.0)
    env, _ = environment(potential, alloy(("C",)))
    np.testing.assert_array_equal(potential.energies(parameters, env), 0)
    slope = jax.jit(jax.grad(lambda p: jnp.sum((potential.energies(p, env) - 1.0) ** 2)))
    first = slope(parameters)["terms"]["0_moment_network"]["mlp"]
    last = max(first)
    assert np.abs(first[last]).max() > 1e-3
    assert not np.any(first["w0"])
    moved = jax.tree.map(lambda p, g: p - 1e-3 * g, parameters, slope(parameters))
    assert np.abs(slope(moved)["terms"]["0_moment_network"]["mlp"]["w0"]).max() > 1e-6


@pytest.mark.parametrize(
    ("hyperparameters", "message"),
    [
        ({"rank": 4}, "rank = 4"),
        ({"rank": 2.5}, "rank = 2.5: .*integer"),
        ({"rank": True}, "rank = True"),
        ({"n_radial": 1}, "n_radial = 1"),
        ({"n_radial": "8"}, "n_radial = '8': must be a number"),
        ({"n_radial": 8.5}, "n_radial = 8.5"),
        ({"hidden": []}, r"hidden = \[\]"),
        ({"hidden": 48}, "hidden = 48: .*list"),
        ({"hidden": "48"}, "hidden = '48'"),
        ({"hidden": [48.5]}, r"hidden\[0\] = 48.5"),
        ({"activation": ["silu"]}, r"activation = \['silu'\]"),
        ({"output_scale": "0.1"}, "output_scale = '0.1': must be a number"),
        ({"activation": "relu6"}, "'relu6'"),
        ({"output_scale": -0.1}, "output_scale = -0.1"),
        ({"width": 3}, "unknown hyperparameter 'width'"),
    ],
)
def test_refused(hyperparameters: dict[str, Any], message: str) -> None:
    with pytest.raises(EngineError, match=message) as caught:
        build("moment_network", ["C"], 3.0, **hyperparameters)
    assert caught.value.status == ExitStatus.INVALID_INPUT
