"""Labels of files that people have: their names, virials, atoms alone; what is missing, contradicts or cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from aiida_difftre.engine.contract.label_names import LabelKeys, label_kind
from aiida_difftre.engine.contract.labels import (
    VACUUM,
    Labelled,
    check_seen,
    known_references,
    labelled,
    read_labelled,
    require,
)
from aiida_difftre.engine.units import EV_PER_A3_IN_GPA

CELL = 'Lattice="0 1.8 1.8 1.8 0 1.8 1.8 1.8 0"'
BARE = "Properties=species:S:1:pos:R:3"
FORCED = f"{BARE}:forces:R:3"


def read(
    folder: Path, *headers: str, keys: dict[str, Any] | None = None, row: str = "Cu 0 0 0 0.1 0.2 0.3"
) -> Labelled:
    """A file of one frame of copper for each header, read and asked for labels to train with."""
    path = folder / "data.extxyz"
    path.write_text("".join(f"1\n{CELL} {header}\n{row}\n" for header in headers))
    chosen = LabelKeys(**(keys or {}))
    found = read_labelled(path, chosen)
    require(found, chosen)
    return found


@pytest.mark.parametrize(
    ("energy", "forces"),
    [
        ("energy", "forces"),
        ("Energy", "force"),
        ("REF_energy", "REF_forces"),
        ("ref_energy", "ref_force"),
        ("dft_energy", "dft_forces"),
        ("dft_energy", "dft_force"),
        ("DFT_energy", "DFT_forces"),
        ("TotEnergy", "force"),
        ("total_energy", "Forces"),
        ("energy_vasp", "forces_vasp"),
        ("free_energy", "forces"),
    ],
)
def test_usual_names_are_recognised_and_reported(tmp_path: Path, energy: str, forces: str) -> None:
    found = read(tmp_path, f"{BARE}:{forces}:R:3 {energy}=-3.5")
    results = found.frames[0].calc.results
    assert results["energy"] == -3.5
    np.testing.assert_array_equal(results["forces"], [[0.1, 0.2, 0.3]])
    assert found.describe() == f"energies from {energy}; forces from {forces}"


@pytest.mark.parametrize("name", ["MACE_energy", "gap_energy", "energies", "energy_shift", "atomization_energy", "E"])
def test_other_names_are_no_labels_unless_chosen(tmp_path: Path, name: str) -> None:
    assert label_kind(name) is None
    with pytest.raises(ValueError, match=r"frame 0 of data\.extxyz has no energy.*keys: \{energy: NAME\}"):
        read(tmp_path, f"{FORCED} {name}=-3.5")
    found = read(tmp_path, f"{FORCED} {name}=-3.5", keys={"energy": name})
    assert found.frames[0].calc.results["energy"] == -3.5


def test_the_message_says_what_a_frame_has_instead(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no energy under a name that is known \(it has MACE_energy\)"):
        read(tmp_path, f"{FORCED} MACE_energy=-3.5")
    with pytest.raises(ValueError, match=r"has no forces under a name that is known \(it has MACE_forces\)"):
        read(tmp_path, f"{BARE}:MACE_forces:R:3 energy=-3.5")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("energy=-1 REF_energy=-2", r"energy \(-1 eV\) and REF_energy \(-2 eV\) disagree.*\{energy: energy\} or"),
        ("energy=-1 free_energy=-1.1", r"energy .*free_energy .* disagree.*\(forces are the derivatives of the"),
        ('energy=-1 stress="1 0 0 0 1 0 0 0 1" virial="9 0 0 0 9 0 0 0 9"', r"stress \(1 eV/Å³\) and virial \(-0.77"),
        ('energy=-1 stress="1 0 0 0 1 0 0 0 1" REF_stress="1 1 2 0 0 0"', r"REF_stress \(2 eV/Å³\) disagree; choose"),
    ],
)  # fmt: skip
def test_names_that_disagree_are_refused(tmp_path: Path, header: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(tmp_path, f"{FORCED} {header}")


def test_columns_that_disagree_are_refused(tmp_path: Path) -> None:
    header, row = f"{FORCED}:REF_forces:R:3 energy=-1", "Cu 0 0 0 0.1 0.2 0.3 0.1 0.2 0.4"
    with pytest.raises(ValueError, match=r"forces \(0.3 eV/Å\) and REF_forces \(0.4 eV/Å\) disagree"):
        read(tmp_path, header, row=row)
    found = read(tmp_path, header, row=row, keys={"forces": "REF_forces"})
    assert found.frames[0].calc.results["forces"][0, 2] == 0.4


def test_names_that_agree_or_are_chosen_are_taken(tmp_path: Path) -> None:
    assert read(tmp_path, f"{FORCED} energy=-1 free_energy=-1").origins["energy"] == {"energy": 1}
    chosen = read(tmp_path, f"{FORCED} energy=-1 free_energy=-1.1", keys={"energy": "free_energy"})
    assert chosen.frames[0].calc.results["energy"] == -1.1


def test_names_that_change_within_a_file_need_an_order(tmp_path: Path) -> None:
    headers = [f"{FORCED} {name}=-1" for name in ("REF_energy", "REF_energy", "energy")]
    with pytest.raises(ValueError, match=r"frame 2 .* has energy where other .*\{energy: \[REF_energy, energy\]\}"):
        read(tmp_path, *headers)
    found = read(tmp_path, *headers, keys={"energy": ["REF_energy", "energy"]})
    assert found.describe().startswith("energies from REF_energy in 2 frames; energies from energy in 1 frames")


def test_a_chosen_name_has_to_be_there(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"keys\.energy: no frame has e_dft; frame 0 of data.extxyz has forces, energy"
    ):
        read(tmp_path, f"{FORCED} energy=-1", keys={"energy": "e_dft"})


def test_missing_forces_are_refused_or_allowed(tmp_path: Path) -> None:
    headers = (f"{BARE} energy=-1", f"{BARE} energy=-2")
    with pytest.raises(ValueError, match=r"frame 0 .* has no forces, nor have 1 others; .*\{missing_forces: true\}"):
        read(tmp_path, *headers)
    for keys in ({"missing_forces": True}, {"forces": "none"}):
        assert "forces" not in read(tmp_path, *headers, keys=keys).origins
    with pytest.raises(ValueError, match=r"frame 1 .* has no energy"):
        read(tmp_path, f"{FORCED} energy=-1", FORCED)


VIRIAL = '"-0.1166 0 0 0 -0.2333 0 0 0 -0.35"'


@pytest.mark.parametrize("name", ["virial", "virials", "REF_virial", "REF_virials", "dft_virial"])
def test_a_virial_becomes_a_stress(tmp_path: Path, name: str) -> None:
    found = read(tmp_path, f"{FORCED} energy=-1 {name}={VIRIAL}")
    np.testing.assert_allclose(found.frames[0].calc.results["stress"], [0.01, 0.02, 0.03, 0, 0, 0], atol=1e-5)
    assert found.describe().endswith(f"stresses (-virial/V) from {name}")


def test_stress_and_virial_frame_by_frame(tmp_path: Path) -> None:
    bare, stress = f"{FORCED} energy=-1", 'stress="0.1 0.6 0.5 0.6 0.2 0.4 0.5 0.4 0.3"'
    found = read(tmp_path, f"{bare} virial={VIRIAL}", f"{bare} {stress}", bare)
    first, second, third = (atoms.calc.results.get("stress") for atoms in found.frames)
    np.testing.assert_allclose(first, [0.01, 0.02, 0.03, 0, 0, 0], atol=1e-5)
    np.testing.assert_allclose(second, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    assert third is None
    assert found.origins == {
        "energy": {"energy": 3}, "forces": {"forces": 3}, "stress": {"stress": 1}, "virial": {"virial": 1}
    }  # fmt: skip


@pytest.mark.parametrize("name", ["stress", "REF_stress", "dft_stress"])
def test_six_or_nine_components(tmp_path: Path, name: str) -> None:
    for text in ("0.1 0.2 0.3 0.4 0.5 0.6", "0.1 0.6 0.5 0.6 0.2 0.4 0.5 0.4 0.3"):
        found = read(tmp_path, f'{FORCED} energy=-1 {name}="{text}"')
        np.testing.assert_allclose(found.frames[0].calc.results["stress"], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    with pytest.raises(ValueError, match="is not symmetric"):
        read(tmp_path, f'{FORCED} energy=-1 {name}="0.1 0.6 0.5 0 0.2 0.4 0.5 0.4 0.3"')
    assert "stress" not in read(tmp_path, f'{FORCED} energy=-1 {name}="{text}"', keys={"stress": "none"}).origins


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("energy=abc", r"frame 0 of data\.extxyz: its energy is 'abc', which is no number"),
        ("energy", "its energy is True, which is no number"),
        ("energy=nan", "its energy is nan, which is not finite; label it again or drop the frame"),
        ("energy=-inf", "its energy is -inf, which is not finite"),
        ("energy=\"-1 -2\"", r"its energy has the shape \(2,\), where one number in eV belong"),
        ("REF_energy=none", "its REF_energy is 'none', which is no number"),
        ('energy=-1 stress="1 2 3"', r"its stress has the shape \(3,\), where six or nine numbers"),
        ('energy=-1 stress="nan 0 0 0 0 0"', "its stress is nan, which is not finite"),
        ('energy=-1 virial="a b c"', "its virial is 'a b c', which is no number"),
    ],
)  # fmt: skip
def test_labels_that_are_no_numbers(tmp_path: Path, header: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(tmp_path, f"{FORCED} {header}")


def test_forces_that_are_no_numbers(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="its forces is nan, which is not finite"):
        read(tmp_path, f"{FORCED} energy=-1", row="Cu 0 0 0 0 0 nan")
    with pytest.raises(ValueError, match="cannot be read: could not convert string to float: 'x'"):
        read(tmp_path, f"{BARE}:forces:R:3 energy=-1", row="Cu 0 0 0 x y z")
    with pytest.raises(ValueError, match="its force is 'x', which is no number"):
        read(tmp_path, f"{BARE}:force:S:3 energy=-1", row="Cu 0 0 0 x y z")
    with pytest.raises(ValueError, match=r"its force has the shape \(1,\), where three numbers for each atom"):
        read(tmp_path, f"{BARE}:force:R:1 energy=-1")


def test_a_weight_of_zero_marks_what_is_no_label(tmp_path: Path) -> None:
    """As MACE reads it: zeros in place of what was not computed."""
    header = f'{FORCED} REF_energy=-1 REF_stress="0 0 0 0 0 0" config_forces_weight=0.0 config_stress_weight=0'
    found = read(tmp_path, header, keys={"missing_forces": True})
    assert found.origins == {"energy": {"REF_energy": 1}}
    with pytest.raises(ValueError, match=r"frame 0 .* has no forces"):
        read(tmp_path, header)


# Atoms alone


def gold(folder: Path, alone: str, energy: float = 3.8, *more: str) -> Labelled:
    """Two cells of gold and a single atom, read from a file."""
    cells = [bulk("Au", a=a, cubic=True) for a in (4.0, 4.1)]
    for atoms in cells:
        atoms.calc = EMT()
        atoms.get_stress()
    ase.io.write(folder / "gold.extxyz", cells)
    with (folder / "gold.extxyz").open("a") as stream:
        for header in (f"{alone} energy={energy}", *more):
            stream.write(f"1\n{header} {BARE}\nAu 0 0 0\n")
    return read_labelled(folder / "gold.extxyz", LabelKeys(energy="energy"))


BOX = 'Lattice="12 0 0 0 12 0 0 0 12"'


@pytest.mark.parametrize(
    "header",
    [
        'pbc="F F F"',
        f'{BOX} pbc="F F F"',
        BOX,
        f'{BOX} pbc="T T T"',
        f'{BOX} pbc="T T T" config_type=IsolatedAtom stress="1e-9 0 0 0 0 0 0 0 0"',
        'Lattice="6 0 0 0 6 0 0 0 6" config_type=isolated_atom',
        'Lattice="6 0 0 0 6 0 0 0 6" config_type="Isolated Atom"',
        'pbc="F F F" name=md kind=md source="VASP 6"',
    ],
)
def test_atoms_alone_are_reference_energies(tmp_path: Path, header: str) -> None:
    found = gold(tmp_path, header)
    require(found)
    assert found.alone.tolist() == [False, False, True]
    assert found.references() == {"Au": 3.8}
    assert not found.frames[2].pbc.any()
    assert set(found.frames[2].calc.results) == {"energy"}
    assert found.describe().endswith("reference energies of Au from atoms alone")


def test_an_atom_of_a_crystal_is_not_alone(tmp_path: Path) -> None:
    atoms = Atoms("Cs", cell=[VACUUM - 0.1] * 3, pbc=True)
    assert not labelled([_with_energy(atoms)]).alone.any()
    assert labelled([_with_energy(Atoms("Cs", cell=[VACUUM] * 3, pbc=True))]).alone.all()
    assert not labelled([Atoms("Cs", cell=[20.0] * 3, pbc=True)]).alone.any()  # nothing is known of it
    skewed = Atoms("Cs", cell=[[20, 0, 0], [19, 4, 0], [0, 0, 20]], pbc=True)  # an image 4.1 Å away
    assert not labelled([_with_energy(skewed)]).alone.any()


def test_atoms_alone_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"frame 2 .* and frame 3 .* both an atom of Au alone, with 3.8 and 3.9 eV"):
        gold(tmp_path, 'pbc="F F F"', 3.8, f"{BOX} energy=3.9")
    pair = _with_energy(Atoms("Au2", [[0, 0, 0], [0, 0, 2.5]]))
    pair.info["config_type"] = "IsolatedAtom"
    with pytest.raises(ValueError, match="configuration 0 is marked as an isolated atom, but has 2 atoms"):
        labelled([pair])
    with pytest.raises(ValueError, match="all frames are atoms alone"):
        require(labelled([_with_energy(Atoms("Au"))]))


def test_the_file_of_this_package_means_the_same_again(tmp_path: Path) -> None:
    found = gold(tmp_path, BOX)
    ase.io.write(tmp_path / "again.extxyz", found.frames)
    again = read_labelled(tmp_path / "again.extxyz")
    assert again.references() == found.references()
    for before, after in zip(found.frames, again.frames, strict=True):
        for name, value in before.calc.results.items():
            np.testing.assert_allclose(after.calc.results[name], value, atol=1e-8)


@pytest.mark.parametrize(
    ("given", "alone", "expected"),
    [
        (None, {}, {}),
        (None, {"Au": 3.8}, {"Au": 3.8}),
        ({"Au": -1.0, "Cu": -2.0}, {}, {"Au": -1.0, "Cu": -2.0}),
        ({"Cu": -2.0}, {"Au": 3.8}, {"Au": 3.8, "Cu": -2.0}),
        ({"Xe": -0.1}, {"Au": 3.8}, {"Au": 3.8, "Xe": -0.1}),
        ({"Au": -1.0}, {}, "gives no reference energy for Cu, which the dataset contains"),
        ({"Au": -1.0, "Cu": -2.0}, {"Au": 3.8}, "gives -1 eV for Au, whose atom alone in the dataset has 3.8 eV"),
    ],
)
def test_reference_energies(given: Any, alone: dict[str, float], expected: Any) -> None:
    species, there = ["Au", "Cu", "Xe"], ["Au", "Cu"]
    if isinstance(expected, str):
        with pytest.raises(ValueError, match=expected):
            known_references(given, species, there, alone)
        if "atom alone" in expected:  # of the whole, where there is a base
            assert known_references(given, species, there, alone, has_base=True)["Au"] == -1.0
    else:
        assert known_references(given, species, there, alone) == expected


def test_species_without_any_label() -> None:
    with pytest.raises(ValueError, match="species Xe of the potential is in no configuration of the dataset"):
        check_seen(["Ar", "Xe"], ["Ar"], {"Ar": 0.0})
    check_seen(["Ar", "Xe"], ["Ar"], {"Xe": 0.0})


# Not periodic


def test_molecules_are_taken_as_they_are() -> None:
    water = molecule("H2O")
    water.calc = SinglePointCalculator(water, energy=-14.0, forces=np.zeros((3, 3)), stress=np.zeros(6))
    slab = bulk("Cu", cubic=True)
    slab.pbc = (True, True, False)
    slab.calc = SinglePointCalculator(slab, energy=-14.0, forces=np.zeros((4, 3)), stress=np.zeros(6))
    found = labelled([water, slab])
    require(found)
    assert [atoms.pbc.tolist() for atoms in found.frames] == [[False] * 3, [True, True, False]]
    assert all("stress" not in atoms.calc.results for atoms in found.frames)
    assert "no stresses of 2 frames, which are not periodic in three directions" in found.describe()


# Stresses that cannot be


def copper(scale: float, number: int = 12) -> list[Atoms]:
    """Rattled copper at several volumes, labelled by ase's EMT, with stresses times a factor."""
    frames = []
    for index in range(number):
        atoms = bulk("Cu", a=3.45 + 0.03 * index, cubic=True)
        atoms.rattle(0.05, seed=index)
        atoms.calc = EMT()
        labels = {
            "energy": atoms.get_potential_energy(),
            "forces": atoms.get_forces(),
            "stress": scale * atoms.get_stress(),
        }
        atoms.calc = SinglePointCalculator(atoms, **labels)
        frames.append(atoms)
    return frames


