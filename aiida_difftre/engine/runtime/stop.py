"""Stopping in good order: a walltime, SIGTERM and SIGINT, asked for between compiled calls."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Self

from aiida_difftre.engine.errors import EngineError, ExitStatus


class Stop:
    """Context in which SIGTERM and SIGINT are remembered instead of obeyed.

    Args:
        walltime_s: since the creation of this object; None for no limit.
    """

    def __init__(self, walltime_s: float | None = None) -> None:
        self._deadline = None if walltime_s is None else time.monotonic() + walltime_s
        self._walltime = walltime_s
        self._signal: int | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._remember)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal returned

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self._signal = number

    def requested(self) -> EngineError | None:
        """The reason to stop now, or None. Whoever asks writes a checkpoint, then raises it."""
        if self._signal is not None:
            name = signal.Signals(self._signal).name
            return EngineError(ExitStatus.INTERRUPTED, f"{name} received")
        if self._deadline is not None and time.monotonic() > self._deadline:
            message = f"the walltime of {self._walltime:g} s has passed"
            return EngineError(ExitStatus.WALLTIME, message)
        return None
