"""Structure files: isotopes by their names, and sites that are no whole atoms."""

from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.build import bulk
from ase.io.extxyz import write_extxyz

from aiida_difftre.engine.contract import structure_files
from aiida_difftre.engine.contract.frames import read_frames

CIF = """data_x
_cell_length_a 4.0
_cell_length_b 4.0
_cell_length_c 4.0
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M '{group}'
_symmetry_Int_Tables_number {number}
loop_
_atom_site_label
{columns}
{sites}
"""
DEUTERIUM = 2.0141018


def cif(
    tmp_path: Path, *sites: str, columns: str = "type_symbol fract_x fract_y fract_z occupancy", cubic: bool = False
) -> Path:
    path = tmp_path / "x.cif"
    names = "\n".join(f"_atom_site_{name}" for name in columns.split())
    group, number = ("F m -3 m", 225) if cubic else ("P 1", 1)
    path.write_text(CIF.format(group=group, number=number, columns=names, sites="\n".join(sites)))
    return path


@pytest.mark.parametrize("cubic", [False, True])
def test_mixed_sites_are_refused_with_their_occupancies(tmp_path: Path, cubic: bool) -> None:
    """ase makes pure copper of it."""
    path = cif(tmp_path, "Cu1 Cu 0 0 0 0.60(2)", "Au1 Au 0 0 0 0.40(2)", cubic=cubic)
    assert set(ase.io.read(path).get_chemical_symbols()) == {"Cu"}
    with pytest.raises(
        ValueError, match=r"site Cu1 \(Cu\) is shared by Cu1 \(Cu\) 0.6, Au1 \(Au\) 0.4; a simulation needs"
    ):
        read_frames(path)


@pytest.mark.parametrize(
    ("sites", "message"),
    [
        (["Ni1 Ni 0 0 0 1.0", "O1 O 0.5 0.5 0.5 0.95"], r"site O1 \(O\) is occupied to 0.95"),
        (["Ni1 Ni 0 0 0 1.0", "O1 O 0.5 0.5 0.5 1.2"], r"site O1 \(O\) is occupied to 1.2"),
        (["Ni1 Ni 0 0 0 1.0", "O1 O 0.5 0.5 0.5 0"], r"site O1 \(O\) is occupied to 0"),
        (["Ni1 Ni 0 0 0 ?"], r"the occupancy of site Ni1 \(Ni\) is '\?'; write 1.0 where it is full"),
        (["Cu1 Cu 0 0 0 0.5", "Au1 Au 1.0 0 0 0.3"], r"Cu1 \(Cu\) 0.5, Au1 \(Au\) 0.3"),
    ],
)
def test_sites_that_are_not_full(tmp_path: Path, sites: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=f"{message}.*"):
        read_frames(cif(tmp_path, *sites))


def test_full_sites_pass_and_a_dot_stands_for_them(tmp_path: Path) -> None:
    (atoms,) = read_frames(cif(tmp_path, "Ni1 Ni2+ 0 0 0 1.0", "O1 O2- 0.5 0.5 0.5 .", cubic=True))
    assert str(atoms.symbols) == "Ni4O4"
    assert not atoms.has("masses")


def test_disorder_groups_and_atoms_at_one_place(tmp_path: Path) -> None:
    columns = "type_symbol fract_x fract_y fract_z disorder_group"
    with pytest.raises(ValueError, match=r"site C2 belongs to disorder group 2; .* leave out all but one group"):
        read_frames(cif(tmp_path, "C1 C 0 0 0 .", "C2 C 0.1 0 0 2", columns=columns))
    path = cif(tmp_path, "Cu1 Cu 0 0 0 1.0", "Au1 Au 0.05 0 0 1.0")
    (atoms,) = read_frames(path)
    with pytest.raises(ValueError, match=r"atoms 0 and 1 \(Cu and Au\) are 0.2 Å apart"):
        structure_files.check_apart(atoms)


