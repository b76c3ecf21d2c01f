"""What the benchmarks share: CPU time, memory, versions of programs and hardware, and how results are printed."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple


def parser(description: str | None) -> argparse.ArgumentParser:
    """Options that every part has."""
    made = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    made.add_argument("--tiny", action="store_true", help="sizes of seconds, to see that it runs: no measurement")
    made.add_argument("--runs", type=int, default=3, help="repetitions; medians are printed")
    made.add_argument("--output", type=Path, help="file of the results; printed without")
    return made


def add_platform(made: argparse.ArgumentParser) -> None:
    """The option of parts that are of use on an accelerator."""
    made.add_argument(
        "--platform", choices=["cpu", "auto", "gpu"], default="cpu", help="auto takes the device that JAX finds"
    )


class Seconds(NamedTuple):
    """What a call took: CPU time of this process, and time on the wall, which is that of the device."""

    cpu: float
    wall: float


def seconds(function: Callable[[], Any]) -> Seconds:
    """What one call takes; the function must wait for what it computes."""
    cpu, wall = time.process_time(), time.perf_counter()
    function()
    return Seconds(time.process_time() - cpu, time.perf_counter() - wall)


def times(function: Callable[[], Any], runs: int) -> list[Seconds]:
    """What calls take after one that is not counted."""
    function()
    return [seconds(function) for _ in range(runs)]


def middle(found: Sequence[Seconds]) -> Seconds:
    """Medians of CPU and of wall time."""
    return Seconds(*(statistics.median(column) for column in zip(*found, strict=True)))


def median(function: Callable[[], Any], runs: int) -> float:
    """Median CPU seconds of a call after one that is not counted."""
    return middle(times(function, runs)).cpu


def children_seconds() -> float:
    """CPU seconds of all child processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def resident_mb() -> float:
    """Memory of this process now, MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def peak_mb() -> float:
    """Largest memory of this process so far, MB; a child may inherit that of its parent."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def versions(machine: Any = None) -> dict[str, Any]:
    """Hardware, versions and the command."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    found: dict[str, Any] = {
        "command": " ".join(["python", *sys.argv]),
        "cpu": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "python": platform.python_version(),
        "jax_md": importlib.metadata.version("jax-md"),
    }
    program = shutil.which("lmp")
    if program:
        lines = subprocess.run([program, "-h"], capture_output=True, text=True).stdout.splitlines()
        found["lammps"] = next((line.strip() for line in lines if "Simulator" in line), None)
    if machine is not None:
        from aiida_difftre.engine.runtime import device

        found.update(device.description(machine))
    return found


def write(results: dict[str, Any], output: Path | None) -> None:
    """Print results, or write them to a file."""
    text = json.dumps(results, indent=1)
    if output is None:
        print(text)
    else:
        output.write_text(text + "\n")
