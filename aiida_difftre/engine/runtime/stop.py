"""Stopping in good order: a walltime, SIGTERM and SIGINT; obeyed at once, or asked for between compiled calls.

A job is at any moment in one of two states. Where nothing would be lost, a signal ends it at once (:func:`ending`).
Where there is something to keep first, a :class:`Stop` remembers the signal, and whoever works asks for it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any, Self

from aiida_difftre.engine.errors import EngineError, ExitStatus

SIGNALS = (signal.SIGTERM, signal.SIGINT)


def interrupted(number: int) -> EngineError:
    """The failure that a signal means."""
    return EngineError(ExitStatus.INTERRUPTED, f"{signal.Signals(number).name} received")


@contextlib.contextmanager
def ending(last_words: Callable[[EngineError], None]) -> Iterator[None]:
    """Context in which SIGTERM and SIGINT end the process at once, whatever it computes, but where a Stop remembers.

    A thread waits for them: Python's own handlers run between two steps of the interpreter only, and a compiled call
    may take minutes. Files are renamed when they are whole, so that a process may end anywhere.

    Args:
        last_words: told the failure before the process ends with status 1.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)

    def wait() -> None:
        while received := os.read(reading, 1):
            if received[0] in SIGNALS:
                try:
                    last_words(interrupted(received[0]))
                finally:
                    os._exit(1)

    before = {number: signal.signal(number, _wait_for_the_thread) for number in SIGNALS}
    descriptor = signal.set_wakeup_fd(writing)
    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(descriptor)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(writing)
        thread.join()
        os.close(reading)


def _wait_for_the_thread(number: int, frame: FrameType | None) -> None:
    """The handler of Python: the number of the signal is on its way to the thread that waits for it."""


class Stop:
    """Context in which SIGTERM and SIGINT are remembered; one that nobody acted on is obeyed at its end.

    Args:
        walltime_s: since the creation of this object; None for no limit.
    """

    def __init__(self, walltime_s: float | None = None) -> None:
        self._deadline = None if walltime_s is None else time.monotonic() + walltime_s
        self._walltime = walltime_s
        self._signal: int | None = None
        self._before: dict[int, Any] = {}
        self._descriptor = -1

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self._before[number] = signal.signal(number, self._remember)
            self._descriptor = signal.set_wakeup_fd(-1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._before:
            return
        signal.set_wakeup_fd(self._descriptor)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._signal is not None and kind is None:
            signal.raise_signal(self._signal)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self._signal = number

    def requested(self) -> EngineError | None:
        """The reason to stop now, or None. Whoever asks keeps what there is, then raises it."""
        if self._signal is not None:
            return interrupted(self._signal)
        if self._deadline is not None and time.monotonic() > self._deadline:
            message = f"the walltime of {self._walltime:g} s has passed"
            return EngineError(ExitStatus.WALLTIME, message)
        return None