def test_occupancies_that_other_readers_keep(tmp_path: Path) -> None:
    atoms = bulk("Cu", cubic=True)
    atoms.set_array("occupancy", np.array([1.0, 1.0, 0.6, 1.0]))
    write_extxyz(tmp_path / "cu.extxyz", atoms)
    with pytest.raises(ValueError, match=r"atom 2 \(Cu\) has the occupancy 0.6; a simulation needs whole atoms"):
        read_frames(tmp_path / "cu.extxyz")
    ase.io.write(tmp_path / "cu.pdb", atoms)
    with pytest.raises(ValueError, match=r"atom 2 \(Cu\) has the occupancy 0.6"):
        read_frames(tmp_path / "cu.pdb")
    del atoms.arrays["occupancy"]
    atoms.info["occupancy"] = {"0": {"Cu": 0.6, "Au": 0.4}}
    with pytest.raises(ValueError, match=r"site 0 is occupied by Cu 0.6, Au 0.4"):
        structure_files.check_occupied(atoms)


@pytest.mark.parametrize(("share", "is_whole"), [("1.0", True), ("11.000", True), ("0.5", False), ("10.25", False)])
def test_shares_of_shelx(tmp_path: Path, share: str, is_whole: bool) -> None:
    path = tmp_path / "cu.res"
    path.write_text(f"TITL x\nCELL 1.0 4 4 4 90 90 90\nLATT -1\nSFAC Cu\nCu 1 0.0 0.0 0.0 {share}\nEND\n")
    if is_whole:
        assert len(read_frames(path)[0]) == 1
        return
    with pytest.raises(ValueError, match=f"line 5: site Cu has the occupancy {share}"):
        read_frames(path)


XYZ = """3
Lattice="5 0 0 0 5 0 0 0 5" Properties={properties} pbc="T T T"
{rows}
"""


def extxyz(tmp_path: Path, *rows: str, properties: str = "species:S:1:pos:R:3") -> Path:
    path = tmp_path / "water.extxyz"
    path.write_text(XYZ.format(properties=properties, rows="\n".join(rows)))
    return path


def test_isotopes_in_extended_xyz(tmp_path: Path) -> None:
    (atoms,) = read_frames(extxyz(tmp_path, "O 0 0 0", "D 1 0 0", "H 0 1 0"))
    assert atoms.get_chemical_symbols() == ["O", "H", "H"]
    np.testing.assert_allclose(atoms.get_masses(), [15.999, DEUTERIUM, 1.008], atol=1e-5)
    rows = ["0 0 0 18O 7", "1 0 0 T 8", "0 1 0 H-2 9"]
    (atoms,) = read_frames(extxyz(tmp_path, *rows, properties="pos:R:3:species:S:1:tag:I:1"))
    np.testing.assert_allclose(atoms.get_masses(), [17.99916, 3.016049, DEUTERIUM], atol=1e-5)
    assert atoms.positions[1].tolist() == [1, 0, 0]
    plain = extxyz(tmp_path, "O 0 0 0", "H 1 0 0", "H 0 1 0")
    assert not read_frames(plain)[0].has("masses")


def test_a_mass_column_may_not_contradict_a_name(tmp_path: Path) -> None:
    columns = "species:S:1:pos:R:3:masses:R:1"
    rows = ["O 0 0 0 16", "D 1 0 0 {mass}", "H 0 1 0 1.008"]
    good = extxyz(tmp_path, *(row.format(mass=2.014) for row in rows), properties=columns)
    assert read_frames(good)[0].get_masses().tolist() == [16, 2.014, 1.008]
    wrong = extxyz(tmp_path, *(row.format(mass=1.008) for row in rows), properties=columns)
    with pytest.raises(ValueError, match=r"atom 1 is D, of 2.0141 u, and its mass is 1.008 u; leave out one of both"):
        read_frames(wrong)


def test_several_frames_with_isotopes(tmp_path: Path) -> None:
    one = extxyz(tmp_path, "O 0 0 0", "D 1 0 0", "H 0 1 0").read_text()
    other = extxyz(tmp_path, "O 0 0 0", "H 1 0 0", "D 0 1 0").read_text()
    path = tmp_path / "two.extxyz"
    path.write_text(one + other)
    masses = [atoms.get_masses()[1:].round(2).tolist() for atoms in read_frames(path)]
    assert masses == [[2.01, 1.01], [1.01, 2.01]]


