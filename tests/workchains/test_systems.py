"""Cells of a run: one source each, of the density asked for."""

from pathlib import Path
from typing import Any

import pytest
from ase.build import bulk, molecule
from ase.io import write

from aiida_difftre.engine.contract.validation import validate
from aiida_difftre.engine.units import AMU_PER_A3_IN_KG_PER_M3
from aiida_difftre.workchains.systems import System, padded, read_structures


def test_random_cell_has_its_composition_and_density(tmp_path: Path) -> None:
    system = validate(System, {"random": {"composition": {"Ar": 40, "Ne": 20}, "density": 1200.0, "seed": 4}})
    atoms = system.atoms(tmp_path)
    assert atoms.get_chemical_symbols().count("Ar") == 40
    assert len(atoms) == 60
    density = atoms.get_masses().sum() / atoms.get_volume() * AMU_PER_A3_IN_KG_PER_M3
    assert density == pytest.approx(1200.0)
    assert atoms.pbc.all()


def test_random_cell_takes_a_box(tmp_path: Path) -> None:
    atoms = validate(System, {"random": {"composition": {"O": 901}, "box": 30.0}}).atoms(tmp_path)
    assert atoms.cell.lengths() == pytest.approx(30.0)


def test_hexagonal_crystal(tmp_path: Path) -> None:
    bulk = {"element": "Ti", "structure": "hcp", "lattice_constant": 2.951, "c_over_a": 1.587, "cubic": False}
    atoms = validate(System, {"bulk": bulk}).atoms(tmp_path)
    assert len(atoms) == 2
    assert atoms.cell.lengths()[2] / atoms.cell.lengths()[0] == pytest.approx(1.587)


@pytest.mark.parametrize(
    ("content", "fragment"),
    [
        ({}, "one of file, bulk and random"),
        ({"file": "a.cif", "random": {"composition": {"Ar": 3}, "box": 9.0}}, "one of file, bulk and random"),
        ({"random": {"composition": {"Ar": 3}}}, r"density \(kg/m³\) or box"),
        ({"random": {"composition": {"Ar": 3}, "box": 9.0, "density": 1.0}}, r"density \(kg/m³\) or box"),
        ({"random": {"composition": {}, "box": 9.0}}, "composition"),
        ({"random": {"composition": {"Ar": 0}, "box": 9.0}}, "composition"),
        ({"random": {"composition": {"Xx1": 10}, "box": 9.0}}, "Xx1"),
        ({"random": {"composition": {"Ar": 100}, "box": 9.0, "min_distance": 4.0}}, "do not fit"),
    ],
)
def test_unsound_cells_are_refused(tmp_path: Path, content: dict[str, Any], fragment: str) -> None:
    with pytest.raises(ValueError, match=fragment):
        validate(System, content).atoms(tmp_path)


def test_masses_decide_the_density(tmp_path: Path) -> None:
    """Coarse-grained water: 901 beads of 18.0154 u in a cube of 30 Å are 998.3 kg/m³."""
    content = {"random": {"composition": {"O": 100}, "density": 998.32}, "masses": {"O": 18.0154}}
    atoms = validate(System, content).atoms(tmp_path)
    assert len(atoms) / atoms.get_volume() == pytest.approx(901 / 30.0**3, rel=1e-4)
    assert (atoms.repeat(2).get_masses() == 18.0154).all()
    heavy = {"element": "C", "structure": "diamond", "density": 3512.0}
    light, isotope = (
        validate(System, {"bulk": heavy, "masses": masses}).atoms(tmp_path) for masses in ({}, {"C": 13.00335})
    )
    assert isotope.get_volume() / light.get_volume() == pytest.approx(13.00335 / 12.011, rel=1e-4)


def test_masses_of_a_file(tmp_path: Path) -> None:
    bulk("NaCl", "rocksalt", a=5.64).write(tmp_path / "salt.extxyz")
    atoms = validate(System, {"file": "salt.extxyz", "masses": {"Cl": 36.96590}}).atoms(tmp_path)
    assert atoms.get_masses().tolist() == pytest.approx([22.98976928, 36.96590])
    with pytest.raises(ValueError, match="masses names 'Ar'; the cell has Cl, Na"):
        validate(System, {"file": "salt.extxyz", "masses": {"Ar": 36.0}}).atoms(tmp_path)


def test_structure_node_keeps_masses(tmp_path: Path, aiida_profile: Any) -> None:
    from aiida.orm import StructureData

    content = {"random": {"composition": {"O": 30}, "box": 12.0}, "masses": {"O": 18.0154}}
    node = StructureData(ase=validate(System, content).atoms(tmp_path))
    assert [kind.mass for kind in node.kinds] == [18.0154]
    assert (node.get_ase().get_masses() == 18.0154).all()


