"""Shells of neighbours: numbers and distances against ase, the peak of thermal distances in closed form, refusals."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.neighborlist import neighbor_list

from aiida_difftre.engine.contract.observables import ObservableRequest
from aiida_difftre.engine.contract.targets import Target
from aiida_difftre.engine.observables.protocol import Macrostate, make


def observed(frames: list[Atoms], name: str, **options: Any) -> float:
    """The value that an observable has in frames of one cell, which weigh alike."""
    cell = frames[0].cell.array
    request = ObservableRequest(observable=name, options=options)
    one = make(request, tuple(frames[0].get_chemical_symbols()), cell)
    positions = jnp.stack([jnp.asarray(frame.get_scaled_positions(wrap=False)) for frame in frames])
    rows = jax.jit(jax.vmap(one.features, in_axes=(0, None)))(positions, jnp.asarray(cell))
    if hasattr(one, "enlarged"):
        assert one.enlarged(np.asarray(rows)) is None
    weights = jnp.full(len(frames), 1 / len(frames))
    return float(one.combine({"features": rows}, weights, Macrostate(300.0, 1.0, 1))[0])


def salt(seed: int, deviation: float) -> Atoms:
    atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True).repeat(2)
    atoms.rattle(deviation, seed=seed)
    return atoms


@pytest.mark.parametrize("pair", [["Na", "Cl"], ["Cl", "Na"], ["Na", "Na"]])
def test_number_and_mean_are_those_of_ase(pair: list[str]) -> None:
    frames, limits = [salt(seed, 0.3) for seed in range(3)], [2.2, 3.91]
    found = []
    for frame in frames:
        i, j, r = neighbor_list("ijd", frame, limits[1])
        symbols = np.array(frame.get_chemical_symbols())
        found.append(r[(symbols[i] == pair[0]) & (symbols[j] == pair[1]) & (r >= limits[0])])
    every = np.concatenate(found)
    options = {"pair": pair, "r_range": limits}
    assert observed(frames, "coordination_number", **options) == pytest.approx(len(every) / 96, abs=1e-9)
    assert observed(frames, "neighbor_distance", **options) == pytest.approx(every.mean(), abs=1e-9)


def test_peak_of_independent_displacements() -> None:
    """Vectors that are Gaussian around length d: g(r) goes as exp(-(r - d)²/2s²)/r, highest where r (d - r) = s².

    The radial distribution is that times r², highest where r (r - d) = s².
    """
    d, deviation = 2.8, 0.12
    frames = [salt(seed, deviation) for seed in range(100)]
    options = {"pair": ["Na", "Cl"], "r_range": [2.62, 2.96]}
    for measure, sign in (("peak", -1), ("distribution_peak", 1)):
        expected = (d + np.sqrt(d**2 + sign * 8 * deviation**2)) / 2
        assert observed(frames, "neighbor_distance", **options, measure=measure) == pytest.approx(expected, abs=0.006)


def target(**changes: Any) -> Target:
    content = {
        "observable": "neighbor_distance", "unit": "angstrom", "values": [1.6], "errors": [0.01],
        "options": {"pair": ["Si", "O"], "r_range": [1.2, 2.2]}, "conditions": {"temperature": 300.0},
        "citation": "of a test, 2026",
    }  # fmt: skip
    return Target.model_validate({**content, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"options": {"r_range": [1.2, 2.2]}}, "option 'pair' of neighbor_distance is None; give two species"),
        ({"options": {"pair": ["Si", "O"]}}, "option 'r_range' of neighbor_distance is None; give where the shell"),
        ({"options": {"pair": ["Si", "O"], "r_range": [2.2, 1.2]}}, r"is \[2.2, 1.2\]; give where the shell"),
        (
            {"options": {"pair": ["Si", "O"], "r_range": [1.2, 2.2], "measure": "median"}},
            "'measure' of neighbor_distance is 'median'; choose mean, peak or distribution_peak",
        ),
        ({"values": [2.6]}, "it is 2.6 Å, outside of its r_range"),
        ({"observable": "coordination_number", "unit": "1", "values": [-4.0]}, "it is -4, and a number of neighbours"),
    ],
)
def test_targets_that_are_refused(changes: dict[str, Any], message: str) -> None:
    assert target().component_labels() == ["r(Si-O)"]
    with pytest.raises(ValueError, match=message):
        target(**changes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pair": ["Na", "K"], "r_range": [2.0, 3.0]}, "'pair' of 'neighbor_distance' names 'K'; the structure has"),
        ({"pair": ["Na", "Cl"], "r_range": [2.0, 6.0]}, "'r_range' of 'neighbor_distance' reaches 6 Å, beyond half"),
        ({"pair": ["Na", "Na"], "r_range": [1.0, 2.0]}, "no snapshot has a pair Na-Na between 1 and 2 Å"),
        (
            {"pair": ["Na", "Cl"], "r_range": [2.85, 3.3], "measure": "peak"},
            r"g\(r\) of Na-Cl has no maximum between 2.85 and 3.3 Å; give an r_range around its peak",
        ),
        (
            {"pair": ["Na", "Cl"], "r_range": [2.9, 3.3], "measure": "distribution_peak"},
            "the radial distribution of Na-Cl has no maximum between 2.9 and 3.3 Å",
        ),
    ],
)
def test_systems_that_do_not_have_it(options: dict[str, Any], message: str) -> None:
    with pytest.raises(Exception, match=message):
        observed([salt(seed, 0.1) for seed in range(3)], "neighbor_distance", **options)
