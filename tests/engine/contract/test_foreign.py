"""Trajectories and models of other programs: what they are, and what is accepted instead."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase.build import bulk
from safetensors.numpy import save_file

from aiida_difftre.engine.contract.files import read_potential
from aiida_difftre.engine.contract.trajectories import read_trajectory
from aiida_difftre.engine.errors import EngineError, ExitStatus


def _torch(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps([1]))
        archive.writestr("archive/data/0", b"0000")


def _lammps(path: Path) -> None:
    path.write_text("ITEM: TIMESTEP\n0\nITEM: NUMBER OF ATOMS\n1\n")


FILES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "md.extxyz": (lambda path: ase.io.write(path, [bulk("Cu")] * 2), "extended XYZ"),
    "md.xyz": (lambda path: path.write_text("1\n\nCu 0 0 0\n"), "an XYZ file"),
    "md.traj": (lambda path: ase.io.write(path, [bulk("Cu")]), r"a trajectory of ase \(\.traj\)"),
    "md.pdb": (lambda path: ase.io.write(path, bulk("Cu")), "a PDB file"),
    "dump.lammpstrj": (_lammps, "a dump of LAMMPS"),
    "mace.model": (_torch, "a PyTorch file, as MACE and NequIP write them"),
    "nequip.pth": (_torch, "a PyTorch file"),
    "old.pt": (lambda path: path.write_bytes(b"\0" * 9), "a PyTorch file"),
    "data.pkl": (lambda path: path.write_bytes(pickle.dumps({1: 2})), "a pickle of Python, which can run any program"),
    "weights.h5": (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 99), "an HDF5 file"),
    "md.nc": (lambda path: path.write_bytes(b"CDF\x01" + b"\0" * 99), "a NetCDF file"),
    "Cu.eam.alloy": (lambda path: path.write_text("# Cu\n"), "a potential of LAMMPS"),
    "gap.xml": (lambda path: path.write_text("<GAP_2020>"), "an XML file"),
    "positions.npy": (lambda path: np.save(path, np.zeros(3)), "a single array of NumPy"),
    "md.extxyz.gz": (lambda path: path.write_bytes(b"\x1f\x8b\x08" + b"\0" * 20), "a compressed file"),
}


@pytest.mark.parametrize("name", FILES)
def test_files_of_other_programs_are_named(tmp_path: Path, name: str) -> None:
    write, kind = FILES[name]
    write(tmp_path / name)
    for reader, accepted in (
        (read_trajectory, "the trajectory.npz that"),
        (read_potential, "the .safetensors file that"),
    ):
        with pytest.raises(EngineError, match=f"{name} is not a readable .*: it is {kind}.*; .*{accepted}") as caught:
            reader(tmp_path / name)
        assert caught.value.status == ExitStatus.CORRUPT_FILE
        assert "allow_pickle" not in str(caught.value)


def test_arrays_of_other_programs(tmp_path: Path) -> None:
    np.savez(tmp_path / "arrays.npz", R=np.zeros((3, 3)))
    save_file({"w": np.zeros(3)}, tmp_path / "weights.safetensors")
    with pytest.raises(EngineError, match="it is an archive of arrays of NumPy"):
        read_potential(tmp_path / "arrays.npz")
    with pytest.raises(EngineError, match=r"it is a \.safetensors file; a trajectory is"):
        read_trajectory(tmp_path / "weights.safetensors")
    with pytest.raises(EngineError, match=r"its format is None; a potential is the \.safetensors file that `difftre"):
        read_potential(tmp_path / "weights.safetensors")
