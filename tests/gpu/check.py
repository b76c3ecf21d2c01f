"""The engine on an accelerator: known answers, compile times, throughput, one update, memory. Prints JSON.

    tests/gpu/check.sh OUTPUT.json [--platform cpu --small]

Each part is a process of its own, so that one that fails or runs out of memory leaves the others their numbers; parts
that do not fit into the time are named. The exit status is 1 where an answer is wrong, and 2 where a part failed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

BUDGET_S = 340.0
TOLERANCES = {
    "float64": {"energy": 1e-10, "forces": 1e-8, "stress": 1e-8, "gradient": 1e-7, "weights": 1e-8},
    "float32": {"energy": 1e-5, "forces": 2e-4, "stress": 2e-4, "gradient": 2e-3, "weights": 2e-2},
}
"""Largest difference from the CPU in double precision, over the largest magnitude of the quantity (weights: over 1)."""

SYSTEMS = {"lj": (108, 500, 4000), "sw": (64, 216, 1000, 4096), "network": (64, 216, 1000, 4096)}
"""Atoms for throughput; the first number also for answers."""

GOALS = {"network-64": 1e8, "lj": 5e8}
"""Atom-steps per second on an H100."""


def parts(small: bool, platform: str) -> list[tuple[str, list[str], float]]:
    """Name, options and time limit (s) of each part, the important ones first."""
    chosen = ["--platform", platform, *(["--small"] if small else [])]
    found = [
        ("reference", ["answers", "--platform", "cpu", "--precision", "float64", *chosen[2:]], 120.0),
        ("float64", ["answers", "--precision", "float64", *chosen], 90.0),
        ("float32", ["answers", "--precision", "float32", *chosen], 90.0),
        ("distribution", ["distribution", *chosen], 90.0),
        ("compiling", ["compiling", *chosen], 60.0),
        ("compiled", ["compiling", *chosen], 60.0),
    ]
    found += [(f"update-{bits}", ["update", "--precision", bits, *chosen], 60.0) for bits in ("float32", "float64")]
    sizes = [(kind, number) for place in range(4) for kind, of in SYSTEMS.items() for number in of[place : place + 1]]
    if small:
        sizes = [("lj", 32)]
    found += [
        (f"walkers-{kind}-{n}", ["walkers", "--system", kind, "--atoms", str(n), *chosen], 40.0) for kind, n in sizes
    ]
    return found


def run_part(name: str, options: list[str], limit: float, folder: Path) -> dict[str, Any]:
    """Run a part in a process of its own.

    Returns:
        What it found; ``failed`` says why it found nothing.
    """
    output = folder / f"{name}.json"
    command = [sys.executable, str(HERE / "measurements.py"), *options, "--output", str(output)]
    environment = {**os.environ, "DIFFTRE_CACHE": str(folder / "cache")}
    if "--small" in options:  # nothing is measured: programs that are compiled already will do
        environment = dict(os.environ)
    began = time.monotonic()
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return {"failed": f"not within {limit:.0f} s"}
    if done.returncode or not output.is_file():
        return {"failed": (done.stderr.strip().splitlines() or ["no word"])[-1][:500]}
    return {**json.loads(output.read_text()), "wall_s": time.monotonic() - began}


def differences(found: dict[str, Any], reference: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Largest relative difference of each quantity, by system."""
    import numpy as np

    compared: dict[str, dict[str, float]] = {}
    for system, answers in reference["answers"].items():
        compared[system] = {}
        for name, expected in answers.items():
            wanted, got = np.asarray(expected), np.asarray(found["answers"][system][name])
            scale = 1.0 if name == "weights" else float(np.abs(wanted).max())
            compared[system][name] = float(np.abs(got - wanted).max()) / scale
    return compared


def wrong(compared: dict[str, dict[str, float]], precision: str) -> list[str]:
    """Answers that differ by more than the tolerance, in words."""
    return [
        f"{system} {name} in {precision}: {value:.2g}, at most {TOLERANCES[precision][name]:g}"
        for system, found in compared.items()
        for name, value in found.items()
        if not value <= TOLERANCES[precision][name]
    ]


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--platform", choices=["cpu", "gpu"], default="gpu")
    parser.add_argument("--small", action="store_true", help="sizes of seconds, to see that it runs: no measurement")
    parser.add_argument("--only", nargs="+", help="names of parts")
    parser.add_argument("--budget", type=float, default=BUDGET_S, help="s; no part may take longer than its share")
    parser.add_argument("--patience", type=float, default=1.0, help="factor on the time limits of the parts")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    began = time.monotonic()
    results: dict[str, Any] = {"parts": {}, "left_out": [], "goals": GOALS}
    with tempfile.TemporaryDirectory() as folder:
        for name, arguments, limit in parts(options.small, options.platform):
            left = options.budget - (time.monotonic() - began)
            if options.only and name not in options.only:
                continue
            if left < 5:
                results["left_out"].append(name)
                continue
            results["parts"][name] = run_part(name, arguments, min(options.patience * limit, left), Path(folder))
    found = results["parts"]
    reference = found.get("reference", {})
    results["differences"], results["wrong"] = {}, []
    for precision in TOLERANCES:
        if "answers" in reference and "answers" in found.get(precision, {}):
            results["differences"][precision] = compared = differences(found[precision], reference)
            results["wrong"] += wrong(compared, precision)
    results["wrong"] += found.get("distribution", {}).get("wrong", [])
    results["failed"] = [name for name, part in found.items() if "failed" in part]
    results["total_s"] = time.monotonic() - began
    for part in ("reference", "float64", "float32"):
        found.get(part, {}).pop("answers", None)  # arrays that have been compared
    options.output.write_text(json.dumps(results, indent=1) + "\n")
    for line in (*results["wrong"], *(f"{name}: {found[name]['failed']}" for name in results["failed"])):
        print(line)
    return 1 if results["wrong"] else 2 if results["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
