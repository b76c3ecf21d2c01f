"""Input and output of FEFF: clusters, files, shells; and with a real feff6l, its own chi(k) on a displaced crystal."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.neighborlist import neighbor_list
from scipy.interpolate import CubicSpline

from aiida_difftre.engine.observables import feff

COPPER = bulk("Cu", "fcc", a=3.615)
HEADER = """\
 Cu                                                     Feff 6L.02  potph 4.12
 -------------------------------------------------------------------------------
   2  {degeneracy:.3f}  {distance:.4f}    2.6383   -5.50689 nleg, deg, reff, rnrmav(bohr), edge
        x         y         z   pot at#
     0.0000    0.0000    0.0000  0  29 Cu       absorbing atom
     0.0000    1.8075    1.8075  1  {number} {symbol}
    k   real[2*phc]   mag[feff]  phase[feff] red factor   lambda      real[p]@#
"""


def path_text(distance: float, symbol: str = "Cu", degeneracy: float = 1.0) -> str:
    rows = [f"  {k:.3f}  3.5E+00  {0.1 * distance:.4E} -5.0E+00  0.9E+00  1.5E+01  {k + 1:.4E}" for k in (0, 1, 2, 3)]
    number = {"Cu": 29, "Zn": 30}[symbol]
    return (
        HEADER.format(distance=distance, degeneracy=degeneracy, symbol=symbol, number=number) + "\n".join(rows) + "\n"
    )


def test_cluster_has_the_shells_of_the_crystal() -> None:
    found = feff.cluster(COPPER, "Cu", 6.0)
    distances = np.linalg.norm(found.positions, axis=1)
    assert np.sum(distances < 2.6) == 13
    assert distances.max() < 8.0
    # Shells at sqrt(n/2) a: n = 5 and 6.
    assert found.cutoff == pytest.approx(3.615 * (np.sqrt(2.5) + np.sqrt(3)) / 2)


def test_input_of_a_compound() -> None:
    found = feff.cluster(bulk("NaCl", "rocksalt", a=5.64), "Cl", 5.0)
    lines = feff.input_text(found, "L3", "sodium\nchloride").splitlines()
    assert lines[:2] == ["TITLE sodium chloride", "HOLE 4 1.0"]
    assert "RMAX 5.0000" in lines
    start = lines.index("POTENTIALS")
    assert lines[start + 1 : start + 5] == [" 0 17 Cl", " 1 17 Cl", " 2 11 Na", "ATOMS"]
    atoms = [line.split() for line in lines[start + 5 : -1]]
    assert [float(x) for x in atoms[0]] == [0, 0, 0, 0]
    assert [words[3] for words in atoms[1:7]] == ["2"] * 6


@pytest.mark.parametrize(
    ("atoms", "options", "message"),
    [
        (COPPER, {"absorber": "Fe", "radius": 5.0}, "the absorber is 'Fe'; the structure has Cu"),
        (COPPER, {"absorber": "Cu", "radius": 2.0}, r"no neighbour of Cu lies within 2 Å; the nearest is at 2.56 Å"),
        (COPPER, {"absorber": "Cu", "radius": 12.0}, "FEFF takes 499: a radius must be less than 1"),
        (COPPER, {"absorber": "Cu", "radius": 5.0, "site": 3}, "site 3 is no Cu"),
    ],
)
def test_refused_clusters(atoms: Atoms, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        feff.cluster(atoms, **options)


def test_paths_become_shells(tmp_path: Path) -> None:
    files = {"feff0001.dat": path_text(2.55, degeneracy=4), "feff0002.dat": path_text(2.56, degeneracy=8)}
    files |= {"feff0003.dat": path_text(2.57, "Zn"), "feff0004.dat": path_text(3.6), "files.dat": "no path"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    table = feff.path_table(feff.read_folder(tmp_path), feff.cluster(COPPER, "Cu", 4.0), "K", "a test")
    assert [(shell.scatterer, shell.distance) for shell in table.shells] == [("Cu", 2.56), ("Zn", 2.57), ("Cu", 3.6)]
    assert table.shells[0].amplitude == pytest.approx([0.9 * 0.256] * 4)
    assert table.shells[0].phase == pytest.approx([-1.5] * 4)
    assert table.momentum == [1, 2, 3, 4]
    assert table.cutoff == pytest.approx(3.615 * (1 + np.sqrt(1.5)) / 2)


def test_no_paths() -> None:
    with pytest.raises(ValueError, match="no single-scattering path within 4 Å; raise the radius"):
        feff.path_table([], feff.cluster(COPPER, "Cu", 4.0), "K", "a test")


@pytest.mark.parametrize(
    "text", ["", "nleg, deg, reff\n", path_text(2.55)[:-20], path_text(2.55).replace("3.5E", "nanE")]
)
def test_what_is_no_path(text: str) -> None:
    with pytest.raises(ValueError, match=r"feff0001\.dat is no path of FEFF"):
        feff.read_path(text, "feff0001.dat")


def run_feff(
    program: Path, folder: Path, cluster: feff.Cluster, phases: Path | None = None
) -> list[feff.ScatteringPath]:
    """All paths; with the phase shifts of another run, where ``phases`` is its folder."""
    folder.mkdir()
    text = feff.input_text(cluster, "K", "test")
    if phases is not None:
        text = text.replace("CONTROL 1", "CONTROL 0")
        for name in ("phase.bin", "phase.pad"):
            (folder / name).write_bytes((phases / name).read_bytes())
    (folder / "feff.inp").write_text(text)
    said = subprocess.run([program], cwd=folder, capture_output=True, text=True, check=True).stdout
    assert feff.FINISHED in said
    return feff.read_folder(folder)


def summed(paths: list[feff.ScatteringPath], k: np.ndarray) -> np.ndarray:
    """chi(k) of FEFF's paths as its manual has it, and ``path2chi`` of xraylarch."""
    total = np.zeros_like(k)
    for path in paths:
        at_k = {name: CubicSpline(path.columns["k"], values)(k) for name, values in path.columns.items()}
        amplitude = path.degeneracy * at_k["mag[feff]"] * at_k["red factor"] / (k * path.distance**2)
        phase = 2 * k * path.distance + at_k["real[2*phc]"] + at_k["phase[feff]"]
        total += amplitude * np.sin(phase) * np.exp(-2 * path.distance / at_k["lambda"])
    return total


