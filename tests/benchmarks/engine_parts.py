"""Where the CPU time of one job of the engine goes, by part; written beside the job as ``parts.json``.

    python tests/benchmarks/engine_parts.py KIND job.json

It is ``difftre`` itself, with a profiling timer that looks at the stack every few milliseconds of CPU time and books
the time since the last look under the part that the frames belong to.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from types import FrameType

BEGAN = time.process_time()
"""What Python itself took to start."""

INTERVAL_S = 0.002

Parts = tuple[tuple[str, tuple[str, ...]], ...]

PARTS = (
    ("compile or load", ("jax/_src/compiler.py", "jax/_src/compilation_cache.py", "compile_or_get_cached")),
    ("lower", ("jax/_src/interpreters/mlir.py",)),
    ("imports", ("<frozen importlib",)),
    ("JAX start", ("jax/_src/xla_bridge.py",)),
    ("trace", ("jax/_src/interpreters/partial_eval.py", "jax/_src/pjit.py", "jax/_src/interpreters/ad.py")),
    ("write", ("contract/files.py",)),
)
"""Parts by file: the first one of which a frame of the stack tells; the rest is Python and computation."""


def part_of(frame: FrameType | None, parts: Parts) -> str:
    """The part that a stack belongs to."""
    names = set()
    while frame is not None:
        names.add(frame.f_code.co_filename)
        frame = frame.f_back
    for part, signs in parts:
        if any(sign in name for name in names for sign in signs):
            return part
    return "other"


class Clock:
    """CPU seconds of this process by part.

    Args:
        parts: by file, the first one of which a frame of the stack tells.
    """

    def __init__(self, parts: Parts) -> None:
        self.seconds: Counter[str] = Counter()
        self._parts = parts
        self._last = time.process_time()

    def look(self, _: int, frame: FrameType | None) -> None:
        """Book the time since the last look."""
        now = time.process_time()
        self.seconds[part_of(frame, self._parts)] += now - self._last
        self._last = now

    def __enter__(self) -> Clock:
        signal.signal(signal.SIGPROF, self.look)
        signal.setitimer(signal.ITIMER_PROF, INTERVAL_S, INTERVAL_S)
        return self

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        self.look(0, None)


def main() -> int:
    """Run the job, and write the parts beside it."""
    with Clock(PARTS) as clock:
        from aiida_difftre.engine.cli import cli

        status = cli(sys.argv[1:])
    Path("parts.json").write_text(
        json.dumps({"Python": BEGAN, **clock.seconds, "total": time.process_time()}, indent=1)
    )
    return status


if __name__ == "__main__":
    sys.exit(main())