def clusters(scale: float) -> list[Atoms]:
    """Copper clusters in a box, across its boundary, labelled by ase's EMT, with stresses times a factor."""
    frames = []
    for seed in range(3):
        atoms = Atoms("Cu4", [[0, 0, 0], [2.2, 0, 0], [0, 2.2, 0], [0, 0, 2.2]], cell=[14, 15, 16], pbc=True)
        atoms.rattle(0.1, seed=seed)
        atoms.wrap()
        atoms.calc = EMT()
        labels = {
            "energy": atoms.get_potential_energy(),
            "forces": atoms.get_forces(),
            "stress": scale * atoms.get_stress(),
        }
        atoms.calc = SinglePointCalculator(atoms, **labels)
        frames.append(atoms)
    return frames


@pytest.mark.parametrize("frames", [copper, clusters])
@pytest.mark.parametrize(
    ("scale", "message"),
    [
        (EV_PER_A3_IN_GPA, "reaches|times what positions and forces give"),
        (10 * EV_PER_A3_IN_GPA, "reaches|times what positions and forces give"),
        (-1.0, "fall as the volume grows|has the sign opposite"),
        (-EV_PER_A3_IN_GPA, "reaches|times what positions and forces give"),
    ],
)
def test_stresses_of_another_unit_or_sign(frames: Any, scale: float, message: str) -> None:
    assert labelled(frames(1.0)).origins["stress"]
    with pytest.raises(ValueError, match=message) as caught:
        labelled(frames(scale))
    assert "trust_stress: true" in str(caught.value)
    assert labelled(frames(scale), LabelKeys(trust_stress=True)).origins["stress"]