@pytest.mark.feff
def test_sum_over_the_table_against_feff_on_a_displaced_crystal(feff6l: Path, tmp_path: Path) -> None:
    """0.06 Å along each axis is the relative disorder of copper's first shell at room temperature.

    With the potentials of the crystal the paths alone are compared; with potentials made anew for each distorted
    cluster all that single scattering has.
    """
    radius, k = 7.95, np.arange(3.0, 16.0, 0.05)
    ideal = feff.cluster(COPPER, "Cu", radius)
    paths = run_feff(feff6l, tmp_path / "ideal", ideal)
    table = feff.path_table(paths, ideal, "K", "a test")
    undisplaced = np.linalg.norm(ideal.positions[1:], axis=1)
    ours = table.contribution("Cu", k, undisplaced[undisplaced <= radius]).sum(axis=1)
    np.testing.assert_allclose(ours, summed(paths, k), atol=1e-3 * np.abs(ours).max())

    atoms = bulk("Cu", "fcc", a=3.615, cubic=True).repeat(3)
    atoms.rattle(0.06, seed=3)
    i, vectors = neighbor_list("iD", atoms, radius + feff.MARGIN)
    ours, frozen, full = np.zeros_like(k), np.zeros_like(k), np.zeros_like(k)
    for atom in range(24):  # the mean over all 108 deviates by 1.8 %
        around = vectors[i == atom]
        around = around[np.argsort(np.linalg.norm(around, axis=1))]
        displaced = replace(ideal, symbols=("Cu",) * (len(around) + 1), positions=np.vstack([np.zeros(3), around]))
        distances = np.linalg.norm(around, axis=1)
        ours += table.contribution("Cu", k, distances[distances <= radius]).sum(axis=1)
        frozen += summed(run_feff(feff6l, tmp_path / f"frozen{atom}", displaced, tmp_path / "ideal"), k)
        full += summed(run_feff(feff6l, tmp_path / f"full{atom}", displaced), k)

    def deviation(reference: np.ndarray) -> float:
        return float(np.sqrt(np.sum((k**2 * (ours - reference)) ** 2) / np.sum((k**2 * reference) ** 2)))

    assert deviation(frozen) < 0.005
    assert deviation(full) < 0.03
