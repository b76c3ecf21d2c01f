"""Radial distribution function against ase, the ideal gas, supercells and refused requests."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.geometry.rdf import get_rdf
from scipy.special import ndtr

from aiida_difftre.engine.contract.observables import ObservableRequest
from aiida_difftre.engine.observables.protocol import Macrostate
from aiida_difftre.engine.observables.structural import RadialDistribution


def centres(r_max: float, bins: int) -> list[float]:
    width = r_max / bins
    return [float(width * (k + 0.5)) for k in range(bins)]


def rdf(atoms: Atoms, grid: list[float], **options: Any) -> RadialDistribution:
    request = ObservableRequest(observable="rdf", grid=grid, options=options)
    return RadialDistribution.from_request(request, tuple(atoms.get_chemical_symbols()), atoms.cell.array)


def features(observable: RadialDistribution, atoms: Atoms) -> np.ndarray:
    positions = jnp.asarray(atoms.get_scaled_positions(wrap=False))
    return np.asarray(jax.jit(observable.features)(positions, jnp.asarray(atoms.cell.array)))


def salt(seed: int = 0) -> Atoms:
    atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True).repeat(2)
    atoms.set_cell(atoms.cell.array + np.random.default_rng(1).normal(scale=0.3, size=(3, 3)), scale_atoms=True)
    atoms.rattle(0.3, seed=seed)
    return atoms


@pytest.mark.parametrize("pair", [None, ["Na", "Na"], ["Na", "Cl"]])
def test_trajectory_agrees_with_ase(pair: list[str] | None) -> None:
    frames = [salt(seed) for seed in range(5)]
    observable = rdf(frames[0], centres(5.0, 50), pair=pair)
    positions = jnp.stack([jnp.asarray(frame.get_scaled_positions()) for frame in frames])
    cell = jnp.asarray(frames[0].cell.array)
    rows = jax.jit(jax.vmap(observable.features, in_axes=(0, None)))(positions, cell)
    mean = observable.combine({"features": rows}, jnp.full(5, 0.2), Macrostate(300.0, 1.0, 1))
    expected = get_rdf(frames, 5.0, 50, elements=pair, no_dists=True)
    np.testing.assert_allclose(mean, expected, atol=1e-6)


LAMMPS_INPUT = """units metal
atom_style atomic
boundary p p p
read_data cell.data
mass * 1.0
pair_style zero 6.0
pair_coeff * *
compute g all rdf 50 1 1 1 2 2 2 cutoff 5.0
fix mean all ave/time 1 {frames} {frames} c_g[*] mode vector file rdf.txt format " %.15g"
rerun frames.dump dump x y z
"""


@pytest.mark.skipif(shutil.which("lmp") is None, reason="LAMMPS (lmp) is not on PATH")
def test_trajectory_agrees_with_lammps(tmp_path: Path) -> None:
    """A rerun of the snapshots through ``compute rdf``."""
    crystal = bulk("NaCl", "rocksalt", a=5.6, cubic=True).repeat(2)
    frames = []
    for seed in range(5):
        frame = crystal.copy()
        frame.rattle(0.3, seed=seed)
        frame.wrap()
        frames.append(frame)
    kinds = np.where(np.array(crystal.get_chemical_symbols()) == "Na", 1, 2)
    edge = crystal.cell[0, 0]
    box = f"0 {edge:.17g}\n" * 3

    def lines(frame: Atoms) -> str:
        rows = enumerate(zip(kinds, frame.positions, strict=True), 1)
        return "".join(f"{n} {kind} {x:.17g} {y:.17g} {z:.17g}\n" for n, (kind, (x, y, z)) in rows)

    limits = "".join(f"0 {edge:.17g} {axis}lo {axis}hi\n" for axis in "xyz")
    head = f"cell\n\n{len(crystal)} atoms\n2 atom types\n{limits}\nAtoms # atomic\n\n"
    (tmp_path / "cell.data").write_text(head + lines(crystal))
    dump = "ITEM: TIMESTEP\n{}\nITEM: NUMBER OF ATOMS\n{}\nITEM: BOX BOUNDS pp pp pp\n{}ITEM: ATOMS id type x y z\n{}"
    (tmp_path / "frames.dump").write_text(
        "".join(dump.format(n, len(crystal), box, lines(frame)) for n, frame in enumerate(frames, 1))
    )
    (tmp_path / "in.rdf").write_text(LAMMPS_INPUT.format(frames=len(frames)))
    done = subprocess.run(["lmp", "-in", "in.rdf"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    # Number of the bin, its centre, then g and the coordination number of each pair.
    table = np.loadtxt(tmp_path / "rdf.txt", skiprows=4)
    assert len(table) == 50
    np.testing.assert_allclose(table[:, 1], centres(5.0, 50), atol=1e-9)
    for column, pair in ((2, ["Na", "Na"]), (4, ["Na", "Cl"]), (6, ["Cl", "Cl"])):
        observable = rdf(crystal, centres(5.0, 50), pair=pair)
        mean = np.mean([features(observable, frame) for frame in frames], axis=0)
        # LAMMPS does not count an atom among its own possible neighbours.
        others = np.sum(kinds == 1) - (pair[0] == pair[1])
        np.testing.assert_allclose(mean * np.sum(kinds == 1) / others, table[:, column], rtol=1e-6, atol=1e-9)
        assert mean.max() > 1.5


def test_small_cell_gives_the_same_as_its_supercell() -> None:
    small = bulk("C", "diamond", a=3.567)
    small.rattle(0.05, seed=1)
    large = small.repeat(6)
    expected = get_rdf(large, 6.0, 40, no_dists=True)
    np.testing.assert_allclose(features(rdf(small, centres(6.0, 40)), small), expected, atol=1e-6)


def test_unwrapped_positions_and_single_precision() -> None:
    atoms = salt()
    observable = rdf(atoms, centres(5.0, 25))
    moved = atoms.copy()
    moved.positions += np.random.default_rng(0).integers(-2, 3, (len(atoms), 3)) @ atoms.cell.array
    np.testing.assert_allclose(features(observable, moved), features(observable, atoms), atol=1e-9)
    positions = jnp.asarray(atoms.get_scaled_positions(), jnp.float32)
    single = observable.features(positions, jnp.asarray(atoms.cell.array, jnp.float32))
    assert single.dtype == jnp.float32
    # A distance by the edge of a bin may fall on the other side.
    np.testing.assert_allclose(single, features(observable, atoms), atol=0.05)


def test_ideal_gas_is_one() -> None:
    rng = np.random.default_rng(0)
    frames = [Atoms("Ar400", scaled_positions=rng.uniform(size=(400, 3)), cell=[9, 10, 11]) for _ in range(6)]
    observable = rdf(frames[0], centres(8.0, 8))
    values = np.mean([features(observable, frame) for frame in frames], axis=0)
    np.testing.assert_allclose(values[1:], 1 - 1 / 400, atol=0.02)


@pytest.mark.parametrize("deviation", [0.03, 0.2])
def test_smearing_is_a_gaussian_integrated_over_each_bin(deviation: float) -> None:
    atoms = Atoms("Ar2", positions=[[0, 0, 0], [0, 0, 2.837]], cell=[40, 40, 40], pbc=True)
    grid = [1.05 + 0.1 * k for k in range(30)]
    edges = 1.0 + 0.1 * np.arange(31)
    share = np.diff(ndtr((edges - 2.837) / deviation))
    expected = 2 * share * 40**3 / (4 * 4 / 3 * np.pi * np.diff(edges**3))
    values = features(rdf(atoms, grid, smearing=deviation), atoms)
    np.testing.assert_allclose(values, expected, atol=3e-3 * expected.max())
    assert values @ np.diff(edges**3) == pytest.approx(expected @ np.diff(edges**3), rel=1e-6)


def test_a_smeared_grid_that_starts_above_zero_is_a_part_of_the_whole_one() -> None:
    """Distances below its first edge are smeared into it."""
    atoms = salt()
    whole = features(rdf(atoms, centres(5.0, 50), smearing=0.1), atoms)
    part = features(rdf(atoms, centres(5.0, 50)[27:], smearing=0.1), atoms)
    assert whole[26:28].min() > 0.1
    np.testing.assert_allclose(part, whole[27:], rtol=0.01, atol=1e-3)


def test_a_left_handed_cell_is_the_same_crystal() -> None:
    atoms = salt()
    swapped = atoms.copy()
    swapped.set_cell(atoms.cell.array[[1, 0, 2]])
    assert np.linalg.det(atoms.cell.array) * np.linalg.det(swapped.cell.array) < 0
    grid = centres(5.0, 50)
    np.testing.assert_allclose(features(rdf(swapped, grid), swapped), features(rdf(atoms, grid), atoms), atol=1e-9)


def test_grid_that_starts_above_zero() -> None:
    atoms = salt()
    whole, part = rdf(atoms, centres(5.0, 50)), rdf(atoms, centres(5.0, 50)[20:])
    np.testing.assert_allclose(features(part, atoms), features(whole, atoms)[20:], atol=1e-9)


@pytest.mark.parametrize(
    ("grid", "options", "message"),
    [
        ([0.5, 1.5, 2.6], {}, "value 1.5 at index 1 should be 1.55"),
        ([0.2, 1.2, 2.2], {}, "the first, 0.2 Å, must be at least 0.5"),
        ([0.5, 1.5, 2.5], {"pair": [1, 2]}, r"option 'pair' of rdf is \[1, 2\]; give two species"),
        ([0.5, 1.5, 2.5], {"smearing": 1e-9}, "is 1e-09 Å, where the bins are 1 Å wide"),
        ([0.5, 1.5, 2.5], {"smearing": 1e9}, r"is 1e\+09 Å, where the bins are 1 Å wide"),
        ([0.5, 1.5, 2.5], {"pair": ["Na", "K"]}, "names 'K'; the structure has Cl, Na"),
    ],
)
def test_refused_requests(grid: list[float], options: dict[str, Any], message: str) -> None:
    atoms = salt()
    with pytest.raises(ValueError, match=message):
        ObservableRequest(observable="rdf", grid=grid, options=options).check_system(atoms.symbols, atoms.cell.array)
