"""What the parsers of the engine's jobs share: results or the reason of a failure, and predictions as arrays."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from aiida import orm
from aiida.engine import ExitCode
from aiida.parsers import Parser

from aiida_difftre.engine.contract.jobs import ERROR, PROGRESS, RESULTS
from aiida_difftre.engine.contract.memory_events import MEMORY_EVENTS, killed_for_memory
from aiida_difftre.engine.contract.predictions import Prediction
from aiida_difftre.engine.contract.records import ErrorReport, ProgressLine, Record, Results, finite, not_finite, read
from aiida_difftre.engine.errors import ExitStatus
from aiida_difftre.parsers.scheduler import why_stopped

ResultsT = TypeVar("ResultsT", bound=Results)
RecordT = TypeVar("RecordT", bound=Record)

OUT_OF_MEMORY = re.compile(
    r"out[ -]of[ -]memory|oom[-_]kill|resource_exhausted|memoryerror|exceeded (job |step )?memory limit|term_memlimit"
    r"|mem \d+\w* exceeded limit",
    re.IGNORECASE,
)
"""What schedulers (SLURM, PBS, LSF) and the engine's libraries write."""

DISK_FULL = re.compile(r"no space left on device|disk quota exceeded|(status|difftre \w+): DISK_FULL", re.IGNORECASE)
"""What the engine and the shell write where not even the reason finds room on the disk."""


class OutputError(Exception):
    """A file of a finished job is missing or unreadable; carries the exit code."""

    def __init__(self, exit_code: ExitCode) -> None:
        super().__init__(exit_code.message)
        self.exit_code = exit_code


