"""Energies, stresses and Born terms against finite strains; batches, padding and caching change nothing."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import sqrtm

from aiida_difftre.engine import units
from aiida_difftre.engine.contract.settings import Machine
from aiida_difftre.engine.geometry import lattice, neighbor_list
from aiida_difftre.engine.geometry.strain import voigt_matrix
from aiida_difftre.engine.potentials.potential import Potential
from aiida_difftre.engine.potentials.term import Environment, Parameters
from aiida_difftre.engine.snapshots import snapshots as quantities
from aiida_difftre.engine.snapshots.compact_lists import Lists
from aiida_difftre.engine.snapshots.snapshots import Coordinates, Directions, Snapshots
from tests.fixtures.engine import alloy, argon, lennard_jones, network, silicon, stillinger_weber

SYSTEMS: dict[str, Callable[[], Any]] = {
    "moment_network": lambda: (*network(("C", "O"), rank=3), alloy()),
    "stillinger_weber": lambda: (*stillinger_weber(), silicon()),
    "lennard_jones": lambda: (*lennard_jones(), argon(1, 5.1)),
}
DIRECTIONS = np.array([[1.0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 1.0, 0], [0.5, -0.3, 1.0, 0.7, 0.2, -0.4]])


def positions_of(atoms: Any, snapshots: int, amplitude: float = 0.08) -> np.ndarray:
    noise = np.random.default_rng(2).normal(scale=amplitude, size=(snapshots, len(atoms), 3))
    return (atoms.positions + noise) @ np.linalg.inv(atoms.cell.array)


def snapshots(potential: Potential, atoms: Any, positions: np.ndarray, **options: Any) -> Snapshots:
    settings = {
        name: options.pop(name) for name in ("precision", "batch_size", "snapshot_cache_mib") if name in options
    }
    machine = Machine.model_validate({"precision": "float64", **settings})
    coordinates = Coordinates(positions, atoms.cell.array, atoms.get_chemical_symbols(), options.pop("scales", None))
    return Snapshots(potential, coordinates, machine, **{"stress": True, **options})


def strained_energy(potential: Potential, parameters: Parameters, atoms: Any, x: np.ndarray) -> Callable[..., float]:
    """Energy in a cell with a Lagrangian strain, through the exact deformation and a new neighbour list."""
    total = jax.jit(potential.total)

    def energy(voigt: np.ndarray) -> float:
        strain = np.asarray(voigt_matrix(jnp.asarray(voigt)))
        cell = atoms.cell.array @ np.real(sqrtm(np.eye(3) + 2 * strain))
        symbols = atoms.get_chemical_symbols()
        return float(total(parameters, quantities.environment(potential, x, cell, symbols, "float64")))

    return energy


@pytest.mark.parametrize("name", SYSTEMS)
def test_against_finite_strains(name: str) -> None:
    potential, parameters, atoms = SYSTEMS[name]()
    positions = positions_of(atoms, 3)
    wanted = Directions(2, np.stack([DIRECTIONS, DIRECTIONS[::-1]]))
    values = snapshots(potential, atoms, positions, directions={"born": wanted}).evaluate(parameters)
    assert values["stress"].shape == (3, 6)
    assert values["born"].shape == (2, 3)
    scale = units.EV_PER_A3_IN_GPA / atoms.get_volume()
    energy, h = strained_energy(potential, parameters, atoms, positions[2]), 1e-3
    assert values["energy"][2] == pytest.approx(energy(np.zeros(6)), rel=1e-12)
    for k in range(6):
        e = h * np.eye(6)[k]
        slope = (8 * (energy(e) - energy(-e)) - (energy(2 * e) - energy(-2 * e))) / (12 * h)
        assert values["stress"][2, k] == pytest.approx(scale * slope, rel=1e-6, abs=1e-5)
    for k, direction in enumerate(DIRECTIONS[::-1]):
        e = h * direction
        near, far, centre = energy(e) + energy(-e), energy(2 * e) + energy(-2 * e), energy(0 * e)
        curvature = (16 * near - far - 30 * centre) / (12 * h * h)
        assert values["born"][1, k] == pytest.approx(scale * curvature, rel=1e-4, abs=1e-2)


def test_stress_agrees_with_the_virial() -> None:
    from aiida_difftre.engine.calculators.difftre import DiffTReCalculator

    potential, parameters, atoms = SYSTEMS["moment_network"]()
    positions = positions_of(atoms, 2)
    values = snapshots(potential, atoms, positions).evaluate(parameters)
    atoms.calc = DiffTReCalculator(potential, parameters)
    for number, x in enumerate(positions):
        atoms.set_scaled_positions(x)
        np.testing.assert_allclose(values["stress"][number], atoms.get_stress() * units.EV_PER_A3_IN_GPA, atol=1e-8)


def everything(batch_size: int, stride: int = 2, **options: Any) -> tuple[dict[str, np.ndarray], Parameters]:
    """Quantities and a pullback of seven snapshots, which three does not divide."""
    potential, parameters = network(rank=1, n_radial=2, hidden=(3,))
    atoms, count = alloy(("C",)), 7
    rows = -(-count // stride)
    wanted = Directions(stride, np.random.default_rng(3).normal(size=(rows, 2, 6)))
    made = snapshots(
        potential, atoms, positions_of(atoms, count), directions={"born": wanted}, batch_size=batch_size, **options
    )
    values = made.evaluate(parameters)
    rng = np.random.default_rng(5)
    cotangents = {key: rng.normal(size=value.shape) for key, value in values.items()}
    return values, made.pullback(parameters, cotangents)


def assert_same(a: Any, b: Any) -> None:
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-9)


def test_batches_and_caching_change_nothing() -> None:
    reference = everything(7)
    assert_same(everything(3), reference)
    assert_same(everything(1), reference)
    assert_same(everything(3, snapshot_cache_mib=0), reference)


def test_nothing_kept_on_two_devices() -> None:
    """Energies, and the environment of the first snapshot, where each batch is shared by two devices."""
    script = """
