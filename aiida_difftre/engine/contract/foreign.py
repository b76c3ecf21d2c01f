"""Files of other programs where a potential or a trajectory of this one belongs: what they are, what is accepted."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

ACCEPTED = {
    "trajectory": (
        "a trajectory is the trajectory.npz that `difftre sample` writes, or `aiida-difftre trajectory import -o` for "
        "one of another program; its frames can also be structures of `difftre predict` or, with labels, a dataset of "
        "`difftre pretrain`"
    ),
    "safetensors file": (
        "a potential is the .safetensors file that `difftre pretrain`, `update` or `refine` writes; labels that "
        "another potential computes can be a dataset of `difftre pretrain`"
    ),
}

BEGINNINGS = (
    (rb"- of Ulm", "a trajectory of ase (.traj)"),
    (rb"ITEM: ", "a dump of LAMMPS"),
    (rb"LAMMPS ", "a data file of LAMMPS"),
    (rb"\x89HDF", "an HDF5 file"),
    (rb"CDF[\x01\x02\x05]", "a NetCDF file"),
    (rb".{4}CORD", "a DCD trajectory"),
    (rb"\x00\x00\x07\xcb", "an XTC trajectory of GROMACS"),
    (rb"\x93NUMPY", "a single array of NumPy (.npy)"),
    (rb"\x80[\x02-\x05]", "a pickle of Python, which can run any program and is never loaded"),
    (rb"\x1f\x8b|BZh|\xfd7zXZ", "a compressed file"),
    (rb"HEADER|CRYST1|MODEL |ATOM  |REMARK", "a PDB file"),
    (rb"\s*<\?xml|\s*<", "an XML file"),
    (rb" vasp\.", "an OUTCAR of VASP"),
    (rb"\s*\d+\s*\n[^\n]*(Properties|Lattice)\s*=", "extended XYZ"),
    (rb"\s*\d+\s*\n[^\n]*\n\s*[A-Z][a-z]?\s", "an XYZ file"),
    (rb"\s*[\[{]", "a JSON file"),
)

PYTORCH = (
    "a PyTorch file, as MACE and NequIP write them (.model, .pth), whose pickles can run any program: never loaded"
)

ENDINGS = {
    **dict.fromkeys((".model", ".pt", ".pth", ".ckpt"), PYTORCH),
    **dict.fromkeys((".pkl", ".pickle", ".p"), "a pickle of Python, which can run any program and is never loaded"),
    **dict.fromkeys((".eam", ".alloy", ".fs", ".tersoff", ".sw", ".meam", ".snap"), "a potential of LAMMPS"),
    **dict.fromkeys((".pb", ".onnx", ".h5", ".hdf5"), "a file of another program"),
    ".traj": "a trajectory of ase (.traj)",
}


def foreign(path: Path, what: str) -> str | None:
    """What a file of another program is and what is accepted instead, in one line; None for one that is not known.

    Args:
        path: A file that could not be read as what it should be.
        what: it should be: ``trajectory`` or ``safetensors file``.

    Returns:
        What the file is, in words; None where it is not known.
    """
    if what not in ACCEPTED:
        return None
    try:
        kind = _kind(path, what)
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
        return None
    return None if kind is None else f"it is {kind}; {ACCEPTED[what]}"


def _kind(path: Path, what: str) -> str | None:
    with path.open("rb") as stream:
        start = stream.read(4096)
        if start[:2] == b"PK":
            with zipfile.ZipFile(stream) as archive:
                names = archive.namelist()[:1000]
            if any(name.endswith(".pkl") for name in names):
                return PYTORCH
            if any(name.endswith(".npy") for name in names):
                return None if what == "trajectory" else "an archive of arrays of NumPy (.npz)"
            return "a zip file"
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 2**32:
        return "a .safetensors file" if what == "trajectory" else None
    for pattern, kind in BEGINNINGS:
        if re.match(pattern, start, re.DOTALL):
            return kind
    return ENDINGS.get(path.suffix.lower())
