"""Neighbour lists of walkers: when they are worn, and what they hold once they are built anew, against ase's."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase import Atoms
from ase.neighborlist import neighbor_list as neighbors_of

from aiida_difftre.engine.contract.jobs import SamplingSettings
from aiida_difftre.engine.geometry.neighbor_list import Capacity
from aiida_difftre.engine.sampling import walker_lists
from aiida_difftre.engine.sampling.system import System
from aiida_difftre.engine.sampling.walker_lists import Built, Listing
from tests.fixtures.engine import argon, lennard_jones

SCALES = jnp.array([1.0, 0.97, 1.04])


def rule(ratio: float = 1.5) -> Listing:
    """Of 32 argon atoms in cells of several sizes: 3.4 Å and a skin of 0.6 Å."""
    settings = SamplingSettings(skin=0.6, barostat={"max_volume_ratio": ratio})
    system = System(
        lennard_jones(3.4)[0], ("Ar",) * 32, argon().cell.array, 60.0, settings, "float64", pressure=0.0
    )  # fmt: skip
    return walker_lists.listing(system, Capacity(64, 32), jnp.asarray(system.cell))


def positions(seed: int) -> jax.Array:
    """Of three walkers, fractional."""
    moves = 0.03 * np.random.default_rng(seed).normal(size=(3, 32, 3))
    return jnp.asarray(argon().get_scaled_positions() + moves)


def counts(rule: Listing, x: jax.Array, scale: float) -> np.ndarray:
    """Numbers of neighbours of each atom, by ase."""
    atoms = Atoms("Ar32", scaled_positions=np.asarray(x), cell=scale * np.asarray(rule.cell), pbc=True)
    return np.bincount(neighbors_of("i", atoms, rule.cutoff), minlength=32)


def test_two_atoms_come_no_nearer_than_stated() -> None:
    """By the way of the farthest atom, and by half of what the shrinking cell brings a pair at the cutoff together."""
    x, ones = positions(0), jnp.ones(3)
    here = rule()
    assert here.cutoff == pytest.approx(4.0)
    since = Built(None, x, ones, None)
    np.testing.assert_allclose(walker_lists.nearer(here, x, ones, since), 0, atol=1e-12)
    moved = x.at[1, 7].add(jnp.array([0.3, 0.0, 0.4]) / 10.8).at[1, 8].add(jnp.array([0.0, 0.2, 0.0]) / 10.8)
    np.testing.assert_allclose(walker_lists.nearer(here, moved, ones, since), [0, 0.5, 0], atol=1e-12)
    other = since._replace(built_scale=SCALES)
    np.testing.assert_allclose(walker_lists.nearer(here, moved, SCALES, other), [0, 0.97 * 0.5, 0], atol=1e-12)
    np.testing.assert_allclose(walker_lists.nearer(here, x, SCALES, since), [0, 0.06, -0.08], atol=1e-12)
    together = walker_lists.nearer(here, x, SCALES, since._replace(built_scale=jnp.full(3, 1.04)))
    np.testing.assert_allclose(together, 2.0 * (1 - np.asarray(SCALES) / 1.04), atol=1e-12)


@pytest.mark.parametrize("renew", [walker_lists._worn_ones, walker_lists._all_at_once])
def test_worn_lists_are_those_of_the_present_positions(renew: Callable[..., Built]) -> None:
    """Of each walker in its own cell; on a CPU the others keep theirs, on a GPU all are built when one is worn."""
    here, old, new = rule(), positions(0), positions(1)
    lists, needed = walker_lists.lists_of(here, old, jnp.ones(3))
    held = Built(lists, old, jnp.ones(3), needed)
    worn = jnp.array([False, True, True])
    compiled = jax.jit(lambda worn: renew(here, new, SCALES, held, worn))
    found = compiled(worn)
    together = renew is walker_lists._all_at_once
    for walker in range(3):
        is_new = together or bool(worn[walker])
        x, scale = (new, float(SCALES[walker])) if is_new else (old, 1.0)
        listed = np.asarray(found.lists.mask[walker]).sum(axis=-1)
        np.testing.assert_array_equal(listed, counts(here, x[walker], scale))
        np.testing.assert_array_equal(found.built[walker], x[walker])
        assert float(found.built_scale[walker]) == scale
    fullest = [int(counts(here, old[w], 1.0).max()) for w in range(3)]
    fullest += [int(counts(here, new[w], float(SCALES[w])).max()) for w in range(3) if together or bool(worn[w])]
    assert int(found.needed[0, 0]) == max(fullest)
    kept = compiled(jnp.zeros(3, bool))
    np.testing.assert_array_equal(kept.built, old)
    np.testing.assert_array_equal(kept.lists.mask, held.lists.mask)


def test_lists_are_complete_in_the_smallest_cell() -> None:
    """At a quarter of the volume, 6.8 Å wide, atoms within 4 Å of each other are so by more than one image."""
    here, x, scale = rule(4.0), positions(2)[0], 4.0 ** (-1 / 3)
    assert scale * 10.8 < 2 * here.cutoff
    lists, needed = walker_lists.list_of(here, x, jnp.asarray(scale))
    assert not here.capacity.exceeded(needed)
    np.testing.assert_array_equal(np.asarray(lists.mask).sum(axis=-1), counts(here, x, scale))