import json
from aiida_difftre.engine.runtime import device
from aiida_difftre.engine.contract.jobs import Machine
device.configure(Machine(threads=2, platform="cpu"))
import jax, numpy as np
from tests.engine.snapshots.test_snapshots import positions_of, snapshots
from tests.fixtures.engine import argon, lennard_jones
(potential, parameters), atoms = lennard_jones(), argon(1, 5.1)
made = snapshots(potential, atoms, positions_of(atoms, 5), stress=False, batch_size=1, snapshot_cache_mib=0)
first = float(potential.total(parameters, made.environment()))
print(json.dumps([jax.device_count(), made.nbytes, first, made.energies(parameters).tolist()]))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=Path(__file__).parents[3], check=False
    )
    assert done.returncode == 0, done.stderr
    devices, kept, first, energies = json.loads(done.stdout.splitlines()[-1])
    assert devices == 2
    potential, parameters = lennard_jones()
    expected = snapshots(potential, argon(1, 5.1), positions_of(argon(1, 5.1), 5), stress=False).energies(parameters)
    np.testing.assert_allclose(energies, expected, rtol=1e-12)
    assert first == pytest.approx(energies[0], rel=1e-12)
    assert kept <= 1 << 20


@pytest.mark.parametrize(
    ("name", "precision"), [*((name, "float64") for name in SYSTEMS), ("lennard_jones", "float32")]
)
def test_the_budget_of_memory_changes_nothing(name: str, precision: str) -> None:
    """Everything kept, lists alone, some lists, nothing: in cells of different size, with stresses and Born terms."""
    potential, parameters, atoms = SYSTEMS[name]()
    count = 9
    positions = positions_of(atoms, count).astype(np.float32)
    scales = np.random.default_rng(4).uniform(0.97, 1.03, count)
    wanted = Directions(2, np.random.default_rng(3).normal(size=(5, 2, 6)))
    options = {"scales": scales, "directions": {"born": wanted}, "batch_size": 2, "precision": precision}
    found, sizes = {}, {}
    everything = snapshots(potential, atoms, positions, **options)
    lists = Lists(
        positions, atoms.cell.array, potential.cutoff / scales, precision=precision, batch=2, budget=1 << 30
    ).nbytes  # fmt: skip
    assert everything.nbytes > lists
    rng = np.random.default_rng(5)
    cotangents = {key: rng.normal(size=value.shape) for key, value in everything.evaluate(parameters).items()}
    for budget in (everything.nbytes, lists, lists // 2, 0):
        made = snapshots(potential, atoms, positions, snapshot_cache_mib=budget / (1 << 20), **options)
        found[budget] = made.evaluate(parameters), made.pullback(parameters, cotangents)
        sizes[budget] = made.nbytes
    # What is not kept leaves the last batch of its kind behind.
    last = sizes[0]
    assert 0 < last < everything.nbytes
    assert sizes[lists // 2] <= lists // 2 + last
    assert lists < sizes[lists] <= lists + last
    tolerance = 1e-9 if precision == "float64" else 1e-4
    reference = found.pop(everything.nbytes)
    for other in found.values():
        for x, y in zip(jax.tree.leaves(other), jax.tree.leaves(reference), strict=True):
            np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance * (1e-9 + np.abs(y).max()))
        np.testing.assert_allclose(other[0]["energy"], reference[0]["energy"], rtol=tolerance / 100)


def test_memory_does_not_grow_with_snapshots() -> None:
    """Bytes that are kept reach the budget, and stay there, while positions go on growing."""
    potential, parameters = lennard_jones()
    atoms, budget = argon(2), 30_000
    kept = []
    for count in (4, 100, 200):
        made = snapshots(
            potential,
            atoms,
            positions_of(atoms, count),
            stress=False,
            batch_size=2,
            snapshot_cache_mib=budget / (1 << 20),
        )
        assert np.isfinite(made.energies(parameters)).all()
        kept.append(made.nbytes)
    batch = kept[0] / 2
    # Besides the budget the projections of one batch, whose lists may hold more neighbours than those of the first.
    assert all(0.9 * budget < nbytes <= budget + 1.3 * batch for nbytes in kept[1:])


def test_what_is_kept_is_freed_with_the_snapshots() -> None:
    """At once, and not when Python next looks for objects that hold themselves: several would add up till then."""
    wanted = {"born": Directions(1, np.ones((3, 1, 6)))}
    made = [snapshots(lennard_jones()[0], argon(1, 5.1), positions_of(argon(1, 5.1), 3), directions=wanted)]
    held = weakref.ref(made[0]._main)
    gc.disable()
    try:
        made.clear()
        assert held() is None
    finally:
        gc.enable()


def test_a_single_evaluation_keeps_no_projections() -> None:
    (potential, parameters), atoms = lennard_jones(), argon(2)
    often, once = (
        snapshots(potential, atoms, positions_of(atoms, 40), batch_size=2, once=once) for once in (False, True)
    )
    np.testing.assert_array_equal(once.energies(parameters), often.energies(parameters))
    assert once.nbytes < 0.3 * often.nbytes


def test_energies_without_stress_and_with_references() -> None:
    potential, parameters, atoms = SYSTEMS["moment_network"]()
    positions = positions_of(atoms, 5).astype(np.float32)
    parameters = {**parameters, "atomic_energies": jnp.array([-10.0, -300.0])}
    made = snapshots(potential, atoms, positions, stress=False, batch_size=2)
    free = made.energies(parameters)
    assert list(made.evaluate(parameters)) == ["energy"]
    both = quantities.energies(potential, parameters, positions, atoms.cell.array, tuple(atoms.get_chemical_symbols()))
    np.testing.assert_allclose(both, free - 4 * 310.0, rtol=1e-14)
    gradient = made.pullback(parameters, {"energy": np.ones(5)})
    assert not np.asarray(gradient["atomic_energies"]).any()


def test_single_precision_is_close_and_its_energies_are_double() -> None:
    potential, parameters, atoms = SYSTEMS["moment_network"]()
    positions = positions_of(atoms, 3).astype(np.float32)
    single, double = (
        snapshots(potential, atoms, positions, precision=precision).evaluate(parameters)
        for precision in ("float32", "float64")
    )
    np.testing.assert_allclose(single["energy"], double["energy"], rtol=1e-5)
    np.testing.assert_allclose(single["stress"], double["stress"], rtol=1e-3, atol=1e-2)


def lennard_jones_by_hand(positions: np.ndarray, edge: float, cutoff: float) -> float:
    """A sum over pairs at minimum image, in double precision and without JAX."""
    difference = positions[None] - positions[:, None]
    difference -= np.round(difference)
    r = np.linalg.norm(difference * edge, axis=-1)[np.triu_indices(len(positions), 1)]
    r = r[r < cutoff]
    t = np.clip((r - 0.9 * cutoff) / (0.1 * cutoff), 0, 1)
    switch = 1 - 10 * t**3 + 15 * t**4 - 6 * t**5
    x = (3.4 / r) ** 6
    return float(np.sum(4 * 0.0104 * (x * x - x) * switch))


@pytest.mark.parametrize("repeat", [2, 3, 4, 5])
def test_compiled_energies_are_those_of_a_sum_over_pairs(repeat: int) -> None:
    """For 32 to 500 atoms: one release of jaxlib compiles such sums to wrong values, at some sizes only."""
    potential, parameters = lennard_jones()
    atoms = argon(repeat)
    positions, cell = positions_of(atoms, 1, 0.2), atoms.cell.array
    expected = lennard_jones_by_hand(positions[0], cell[0, 0], 5.0)
    for precision, tolerance in (("float64", 1e-12), ("float32", 2e-6)):
        made = snapshots(potential, atoms, positions, precision=precision, stress=False)
        assert made.energies(parameters)[0] == pytest.approx(expected, rel=tolerance)
    total = jax.jit(potential.total)
    index = jnp.zeros(len(atoms), int)
    for capacity in (64, 65, 80):
        lists = neighbor_list.build(
            jnp.asarray(positions[0]), jnp.asarray(cell), 5.3, capacity, lattice.images(cell, 5.3)
        )
        assert int(lists.needed) <= capacity
        for dtype, tolerance in ((jnp.float64, 1e-12), (jnp.float32, 5e-6)):
            vectors = neighbor_list.displacements(jnp.asarray(positions[0]), jnp.asarray(cell), lists).astype(dtype)
            environment = Environment(vectors, lists.mask, index, index[lists.index])
            assert float(total(parameters, environment)) == pytest.approx(expected, rel=tolerance)


def test_scaled_cells_are_cells() -> None:
    """Energies, stresses, Born terms and their pullback in scaled cells, against snapshots of cells of that size."""
    potential, parameters, atoms = SYSTEMS["moment_network"]()
    positions, scales = positions_of(atoms, 3), np.array([0.97, 1.0, 1.04])
    wanted = Directions(2, np.stack([DIRECTIONS, DIRECTIONS[::-1]]))
    together = snapshots(potential, atoms, positions, scales=scales, directions={"born": wanted})
    values = together.evaluate(parameters)
    rng = np.random.default_rng(5)
    cotangents = {key: rng.normal(size=value.shape) for key, value in values.items()}
    pulled, added = together.pullback(parameters, cotangents), jax.tree.map(jnp.zeros_like, parameters)
    for number, scale in enumerate(scales):
        cell = atoms.copy()
        cell.set_cell(scale * cell.cell.array, scale_atoms=True)
        has_born = number % 2 == 0
        directions = {"born": Directions(1, wanted.vectors[[number // 2]])} if has_born else {}
        alone = snapshots(potential, cell, positions[[number]], directions=directions)
        row = {"energy": [number], "stress": [number], "born": [number // 2]}
        for key, value in alone.evaluate(parameters).items():
            np.testing.assert_allclose(values[key][row[key]], value, rtol=1e-9, atol=1e-9)
        part = alone.pullback(parameters, {key: cotangents[key][row[key]] for key in alone.evaluate(parameters)})
        added = jax.tree.map(jnp.add, added, part)
    assert_same(pulled, added)
