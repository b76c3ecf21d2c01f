"""Neighbour lists against ase's, in any cell; overflow; strains."""

from __future__ import annotations

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase import Atoms
from ase.neighborlist import neighbor_list
from scipy.linalg import sqrtm

from aiida_difftre.engine.errors import EngineError, ExitStatus
from aiida_difftre.engine.geometry import lattice
from aiida_difftre.engine.geometry import neighbor_list as space
from aiida_difftre.engine.geometry.strain import deformation, voigt_matrix
from aiida_difftre.engine.potentials.term import species_index
from tests.fixtures.engine import alloy

CUTOFF = 3.3


def random_atoms(cell: np.ndarray, count: int, seed: int = 0) -> Atoms:
    rng = np.random.default_rng(seed)
    return Atoms(f"C{count}", scaled_positions=rng.random((count, 3)), cell=cell, pbc=True)


CELLS = {
    "cubic": random_atoms(8.0 * np.eye(3), 20),
    "triclinic": random_atoms(np.array([[7.0, 0.2, 0.1], [2.9, 6.5, -0.4], [-3.0, 1.7, 6.8]]), 20, 1),
    "smaller than the cutoff": random_atoms(np.array([[2.5, 0.1, 0.0], [0.4, 3.1, 0.3], [0.0, -0.5, 2.8]]), 3, 2),
    "needle": random_atoms(np.diag([2.2, 2.4, 17.0]), 6, 3),
    "one atom": random_atoms(np.array([[0.0, 1.8, 1.8], [1.8, 0.0, 1.8], [1.8, 1.8, 0.0]]), 1, 4),
}


def listed(lists: space.NeighborList, positions: np.ndarray, cell: np.ndarray) -> Counter:
    """Pairs with their rounded vectors."""
    vectors = np.asarray(space.displacements(jnp.asarray(positions), jnp.asarray(cell), lists))
    mask, index = np.asarray(lists.mask), np.asarray(lists.index)
    rows, columns = np.nonzero(mask)
    found = zip(rows, index[rows, columns], vectors[rows, columns], strict=True)
    return Counter((int(i), int(j), *map(float, np.round(v, 6) + 0.0)) for i, j, v in found)


def expected(atoms: Atoms, cutoff: float) -> Counter:
    i, j, v = neighbor_list("ijD", atoms, cutoff)
    return Counter((int(a), int(b), *map(float, np.round(c, 6) + 0.0)) for a, b, c in zip(i, j, v, strict=True))


@pytest.mark.parametrize("name", CELLS)
def test_agrees_with_ase(name: str) -> None:
    """Also for atoms that have left the cell: positions are unwrapped, vectors the same."""
    atoms = CELLS[name]
    reference = expected(atoms, CUTOFF)
    wrapped = atoms.get_scaled_positions()
    moved = wrapped + np.random.default_rng(5).integers(-3, 4, size=wrapped.shape)
    lists = space.build_batch(np.stack([wrapped, moved]), atoms.cell.array, CUTOFF)
    for number, positions in enumerate((wrapped, moved)):
        one = jax.tree.map(lambda x, n=number: x[n], lists)
        assert listed(one, positions, atoms.cell.array) == reference
        assert int(one.needed) == max(Counter(pair[0] for pair in reference.elements()).values())


def test_padding_is_an_atom_with_itself() -> None:
    atoms = CELLS["cubic"]
    positions, cell = jnp.asarray(atoms.get_scaled_positions()), jnp.asarray(atoms.cell.array)
    lists = space.build(positions, cell, CUTOFF, 60, lattice.images(atoms.cell, CUTOFF))
    padded = ~np.asarray(lists.mask)
    assert padded.any()
    itself = np.broadcast_to(np.arange(20)[:, None], padded.shape)
    np.testing.assert_array_equal(np.asarray(lists.index)[padded], itself[padded])
    vectors = space.displacements(positions, cell, lists)
    assert not np.asarray(vectors)[padded].any()


def test_overflow_is_reported_and_a_batch_grows() -> None:
    atoms = CELLS["triclinic"]
    positions, cell = atoms.get_scaled_positions(), atoms.cell.array
    full = expected(atoms, CUTOFF)
    needed = max(Counter(pair[0] for pair in full.elements()).values())
    short = space.build(jnp.asarray(positions), jnp.asarray(cell), CUTOFF, 2, lattice.images(cell, CUTOFF))
    assert short.index.shape == (20, 2)
    assert int(short.needed) == needed
    grown = space.build_batch(positions[None], cell, CUTOFF, capacity=2)
    assert grown.index.shape == (1, 20, needed)
    assert listed(jax.tree.map(lambda x: x[0], grown), positions, cell) == full


def test_images_and_heights() -> None:
    assert lattice.images(10 * np.eye(3), 4.9).tolist() == [[0, 0, 0]]
    assert len(lattice.images(10 * np.eye(3), 5.1)) == 27
    sheared = np.array([[3.0, 0.0, 0.0], [9.0, 3.0, 0.0], [0.0, 0.0, 50.0]])
    np.testing.assert_allclose(lattice.heights(sheared), [3 / np.sqrt(10), 3, 50])


def test_no_atom_of_an_isolated_one_is_a_neighbour() -> None:
    lists = space.build_batch(np.zeros((2, 1, 3)), 20 * np.eye(3), 3.0)
    assert lists.index.shape == (2, 1, 1)
    assert not np.asarray(lists.mask).any()


def test_deformation_is_the_square_root_to_second_order() -> None:
    strain = np.array([0.3, -0.2, 0.1, 0.25, -0.4, 0.15])
    errors = []
    for size in (1e-2, 5e-3):
        eta = np.asarray(voigt_matrix(jnp.asarray(size * strain)))
        exact = sqrtm(np.eye(3) + 2 * eta)
        errors.append(np.abs(np.asarray(deformation(jnp.asarray(size * strain))) - exact).max())
    assert errors[0] < 1e-6
    assert errors[0] / errors[1] == pytest.approx(8, rel=0.05)


def test_species_index() -> None:
    assert species_index(["O", "C"], ["C", "O"]).tolist() == [1, 0]
    with pytest.raises(EngineError, match="contains O, but the potential is for C only") as caught:
        species_index(alloy().get_chemical_symbols(), ["C"])
    assert caught.value.status == ExitStatus.INVALID_INPUT


def test_a_cell_too_thin_for_its_cutoff() -> None:
    with pytest.raises(ValueError, match=r"a cell 0\.001 Å thick has 7\.68e\+08 images within a cutoff of 8 Å"):
        lattice.images([[10.0, 0.0, 0.0], [0.0, 10.0, 0.0], [0.0, 10.0, 0.001]], 8.0)
