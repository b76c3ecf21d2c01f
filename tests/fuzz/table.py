"""The table of docs/robustness.md from the report of a run by hand: ``python tests/fuzz/table.py fuzz.json``."""

from __future__ import annotations

import json
import sys
from pathlib import Path


def table(report: dict[str, dict[str, int]]) -> str:
    """Markdown: inputs tried, accepted and refused by kind, and their sums."""
    columns = ("tried", "accepted", "refused")
    rows = [(kind, *(numbers[name] for name in columns)) for kind, numbers in sorted(report.items())]
    rows.append(("all", *(sum(numbers[name] for numbers in report.values()) for name in columns)))
    lines = [
        f"| {kind} | " + " | ".join(f"{number:,}".replace(",", " ") for number in rest) + " |" for kind, *rest in rows
    ]
    return "\n".join([f"| kind | {' | '.join(columns)} |", "|---|---|---|---|", *lines])


if __name__ == "__main__":
    print(table(json.loads(Path(sys.argv[1]).read_text())))
