"""Files of arrays, and the potentials among them. Never pickle. Free of JAX."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save

from aiida_difftre.engine.contract.documents import parse_json
from aiida_difftre.engine.contract.foreign import ACCEPTED
from aiida_difftre.engine.contract.jobs import PotentialSpec
from aiida_difftre.engine.contract.reading import opened_npz, reading
from aiida_difftre.engine.contract.validation import validate
from aiida_difftre.engine.contract.writing import opened, write_atomically
from aiida_difftre.engine.errors import UnreadableFileError

FORMAT_VERSION = "1"
POTENTIAL_FORMAT = "difftre-potential"
Arrays = dict[str, NDArray[Any]]


def write_npz(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write named arrays as ``.npz``, atomically and without pickles; the same bytes for the same arrays."""
    with opened(path) as stream:
        np.savez(stream, allow_pickle=False, **arrays)


def read_npz(path: Path) -> Arrays:
    """Read the arrays of a ``.npz`` file; nothing of it is unpickled.

    Args:
        path: The file.

    Returns:
        The arrays by name.

    Raises:
        UnreadableFileError: For anything that is not such a file, or not a whole one.
    """
    with opened_npz(path, "archive of arrays") as archive:
        return {name: archive[name] for name in archive.files}


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, str] | None = None) -> None:
    """Write named arrays as one ``.safetensors`` file, atomically; the same bytes for the same content."""
    contiguous = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    content = save(contiguous, metadata={"format_version": FORMAT_VERSION, **(metadata or {})})
    write_atomically(path, *_ordered(content))


def ordered(content: bytes) -> bytes:
    """A ``.safetensors`` file whose header is in order: the same bytes for the same arrays and metadata.

    The library writes metadata in an order that varies between processes, and so did this package before.

    Raises:
        ValueError: for what has no such header.
    """
    return b"".join(_ordered(content))


def _ordered(content: bytes) -> tuple[bytes, memoryview]:
    size = int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8 : 8 + size]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header, memoryview(content)[8 + size :]


def read_arrays(path: Path) -> tuple[Arrays, dict[str, str]]:
    """Read a ``.safetensors`` file.

    Args:
        path: The file.

    Returns:
        The arrays by name, and the metadata.

    Raises:
        UnreadableFileError: For anything that is not such a file, or not a whole one.
    """
    with reading(path, "safetensors file"), safe_open(path, framework="numpy") as stream:
        return {name: stream.get_tensor(name) for name in stream.keys()}, dict(stream.metadata() or {})  # noqa: SIM118 (not a dict)


def write_potential(path: Path, spec: PotentialSpec, parameters: Mapping[str, NDArray[Any]]) -> None:
    """Write a potential to a ``.safetensors`` file; the same potential gives the same bytes.

    Args:
        path: The file, which is replaced as a whole where it exists.
        spec: What the potential is; it becomes the metadata of the file.
        parameters: Arrays by their path in the parameter tree, such as ``terms/0_lennard_jones/sigma``.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from aiida_difftre.engine.contract.files import read_potential, write_potential
        >>> from aiida_difftre.engine.contract.settings import PotentialSpec
        >>> spec = PotentialSpec(species=["Ar"], terms=[{"architecture": "lennard_jones", "cutoff": 8.5}])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "argon.safetensors")
        ...     write_potential(path, spec, {"terms/0_lennard_jones/sigma": np.array([3.4])})
        ...     read_potential(path)[1]
        {'terms/0_lennard_jones/sigma': array([3.4])}
    """
    described = json.dumps(spec.model_dump(mode="json"), sort_keys=True, ensure_ascii=False, allow_nan=False)
    metadata = {"format": POTENTIAL_FORMAT, "potential": described, "units": "angstrom, eV, amu"}
    write_arrays(path, parameters, metadata)


def read_potential(path: Path) -> tuple[PotentialSpec, Arrays]:
    """Read a potential from a file without building it, and without JAX.

    Args:
        path: A ``.safetensors`` file that this package wrote.

    Returns:
        The spec, and the parameters by their path in the parameter tree.

    Raises:
        UnreadableFileError: For anything that is not a potential, or holds numbers that are not finite.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from aiida_difftre.engine.contract.files import read_potential, write_potential
        >>> from aiida_difftre.engine.contract.settings import PotentialSpec
        >>> spec = PotentialSpec(species=["Ar"], terms=[{"architecture": "lennard_jones", "cutoff": 8.5}])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_potential(Path(folder, "argon.safetensors"), spec, {"atomic_energies": np.zeros(1)})
        ...     read_potential(Path(folder, "argon.safetensors"))[0] == spec
        True
    """
    arrays, metadata = read_arrays(path)
    spec = _spec(path, metadata)
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise UnreadableFileError(f"parameter {name!r} in {path.name} is not finite")
    return spec, arrays


def _spec(path: Path, metadata: dict[str, str]) -> PotentialSpec:
    if metadata.get("format") != POTENTIAL_FORMAT:
        raise UnreadableFileError(
            f"{path.name} is no potential: its format is {metadata.get('format')!r}; {ACCEPTED['safetensors file']}"
        )
    try:
        return validate(PotentialSpec, parse_json(metadata["potential"]))
    except (KeyError, ValueError) as error:
        raise UnreadableFileError(f"{path.name} describes no potential: {error}") from None


def check_digests(folder: Path, digests: Mapping[str, str]) -> None:
    """Refuse files that are not those that a job was made for.

    Args:
        folder: Folder of the job.
        digests: SHA-256 by the name of the file.

    Raises:
        UnreadableFileError: for a file that is missing, or has another content.
    """
    for name, expected in digests.items():
        with reading(folder / name, "file of the job"):
            found = digest(folder / name)
        if found != expected:
            raise UnreadableFileError(
                f"{name} has changed since the job was made: its SHA-256 is {found}, and not {expected}; give the file "
                "that it was made for, or remove its digest from the job file where the change is meant"
            )


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
