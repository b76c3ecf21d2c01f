"""Frames of files: which are meant, and one clear error for whatever cannot be read."""

from __future__ import annotations

import gzip
import os
import random
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator

from aiida_difftre.engine.contract.frames import not_periodic, read_frame, read_frames, split_index
from aiida_difftre.engine.contract.labels import read_labelled

HEADER = 'Lattice="4 0 0 0 4 0 0 0 4" Properties=species:S:1:pos:R:3'


@pytest.fixture
def trajectory(tmp_path: Path) -> Path:
    """Five frames of copper, each a little larger."""
    path = tmp_path / "md.extxyz"
    ase.io.write(path, [bulk("Cu", a=3.6 + 0.01 * number) for number in range(5)])
    return path


@pytest.mark.parametrize(
    ("index", "numbers"),
    [
        ("", [0, 1, 2, 3, 4]),
        ("@:", [0, 1, 2, 3, 4]),
        ("@0", [0]),
        ("@-1", [4]),
        ("@::2", [0, 2, 4]),
        ("@1:3", [1, 2]),
        ("@-2:", [3, 4]),
        ("@::-2", [4, 2, 0]),
    ],
)
@pytest.mark.parametrize("name", ["md.extxyz", "md.traj"])
def test_frames_of_an_index(trajectory: Path, index: str, numbers: list[int], name: str) -> None:
    path = trajectory.with_name(name)
    ase.io.write(path, ase.io.read(trajectory, index=":"))
    frames = read_frames(path.with_name(name + index))
    assert [atoms.info["frame"] for atoms in frames] == numbers
    assert [atoms.cell.lengths()[0] * 2**0.5 for atoms in frames] == pytest.approx([3.6 + 0.01 * n for n in numbers])


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("@5", "md.extxyz@5: the file has 5 frames, numbered from 0 to 4"),
        ("@-6", "5 frames, numbered"),
        ("@7:", "md.extxyz@7: means none of its 5 frames"),
        ("@::0", "a step of 0 never ends"),
        ("@x", "md.extxyz@x"),
    ],
)
def test_frames_that_are_not_there(trajectory: Path, index: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_frames(trajectory.with_name(trajectory.name + index))


def test_one_structure_of_several_has_to_be_chosen(trajectory: Path) -> None:
    with pytest.raises(ValueError, match=r"md\.extxyz gives 5 frames where one .* md\.extxyz@-1 for the last, @0 for"):
        read_frame(trajectory)
    assert read_frame(trajectory.with_name("md.extxyz@-1")).cell.lengths()[0] * 2**0.5 == pytest.approx(3.64)


def test_a_name_with_an_at_sign_is_still_reachable(trajectory: Path) -> None:
    path = trajectory.with_name("run@2")
    path.write_bytes(trajectory.read_bytes())
    assert split_index(path) == (path, None)
    assert split_index(path.with_name("run@2@1:3")) == (path, "1:3")
    assert len(read_frames(path, kind="extxyz")) == 5


def test_empty_lines_between_frames_lose_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.xyz").write_text(f"1\n{HEADER}\nCu 0 0 0\n\n1\n{HEADER}\nCu 0 0 1\n\n\n")
    assert [atoms.positions[0, 2] for atoms in read_frames(tmp_path / "a.xyz")] == [0.0, 1.0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("8\n", r"frame 0 of bad\.extxyz \(line 1\) ends after its number of atoms, 8: the file is cut"),
        (f"999999999999\n{HEADER}\nCu 0 0 0\n", "has 1 lines of atoms where 999999999999 are announced"),
        (f"{10**30}\n{HEADER}\nCu 0 0 0\n", "has 1 lines of atoms where 1000000000000000000000000000000 are announced"),
        (f"1\n{HEADER}\nCu 0 0 0\n2\n{HEADER}\nCu 0 0 0\n", r"frame 1 of bad\.extxyz \(line 4\) has 1 lines of atoms"),
        ("two\natoms\n", "begins with 'two' where the number of its atoms belongs"),
        (f"-1\n{HEADER}\n", "has -1 atoms"),
        (f"0\n{HEADER}\n", "has 0 atoms"),
        ("", "holds no frame"),
        ("\n\n", "holds no frame"),
        (f"1\n{HEADER}\nCu 0 0\n", r"frame 0 of bad\.extxyz \(line 1\) cannot be read"),
        (f"1\n{HEADER}\nCu 0 0 a\n", "cannot be read: could not convert string to float: 'a'"),
        (f"1\n{HEADER}\nCu 0 0 nan\n", r"the position of atom 0 is \[0.0, 0.0, nan\], which is not finite"),
        (f"1\n{HEADER}\nQq 0 0 0\n", "cannot be read: KeyError 'Qq'"),
        (f"1\n{HEADER}:force:R:999999999\nCu 0 0 0\n", "its header announces 1000000003 columns"),
        ("1\nLattice=\"4 0 0\"\nCu 0 0 0\n", "cannot be read: .*Lattice"),
        ("1\nLattice=\"4 0 0 0 inf 0 0 0 4\"\nCu 0 0 0\n", "its cell is .*inf.* not finite"),
        ("1\nlattice=\"4 0 0 0 4 0 0 0 4\"\nCu 0 0 0\n", "its cell is not read from 'lattice'; name it Lattice"),
        ("1\nLattice=\"0 0 0 0 4 0 0 0 4\"\nCu 0 0 0\n", "periodic .* along a cell vector of length 0"),
        ("1\npbc=\"T T T\"\nCu 0 0 0\n", "periodic .* along a cell vector of length 0"),
        ("1\nLattice=\"4 0 0 4 0 0 0 0 4\"\nCu 0 0 0\n", "a volume of 0 Å³"),
        (f"1\n{HEADER}\nCu 0 0 0\nVEC1 1 0 0\n", "cell vectors in lines VEC1 to VEC3 are not read"),
    ],
)  # fmt: skip
def test_unreadable_files_are_one_error(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "bad.extxyz"
    path.write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_frames(path)
    assert "bad.extxyz" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.extxyz")
    for path, message in ((tmp_path / "pipe.extxyz", "pipe"), (tmp_path, "folder"), (Path("/dev/zero"), "device")):
        with pytest.raises(ValueError, match=message):
            read_frames(path)
    (tmp_path / "binary.extxyz").write_bytes(b"1\n\xff\xfe\nCu 0 0 0\n")
    with pytest.raises(ValueError, match="is no text in UTF-8: it has a byte 0xff"):
        read_frames(tmp_path / "binary.extxyz")
    (tmp_path / "POSCAR").write_text("nonsense")
    with pytest.raises(ValueError, match="POSCAR is no structure file that ase reads"):
        read_frames(tmp_path / "POSCAR")


@pytest.mark.parametrize("pbc", [False, (True, True, False)])
def test_what_is_not_periodic_is_not_simulated(pbc: bool | tuple[bool, ...]) -> None:
    atoms = bulk("Cu", a=3.6)
    assert not_periodic(atoms) is None
    atoms.pbc = pbc
    assert "put a molecule or a slab into a box with vacuum" in str(not_periodic(atoms))
    atoms.set_cell(None)
    assert "no three-dimensional cell" in str(not_periodic(atoms))


def test_mutations_end_in_one_clear_error(tmp_path: Path) -> None:
    """Bytes changed, cut, doubled and swapped: read, or refused in one line that names the file."""
    frames = [bulk("Cu", a=3.6 + 0.1 * number, cubic=True) for number in range(2)]
    for atoms in frames:
        atoms.calc = SinglePointCalculator(atoms, energy=-1.0, forces=np.zeros((4, 3)), stress=np.full(6, 1e-3))
        atoms.info["config_type"] = "bulk"
    ase.io.write(tmp_path / "whole.extxyz", frames)
    whole = (tmp_path / "whole.extxyz").read_bytes()
    rng, path = random.Random(0), tmp_path / "bad.extxyz"
    number = int(os.environ.get("DIFFTRE_MUTATIONS", "300"))
    refused = 0
    for _ in range(number):
        content = bytearray(whole)
        for _ in range(rng.choice((1, 1, 2, 8))):
            start = rng.randrange(len(content))
            length = rng.choice((1, 1, 3, 20, 200))
            kind = rng.randrange(4)
            if kind == 0:
                content[start : start + length] = bytes(
                    rng.choice(b'0123456789.-+eE \n\t:="TFnaicuR') for _ in range(length)
                )
            elif kind == 1:
                del content[start : start + length]
            elif kind == 2:
                content[start:start] = content[start : start + length]
            else:
                content[start : start + 1] = bytes([rng.randrange(256)])
        path.write_bytes(content)
        message = _refusal(path)
        refused += message is not None
        assert message is None or ("bad.extxyz" in message and "\n" not in message), content
    assert number / 10 < refused < number


def _refusal(path: Path) -> str | None:
    try:
        read_labelled(path)
    except ValueError as error:
        return str(error)
    return None


MENDABLE = 'Lattice="{cell} 0 0 0 4 0 0 0 4" Properties={columns} pbc="T T T"{more}'


@pytest.mark.parametrize(
    ("columns", "cell", "row", "more", "message"),
    [
        ("species:S:1:forces:R:3", "4", "Cu 1 2 3", "", "announces no column of positions; name it in Properties"),
        ("species:S:1:pos:R:3", "4", "Cu 1e300 0 0", "", r"an atom is 1e\+300 Å from the origin; at most 1e\+06 Å"),
        ("species:S:1:pos:R:3", "1e300", "Cu 0 0 0", "", r"its cell is 1e\+300 Å long; at most 10000 Å"),
        ("species:S:1:pos:R:3", "0.1", "Cu 0 0 0", "", r"its cell is 0\.1 Å thick; at least 0\.4 Å"),
        ("species:S:1:pos:R:3", "4", "Cu 0 0 0", " a=1 b='a=2' a=3", "its header gives a 2 times"),
    ],
)
def test_headers_and_rows_that_cannot_be(
    tmp_path: Path, columns: str, cell: str, row: str, more: str, message: str
) -> None:
    path = tmp_path / "bad.extxyz"
    path.write_text(f"1\n{MENDABLE.format(cell=cell, columns=columns, more=more)}\n{row}\n")
    with pytest.raises(ValueError, match=f"frame 0 of bad.extxyz.*{message}"):
        read_frames(path)


def test_a_mark_of_utf_8_is_no_part_of_the_number(tmp_path: Path) -> None:
    path = tmp_path / "windows.xyz"
    path.write_bytes(b"\xef\xbb\xbf1\r\n\r\nCu 0 0 1\r\n")
    assert read_frames(path)[0].positions.tolist() == [[0, 0, 1]]


def test_compressed_files_and_names_that_are_too_long(tmp_path: Path) -> None:
    path = tmp_path / "frames.xyz"
    path.write_bytes(gzip.compress(b"1\n\nCu 0 0 1\n"))
    with pytest.raises(ValueError, match=r"frames\.xyz is compressed; unpack it"):
        read_frames(path)
    with pytest.raises(ValueError, match="File name too long"):
        read_frames(tmp_path / f"{'x' * 300}@0")


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ("units=metal", "units='metal'"),
        ('units="Bohr, Hartree"', "units='Bohr, Hartree'"),
        ("energy_unit=kcal/mol", "energy_unit='kcal/mol'"),
        ("REF_forces_units=Hartree/Bohr", "REF_forces_units='Hartree/Bohr'"),
        ("units_length=nm", "units_length='nm'"),
        ("stress_units=GPa", "stress_units='GPa'"),
        ('units="eV, angstrom"', None),
        ("stress_units=eV/Ang^3", None),
        ("energy_unit=eV", None),
        ("time_unit=ps", None),
        ("formula_units=4", None),
        ("unit_cell=conventional", None),
    ],
)
def test_units_that_a_header_states(tmp_path: Path, stated: str, message: str | None) -> None:
    path = tmp_path / "one.extxyz"
    path.write_text(f"1\n{HEADER} {stated}\nAr 0 0 0\n")
    if message is None:
        assert read_frame(path).positions.tolist() == [[0, 0, 0]]
        return
    with pytest.raises(ValueError, match="frames are read in eV and Å: convert the values") as refused:
        read_frame(path)
    assert f"frame 0 of one.extxyz: its header says {message}" in str(refused.value)
