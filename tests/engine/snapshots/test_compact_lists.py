"""Compact neighbour lists against ase's, kept or built anew, in any cell and in both precisions; budgets."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from aiida_difftre.engine.geometry import linked_cells
from aiida_difftre.engine.geometry import neighbor_list as space
from aiida_difftre.engine.snapshots import compact_lists as lists
from aiida_difftre.engine.snapshots.compact_lists import Lists
from tests.engine.geometry.test_neighbor_list import CELLS, CUTOFF, expected, random_atoms

PRECISIONS = {"float64": np.float64, "float32": np.float32}


def pairs(made: lists.Compact, positions: np.ndarray, cell: np.ndarray, images: Any, dtype: Any) -> list[Any]:
    """Pairs and vectors of the lists of some snapshots, ordered."""
    found = []
    for number, snapshot in enumerate(positions):
        one = lists.Compact(*(None if part is None else jnp.asarray(part[number]) for part in made))
        near = lists.surroundings(one, jnp.asarray(snapshot.astype(dtype)), jnp.asarray(cell, dtype), images)
        mask, index = np.asarray(near.mask), np.asarray(near.index)
        vectors = np.stack([np.asarray(part) for part in near.components], -1)
        assert not vectors[~mask].any()
        rows, columns = np.nonzero(mask)
        found.append((rows, index[rows, columns], vectors[rows, columns]))
    return found


def assert_same_pairs(found: Any, reference: Any, decimals: int) -> None:
    """The same pairs in any order, vectors up to rounding."""

    def ordered(i: Any, j: Any, v: Any) -> np.ndarray:
        # Vectors of one pair differ by lattice vectors: coarse rounding orders them, and + 0 makes -0 a zero.
        table = np.column_stack([i, j, v])
        return table[np.lexsort((np.round(table, 2) + 0.0).T[::-1])]

    a, b = ordered(*found), ordered(*reference)
    assert a.shape == b.shape
    np.testing.assert_allclose(a, b, atol=10.0**-decimals)


def of_ase(atoms: Any, cutoff: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    table = np.array(list(expected(atoms, cutoff).elements()))
    return table[:, 0], table[:, 1], table[:, 2:]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("budget", [0, 1 << 20])
def test_agrees_with_ase(name: str, precision: str, budget: int) -> None:
    """Also for atoms that have left the cell, and whether lists are kept or built anew."""
    atoms, dtype = CELLS[name], PRECISIONS[precision]
    # Multiples of 2⁻²⁰ stay what they are in single precision when they leave the cell.
    wrapped = np.round(atoms.get_scaled_positions() * 2**20) / 2**20
    atoms = atoms.copy()
    atoms.set_scaled_positions(wrapped)
    moved = wrapped + np.random.default_rng(5).integers(-3, 4, size=wrapped.shape)
    positions, cell = np.stack([wrapped, moved, wrapped]), atoms.cell.array
    made = Lists(positions, cell, np.full(3, CUTOFF), precision=precision, batch=2, budget=budget)
    assert (made.nbytes > 0) == (budget > 0)
    reference = of_ase(atoms, CUTOFF)
    for index in ([0, 1], [2, 2], [1, 0]):
        taken = made.take(np.array(index))
        for found in pairs(taken, positions[index], cell, jnp.asarray(made.images), dtype):
            assert_same_pairs(found, reference, 5 if dtype == np.float32 else 6)


def test_of_linked_cells_agree_with_those_of_all_images(monkeypatch: pytest.MonkeyPatch) -> None:
    atoms = random_atoms(np.diag([14.0, 15.0, 16.0]), 150, 7)
    positions, cell = atoms.get_scaled_positions()[None] + np.array([[[1.0, -2.0, 0.0]]]), atoms.cell.array
    made = []
    for how in (linked_cells.grid(cell, 4.0 * lists.MARGIN, 150), None):
        if how is not None:
            crowded = dataclasses.replace(how, room=2)  # overflows, and must be enlarged
            monkeypatch.setattr(space, "search", lambda *arguments, crowded=crowded: crowded)
        else:
            monkeypatch.undo()
        one = Lists(positions, cell, np.array([4.0]), precision="float64", batch=1, budget=0)
        made.append(pairs(one.take(np.array([0])), positions, cell, jnp.asarray(one.images), np.float64)[0])
    assert_same_pairs(made[0], made[1], 9)


@pytest.mark.parametrize("edge", [12.0, 6.0])
def test_what_is_kept_is_what_is_built(edge: float) -> None:
    """Seven snapshots at three densities, so that their lists differ in capacity; one image, and several."""
    rng = np.random.default_rng(0)
    positions, cell = rng.random((7, 20, 3)), edge * np.eye(3)
    cutoffs = np.array([3.0, 3.0, 3.0, 4.5, 4.5, 4.5, 3.5])
    make = {
        budget: Lists(positions, cell, cutoffs, precision="float64", batch=2, budget=budget) for budget in (0, 10**6)
    }
    assert len(make[0].images) == (1 if edge > 9 else 27)
    everything = make[10**6].nbytes
    some = Lists(positions, cell, cutoffs, precision="float64", batch=2, budget=everything // 2)
    assert 0 < some.nbytes <= everything // 2
    for index in (np.array([0, 1]), np.array([2, 3]), np.array([6, 6])):
        anew, kept, either = (of.take(index) for of in (make[0], make[10**6], some))
        assert not isinstance(anew.index, np.ndarray)
        assert isinstance(kept.index, np.ndarray)
        for one, two, three in zip(anew, kept, either, strict=True):
            assert (one is None) == (edge > 9 and one is not anew.index)
            if one is not None:
                assert one.dtype == two.dtype == three.dtype
                np.testing.assert_array_equal(one, two)
                np.testing.assert_array_equal(one, three)
    shrunk = make[10**6]
    shrunk.limit(everything // 3)
    assert 0 < shrunk.nbytes <= everything // 3
    np.testing.assert_array_equal(shrunk.take(np.array([0, 1])).index, make[0].take(np.array([0, 1])).index)
    np.testing.assert_array_equal(shrunk.take(np.array([5, 6])).index, make[0].take(np.array([5, 6])).index)


def test_two_bytes_a_neighbour() -> None:
    """A list of 300 atoms in a large cell takes two bytes a place."""
    positions = np.random.default_rng(1).random((3, 300, 3))
    made = Lists(positions, 30 * np.eye(3), np.full(3, 5.0), precision="float32", batch=3, budget=10**8)
    places = made.take(np.arange(3)).index.shape[-1]
    assert made.nbytes == 3 * 300 * places * 2
