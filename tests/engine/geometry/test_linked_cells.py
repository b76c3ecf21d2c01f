"""Linked cells against ase and against the search of all images, in any cell; overflow; bits."""

from __future__ import annotations

import dataclasses
from collections import Counter
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aiida_difftre.engine.geometry import lattice, linked_cells
from aiida_difftre.engine.geometry import neighbor_list as space
from tests.engine.geometry.test_neighbor_list import expected, listed, random_atoms


def random_cell(rng: np.random.Generator) -> np.ndarray:
    """From needles and plates to nearly cubic, skewed."""
    while True:
        cell = np.diag(rng.uniform(2.5, 11.0, 3)) + rng.normal(scale=1.5, size=(3, 3))
        if lattice.heights(cell).min() > 1.5:
            return cell


def build(positions: np.ndarray, cell: np.ndarray, cutoff: float, capacity: int, search: space.Search) -> Any:
    return jax.jit(partial(space.build, capacity=capacity, search=search))(positions, cell, cutoff)


@pytest.mark.parametrize("seed", range(6))
def test_agree_with_ase_in_random_cells(seed: int) -> None:
    """Bins and images find the same pairs as ase, for cutoffs up to that of the bins and unwrapped atoms."""
    rng = np.random.default_rng(seed)
    cell, largest = random_cell(rng), float(rng.uniform(1.5, 4.5))
    atoms = random_atoms(cell, int(rng.integers(1, 60)), seed)
    positions = atoms.get_scaled_positions() + rng.integers(-3, 4, size=(len(atoms), 3))
    bins = dataclasses.replace(linked_cells.grid(cell, largest, len(atoms)), room=len(atoms))
    for search in (bins, lattice.images(cell, largest)):
        find = jax.jit(partial(space.build, capacity=400, search=search))
        for cutoff in (largest, 0.8 * largest):
            reference = expected(atoms, cutoff)
            lists = find(positions, cell, cutoff)
            assert listed(lists, positions, cell) == reference
            assert int(lists.needed) == max(Counter(pair[0] for pair in reference.elements()).values(), default=0)


def test_atoms_on_the_faces_of_bins() -> None:
    """A lattice whose planes are the faces, rounded to either side, also in single precision."""
    spacing = np.stack(np.meshgrid(*[np.arange(8)] * 3, indexing="ij"), -1).reshape(-1, 3) / 8
    bins = dataclasses.replace(linked_cells.grid(12 * np.eye(3), 2.9, 512), room=27)
    # Planes are 1.5 Å apart; every second one is a face.
    assert bins.bins == (4, 4, 4)
    for noise in (0.0, 1e-16, -1e-16, 1e-8, -1e-8):
        for dtype in (np.float32, np.float64):
            lists = build((spacing + noise).astype(dtype), 12 * np.eye(3, dtype=dtype), 1.6, 8, bins)
            np.testing.assert_array_equal(np.asarray(lists.mask).sum(1), 6)


def test_atoms_at_one_place_are_neighbours() -> None:
    lists = build(np.zeros((3, 3)), 9 * np.eye(3), 3.0, 4, linked_cells.grid(9 * np.eye(3), 3.0, 3))
    np.testing.assert_array_equal(np.asarray(lists.mask).sum(1), 2)


def test_atoms_that_went_astray_fill_no_bin() -> None:
    """Positions that are not finite, or too far away to tell where: the others find each other as before."""
    atoms = random_atoms(20 * np.eye(3), 200, 3)
    positions, bins = atoms.get_scaled_positions(), linked_cells.grid(atoms.cell.array, 4.0, 200)
    bins = dataclasses.replace(bins, room=200)
    astray = positions.copy()
    astray[100:150], astray[150:] = np.nan, 3e8
    lists = build(astray, atoms.cell.array, 4.0, 60, bins)
    alone = build(positions[:100], atoms.cell.array, 4.0, 60, bins)
    assert int(lists.occupancy) == int(alone.occupancy) < 50
    np.testing.assert_array_equal(np.asarray(lists.mask)[:100].sum(1), np.asarray(alone.mask).sum(1))


def test_a_full_bin_is_reported_and_a_batch_grows() -> None:
    """All atoms in one corner of a large cell: more in a bin than the mean density suggests."""
    cell = 40 * np.eye(3)
    crowd = random_atoms(cell, 1000, 7)
    crowd.positions *= 0.4
    positions = crowd.get_scaled_positions()
    bins = linked_cells.grid(cell, 4.0, 1000)
    lists = build(positions, cell, 4.0, 200, bins)
    assert int(lists.occupancy) > bins.room
    assert isinstance(space.search(cell, 4.0, 1000), linked_cells.Grid)
    batch = space.build_batch(positions[None], cell, 4.0)
    assert int(batch.occupancy[0]) == int(lists.occupancy)
    assert listed(jax.tree.map(lambda x: x[0], batch), positions, cell) == expected(crowd, 4.0)


def test_bins_are_for_large_systems() -> None:
    assert isinstance(space.search(35 * np.eye(3), 5.3, 4000), linked_cells.Grid)
    assert not isinstance(space.search(9 * np.eye(3), 5.3, 64), linked_cells.Grid)


@pytest.mark.parametrize("words", [1, 5, 130])
def test_ones_are_found_in_order(words: int) -> None:
    rng = np.random.default_rng(words)
    rows = rng.random((7, 32 * words)) < np.array([0, 0.01, 0.1, 0.5, 0.9, 1, 0.3])[:, None]
    place, mask, counts = linked_cells.ones(linked_cells.pack(jnp.asarray(rows)), 20)
    np.testing.assert_array_equal(counts, rows.sum(1))
    for row, found, valid in zip(rows, np.asarray(place), np.asarray(mask), strict=True):
        np.testing.assert_array_equal(found[valid], np.flatnonzero(row)[:20])
        assert valid.sum() == min(20, row.sum())


def test_codes_hold_three_signed_integers() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(-(2**14), 2**14, (2, 50, 3))
    total = linked_cells.coded(jnp.asarray(a)) - linked_cells.coded(jnp.asarray(b))
    np.testing.assert_array_equal(linked_cells.decoded(total), a - b)
