"""EXAFS against direct summation, its fit of S0² and ΔE0 against scipy, gradients with the fit, and refusals."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from scipy.optimize import minimize

from aiida_difftre.engine.contract.jobs import UpdateSettings
from aiida_difftre.engine.contract.observables import Measured, ObservableRequest
from aiida_difftre.engine.contract.targets import Target
from aiida_difftre.engine.contract.validation import validate
from aiida_difftre.engine.errors import EngineError
from aiida_difftre.engine.observables import protocol
from aiida_difftre.engine.observables.absorption import Exafs
from aiida_difftre.engine.observables.filters import fourier_filter
from aiida_difftre.engine.observables.protocol import Macrostate
from aiida_difftre.engine.observables.specs.absorption import wave_numbers
from aiida_difftre.engine.refinement import objective
from tests.fixtures.engine import build, prepared, rattled
from tests.fixtures.exafs import direct_sum, table, target_fields

GRID = np.arange(3.0, 14.0, 0.1)
POINT = Macrostate(300.0, 1.0, 1)


def copper(amplitude: float = 0.08, seed: int = 0, repeat: int = 2) -> Atoms:
    atoms = bulk("Cu", "fcc", a=3.6, cubic=True).repeat(repeat)
    atoms.rattle(amplitude, seed=seed)
    return atoms


def brass() -> Atoms:
    """In a triclinic cell."""
    atoms = copper(repeat=2)
    atoms.symbols[1::3] = "Zn"
    atoms.set_cell(atoms.cell.array + np.random.default_rng(1).normal(scale=0.2, size=(3, 3)), scale_atoms=True)
    return atoms


def plain(atoms: Atoms, paths: dict[str, Any], **options: Any) -> Exafs:
    """Without anything to fit."""
    fixed = {"absorber": "Cu", "s02": 1.0, "e0_shift": 0.0, "paths": paths, **options}
    request = ObservableRequest(observable="exafs", grid=GRID.tolist(), options=fixed)
    return Exafs.from_request(request, tuple(atoms.get_chemical_symbols()), atoms.cell.array)


def fitting(atoms: Atoms, values: np.ndarray, **options: Any) -> Exafs:
    request = validate(Target, target_fields(values, GRID, **options)).request()
    return Exafs.from_request(request, tuple(atoms.get_chemical_symbols()), atoms.cell.array)


def features(observable: Exafs, atoms: Atoms) -> jax.Array:
    positions = jnp.asarray(atoms.get_scaled_positions(wrap=False))
    return jax.jit(observable.features)(positions, jnp.asarray(atoms.cell.array))


def combined(observable: Exafs, rows: jax.Array) -> np.ndarray:
    weights = jnp.full(len(rows), 1 / len(rows))
    return np.asarray(jax.jit(lambda x: observable.combine({"features": x}, weights, POINT))(rows))


def test_crystal_and_alloy_agree_with_the_direct_sum() -> None:
    for atoms, paths in ((copper(), table()), (brass(), table(scatterers=("Cu", "Zn")))):
        observable = plain(atoms, paths)
        expected = direct_sum(atoms, GRID)
        found = combined(observable, features(observable, atoms)[None])
        np.testing.assert_allclose(found, expected, atol=1e-3 * np.abs(expected).max())


def test_mean_over_snapshots_with_scale_shift_and_power_of_k() -> None:
    frames = [copper(seed=seed) for seed in range(3)]
    observable = plain(frames[0], table(), s02=0.8, e0_shift=4.0, k_weight=2)
    rows = jnp.stack([features(observable, frame) for frame in frames])
    mean = np.mean([direct_sum(frame, wave_numbers(GRID, 4.0)) for frame in frames], axis=0)
    expected = 0.8 * GRID**2 * mean
    np.testing.assert_allclose(combined(observable, rows), expected, atol=1e-3 * np.abs(expected).max())


def test_small_cell_gives_the_same_as_its_supercell() -> None:
    small = copper(repeat=1)
    large = small.repeat(2)
    a, b = (features(plain(atoms, table()), atoms) for atoms in (small, large))
    np.testing.assert_allclose(a, b, atol=1e-9)


def test_fit_finds_what_was_put_in() -> None:
    atoms = copper()
    values = 0.83 * GRID**2 * direct_sum(atoms, wave_numbers(GRID, -6.3))
    observable = fitting(atoms, values, k_weight=2)
    rows = features(observable, atoms)[None]
    found = observable.fitted({"features": rows}, jnp.ones(1))
    assert float(found["s02"]) == pytest.approx(0.83, abs=1e-3)
    assert float(found["e0_shift"]) == pytest.approx(-6.3, abs=0.02)
    np.testing.assert_allclose(combined(observable, rows), values, atol=2e-3 * np.abs(values).max())


def test_filtered_values_and_the_fit_through_the_filter() -> None:
    """Near shells alone are compared: a far one that the snapshots lack does not disturb the fit."""
    atoms = copper()
    chi = 0.83 * GRID**2 * direct_sum(atoms, wave_numbers(GRID, -6.3))
    far = 0.3 * np.abs(chi).max() * np.sin(2 * 7.5 * GRID)
    window = {"r_range": [1.2, 3.5], "k_taper": 1.0, "r_taper": 0.4}
    matrix = fourier_filter(GRID, (1.2, 3.5), 1.0, 0.4)
    observable = fitting(atoms, matrix @ (chi + far), k_weight=2, **window)
    rows = features(observable, atoms)[None]
    found = observable.fitted({"features": rows}, jnp.ones(1))
    assert float(found["s02"]) == pytest.approx(0.83, abs=5e-3)
    assert float(found["e0_shift"]) == pytest.approx(-6.3, abs=0.1)
    expected = matrix @ chi
    np.testing.assert_allclose(combined(observable, rows), expected, atol=0.01 * np.abs(expected).max())


def other_disorder() -> np.ndarray:
    """A measurement that no S0² and ΔE0 make equal to that of copper()."""
    return 0.8 * direct_sum(copper(0.09, seed=4, repeat=1), wave_numbers(GRID, 2.0))


@pytest.mark.parametrize("shared", [{"correlation_length": 0.8}, {"systematic": {"offset": 10.0}}])
def test_fit_has_the_errors_that_points_share(shared: dict[str, Any]) -> None:
    """At a fixed ΔE0 the closed form of generalised least squares; an unknown offset is taken off the measurement."""
    atoms = copper(repeat=1)
    values = other_disorder() + 0.02
    fields = {**target_fields(values, GRID, e0_shift=2.0), **shared}
    target = validate(Target, fields)
    request = ObservableRequest.model_validate(target.request().model_dump(mode="json"))
    observable = Exafs.from_request(request, tuple(atoms.get_chemical_symbols()), atoms.cell.array)
    chi = features(observable, atoms)
    shape = combined(plain(atoms, table(), e0_shift=2.0), chi[None])
    if "systematic" in shared:
        matrix = 0.01**2 * np.eye(len(GRID)) + shared["systematic"]["offset"] ** 2
    else:
        matrix = 0.01**2 * np.exp(-np.abs(GRID[:, None] - GRID) / shared["correlation_length"])
    told = np.linalg.solve(matrix, shape)
    best = (told @ values) / (told @ shape)
    found = observable.fitted({"features": chi[None]}, jnp.ones(1))["s02"]
    assert float(found) == pytest.approx(best, rel=1e-6)
    independent = (shape @ values) / (shape @ shape)
    assert abs(best - independent) > 1e-3
    if "systematic" in shared:  # what is left is the regression of deviations from the means
        covariance = np.cov(shape, values)
        assert float(found) == pytest.approx(covariance[0, 1] / covariance[0, 0], rel=1e-3)


def test_measured_without_shared_errors_is_written_as_ever() -> None:
    target = validate(Target, target_fields(other_disorder(), GRID))
    measured = target.request().measured
    assert measured is not None
    assert set(measured.model_dump()) == {"values", "errors"}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"errors": [0.1]}, "measured has 2 values; give as many errors"),
        ({"errors": [0.1, 0.0]}, "measured has 2 values; give as many errors, all of them positive"),
        ({"covariance": [[1.0, 0.0]]}, "measured.covariance must have 2 rows of 2 numbers"),
        ({"covariance": [[1.0, 2.0], [2.0, 1.0]]}, "measured.covariance is not positive definite"),
    ],
)
def test_measured_that_cannot_be(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        validate(Measured, {"values": [0.1, 0.2], "errors": [0.1, 0.1], **wrong})


def test_fit_is_the_minimum_that_scipy_finds() -> None:
    atoms = copper(repeat=1)
    values = other_disorder()
    observable = fitting(atoms, values)
    chi = features(observable, atoms)
    found = {name: float(value) for name, value in observable.fitted({"features": chi[None]}, jnp.ones(1)).items()}

    def misfit(parameters: np.ndarray) -> float:
        s02, shift = parameters
        return float(np.sum((s02 * direct_sum(atoms, wave_numbers(GRID, shift)) - values) ** 2))

    best = minimize(misfit, [0.8, 0.0], method="Nelder-Mead", options={"xatol": 1e-4, "fatol": 1e-9})
    assert found["s02"] == pytest.approx(best.x[0], abs=2e-3)
    assert found["e0_shift"] == pytest.approx(best.x[1], abs=0.05)


@pytest.mark.parametrize(
    "options",
    [{}, {"s02": [0.6, 0.65]}, {"e0_shift": [-3.0, -2.0]}, {"s02": 0.85, "e0_shift": 1.0}, {"r_range": [1.2, 3.5]}],
)
def test_gradient_sees_the_fit_move(options: dict[str, Any]) -> None:
    """Of chi² and of something of which the fit is no minimum; free, at the end of a range, and fixed."""
    atoms = copper(repeat=1)
    values = other_disorder()
    if "r_range" in options:
        values = fourier_filter(GRID, (1.2, 3.5), 1.0, 0.5) @ values
    observable = fitting(atoms, values, **options)
    chi = features(observable, atoms)
    direction = jnp.asarray(np.random.default_rng(0).normal(size=chi.shape)) * 1e-2 * jnp.abs(chi).max()

    @jax.jit
    def losses(step: jax.Array) -> jax.Array:
        fitted = observable.fit(chi + step * direction)[0]
        return jnp.stack([jnp.mean((fitted - values) ** 2), jnp.mean(fitted**3)])

    h = 1e-4
    numeric = (losses(jnp.asarray(h)) - losses(jnp.asarray(-h))) / (2 * h)
    np.testing.assert_allclose(jax.jacrev(losses)(jnp.asarray(0.0)), numeric, rtol=1e-6)


def test_gradient_of_the_loss_in_the_parameters_of_a_potential() -> None:
    """Against finite differences of the whole loss, with its weights and with the fit done anew."""
    potential = build("lennard_jones", ["Cu"], 4.0, epsilon=0.05, sigma=2.27)
    parameters = potential.init(jax.random.key(0))
    atoms = bulk("Cu", "fcc", a=3.6, cubic=True)
    trajectory = rattled(potential, parameters, atoms, snapshots=6, amplitude=0.09, temperature=900.0)
    settings = UpdateSettings(bootstrap=10)
    wanted = validate(Target, target_fields(other_disorder(), GRID, k_weight=0))
    data = prepared(potential, parameters, trajectory, [wanted], settings)
    fitted = data.before[0].fitted
    assert 0.6 < fitted["s02"] < 1.1
    assert abs(fitted["e0_shift"]) < 15
    assert "paths" not in data.before[0].options
    slopes = objective.gradient([data], parameters, objective.evaluate([data], parameters))
    direction = jax.tree.map(lambda leaf: 0.3 * jnp.ones_like(leaf), parameters)
    h = 1e-5
    plus, minus = (
        objective.evaluate([data], jax.tree.map(lambda p, d, s=sign: p + s * h * d, parameters, direction)).loss
        for sign in (1, -1)
    )
    expected = sum(float(jnp.sum(a * b)) for a, b in zip(*map(jax.tree.leaves, (slopes, direction)), strict=True))
    assert abs(expected) > 1e-3
    assert (plus - minus) / (2 * h) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("symbols", "options", "message"),
    [
        ("Zn", {}, "option 'absorber' of 'exafs' names 'Cu'; the structure has Zn"),
        ("CuZn", {}, "the path table has no shell of Zn, only of Cu"),
        ("Cu", {"paths": None}, "option 'paths' is missing: .* the job difftre.feff makes one"),
        ("Cu", {"s02": [0.7, 1.0]}, "without a measurement there is nothing to fit s02 and e0_shift to"),
    ],
)
def test_refused_requests(symbols: str, options: dict[str, Any], message: str) -> None:
    atoms = copper(repeat=1)
    atoms.symbols = [symbols[2 * n : 2 * n + 2] for n in range(len(symbols) // 2)] * (8 // len(symbols))
    fixed = {"absorber": "Cu", "s02": 1.0, "e0_shift": 0.0, "paths": table(), **options}
    request = ObservableRequest(observable="exafs", grid=GRID.tolist(), options=fixed)
    with pytest.raises(EngineError, match=message):
        protocol.make(request, tuple(atoms.get_chemical_symbols()), atoms.cell.array)


def test_what_needs_no_table_is_refused_before_it_is_made() -> None:
    request = ObservableRequest(observable="exafs", grid=GRID.tolist(), options={"absorber": "Fe", "s02": 1.0})
    with pytest.raises(ValueError, match="names 'Fe'; the structure has Cu"):
        request.check_system(["Cu"], np.eye(3) * 10)