def _with_energy(atoms: Atoms) -> Atoms:
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0)
    return atoms


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (f"{FORCED} energy=-1 energy=-2", "its header gives energy 2 times; remove all but one"),
        (f"{FORCED} energy=1e300", r"its energy reaches 1e\+300 eV, more than all electrons"),
        (f'{FORCED} energy=-1 stress="1e9 0 0 0 0 0"', r"its stress reaches 1e\+09 eV/Å³"),
    ],
)
def test_labels_that_nothing_could_have(tmp_path: Path, header: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(tmp_path, header, row="Cu 0 0 0 0 0 0")


@pytest.mark.parametrize("name", ["virial", "stress"])
def test_tensors_in_brackets(tmp_path: Path, name: str) -> None:
    found = read(tmp_path, f"{FORCED} energy=-1 {name}=[[0.01,0,0],[0,0.02,0],[0,0,0.03]]", row="Cu 0 0 0 0 0 0")
    stress = found.frames[0].calc.results["stress"]
    expected = np.array([0.01, 0.02, 0.03, 0, 0, 0])
    scale = -1 / found.frames[0].get_volume() if name == "virial" else 1
    np.testing.assert_allclose(stress, scale * expected, atol=1e-12)


@pytest.mark.parametrize(
    ("positions", "pbc", "is_refused"),
    [
        ([[0, 0, 0], [0, 0, 0]], True, True),
        ([[0, 0, 1e-9], [0, 0, 9.9996]], True, True),
        ([[0, 0, -1e-20], [5, 5, 10.0002]], True, False),
        ([[0, 0, -1e-20], [10, 20, 10.0002]], True, True),
        ([[0, 0, 0], [0, 0, 10]], (True, True, False), False),
        ([[0, 0, 0], [0, 0, 1e-4]], False, True),
        ([[0, 0, 0], [0, 0, 0.5]], False, False),
    ],
)
def test_two_atoms_at_one_place(positions: list[list[float]], pbc: bool | tuple[bool, ...], is_refused: bool) -> None:
    """Through periodic boundaries as well; what is merely close is for the data to say."""
    atoms = Atoms("ArNe", positions=positions, cell=[10, 10, 10] if np.any(pbc) else None, pbc=pbc)
    atoms.calc = SinglePointCalculator(atoms, energy=1.0, forces=np.zeros((2, 3)))
    if not is_refused:
        assert len(labelled([atoms]).frames) == 1
        return
    with pytest.raises(ValueError, match=r"configuration 0: atoms 0 and 1 \(Ar and Ne\) are at one place.*remove one"):
        labelled([atoms])
