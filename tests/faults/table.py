"""The table of docs/robustness.md from the report of a run by hand: ``python tests/faults/table.py faults.json``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def table(report: dict[str, Any]) -> str:
    """Markdown: faults by kind, and their sum."""
    faults = report["faults"]
    lines = [f"| {kind} | {number} |" for kind, number in sorted(faults.items())]
    lines.append(f"| all, in {report['runs']} runs | {sum(faults.values())} |")
    lines.append(f"| daemon restarted, as `status` told | {report['cured']} |")
    return "\n".join(["| fault | count |", "|---|---|", *lines])


if __name__ == "__main__":
    print(table(json.loads(Path(sys.argv[1]).read_text())))