def test_isotopes_in_a_poscar(tmp_path: Path) -> None:
    path = tmp_path / "POSCAR"
    path.write_text("heavy water\n1.0\n5 0 0\n0 5 0\n0 0 5\nO D H\n1 1 1\nDirect\n0 0 0\n0.2 0 0\n0 0.2 0\n")
    (atoms,) = read_frames(path)
    assert atoms.get_chemical_symbols() == ["O", "H", "H"]
    np.testing.assert_allclose(atoms.get_masses(), [15.999, DEUTERIUM, 1.008], atol=1e-5)


@pytest.mark.parametrize("columns", ["type_symbol fract_x fract_y fract_z", "fract_x fract_y fract_z"])
def test_deuterium_in_a_cif(tmp_path: Path, columns: str) -> None:
    """The mass is that of the atom; ase has that of its nucleus."""
    rows = ("O1 O 0 0 0", "D1 D 0.2 0 0", "H1 H 0 0.2 0")
    rows = rows if "type" in columns else tuple(" ".join([row.split()[0], *row.split()[2:]]) for row in rows)
    (atoms,) = read_frames(cif(tmp_path, *rows, columns=columns))
    assert atoms.get_chemical_symbols() == ["O", "H", "H"]
    np.testing.assert_allclose(atoms.get_masses(), [15.999, DEUTERIUM, 1.008], atol=1e-5)


def test_isotopes_on_symmetric_sites_of_a_cif(tmp_path: Path) -> None:
    columns = "type_symbol fract_x fract_y fract_z"
    (atoms,) = read_frames(cif(tmp_path, "Li1 7Li 0 0 0", "D1 D 0.5 0.5 0.5", columns=columns, cubic=True))
    assert str(atoms.symbols) == "Li4H4"
    np.testing.assert_allclose(atoms.get_masses(), [7.016003] * 4 + [DEUTERIUM] * 4, atol=1e-5)


def test_a_tetrahedral_site_is_no_tritium(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="site T1 may be tritium or a tetrahedral site: give _atom_site_type_symbol"):
        read_frames(cif(tmp_path, "T1 0 0 0", columns="fract_x fract_y fract_z"))


def test_a_poscar_whose_species_stand_in_its_title(tmp_path: Path) -> None:
    """Of VASP 4: no line of symbols."""
    path = tmp_path / "POSCAR"
    path.write_text("Cu\n1.0\n3 0 0\n0 3 0\n0 0 3\n1\nDirect\n0 0 0\n")
    assert read_frames(path)[0].get_chemical_symbols() == ["Cu"]


def test_a_row_of_a_cif_that_ase_would_leave_out(tmp_path: Path) -> None:
    path = cif(tmp_path, "Ni1 Ni 0 0 0 1.0", "O1 O 0.5 0.5 0.5 1.0 7")
    with pytest.raises(ValueError, match="Wrong number"):
        read_frames(path)


