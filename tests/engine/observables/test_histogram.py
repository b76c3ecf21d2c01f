"""Histograms of distances, block by block where all pairs would take too much memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.build import bulk
from jax.extend.core import jaxprs_in_params

from aiida_difftre.engine.contract.observables import ObservableRequest
from aiida_difftre.engine.geometry import lattice
from aiida_difftre.engine.observables import histogram
from aiida_difftre.engine.observables.features import snapshots_at_once
from aiida_difftre.engine.observables.structural import RadialDistribution

BYTES_OF_A_PAIR = 3 * 8


@pytest.mark.parametrize("pairs", [1, 100, 500])
@pytest.mark.parametrize("shared", [False, True])
def test_blocks_count_what_all_pairs_do(monkeypatch: pytest.MonkeyPatch, pairs: int, shared: bool) -> None:
    """Of one row, of a number that does not divide the rows, and of a few; atoms see their own images."""
    atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True).repeat((3, 1, 1))
    atoms.rattle(0.2, seed=1)
    cell = atoms.cell.array
    positions, symbols = jnp.asarray(atoms.get_scaled_positions()), np.array(atoms.get_chemical_symbols())
    kinds = np.arange(len(atoms)), np.flatnonzero(symbols == "Cl")
    bins, shifts = (0.0, 0.05, 120), lattice.images(cell, 6.0)
    found = histogram.distances(positions, jnp.asarray(cell), kinds, shifts, bins, shared=shared)
    monkeypatch.setattr(histogram, "PAIRS_AT_ONCE", pairs)
    blocks = histogram.distances(positions, jnp.asarray(cell), kinds, shifts, bins, shared=shared)
    assert float(jnp.sum(found)) > 400
    np.testing.assert_allclose(blocks, found, rtol=0, atol=1e-11 if shared else 0)


def arrays(jaxpr: Any) -> Iterator[Any]:
    """Of a program and the ones inside."""
    for equation in jaxpr.eqns:
        yield from (variable.aval for variable in equation.outvars)
        for inner in jaxprs_in_params(equation.params):
            yield from arrays(inner)


@pytest.mark.parametrize("repeat", [5, 10, 14])  # 500, 4000 and 10 976 atoms
def test_memory_is_bounded(repeat: int) -> None:
    """The largest array of a batch of snapshots of a large system, from the program, without running it."""
    atoms = bulk("Ar", "fcc", a=5.3, cubic=True).repeat(repeat)
    request = ObservableRequest(observable="rdf", grid=[0.05 + 0.1 * k for k in range(80)])
    observable = RadialDistribution.from_request(request, tuple(atoms.get_chemical_symbols()), atoms.cell.array)
    batch = snapshots_at_once(len(atoms))

    def compute(snapshots: Any) -> Any:
        cell = jnp.asarray(atoms.cell.array)
        return jax.lax.map(lambda x: observable.features(x, cell), snapshots, batch_size=batch)

    program = jax.make_jaxpr(compute)(jax.ShapeDtypeStruct((2 * batch, len(atoms), 3), jnp.float64))
    largest = max(math.prod(found.shape) * found.dtype.itemsize for found in arrays(program.jaxpr))
    assert len(atoms) * 8 < largest <= histogram.PAIRS_AT_ONCE * BYTES_OF_A_PAIR
