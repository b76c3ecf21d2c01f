"""What a scheduler says of a job that it stopped: in the files of the job, and in its accounting."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

WALLTIME, NODE_FAILURE, PREEMPTED = "WALLTIME", "NODE_FAILURE", "PREEMPTED"
CANCELLED_BY_OWNER, CANCELLED, INTERRUPTED = "CANCELLED_BY_OWNER", "CANCELLED", "INTERRUPTED"

WORDS = {
    WALLTIME: r"due to time limit|time limit exceeded|walltime (\d+ )?exceeded|cputime limit exceeded|term_runlimit",
    NODE_FAILURE: r"due to node failure|node_fail|\bnode failure on |requested job terminate, 'eof'",
    PREEMPTED: r"due to preemption|due to job requeue|\bjob \S+ (was |has been )?preempted|term_preempt"
    r"|term_window|term_load",
    CANCELLED_BY_OWNER: r"term_owner|term_force_owner|term_requeue_owner",
    CANCELLED: r"cancelled at \S+( due to signal \S+)? ?\*\*\*|term_admin|term_force_admin|term_requeue_admin"
    r"|job deleted at request of",
}
"""What Slurm, PBS and LSF write into the output of a job. Slurm does not say there who cancelled it; LSF does."""

PATTERNS = {what: re.compile(words, re.IGNORECASE) for what, words in WORDS.items()}

STATES = {
    "TIMEOUT": WALLTIME,
    "DEADLINE": WALLTIME,
    "NODE_FAIL": NODE_FAILURE,
    "BOOT_FAIL": NODE_FAILURE,
    "PREEMPTED": PREEMPTED,
    "REQUEUED": PREEMPTED,
}
"""States of Slurm's accounting, but for that of a cancelled job."""

CANCELLED_STATE = re.compile(r"CANCELLED(?: by (\d+))?")


def why_stopped(text: str, accounting: Mapping[str, Any] | None) -> tuple[str, str] | None:
    """Why the scheduler stopped a job.

    Args:
        text: Standard error and output of the job's script.
        accounting: What AiiDA asked the accounting of the scheduler (``get_detailed_job_info``); None for none.

    Returns:
        The reason (``WALLTIME``, ``NODE_FAILURE``, ``PREEMPTED``, ``CANCELLED_BY_OWNER``, ``CANCELLED`` where nobody
        knows by whom, ``INTERRUPTED`` where it was somebody else) and the scheduler's words; None for no words.
        Of several reasons in the text, which grows where a job is queued again, the last one counts.
    """
    return _from_accounting(_first_row(accounting)) or _from_text(text)


def _from_text(text: str) -> tuple[str, str] | None:
    found = [(match.end(), what) for what, pattern in PATTERNS.items() for match in pattern.finditer(text)]
    if not found:
        return None
    end, what = max(found)
    line = text[text.rfind("\n", 0, end) + 1 :].split("\n", 1)[0]
    return what, line.strip()


def _first_row(accounting: Mapping[str, Any] | None) -> dict[str, str]:
    """The row of the job as a whole, in what ``sacct --parsable`` writes; empty where it is something else."""
    lines = str((accounting or {}).get("stdout", "")).splitlines()
    if len(lines) < 2 or "State" not in (names := lines[0].split("|")):
        return {}
    values = lines[1].split("|")
    return dict(zip(names, values, strict=True)) if len(names) == len(values) else {}


def _from_accounting(row: Mapping[str, str]) -> tuple[str, str] | None:
    state = row.get("State", "")
    if state in STATES:
        return STATES[state], f"the accounting says {state}"
    if not (cancelled := CANCELLED_STATE.fullmatch(state)):
        return None
    by, owner = cancelled[1], row.get("UID")
    if by is None or not owner:
        return CANCELLED, f"the accounting says {state}"
    if by == owner:
        return CANCELLED_BY_OWNER, f"the accounting says {state}, its owner"
    return INTERRUPTED, f"the accounting says {state}, who is not its owner ({owner})"
