"""Run the benchmarks, each in a process of its own, and collect their results in one JSON file.

    python tests/benchmarks/run.py --output results.json [--parts md update ...] [--tiny]

CPU time on one core unless a part says otherwise, medians of at least three runs, ratios from one run. Each part runs
alone as well: ``python tests/benchmarks/PART.py``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import measure

PARTS = ("gradient", "update", "md", "scaling", "snapshots", "stiffness", "startup", "trajectory")
"""Scripts beside this one, in the order in which they run."""


def main() -> None:
    """Command line."""
    parser = measure.parser(__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    options = parser.parse_args()
    here, results = Path(__file__).parent, {}
    for part in options.parts:
        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder) / "results.json"
            command = [sys.executable, str(here / f"{part}.py"), "--runs", str(options.runs), "--output", str(output)]
            done = subprocess.run(command + ["--tiny"] * options.tiny)
            results[part] = json.loads(output.read_text()) if output.exists() else {"exit_status": done.returncode}
        print(f"{part}: exit status {done.returncode}", file=sys.stderr, flush=True)
    measure.write(results, options.output)


if __name__ == "__main__":
    main()
