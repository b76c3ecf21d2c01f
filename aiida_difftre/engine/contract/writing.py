"""Writing files as a whole, whatever stops the job; and what a full disk stands for. Free of JAX."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from aiida_difftre.engine.errors import EngineError, ExitStatus


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A temporary file beside ``path``, then renamed: readers see the old content or the new, never a part.

    The content is on the disk before the name is, so that a node that goes down leaves no empty file either. The
    temporary file is always a new one: what lies under its name, be it a link to elsewhere, is removed. It is removed
    too where the writing fails.

    Raises:
        OSError: with the name of the file, where it cannot be written.
    """
    temporary = path.with_name(path.name + ".part")
    try:
        temporary.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(temporary, flags, 0o666), "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None:
            raise OSError(error.errno, os.strerror(error.errno), str(path)) from None
        raise


def append(path: Path, line: str) -> None:
    """Append a line to a file that grows while a job runs.

    Raises:
        EngineError: with status INVALID_INPUT, where something else than a file of its own has this name.
        OSError: where it cannot be written.
    """
    try:
        # Without waiting: a pipe that nobody reads would hold the job for ever.
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
            raise _no_file_of_its_own(path) from None
        raise
    with open(descriptor, "w", encoding="utf-8") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _no_file_of_its_own(path)
        stream.write(line + "\n")


def _no_file_of_its_own(path: Path) -> EngineError:
    return EngineError(
        ExitStatus.INVALID_INPUT, f"{path.name} is a link, a pipe or a folder, where the job writes a file; remove it"
    )


def disk_full(error: BaseException) -> EngineError | None:
    """The failure that an error of writing stands for, where the disk, the quota or a limit of files is exhausted."""
    if not isinstance(error, OSError) or error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return None
    name = "a file" if error.filename is None else Path(str(error.filename)).name
    return EngineError(
        ExitStatus.DISK_FULL,
        f"{name} cannot be written: {os.strerror(error.errno).lower()}; make room on the disk of the job's folder, or "
        "raise the quota",
    )


def write_atomically(path: Path, *parts: bytes | memoryview | str) -> None:
    """Write a whole file, as :func:`opened` does."""
    with opened(path) as stream:
        for part in parts:
            stream.write(part.encode() if isinstance(part, str) else part)


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically; numbers that are not finite are refused, since JSON has none."""
    write_atomically(path, json.dumps(content, indent=1, allow_nan=False) + "\n")