class EngineParser(Parser, Generic[ResultsT]):
    """Reads ``results.json``, or else ``error.json``, or else what the scheduler says."""

    MODEL: type[ResultsT]
    """Of the results of this kind of job."""

    def parse(self, **kwargs: Any) -> ExitCode | None:
        """Attach what the job produced; return the exit code of its failure, if it failed."""
        folder = kwargs.get("retrieved_temporary_folder")
        self.temporary = Path(folder) if folder else None
        try:
            results = self._read(RESULTS, self.MODEL)
            if results is None:
                return self._parse_failure()
            self.parse_results(results)
        except OutputError as error:
            return error.exit_code
        return None

    def parse_results(self, results: ResultsT) -> None:
        """Attach the outputs of a job that finished.

        Raises:
            OutputError: when a file is missing or unreadable.
        """
        raise NotImplementedError

    def parse_remains(self) -> None:
        """Attach what a job that failed left and is of use; a file that is missing or unreadable is passed over."""

    def attach(self, port: str, name: str, read: Callable[[Path], orm.Data], *, lenient: bool = False) -> None:
        """Attach a file that was retrieved temporarily as the output ``port``.

        Raises:
            OutputError: when the file is missing or unreadable, unless ``lenient``.
        """
        path = None if self.temporary is None else self.temporary / name
        if path is None or not path.is_file():
            if lenient:
                return
            raise OutputError(self.exit_codes.ERROR_OUTPUT_MISSING.format(message=f"{name} was not retrieved"))
        try:
            self.out(port, read(path))
        except ValueError as error:
            if not lenient:
                raise OutputError(self.exit_codes.ERROR_OUTPUT_UNREADABLE.format(message=str(error))) from None

    @staticmethod
    def predictions(
        predictions: Iterable[Prediction] | None, arrays: Mapping[str, Any] | None = None
    ) -> orm.ArrayData | None:
        """Predictions (and further arrays) as one node; None where there are none."""
        made = list(predictions or [])
        return predictions_node(made, arrays or {}) if made or arrays else None

    def _parse_failure(self) -> ExitCode:
        failure = self._read(ERROR, ErrorReport)
        progress = self._last_progress()
        if failure is not None:
            self.out("output_parameters", orm.Dict({"error": failure.content(), "progress": progress}))
            self.parse_remains()
            # A signal does not say why it was sent; the scheduler may.
            stopped = self._stopped() if failure.exit_status == ExitStatus.INTERRUPTED else None
            return stopped or self._exit_code(failure)
        self.out("output_parameters", orm.Dict({"error": None, "progress": progress}))
        self.parse_remains()
        return self._guess()

    def _exit_code(self, failure: ErrorReport) -> ExitCode:
        try:
            status = ExitStatus(failure.exit_status)
        except ValueError:
            return self.exit_codes.ERROR_NO_RESULTS.format(message=failure.message)
        return self.exit_codes[f"ERROR_{status.name}"].format(message=failure.message)

    def _guess(self) -> ExitCode:
        """The exit code of a job that was stopped without a word, from the scheduler and the standard error."""
        if self.node.exit_status:
            return ExitCode(self.node.exit_status, self.node.exit_message)
        text = self._scheduler_text()
        last = next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "nothing on standard error")
        if OUT_OF_MEMORY.search(text):
            return self.exit_codes.ERROR_OUT_OF_MEMORY.format(message=last)
        if killed_for_memory(self._read_text(MEMORY_EVENTS)):
            message = f"{last} (the kernel counted a program of this job that it killed for memory)"
            return self.exit_codes.ERROR_OUT_OF_MEMORY.format(message=message)
        if (stopped := self._stopped()) is not None:
            return stopped
        if DISK_FULL.search(text):
            return self.exit_codes.ERROR_DISK_FULL.format(message=last)
        return self.exit_codes.ERROR_NO_RESULTS.format(message=last)

    def _stopped(self) -> ExitCode | None:
        """The exit code of a job that the scheduler says to have stopped."""
        found = why_stopped(self._scheduler_text(), self.node.get_detailed_job_info())
        return None if found is None else self.exit_codes[f"ERROR_{found[0]}"].format(message=found[1])

    def _scheduler_text(self) -> str:
        return "\n".join(
            self._read_text(self.node.get_option(name)) for name in ("scheduler_stdout", "scheduler_stderr")
        )

    def _read_text(self, name: str | None) -> str:
        if name is None or name not in self.retrieved.base.repository.list_object_names():
            return ""
        return self.retrieved.base.repository.get_object_content(name, mode="rb").decode(errors="replace")

    def _read(self, name: str, model: type[RecordT]) -> RecordT | None:
        """A file of the job; None where it is missing or empty.

        Raises:
            OutputError: naming what in it is wrong.
        """
        text = self._read_text(name)
        if not text:
            return None
        try:
            content = json.loads(text)
            if bad := ", ".join(not_finite(content)):
                raise ValueError(f"not finite: {bad}")
            return read(model, content)
        except (ValueError, RecursionError) as error:
            message = f"{name}: {error}"
            raise OutputError(self.exit_codes.ERROR_OUTPUT_UNREADABLE.format(message=message)) from None

    def _last_progress(self) -> dict[str, Any] | None:
        for text in reversed(self._read_text(PROGRESS).splitlines()):
            try:
                line = read(ProgressLine, json.loads(text))
            except ValueError:
                continue  # a job that is killed may leave half a line
            # A loss that is not finite, which may be why the job failed, cannot be stored as a number.
            content: dict[str, Any] = finite(line.content())
            return content
        return None


def predictions_node(predictions: Iterable[Prediction], arrays: Mapping[str, Any]) -> orm.ArrayData:
    """Predictions as arrays LABEL_values, LABEL_errors and LABEL_grid; all but the numbers as an attribute."""
    node = orm.ArrayData()
    described = []
    for one in predictions:
        node.set_array(f"{one.label}_values", np.array(one.values))
        node.set_array(f"{one.label}_errors", np.array(one.errors))
        if one.grid is not None:
            node.set_array(f"{one.label}_grid", np.array(one.grid))
        described.append(one.model_dump(mode="json", exclude={"values", "errors", "grid"}))
    for name, array in arrays.items():
        node.set_array(name, np.asarray(array))
    node.base.attributes.set("predictions", described)
    return node
