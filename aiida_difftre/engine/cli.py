"""The console script ``difftre``: ``difftre KIND job.json`` runs a job in the folder of its job file.

``difftre export`` and ``difftre convert`` are no jobs.
"""

from __future__ import annotations

import argparse
import functools
import gc
import importlib
import sys
import time
import traceback
from pathlib import Path

from aiida_difftre import __version__
from aiida_difftre.engine.contract import files, writing
from aiida_difftre.engine.contract.jobs import CHECKPOINT, ERROR, PROGRESS, RESULTS, SCHEMA_VERSION, Job
from aiida_difftre.engine.contract.kinds import JOBS, read_job
from aiida_difftre.engine.contract.records import EngineDescription, ErrorReport, Results, finite, not_finite
from aiida_difftre.engine.errors import EngineError, ExitStatus
from aiida_difftre.engine.runtime import device
from aiida_difftre.engine.runtime.progress import Progress
from aiida_difftre.engine.runtime.stop import Stop, ending

GARBAGE_THRESHOLD = 50_000
"""Objects between looks at the youngest generation; Python's own is 700."""

COMMANDS = {
    "convert": "aiida_difftre.engine.export.convert:convert",
    "export": "aiida_difftre.engine.export.command:export",
}
"""What is no job, by name."""


def run_job(job: Job, kind: str, folder: Path) -> Results:
    """Run a job, write its ``results.json`` and remove its checkpoint.

    Raises:
        EngineError: after writing results that it carries.
    """
    began, cpu = time.monotonic(), time.process_time()
    device.configure(job.machine)
    started = time.monotonic()
    failure: EngineError | None = None
    try:
        # A kind's module is imported only when it runs: the imports decide what a small job costs.
        results: Results = importlib.import_module(f"aiida_difftre.engine.jobs.{kind}").run(
            job, folder, Progress(folder / PROGRESS)
        )
    except EngineError as error:
        if error.results is None:
            raise
        failure, results = error, error.results
    results.schema_version, results.kind = SCHEMA_VERSION, kind
    results.engine = EngineDescription(**device.description(job.machine))
    total, used = time.monotonic() - began, time.process_time() - cpu
    times = {"start_s": started - began, "total_s": total, "cpu_s": used}
    results.timings = results.timings.model_copy(update=times)
    content = results.content()
    if failure is not None:
        content = finite(content)
    elif bad := ", ".join(not_finite(content)):
        raise EngineError(
            ExitStatus.NOT_FINITE,
            f"these results are not finite: {bad}; a single snapshot, for one, has no fluctuations",
        )
    with Stop():
        writing.write_json(folder / RESULTS, content)
    if failure is not None:
        raise failure
    (folder / CHECKPOINT).unlink(missing_ok=True)
    return results


def translate(error: Exception) -> EngineError:
    """Name a failure that comes from below."""
    full = writing.disk_full(error)
    if full is not None:
        return full
    if isinstance(error, OSError) and error.filename is not None:
        return EngineError(
            ExitStatus.INVALID_INPUT,
            f"{Path(str(error.filename)).name}: {error.strerror}; the folder of a job has to be writable, and what is "
            "called like a file of the engine one",
        )
    text = str(error)
    if "RESOURCE_EXHAUSTED" in text or isinstance(error, MemoryError):
        return EngineError(
            ExitStatus.OUT_OF_MEMORY, f"out of memory: {text[:300]}; lower machine.batch_size or sampling.walkers"
        )
    raise error


def report(kind: str, folder: Path, error: EngineError) -> None:
    """Say why a job failed: on standard error, and in ``error.json`` where there is room for it."""
    record = ErrorReport(
        schema_version=SCHEMA_VERSION,
        kind=kind,
        exit_status=int(error.status),
        status=error.status.name,
        message=error.message,
        diagnostics=finite(error.diagnostics),
    )
    print(f"difftre {kind}: {error.status.name}: {error.message}", file=sys.stderr, flush=True)
    try:
        writing.write_json(folder / ERROR, record.content())
    except OSError as trouble:
        print(f"difftre {kind}: {ERROR} cannot be written: {trouble.strerror}", file=sys.stderr, flush=True)


def report_signal(kind: str, folder: Path, error: EngineError) -> None:
    """Say that a signal ended a job, unless it is over: its results or its own failure are there."""
    if not ((folder / RESULTS).exists() or (folder / ERROR).exists()):
        report(kind, folder, error)


def cli(arguments: list[str] | None = None) -> int:
    """Entry point; returns 0, or 1 after writing ``error.json``."""
    given = sys.argv[1:] if arguments is None else arguments
    if given and given[0] in COMMANDS:
        module, name = COMMANDS[given[0]].split(":")
        return int(getattr(importlib.import_module(module), name)(given[1:]))
    parser = argparse.ArgumentParser(
        prog="difftre",
        description="Train, sample and refine interatomic potentials (DiffTRe). A job is a JSON file; its results are "
        "written beside it, results.json last. `difftre export` writes a potential for other programs, "
        "`difftre convert` reads weights of nequix: see their --help.",
    )
    parser.add_argument("--version", action="version", version=f"difftre {__version__}")
    parser.add_argument("kind", choices=sorted(JOBS), help="what the job does")
    parser.add_argument("job", type=Path, nargs="?", default=Path("job.json"), help="job file (default: job.json)")
    options = parser.parse_args(given)
    # Imports and traces make many objects that live on: to look through them again and again is a tenth of a short job.
    gc.set_threshold(GARBAGE_THRESHOLD)
    folder = options.job.parent.resolve()
    if not folder.is_dir():
        parser.error(f"there is no folder {str(folder)!r} to read {options.job.name} from")
    with ending(functools.partial(report_signal, options.kind, folder)):
        return _run(options.kind, options.job, folder)


def _run(kind: str, path: Path, folder: Path) -> int:
    try:
        try:
            # Of an earlier run: results beside an error would say that this one finished.
            for name in (ERROR, RESULTS):
                (folder / name).unlink(missing_ok=True)
            job = read_job(path, kind)
            files.check_digests(folder, job.digests)
            run_job(job, kind, folder)
        except EngineError:
            raise
        except Exception as error:
            raise translate(error) from error
    except EngineError as error:
        with Stop():
            report(kind, folder, error)
        return 1
    except Exception:
        traceback.print_exc()
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(cli())
