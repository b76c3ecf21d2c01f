"""Tiles of atoms: the same numbers as of all atoms at once."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.build import bulk

from aiida_difftre.engine import cells, forces, lattice, potentials, space, tiles
from aiida_difftre.engine.jobs import PotentialSpec, TermSpec

CUTOFF = 5.0


@pytest.mark.parametrize("rows", [1, 3, 7, 8])
def test_rows_in_tiles(rows: int) -> None:
    a, b = np.arange(7.0), np.arange(14).reshape(7, 2)
    double, total = tiles.by_tiles(lambda x: (2 * x[0], x[1].sum(-1)), (jnp.asarray(a), jnp.asarray(b)), rows)
    np.testing.assert_array_equal(double, 2 * a)
    np.testing.assert_array_equal(total, b.sum(1))


def test_only_long_lists_are_cut_up() -> None:
    assert tiles.rows_of(864, 92) == 864
    assert tiles.rows_of(32000, 100) == 163
    assert tiles.rows_of(864, 92, walkers=8) == 22


@pytest.mark.parametrize("how", ["bins", "images"])
def test_lists_in_tiles(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    atoms = bulk("Ar", "fcc", a=5.3, cubic=True).repeat(3)
    atoms.rattle(0.3, seed=1)
    positions, cell = jnp.asarray(atoms.get_scaled_positions(wrap=False)), jnp.asarray(atoms.cell.array)
    search = cells.grid(cell, CUTOFF, len(atoms)) if how == "bins" else lattice.images(cell, CUTOFF)

    whole = space.build(positions, cell, CUTOFF, 30, search)
    monkeypatch.setattr(tiles, "PLACES_AT_ONCE", 0)
    monkeypatch.setattr(tiles, "PLACES", 900)
    for a, b in zip(whole, space.build(positions, cell, CUTOFF, 30, search), strict=True):
        np.testing.assert_array_equal(a, b)
    ready, needed = space.build_ready(positions, cell, CUTOFF, 30, search)
    for a, b in zip(jax.tree.leaves(space.neighbors(whole, cell)), jax.tree.leaves(ready), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)
    np.testing.assert_array_equal(needed, space.requirements(whole))


def test_forces_in_tiles() -> None:
    """In a cell that is not the reference cell, with padding, and a last tile that reaches back."""
    atoms = bulk("Ar", "fcc", a=5.3, cubic=True).repeat(2)
    atoms.rattle(0.3, seed=1)
    terms = [TermSpec(architecture="lennard_jones", cutoff=CUTOFF, hyperparameters={"epsilon": 0.01, "sigma": 3.4})]
    potential = potentials.build(PotentialSpec(species=["Ar"], terms=terms))
    positions, cell = jnp.asarray(atoms.get_scaled_positions(wrap=False)), jnp.asarray(atoms.cell.array)
    lists, _ = space.build_ready(positions, cell, 5.4, 40, lattice.images(cell, 5.4))
    arguments = {"cell": cell, "scale": jnp.asarray(0.98), "species": jnp.zeros(32, int)}
    parameters = potential.init(jax.random.key(0))
    whole, work = forces.forces_and_virial(potential, parameters, positions, lists, rows=32, **arguments)
    assert np.abs(whole).max() > 0.01
    nearest = 0.98 * np.min(atoms.get_all_distances(mic=True) + 9 * np.eye(32))
    for rows in (5, 16, 32):
        force, trace = forces.forces_and_virial(potential, parameters, positions, lists, rows=rows, **arguments)
        np.testing.assert_allclose(force, whole, atol=1e-12)
        assert float(trace) == pytest.approx(float(work), rel=1e-12)
        shortest = forces.min_distance(positions, lists, cell=cell, scale=arguments["scale"], rows=rows)
        assert float(shortest) == pytest.approx(nearest, rel=1e-12)
