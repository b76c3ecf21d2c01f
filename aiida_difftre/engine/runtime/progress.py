"""Progress of a job: one JSON line per report in ``progress.jsonl``, which a live display reads while the job runs."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Protocol

from aiida_difftre.engine.contract import writing
from aiida_difftre.engine.contract.records import ProgressLine


class Reporter(Protocol):
    """Anything that takes progress."""

    def report(self, phase: str, step: int, total: int, **numbers: float) -> None:
        """Say that ``step`` of ``total`` of a phase is done, with numbers worth showing."""


class Progress:
    """Appends to ``progress.jsonl`` in a folder.

    Args:
        path: the file.
        interval_s: reports of one phase closer than this in time are left out, but for its last step.
    """

    def __init__(self, path: Path, interval_s: float = 0.5) -> None:
        self._path = path
        self._interval = interval_s
        self._start = time.monotonic()
        self._last: tuple[str, float] = ("", -1e9)

    def report(self, phase: str, step: int, total: int, **numbers: float) -> None:
        """Append a line: phase, step, total, seconds since the start, numbers."""
        now = time.monotonic()
        phase_before, last = self._last
        if phase == phase_before and now - last < self._interval and step < total:
            return
        self._last = (phase, now)
        seconds = round(now - self._start, 2)
        line = ProgressLine(phase=phase, step=step, total=total, seconds=seconds, **numbers)
        writing.append(self._path, json.dumps(line.content()))


class Silent:
    """Takes progress and says nothing."""

    def report(self, phase: str, step: int, total: int, **numbers: float) -> None:
        """Do nothing."""
