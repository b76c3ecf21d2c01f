"""Stopping: signals are remembered, the walltime passes, handlers come back."""

from __future__ import annotations

import os
import signal
import time

from aiida_difftre.engine.errors import ExitStatus
from aiida_difftre.engine.runtime.stop import Stop


def test_signals_are_remembered() -> None:
    before = signal.getsignal(signal.SIGTERM)
    for number in (signal.SIGTERM, signal.SIGINT):
        with Stop() as stop:
            assert stop.requested() is None
            os.kill(os.getpid(), number)
            reason = stop.requested()
        assert reason is not None
        assert reason.status == ExitStatus.INTERRUPTED
        assert number.name in reason.message
    assert signal.getsignal(signal.SIGTERM) is before


def test_walltime() -> None:
    with Stop(0.05) as stop:
        assert stop.requested() is None
        time.sleep(0.06)
        reason = stop.requested()
    assert reason is not None
    assert reason.status == ExitStatus.WALLTIME
    assert "0.05 s" in reason.message