def test_isotopes_of_a_file_keep_their_masses_in_a_structure_node(tmp_path: Path, aiida_profile: Any) -> None:
    """Half heavy water, from a POSCAR that names D: two kinds of one species."""
    from aiida.orm import StructureData

    (tmp_path / "POSCAR").write_text("HDO\n1.0\n5 0 0\n0 5 0\n0 0 5\nO D H\n1 1 1\nDirect\n0 0 0\n0.2 0 0\n0 0.2 0\n")
    atoms = validate(System, {"file": "POSCAR"}).atoms(tmp_path)
    assert atoms.get_chemical_symbols() == ["O", "H", "H"]
    node = StructureData(ase=atoms)
    assert node.get_symbols_set() == {"O", "H"}
    assert node.get_ase().get_masses().tolist() == pytest.approx([15.999, 2.0141018, 1.008], abs=1e-4)


def test_a_site_that_two_species_share_is_refused(tmp_path: Path) -> None:
    (tmp_path / "alloy.cif").write_text(
        "data_x\n_cell_length_a 4\n_cell_length_b 4\n_cell_length_c 4\n_cell_angle_alpha 90\n_cell_angle_beta 90\n"
        "_cell_angle_gamma 90\nloop_\n_atom_site_label\n_atom_site_fract_x\n_atom_site_fract_y\n_atom_site_fract_z\n"
        "_atom_site_occupancy\nCu1 0 0 0 0.60\nAu1 0 0 0 0.40\n"
    )
    with pytest.raises(ValueError, match=r"alloy.cif.*site Cu1 \(Cu\) is shared by Cu1 \(Cu\) 0.6, Au1 \(Au\) 0.4"):
        validate(System, {"file": "alloy.cif"}).atoms(tmp_path)


def test_one_rule_for_the_frames_of_a_file(tmp_path: Path) -> None:
    """One of several frames has to be chosen where one structure is needed; else all are taken."""
    write(tmp_path / "md.extxyz", [bulk("Cu", a=3.6 + 0.01 * number) for number in range(5)])
    with pytest.raises(ValueError, match=r"md\.extxyz gives 5 frames where one .*md\.extxyz@-1 for the last, @0 for"):
        validate(System, {"file": "md.extxyz"}).atoms(tmp_path)
    chosen = validate(System, {"file": "md.extxyz@2"}).atoms(tmp_path)
    assert chosen.cell.lengths()[0] * 2**0.5 == pytest.approx(3.62)
    for index, number in (("", 5), ("@:", 5), ("@0", 1), ("@::2", 3)):
        assert len(read_structures(tmp_path / f"md.extxyz{index}")) == number


@pytest.mark.parametrize("name", ["molecule.extxyz", "molecule.xyz", "slab.extxyz"])
def test_what_is_not_periodic_is_refused(tmp_path: Path, name: str) -> None:
    write(tmp_path / "molecule.extxyz", molecule("H2O", vacuum=5.0))
    write(tmp_path / "molecule.xyz", molecule("H2O"))
    slab = bulk("Cu", cubic=True)
    slab.center(vacuum=8.0, axis=2)
    slab.pbc = (True, True, False)
    write(tmp_path / "slab.extxyz", slab)
    with pytest.raises(ValueError, match=rf"{name}: it has .* put a molecule or a slab into a box with vacuum"):
        validate(System, {"file": name}).atoms(tmp_path)
    with pytest.raises(ValueError, match=r"frame 0 of .* periodic in three directions"):
        read_structures(tmp_path / name)


@pytest.mark.parametrize("pbc", [(False, False, False), (True, True, False), (True, False, False)])
def test_vacuum_on_request(tmp_path: Path, pbc: tuple[bool, bool, bool]) -> None:
    slab = bulk("Cu", "fcc", a=3.6, cubic=True).repeat((1, 1, 2))
    slab.pbc = pbc
    if not any(pbc):
        slab.set_cell(None)
    write(tmp_path / "slab.extxyz", slab)
    with pytest.raises(ValueError, match=r"periodic in three directions; .*in an input: system\.vacuum"):
        validate(System, {"file": "slab.extxyz"}).atoms(tmp_path)
    atoms = validate(System, {"file": "slab.extxyz", "vacuum": 10.0}).atoms(tmp_path)
    assert atoms.pbc.all()
    for axis in range(3):
        extent = float(slab.positions[:, axis].max() - slab.positions[:, axis].min())
        assert atoms.cell.lengths()[axis] == pytest.approx(slab.cell.lengths()[axis] if pbc[axis] else extent + 20)
    assert atoms.get_all_distances() == pytest.approx(slab.get_all_distances())


def test_vacuum_where_there_is_none_to_put(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is periodic in three directions and takes no vacuum; leave out vacuum"):
        padded(bulk("Cu"), 10.0)
    crystal = {"element": "Cu", "structure": "fcc", "lattice_constant": 3.6}
    with pytest.raises(ValueError, match="vacuum is for what a file holds; bulk and random are periodic"):
        validate(System, {"bulk": crystal, "vacuum": 10.0})


def test_cells_denser_than_any_matter(tmp_path: Path) -> None:
    crystal = {"element": "Ar", "structure": "fcc", "lattice_constant": 1.0}
    with pytest.raises(ValueError, match=r"the cell has 2\.653e\+05 kg/m³, more than 100000; give its lengths in Å"):
        validate(System, {"bulk": crystal}).atoms(tmp_path)
