"""Stopping: signals are remembered or end the process at once, the walltime passes, handlers come back."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from aiida_difftre.engine.errors import EngineError, ExitStatus
from aiida_difftre.engine.runtime.stop import Stop


def test_signals_are_remembered() -> None:
    before = signal.getsignal(signal.SIGTERM)

    def work(number: signal.Signals) -> None:
        with Stop() as stop:
            assert stop.requested() is None
            signal.raise_signal(number)
            reason = stop.requested()
            assert reason is not None
            raise reason

    for number in (signal.SIGTERM, signal.SIGINT):
        with pytest.raises(EngineError, match=f"{number.name} received") as caught:
            work(number)
        assert caught.value.status == ExitStatus.INTERRUPTED
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_signal_that_nobody_acted_on_is_obeyed_at_the_end() -> None:
    done = []

    def work() -> None:
        with Stop():
            signal.raise_signal(signal.SIGINT)
            done.append("all of it")

    # A shell that starts the tests in the background has SIGINT ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            work()
    finally:
        signal.signal(signal.SIGINT, before)
    assert done == ["all of it"]


def test_walltime() -> None:
    with Stop(0.05) as stop:
        assert stop.requested() is None
        time.sleep(0.06)
        reason = stop.requested()
    assert reason is not None
    assert reason.status == ExitStatus.WALLTIME
    assert "0.05 s" in reason.message


AT_ONCE = """
import hashlib, sys, time
from aiida_difftre.engine.runtime.stop import Stop, ending

with ending(lambda error: print(error.status.name, error.message, flush=True)):
    if "remembering" in sys.argv:
        with Stop() as stop:
            print("ready", flush=True)
            while stop.requested() is None:
                pass
            print("kept", flush=True)
        time.sleep(60)
    print("ready", flush=True)
    if "compiled" in sys.argv:
        hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)  # one call of C, in which no handler of Python runs
    time.sleep(60)
print("never", flush=True)
"""


@pytest.mark.parametrize("where", ["anywhere", "compiled", "remembering"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_process_whatever_it_computes(number: signal.Signals, where: str) -> None:
    with subprocess.Popen([sys.executable, "-c", AT_ONCE, where], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            process.send_signal(number)
            said, _ = process.communicate(timeout=20)
        finally:
            process.kill()
    kept = "kept\n" if where == "remembering" else ""
    assert said == f"{kept}INTERRUPTED {number.name} received\n"
    assert process.returncode == 1
