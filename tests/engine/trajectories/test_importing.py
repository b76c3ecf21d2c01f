"""Trajectories of other programs, written by ase or as these programs write them, against the one they were made of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms

from aiida_difftre.engine.contract.frames import read_frames
from aiida_difftre.engine.trajectories.cp2k import HARTREE
from aiida_difftre.engine.trajectories.importing import Imported, ImportSettings, import_trajectory

FRAMES, KELVIN, LENGTH = 60, 300.0, 8.0
BINARY = ["Ar", "Kr", "Ar", "Kr"]
STATED = {"interval_fs": 200.0}


def oscillators() -> list[Atoms]:
    """Independent samples of four atoms that are tied to their places by springs, so that averages are known."""
    rng, spring = np.random.default_rng(1), 2.0
    places = np.array([[1, 1, 1], [5, 1, 1], [1, 5, 1], [1, 1, 5.0]])
    frames = []
    for _ in range(FRAMES):
        shifts = rng.normal(scale=(units.kB * KELVIN / spring) ** 0.5, size=places.shape)
        atoms = Atoms(BINARY, places + shifts, cell=[LENGTH] * 3, pbc=True)
        atoms.set_momenta(rng.normal(size=(4, 3)) * (atoms.get_masses() * units.kB * KELVIN)[:, None] ** 0.5)
        stress = rng.normal(scale=1e-4, size=6)
        atoms.calc = SinglePointCalculator(atoms, energy=0.5 * spring * float((shifts**2).sum()) - 3.0, stress=stress)
        frames.append(atoms)
    return frames


def extxyz(folder: Path, frames: list[Atoms]) -> tuple[Path, list[Path]]:
    ase.io.write(folder / "md.extxyz", frames)
    return folder / "md.extxyz", []


def traj(folder: Path, frames: list[Atoms]) -> tuple[Path, list[Path]]:
    ase.io.write(folder / "md.traj", frames)
    return folder / "md.traj", []


def lammps(
    folder: Path, frames: list[Atoms], *, columns: str = "id element x y z", style: str = "metal"
) -> tuple[Path, list[Path]]:
    """As LAMMPS writes it, with atoms in another order in each frame and a box that does not begin at zero."""
    rng, text, low = np.random.default_rng(2), [], -1.5
    log = [f"units {style}", "timestep 0.002", "Step Temp PotEng Pxx Pyy Pzz Pxy Pxz Pyz"]
    for number, atoms in enumerate(frames):
        side = atoms.cell[0, 0]
        text += ["ITEM: TIMESTEP", str(100 * number), "ITEM: NUMBER OF ATOMS", "4", "ITEM: BOX BOUNDS pp pp pp"]
        text += [f"{low} {low + side:.10f}"] * 3 + [f"ITEM: ATOMS {columns}"]
        images, wrapped = np.divmod(atoms.positions, side)
        values = {
            "id": np.arange(1, 5), "element": BINARY, "type": [1, 2, 1, 2],
            **dict(zip("xyz", (wrapped + low).T, strict=True)),
            **dict(zip(("xs", "ys", "zs"), (wrapped / side).T, strict=True)),
            **dict(zip(("ix", "iy", "iz"), images.T.astype(int), strict=True)),
            **dict(zip(("xu", "yu", "zu"), (atoms.positions + low).T, strict=True)),
        }  # fmt: skip
        text += [" ".join(str(values[name][atom]) for name in columns.split()) for atom in rng.permutation(4)]
        pressures = -atoms.calc.results["stress"] / units.GPa * 1e4
        pressures[:3] += 3 * units.kB * atoms.get_temperature() / atoms.get_volume() / units.GPa * 1e4
        tensor = " ".join(f"{pressures[place]:.10g}" for place in (0, 1, 2, 5, 4, 3))
        log.append(f"{100 * number} {atoms.get_temperature():.8f} {atoms.calc.results['energy']:.10f} {tensor}")
    (folder / "dump.lammpstrj").write_text("\n".join([*text, ""]))
    (folder / "log.lammps").write_text("\n".join([*log, "Loop time of 1.0 on 1 procs", ""]))
    return folder / "dump.lammpstrj", [folder / "log.lammps"]


def cp2k(folder: Path, frames: list[Atoms]) -> tuple[Path, list[Path]]:
    positions, energies = (
        [],
        ["#     Step Nr.          Time[fs]        Kin.[a.u.]  Temp[K]  Pot.[a.u.]  Cons Qty[a.u.] UsedTime[s]"],
    )
    cells = ["#   Step   Time [fs]       Ax [Angstrom]       Ay [Angstrom]  Az [Angstrom] ... Volume [Angstrom^3]"]
    for number, atoms in enumerate(frames):
        energy = atoms.get_potential_energy() / HARTREE
        positions += ["4", f" i = {number}, time = {200.0 * number:.3f}, E = {energy:.10f}"]
        positions += [
            f"{name} {x:.10f} {y:.10f} {z:.10f}" for name, (x, y, z) in zip(BINARY, atoms.positions, strict=True)
        ]
        energies.append(f"{number} {200.0 * number} 0.01 {atoms.get_temperature():.8f} {energy:.10f} 0.0 0.1")
        cells.append(f"{number} {200.0 * number} " + " ".join(f"{x:.10f}" for x in atoms.cell.array.ravel()) + " 1.0")
    for name, lines in (("pos-1.xyz", positions), ("run-1.ener", energies), ("run-1.cell", cells)):
        (folder / name).write_text("\n".join([*lines, ""]))
    return folder / "pos-1.xyz", [folder / "run-1.cell", folder / "run-1.ener"]


def xdatcar(folder: Path, frames: list[Atoms]) -> tuple[Path, list[Path]]:
    """Sorted by species, as VASP wants them."""
    order = [0, 2, 1, 3]
    ase.io.write(folder / "XDATCAR", [atoms[order] for atoms in frames], format="vasp-xdatcar")
    lines = [
        f"{number + 1:7d} T= {atoms.get_temperature():.4f} E= 0.0 F= {atoms.get_potential_energy():.8E} E0= 0.0 EK= 0.0"
        for number, atoms in enumerate(frames)
    ]
    (folder / "OSZICAR").write_text("\n".join([*lines, ""]))
    return folder / "XDATCAR", [folder / "OSZICAR"]


def vasprun(folder: Path, frames: list[Atoms]) -> tuple[Path, list[Path]]:
    """As VASP writes molecular dynamics: e_fr_energy is what the forces are of; stresses, in kbar, are pressures."""

    def rows(name: str, array: Any) -> str:
        lines = "".join(f"<v>{x:.9f} {y:.9f} {z:.9f}</v>" for x, y, z in array)
        return f'<varray name="{name}">{lines}</varray>'

    def structure(atoms: Atoms, name: str = "") -> str:
        places = rows("positions", atoms.get_scaled_positions(wrap=False))
        return f"<structure{name}><crystal>{rows('basis', atoms.cell)}</crystal>{places}</structure>"

    atoms = "".join(f"<rc><c>{symbol}</c><c>{BINARY.index(symbol) + 1}</c></rc>" for symbol in BINARY)
    text = [
        "<modeling>", f"<kpoints>{rows('kpointlist', [[0, 0, 0]])}</kpoints>",
        f'<atominfo><array name="atoms"><set>{atoms}</set></array></atominfo>',
        '<parameters><separator name="ionic"><i type="int" name="IBRION">0</i><i name="POTIM">200.0</i>',
        f'<i name="TEBEG">{KELVIN}</i><i name="TEEND">{KELVIN}</i></separator></parameters>',
        structure(frames[0], ' name="initialpos"'),
    ]  # fmt: skip
    for one in frames:
        energy, stress = one.calc.results["energy"], -one.get_stress(voigt=False) / units.GPa * 10
        values = {"e_fr_energy": energy, "e_wo_entrp": energy + 0.02, "e_0_energy": energy + 0.01}
        energies = "".join(f'<i name="{name}">{value:.8f}</i>' for name, value in values.items())
        text += [
            f"<calculation><scstep><energy>{energies}</energy></scstep>", structure(one),
            rows("forces", np.zeros((4, 3))), rows("stress", stress), f"<energy>{energies}</energy></calculation>",
        ]  # fmt: skip
    (folder / "vasprun.xml").write_text("\n".join([*text, "</modeling>", ""]))
    return folder / "vasprun.xml", []


def imported(found: tuple[Path, list[Path]], **settings: Any) -> Imported:
    return import_trajectory([found[0]], found[1], ImportSettings(temperature=KELVIN, **settings))


@pytest.mark.parametrize(
    ("write", "settings"),
    [(extxyz, STATED), (traj, STATED), (lammps, {}), (cp2k, {}), (xdatcar, STATED), (vasprun, {})],
)
def test_every_format_gives_the_same_trajectory(
    tmp_path: Path, write: Callable[..., Any], settings: dict[str, Any]
) -> None:
    frames = oscillators()
    made = imported(write(tmp_path, frames), equilibration_fs=0.0, **settings)
    order = [0, 2, 1, 3] if write is xdatcar else [0, 1, 2, 3]
    wanted = np.array([atoms.get_scaled_positions(wrap=False)[order] for atoms in frames])
    trajectory = made.trajectory
    assert trajectory.species == tuple(BINARY[place] for place in order)
    assert trajectory.positions == pytest.approx(wanted, abs=2e-7)
    assert trajectory.energies == pytest.approx([atoms.get_potential_energy() for atoms in frames], abs=1e-6)
    assert trajectory.times[:2] == pytest.approx([200.0, 400.0])
    assert trajectory.cell == pytest.approx(LENGTH * np.eye(3))
    assert not trajectory.last_velocities.any()
    if write in (extxyz, traj, lammps, vasprun):
        wanted = np.array([atoms.get_stress() for atoms in frames]) / units.GPa
        assert made.stresses == pytest.approx(wanted, abs=1e-6)
    if write in (lammps, cp2k, xdatcar):
        assert trajectory.temperatures == pytest.approx([atoms.get_temperature() for atoms in frames], abs=1e-3)
    assert made.source["stationarity"]["independent_samples"] > 30
    assert len(made.source["files"][0]["sha256"]) == 64


@pytest.mark.parametrize(
    "columns", ["id element xs ys zs", "id element xu yu zu", "id element x y z ix iy iz", "element xu yu zu id"]
)
def test_positions_of_lammps_are_wrapped_scaled_or_with_image_flags(tmp_path: Path, columns: str) -> None:
    frames = oscillators()
    for number, atoms in enumerate(frames):
        atoms.positions[0] += [LENGTH * (number // 20), 0, 0]
    made = imported(lammps(tmp_path, frames, columns=columns), equilibration_fs=0.0).trajectory
    wanted = np.array([atoms.get_scaled_positions(wrap=False) for atoms in frames])
    whole = made.positions - wanted
    assert whole == pytest.approx(np.rint(whole), abs=3e-7)
    assert (whole == pytest.approx(0.0, abs=3e-7)) == ("s" not in columns.split()[2])


def test_a_vasprun_that_samples_nothing_or_is_cut_is_told(tmp_path: Path) -> None:
    found = vasprun(tmp_path, oscillators())
    whole = found[0].read_text()
    for change, message in (
        (('"IBRION">0', '"IBRION">2'), "has IBRION = 2, which is no molecular dynamics"),
        (('"TEEND">300', '"TEEND">900'), "has TEEND = 900 K, and --temperature says 300 K"),
    ):
        found[0].write_text(whole.replace(*change))
        with pytest.raises(ValueError, match=message):
            imported(found)
    # As a job leaves it that ends in the middle of a step, of which ase knows the atoms before.
    found[0].write_text(whole[: whole.rindex('<varray name="forces">')])
    made = imported(found, equilibration_fs=0.0)
    assert len(made.trajectory.energies) == FRAMES - 1
    assert any("vasprun.xml was cut: its end is missing" in line for line in made.lines())


def test_a_triclinic_box_of_lammps_has_its_own_bounds(tmp_path: Path) -> None:
    """ase, which reads such boxes too, as the reference."""
    path, logs = lammps(tmp_path, oscillators(), columns="id element xs ys zs")
    text = path.read_text().replace("BOX BOUNDS pp pp pp", "BOX BOUNDS xy xz yz pp pp pp")
    lines = text.splitlines()
    bounds = [index for index, line in enumerate(lines) if line.startswith("-1.5 ")]
    for place, index in enumerate(bounds):
        lines[index] = ("-2.1 9.0 1.0", "-1.5 7.0 -0.6", "-1.5 6.5 0.5")[place % 3]
    path.write_text("\n".join([*lines, ""]))
    made = imported((path, logs), equilibration_fs=0.0).trajectory
    reference = ase.io.read(path, index="5", format="lammps-dump-text")
    assert made.cell == pytest.approx(reference.cell.array, abs=1e-9)
    assert made.positions[5] == pytest.approx(reference.get_scaled_positions(), abs=1e-6)


def test_volumes_of_a_barostat_become_scales(tmp_path: Path) -> None:
    frames, factors = oscillators(), np.random.default_rng(3).normal(1.0, 0.01, FRAMES)
    for atoms, factor in zip(frames, factors, strict=True):
        atoms.set_cell(atoms.cell.array * factor)
    made = imported(extxyz(tmp_path, frames), pressure=0.1, interval_fs=10.0, equilibration_fs=0.0).trajectory
    assert made.ensemble == "NPT"
    assert made.scales == pytest.approx(factors / factors[0])
    with pytest.raises(ValueError, match=r"volume changes by .* give --pressure"):
        imported(extxyz(tmp_path, frames), interval_fs=10.0)
    frames[7].set_cell([8.0, 8.0, 8.1])
    with pytest.raises(ValueError, match="cell of frame 7 differs in shape"):
        imported(extxyz(tmp_path, frames), pressure=0.1, interval_fs=10.0)


def test_several_files_are_walkers_and_what_relaxes_is_left_out(tmp_path: Path) -> None:
    frames = oscillators()
    for number, atoms in enumerate(frames[:20]):
        atoms.calc.results["energy"] += 0.5 * (20 - number) / 20
    (tmp_path / "second").mkdir()
    files = [extxyz(folder, frames)[0] for folder in (tmp_path, tmp_path / "second")]
    made = import_trajectory(files, [], ImportSettings(temperature=KELVIN, interval_fs=10.0))
    assert 2 * 10 <= made.source["left_out"] <= 2 * 25
    assert len(made.trajectory.last_positions) == 2
    assert [line.split(":")[0] for line in made.lines()][1] == "energies"


def edited(path: Path, *pairs: tuple[str, str]) -> None:
    text = path.read_text()
    for before, after in pairs:
        assert before in text
        text = text.replace(before, after)
    path.write_text(text)


def broken_frames(frames: list[Atoms], what: str) -> None:
    if what == "one":
        del frames[1:]
    for number, atoms in enumerate(frames):
        if what == "constraint":
            atoms.set_constraint(FixAtoms([0]))
        elif what == "order" and number == 3:
            atoms.symbols = ["Kr", "Ar", "Ar", "Kr"]
        elif what == "composition" and number == 3:
            atoms.symbols[0] = "Kr"
        elif what == "free":
            atoms.pbc = False
        elif what == "zeros":
            atoms.calc.results["energy"] = 0.0
        elif what == "total":
            atoms.calc.results["energy"] = -3.0 + 1e-3 * (number % 7)
        elif what == "hartree":
            atoms.calc.results["energy"] /= 27.2114
        elif what == "unlabelled":
            atoms.calc = None
        elif what == "hot":
            atoms.set_momenta(1.5 * atoms.get_momenta())
        elif what == "correlated":
            atoms.calc.results["energy"] = 0.08 * np.cos(number / 20)


@pytest.mark.parametrize(
    ("what", "settings", "message"),
    [
        ("", {}, "md.traj does not say the time between its frames; give --interval-fs"),
        ("", {"interval_fs": 10.0, "pressure": 0.0}, "cell is the same in all frames, so that no barostat held 0 GPa"),
        ("", {"interval_fs": 10.0, "units": "metal"}, "--units is for LAMMPS dump; md.traj is ASE .traj"),
        ("constraint", {"interval_fs": 10.0}, r"frame 0 of md.traj has constraints \(FixAtoms\)"),
        ("order", {"interval_fs": 10.0}, "frame 3 of md.traj has its atoms in another order: atom 0 is Kr"),
        ("composition", {"interval_fs": 10.0}, "frame 3 of md.traj is of Ar1 Kr3, the first frame of Ar2 Kr2"),
        ("one", {"interval_fs": 10.0}, "md.traj has one frame; a trajectory of many is needed"),
        ("free", {"interval_fs": 10.0}, "frame 0 of md.traj: it has pbc"),
        ("zeros", {"interval_fs": 10.0}, "has the energy 0 eV in all of its 60 frames: none was stored"),
        ("total", {"interval_fs": 10.0}, r"energies fluctuate by .* give potential energies \(not total ones\)"),
        ("hartree", {"interval_fs": 10.0}, "energies fluctuate by .* eV, the temperature at which it was sampled"),
        ("unlabelled", {"interval_fs": 10.0}, r"no energies, and weights need those of what sampled it; give the log"),
        ("hot", {"interval_fs": 10.0}, r"velocities have .* K, and the temperature is stated as 300 K"),
        ("correlated", {"interval_fs": 10.0, "equilibration_fs": 0.0}, "independent snapshots of 60, fewer than 10"),
        ("", {"interval_fs": 10.0, "equilibration_fs": 600.0}, "lasts 600 fs, all of it equilibration"),
    ],
)
def test_what_cannot_be_averaged_over_is_refused(
    tmp_path: Path, what: str, settings: dict[str, Any], message: str
) -> None:
    frames = oscillators()
    broken_frames(frames, what)
    with pytest.raises(ValueError, match=message):
        imported(traj(tmp_path, frames), **settings)


def test_an_empty_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "md.extxyz").write_text("\n")
    with pytest.raises(ValueError, match=r"md.extxyz is empty; give the trajectory that was written"):
        import_trajectory([tmp_path / "md.extxyz"], [], ImportSettings(temperature=300.0))


@pytest.mark.parametrize(
    ("edits", "settings", "with_log", "message"),
    [
        ([], {}, False, "does not say its units; give --units metal|real, or the log"),
        ([], {"units": "metal"}, False, "does not say the time between its frames|has no energies"),
        ([], {"units": "real"}, True, "the units are metal in the log, real in --units"),
        ([("dump", "ATOMS id element", "ATOMS id type")], {}, True, "which elements its types are; give them"),
        ([("dump", "ATOMS id element", "ATOMS id type")], {"species": {"Ar": "Ar"}}, True, "has the types Kr that --"),
        ([("dump", "ATOMS id element", "ATOMS tag element")], {}, True, "has no column id, and LAMMPS does not keep"),
        ([("dump", "pp pp pp", "pp pp fs")], {}, True, "boundaries pp pp fs; a cell that is periodic"),
        ([("dump", " x y z", " vx vy vz")], {}, True, "has no positions .x y z"),
        ([("log", "units metal", "units lj")], {}, True, "units lj; reduced units mean nothing"),
        ([("log", "\n1300 ", "\n1301 ")], {}, True, r"no thermo output at step 1300 of the dump \(1 of 60 frames\)"),
        ([("log", "PotEng", "TotEng")], {}, True, "no potential energy .PotEng, or E_pair and E_mol.; add pe to"),
        ([("dump", "TIMESTEP\n5900\n", "TIMESTEP\n5800\n")], {}, True, "frame 59 of dump.lammpstrj is not later than"),
    ],
)  # fmt: skip
def test_dumps_that_do_not_say_enough_are_refused(
    tmp_path: Path, edits: list[tuple[str, str, str]], settings: dict[str, Any], with_log: bool, message: str
) -> None:
    path, logs = lammps(tmp_path, oscillators())
    for file, before, after in edits:
        edited(path if file == "dump" else logs[0], (before, after))
    with pytest.raises(ValueError, match=message):
        imported((path, logs if with_log else []), **settings)


@pytest.mark.parametrize("write", [lammps, cp2k])
def test_a_last_frame_that_is_cut_is_refused_and_can_be_left_out(tmp_path: Path, write: Callable[..., Any]) -> None:
    path, logs = write(tmp_path, oscillators())
    path.write_text("\n".join(path.read_text().splitlines()[:-2]))
    with pytest.raises(
        ValueError, match=rf"ends after 2 of 4 atoms: the file is cut; leave the frame out, {path.name}@:59"
    ):
        imported((path, logs))
    assert imported((path.with_name(f"{path.name}@:59"), logs)).source["frames"] == 59


def test_an_index_chooses_frames_with_their_energies(tmp_path: Path) -> None:
    frames = oscillators()
    path, logs = lammps(tmp_path, frames)
    made = imported((path.with_name(f"{path.name}@1::2"), logs), equilibration_fs=0.0)
    assert made.trajectory.energies[:2] == pytest.approx([frames[n].get_potential_energy() for n in (1, 3)], abs=1e-8)
    assert made.source["interval_fs"] == pytest.approx(400.0)
    assert len(read_frames(extxyz(tmp_path, frames)[0])) == FRAMES