@pytest.mark.parametrize(
    ("sites", "message"),
    [
        (["Cu1 Cu 0 0 0 1", "Au1 Au 0 0 0 1"], r"site (Cu1 \(Cu\)|Au1 \(Au\)) is at the place of another site"),
        (["Cu1 Cu 0 0 0 1", "Au1 Au 0.9999 0 0 1"], r"site (Cu1 \(Cu\)|Au1 \(Au\)) is at the place of another site"),
        (["M1 CuAu 0 0 0 1"], "the species of site M1 is 'CuAu', which may be another one than Cu"),
        (["M1 Fe3+Ni2+ 0 0 0 1"], r"the species of site M1 is 'Fe3\+Ni2\+', which may be another one than Fe"),
        (["O1 OH 0 0 0 1"], "the species of site O1 is 'OH', which may be another one than O"),
        (["Cu1 CU 0 0 0 1"], "the species of site Cu1 is 'CU', which may be another one than C"),
    ],
)
def test_sites_of_which_a_part_would_be_lost(tmp_path: Path, sites: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_frames(cif(tmp_path, *sites))


def test_a_site_that_stands_twice_is_one(tmp_path: Path) -> None:
    sites = ("Na1 Na 0 0 0 1", "Cl1 Cl 0.5 0.5 0.5 1", "Na2 Na 0.5 0.5 0 1")
    (atoms,) = read_frames(cif(tmp_path, *sites, cubic=True))
    assert str(atoms.symbols) == "Na4Cl4"


def test_labels_in_place_of_species(tmp_path: Path) -> None:
    columns = "fract_x fract_y fract_z"
    (atoms,) = read_frames(cif(tmp_path, "OW1 0 0 0", "O1A 0.5 0 0", "Cu1B 0 0.5 0", columns=columns))
    assert atoms.get_chemical_symbols() == ["O", "O", "Cu"]
    with pytest.raises(ValueError, match=r"the species of site CU1 is 'CU1', which may be another one than C"):
        read_frames(cif(tmp_path, "CU1 0 0 0", columns=columns))


def test_counts_without_lines(tmp_path: Path) -> None:
    path = tmp_path / "POSCAR"
    for count in ("1000000000", "9" * 30):
        path.write_text(f"copper\n1.0\n4 0 0\n0 4 0\n0 0 4\nCu\n{count}\nDirect\n0 0 0\n")
        with pytest.raises(ValueError, match=f"line 7 has the count '{count}'; there are 9 lines"):
            read_frames(path)
    (tmp_path / "x.gen").write_text("1000000000 S\nCu\n1 1 0 0 0\n0 0 0\n4 0 0\n0 4 0\n0 0 4\n")
    with pytest.raises(ValueError, match="line 1 has the count '1000000000'"):
        read_frames(tmp_path / "x.gen")


DUMP = "ITEM: TIMESTEP\n0\nITEM: NUMBER OF ATOMS\n1\nITEM: BOX BOUNDS pp pp pp\n0 4\n0 4\n0 4\nITEM: ATOMS {}\n{}\n"
DATA = "data\n\n1 atoms\n1 atom types\n0 4 xlo xhi\n0 4 ylo yhi\n0 4 zlo zhi\n{}\nAtoms # atomic\n\n1 1 0 0 0\n"


def test_types_of_lammps_are_no_elements(tmp_path: Path) -> None:
    dump, data = tmp_path / "x.lammpstrj", tmp_path / "x.lammps-data"
    dump.write_text(DUMP.format("id type x y z", "1 1 0 0 0"))
    with pytest.raises(ValueError, match="does not say which elements its types are; write its column element"):
        read_frames(dump, kind="lammps-dump-text")
    dump.write_text(DUMP.format("id element x y z", "1 Cu 0 0 0"))
    assert read_frames(dump, kind="lammps-dump-text")[0].get_chemical_symbols() == ["Cu"]
    data.write_text(DATA.format(""))
    with pytest.raises(ValueError, match="does not say which elements its types are; add its section Masses"):
        read_frames(data, kind="lammps-data")
    data.write_text(DATA.format("\nMasses\n\n1 63.546\n"))
    assert read_frames(data, kind="lammps-data")[0].get_chemical_symbols() == ["Cu"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("_cell_length_a -4", r"_cell_length_a is -4; give one above 0 Å"),
        ("_cell_length_c 0", r"_cell_length_c is 0; give one above 0 Å"),
        ("_cell_angle_beta -90", r"_cell_angle_beta is -90; give one between 0 and 180 degrees"),
        ("_cell_angle_gamma 200", r"_cell_angle_gamma is 200; give one between 0 and 180 degrees"),
    ],
)
def test_cells_of_a_cif_that_cannot_be(tmp_path: Path, line: str, message: str) -> None:
    path = cif(tmp_path, "Cu1 Cu 0 0 0 1.0")
    text = path.read_text()
    tag = line.split()[0]
    path.write_text("\n".join(line if row.startswith(tag) else row for row in text.splitlines()) + "\n")
    assert path.read_text() != text
    with pytest.raises(ValueError, match=message):
        read_frames(path)
