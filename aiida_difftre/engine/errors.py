"""Failures with names: what stops an engine job, and the exit status that tells the AiiDA side."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from enum import IntEnum
from typing import Any

LONGEST_VALUE = 80
"""Characters of a value in a message."""

LONGEST_MESSAGE = 900
"""Characters of a message: what a terminal shows at a glance."""


def shown(value: Any) -> str:
    """A value as a message names it: as Python writes it, control characters escaped, shortened in the middle."""
    part = value
    if isinstance(value, str | bytes) and len(value) > 4 * LONGEST_VALUE:
        part = part[: 2 * LONGEST_VALUE] + part[-LONGEST_VALUE:]  # what is left out anyway need not be escaped
    return _shortened(repr(part), LONGEST_VALUE)


def one_line(text: str) -> str:
    """A message as it is shown: on one line, control characters escaped, shortened in the middle."""
    if len(text) > 4 * LONGEST_MESSAGE:
        text = text[: 2 * LONGEST_MESSAGE] + text[-LONGEST_MESSAGE:]
    escaped = "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in " ".join(text.split())
    )
    return _shortened(escaped, LONGEST_MESSAGE)


def did_you_mean(name: object, known: Iterable[object]) -> str:
    """The end of a message about an unknown name: the nearest known one; empty where none is near."""
    names = {str(one).lower(): str(one) for one in known}
    near = get_close_matches(str(name)[:LONGEST_VALUE].lower(), names, n=1)
    return f"; did you mean {names[near[0]]!r}?" if near else ""


def _shortened(text: str, longest: int) -> str:
    if len(text) <= longest:
        return text
    end = longest // 4
    return f"{text[: longest - end - 5]} ... {text[-end:]}"


class ExitStatus(IntEnum):
    """Why a job failed: the same number in the engine's ``error.json`` and in the exit codes of the calculations.

    31x stands for unreadable input, 34x for jobs that are incomplete, 35x for the machine, 4xx for physics.

    Example:
        >>> from aiida_difftre.engine.errors import ExitStatus
        >>> ExitStatus(410).name
        'NOT_FINITE'
    """

    INVALID_INPUT = 310
    """The job file or a file beside it is invalid; the message names the value and the remedy."""
    CORRUPT_FILE = 311
    """A potential, trajectory or checkpoint cannot be read."""
    WALLTIME = 340
    """Stopped before the walltime; sampling and pretraining have written a checkpoint."""
    INTERRUPTED = 341
    """SIGTERM or SIGINT; sampling and pretraining have written a checkpoint."""
    NO_ACCELERATOR = 350
    """The job asks for a GPU and JAX does not see one."""
    SELF_CHECK_FAILED = 351
    """The compiled energy differs from the uncompiled one: this JAX miscompiles on this machine."""
    OUT_OF_MEMORY = 352
    """The device ran out of memory."""
    DISK_FULL = 353
    """A file could not be written: the disk or the quota is full."""
    NOT_FINITE = 410
    """An energy, force or gradient is not finite."""
    ATOMS_TOO_CLOSE = 411
    """Two atoms are closer than the limit."""
    TEMPERATURE_OUT_OF_BOUNDS = 412
    """The instantaneous temperature left its bounds."""
    VOLUME_OUT_OF_BOUNDS = 413
    """The volume left its bounds."""
    TOO_FEW_EFFECTIVE_SAMPLES = 420
    """No step, however small, keeps enough effective samples."""


class EngineError(Exception):
    """A failure that the engine explains.

    Args:
        status: What happened.
        message: The offending value and the remedy, in one line.
        diagnostics: Numbers for ``error.json``, which JSON can hold; None for none.
        results: The model of what was found before, for ``results.json``; None where nothing of use is left.

    Example:
        >>> from aiida_difftre.engine.errors import EngineError, ExitStatus
        >>> error = EngineError(ExitStatus.INVALID_INPUT, "cutoff is -1 Å; give a positive distance")
        >>> int(error.status), error.message
        (310, 'cutoff is -1 Å; give a positive distance')
    """

    def __init__(
        self,
        status: ExitStatus,
        message: str,
        diagnostics: dict[str, Any] | None = None,
        results: Any = None,
    ) -> None:
        message = one_line(message)
        super().__init__(message)
        self.status = status
        self.message = message
        self.diagnostics = diagnostics or {}
        self.results = results


class UnreadableFileError(EngineError):
    """A potential, trajectory, checkpoint or other file of the contract that cannot be read, in whatever way.

    Args:
        message: names the file and what is wrong with it.
    """

    def __init__(self, message: str) -> None:
        super().__init__(ExitStatus.CORRUPT_FILE, message)
