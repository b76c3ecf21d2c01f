"""Evidence that the kernel ended a program for want of memory: the counter of the control group. Free of JAX.

A SIGKILL says nothing of its reason. The kernel counts the programs of a control group that it killed for memory
(``oom_kill``); the submit script of a job writes the counter before and after the program (:data:`RECORD`) to a file
that comes back with the job (:data:`MEMORY_EVENTS`), and a counter that rose is evidence (:func:`killed_for_memory`).
"""

from __future__ import annotations

import re

MEMORY_EVENTS = "memory_events.txt"
"""The file, in the folder of the job."""

RECORD = (
    "{ grep -hs '^oom_kill ' \"/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup)/memory.events\" "
    "\"/sys/fs/cgroup/memory$(sed -n 's/^[0-9]*:memory://p' /proc/self/cgroup)/memory.oom_control\" "
    f">> {MEMORY_EVENTS}; }} 2> /dev/null || true"
)
"""A line of shell: append the counter of this control group (of version 2 or 1), or nothing where there is none."""

COUNTER = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)


def killed_for_memory(text: str) -> bool:
    """Whether the counter rose while the job ran; False where it was not recorded both before and after.

    Args:
        text: Text of the file :data:`MEMORY_EVENTS`.

    Returns:
        Whether a process was killed for memory.
    """
    counts = [int(count) for count in COUNTER.findall(text)]
    before, after = counts[: len(counts) // 2], counts[len(counts) // 2 :]
    return len(before) == len(after) and sum(after) > sum(before)
