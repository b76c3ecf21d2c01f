"""Reading files that others wrote or damaged: every way of being unreadable has one name. Free of JAX."""

from __future__ import annotations

import contextlib
import math
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from aiida_difftre.engine.contract.foreign import foreign
from aiida_difftre.engine.errors import EngineError, UnreadableFileError

LARGEST_RATIO = 1100
"""Of an array to what it takes in an archive: more than this the compression of zip files cannot do."""
LONGEST_REASON = 300
"""Characters of what a library says of a damaged file."""


@contextlib.contextmanager
def opened_npz(path: Path, what: str) -> Iterator[np.lib.npyio.NpzFile]:
    """Context of the arrays of a ``.npz`` file, read one by one; without pickles.

    Args:
        path: The file.
        what: What it should be, for messages.

    Raises:
        UnreadableFileError: for anything that is not such a file, or not a whole one.
    """
    with reading(path, what), path.open("rb") as stream:
        if not zipfile.is_zipfile(stream):
            raise ValueError("it is no .npz archive of NumPy, or not a whole one")
        with zipfile.ZipFile(stream) as members:
            _check_sizes(members)
        stream.seek(0)
        with np.load(stream, allow_pickle=False) as archive:
            yield archive


def _check_sizes(archive: zipfile.ZipFile) -> None:
    """Refuse an archive that promises more than it holds, before memory is taken for it.

    Raises:
        ValueError: naming the array.
    """
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    for member in archive.infolist():
        name = member.filename[:40]
        if member.file_size > LARGEST_RATIO * max(member.compress_size, 1):
            raise ValueError(f"{name} takes {member.compress_size} bytes, and would be {member.file_size} when read")
        with archive.open(member) as stream:
            version = np.lib.format.read_magic(stream)
            if version not in read:
                raise ValueError(f"{name} is an array of the unknown version {version}")
            shape, _, dtype = read[version](stream)
            promised = stream.tell() + math.prod(shape) * dtype.itemsize
        if promised != member.file_size:
            raise ValueError(f"{name} of shape {shape} needs {promised} bytes, but has {member.file_size}")


@contextlib.contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Context that reads a file which others wrote or damaged: every way of being unreadable has one name.

    Args:
        path: The file, which is refused where it is not there, or is no regular file.
        what: What it should be, for messages.

    Raises:
        UnreadableFileError: naming the file and what is wrong with it.
        MemoryError: where the machine has too little memory, which is no fault of the file.
    """
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise UnreadableFileError(f"{path.name} is no regular file, where a {what} should be")
        yield
    except (EngineError, MemoryError):
        raise
    except FileNotFoundError:
        raise UnreadableFileError(f"there is no {what} {path.name}") from None
    except Exception as error:  # NumPy, zipfile, zlib and JSON raise whatever they meet in a damaged file
        reason = foreign(path, what) or " ".join(str(error).split())[:LONGEST_REASON] or type(error).__name__
        raise UnreadableFileError(f"{path.name} is not a readable {what}: {reason}") from None
