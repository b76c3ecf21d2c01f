"""Exported folders for ASE and i-PI, tables and bundles; and what is refused."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.neighborlist import neighbor_list

from aiida_difftre.engine import cli
from aiida_difftre.engine.calculator import DiffTReCalculator
from aiida_difftre.engine.contract.settings import PotentialSpec
from aiida_difftre.engine.export.pair_functions import functions, tabulate
from aiida_difftre.engine.potentials.potential import Potential, build, save
from aiida_difftre.engine.potentials.term import Parameters
from tests.fixtures.engine import build as made_of
from tests.fixtures.engine import lennard_jones, network


@pytest.fixture(scope="module")
def argon() -> Atoms:
    atoms = bulk("Ar", cubic=True).repeat((2, 1, 1))
    atoms.set_cell(atoms.cell.array @ [[1, 0.1, 0], [0, 0.97, 0.05], [0.02, 0, 1]], scale_atoms=True)
    atoms.rattle(0.1, seed=3)
    return atoms


def exported(
    folder: Path, potential: Potential, parameters: Parameters, *words: str, atoms: Atoms | None = None
) -> int:
    save(folder / "made.safetensors", potential, parameters)
    given = ["export", str(folder / "made.safetensors"), "--output", str(folder / "out"), *words]
    if atoms is not None:
        atoms.write(folder / "made.extxyz")
        given += ["--structure", str(folder / "made.extxyz")]
    return cli.cli(given)


def expected(folder: Path, atoms: Atoms) -> dict[str, Any]:
    calculator = DiffTReCalculator(folder / "made.safetensors")
    calculator.calculate(atoms)
    return calculator.results


def test_a_calculator_of_ase(argon: Atoms, tmp_path: Path) -> None:
    assert exported(tmp_path, *lennard_jones(), "--to", "ase") == 0
    argon.write(tmp_path / "argon.extxyz")
    words = [sys.executable, str(tmp_path / "out" / "calculator.py"), str(tmp_path / "argon.extxyz")]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert f"{expected(tmp_path, argon)['energy']:.6f} eV" in said


def test_a_client_of_ipi(argon: Atoms, tmp_path: Path) -> None:
    from ase.calculators.socketio import SocketServer
    from ase.io import read

    assert exported(tmp_path, *lennard_jones(), "--to", "ipi", atoms=argon) == 0
    name = f"difftre-{uuid.uuid4().hex[:12]}"
    # i-PI starts from the same atoms, turned as it wants them, and moves them.
    atoms = read(tmp_path / "out" / "structure.extxyz")
    assert atoms.get_all_distances(mic=True) == pytest.approx(argon.get_all_distances(mic=True), abs=1e-6)
    atoms.rattle(0.05, seed=1)
    words = [sys.executable, str(tmp_path / "out" / "run_client.py"), "--unix", name]
    said = tmp_path / "client.log"
    with SocketServer(unixsocket=name, timeout=60) as server, said.open("w") as stream:
        client = subprocess.Popen(words, stderr=stream)
        try:
            found = server.calculate(atoms)
        finally:
            server.close()
            status = client.wait(60)
    assert status == 0, said.read_text()
    results = expected(tmp_path, atoms)
    assert found["energy"] == pytest.approx(results["energy"], abs=1e-9)
    np.testing.assert_allclose(found["forces"], results["forces"], atol=1e-9)
    tensor = -found["virial"] / atoms.get_volume()
    np.testing.assert_allclose(tensor[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]], results["stress"], atol=1e-10)


def test_tables_of_pairs(argon: Atoms, tmp_path: Path) -> None:
    assert exported(tmp_path, *lennard_jones(), "--to", "tables", "--inner", "2.5", "--points", "200") == 0
    r, energy, force = np.loadtxt(tmp_path / "out" / "pair_Ar-Ar.txt").T
    assert (r[0], r[-1], len(r)) == (2.5, 5.0, 200)
    below = r < 0.9 * 5.0  # where the term does not switch it off
    bare = 4 * 0.0104 * ((3.4 / r) ** 12 - (3.4 / r) ** 6)
    np.testing.assert_allclose(energy[below], bare[below], rtol=1e-12, atol=1e-14)
    slope = 4 * 0.0104 * (12 * (3.4 / r) ** 12 - 6 * (3.4 / r) ** 6) / r
    np.testing.assert_allclose(force[below], slope[below], rtol=1e-12, atol=1e-14)
    terms = json.loads((tmp_path / "out" / "terms.json").read_text())
    assert terms["pairs"] == ["Ar-Ar"]
    assert terms["terms"][0]["parameters"] == {"epsilon": [0.0104], "sigma": [3.4]}


def test_tables_say_how_precise_they_are() -> None:
    function = functions(*lennard_jones())[0]
    coarse, fine = (tabulate(function, 2.0, 5.0, points) for points in (100, 1600))
    assert coarse.force_error > 1e3 * fine.force_error
    assert tabulate(function, 2.0, 5.0).force_error <= 2e-10


def with_tail() -> tuple[Potential, Parameters]:
    made = made_of("lennard_jones", ["Ar"], 8.0, epsilon=0.0104, sigma=3.4, tail=True)
    return made, made.init(jax.random.key(0))


def test_a_tail_goes_into_lammps_through_the_calculator(tmp_path: Path) -> None:
    assert exported(tmp_path, *with_tail(), "--to", "lammps") == 0
    assert (tmp_path / "out" / "run_lammps.py").exists()
    assert not (tmp_path / "out" / "pairs.table").exists()


REFUSED = {
    "a network has no tables": (network(), ["--to", "tables"], "0_moment_network"),
    "i-PI needs elements": (lennard_jones(), ["--to", "ipi"], "--structure"),
    "inner beyond the cutoff": (lennard_jones(), ["--to", "tables", "--inner", "7"], "--inner 7"),
    "one point": (lennard_jones(), ["--to", "tables", "--points", "1"], "--points 1"),
    "a tail in tables": (with_tail(), ["--to", "tables"], "0_lennard_jones: the tail"),
    "a tail in a bundle": (with_tail(), ["--to", "lammps-jax"], "depends on the volume"),
    "no base": (lennard_jones(), ["--to", "ase", "--without-base"], "has no base"),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED.keys())
def test_refused(case: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made, words, told = case
    assert exported(tmp_path, *made, *words) == 1
    said = capsys.readouterr().err
    assert told in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_other_elements_and_full_folders_are_refused(
    argon: Atoms, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    neon = argon.copy()
    neon.symbols[:] = "Ne"
    assert exported(tmp_path, *lennard_jones(), "--to", "lammps", atoms=neon) == 1
    assert "Ne" in capsys.readouterr().err
    molecule = Atoms("Ar2", [[0, 0, 0], [3.8, 0, 0]])
    assert exported(tmp_path, *lennard_jones(), "--to", "lammps", atoms=molecule) == 1
    assert "vacuum" in capsys.readouterr().err
    assert exported(tmp_path, *lennard_jones(), "--to", "ase") == 0
    assert exported(tmp_path, *lennard_jones(), "--to", "ase") == 1
    assert "--force" in capsys.readouterr().err
    assert exported(tmp_path, *lennard_jones(), "--to", "ase", "--force") == 0


def test_a_correction_is_never_exported_as_the_potential(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    potential, parameters = lennard_jones()
    base = {"engine": "ase", "name": "emt"}
    spec = PotentialSpec(species=["Cu"], terms=potential.spec.terms, base=base)
    made = build(spec)
    assert exported(tmp_path, made, parameters, "--to", "lammps") == 0
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert "run_lammps.py" in written
    assert "pairs.table" not in written
    assert "sum of its terms and of its base, emt" in (tmp_path / "out" / "README.md").read_text()
    copper = bulk("Cu", cubic=True)
    copper.rattle(0.1, seed=1)
    both = DiffTReCalculator(tmp_path / "out" / "potential.safetensors")
    both.calculate(copper)
    correction = DiffTReCalculator(Potential(spec.model_copy(update={"base": None}), made.terms), parameters)
    correction.calculate(copper)
    alone = EMT()
    alone.calculate(copper)
    for name in ("energy", "forces"):
        total = correction.results[name] + alone.results[name]
        np.testing.assert_allclose(both.results[name], total, atol=1e-9)
    shutil.rmtree(tmp_path / "out")
    for to in ("tables", "lammps-jax"):
        assert exported(tmp_path, made, parameters, "--to", to) == 1
        assert "emt" in capsys.readouterr().err
    assert exported(tmp_path, made, parameters, "--to", "tables", "--without-base") == 0
    readme = (tmp_path / "out" / "README.md").read_text()
    assert readme.startswith("**This is the correction alone.**")
    assert "emt" in readme


def test_a_bundle_of_lammps_jax(tmp_path: Path) -> None:
    pytest.importorskip("lammps_jax", reason="lammps-jax is not installed")
    import jax.extend.backend as backends
    from jaxlib import xla_client

    room, places = 200, 60
    potential, parameters = network(cutoff=3.0)
    words = ("--to", "lammps-jax", "--atoms", str(room), "--neighbors", str(places), "--platform", "cpu")
    assert exported(tmp_path, potential, parameters, *words) == 0
    bundle = json.loads((tmp_path / "out" / "potential.lammps-jax.json").read_text())
    assert bundle["contract"]["cutoff"] == 3.0
    atoms = bulk("C", "sc", a=2.1).repeat((2, 2, 2))
    atoms.rattle(0.1, seed=2)

    # What the plugin does: ghosts behind the atoms, lists that reach beyond the cutoff, forces of ghosts sent home.
    lists = neighbor_list("ijS", atoms, 3.3)
    ghosts: dict[tuple[int, ...], int] = {}
    owner, places_of = list(range(len(atoms))), list(atoms.positions)
    index, filled = np.full((places, room), room, np.int32), np.zeros(room, np.int32)
    for i, j, shift in zip(*lists, strict=True):
        row = int(j)
        if shift.any():
            key = (int(j), *(int(s) for s in shift))
            if key not in ghosts:
                ghosts[key] = len(owner)
                owner.append(int(j))
                places_of.append(atoms.positions[j] + shift @ atoms.cell.array)
            row = ghosts[key]
        index[filled[i], i] = row
        filled[i] += 1
    positions = np.zeros((room, 3))
    positions[: len(owner)] = places_of
    options = xla_client.CompileOptions.ParseFromString(base64.b64decode(bundle["compile_options_b64"]))
    options.compile_portable_executable = False
    options.device_assignment = xla_client.DeviceAssignment.create(np.array([[0]]))
    client = backends.get_backend("cpu")
    program = base64.b64decode(bundle["programs"]["energy_and_forces_mlir_b64"])
    run = client.compile_and_load(program, client.devices()[:1], options)
    counts = (np.int32(len(atoms)), np.int32(len(owner) - len(atoms)))
    arguments = (positions, np.zeros(room, np.int32), *counts, index, filled)
    arrays = run.execute_sharded([jax.device_put(a) for a in arguments]).disassemble_into_single_device_arrays()
    energy, pushed = (np.asarray(array[0]) for array in arrays)
    forces = np.zeros((len(atoms), 3))
    np.add.at(forces, owner, pushed[: len(owner)])
    results = expected(tmp_path, atoms)
    assert float(energy) == pytest.approx(results["energy"], abs=1e-12)
    np.testing.assert_allclose(forces, results["forces"], atol=1e-12)
