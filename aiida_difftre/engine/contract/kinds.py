"""The kinds of jobs: which model ``job.json`` and ``results.json`` of each follow. Free of JAX."""

from __future__ import annotations

from pathlib import Path

from aiida_difftre.engine.contract.assess_job import AssessJob
from aiida_difftre.engine.contract.assessment import AssessResults
from aiida_difftre.engine.contract.documents import read_json
from aiida_difftre.engine.contract.jobs import Job, PredictJob, PretrainJob, RefineJob, SampleJob, UpdateJob
from aiida_difftre.engine.contract.matching_results import PretrainResults
from aiida_difftre.engine.contract.records import Results
from aiida_difftre.engine.contract.results import PredictResults, RefineResults, SampleResults, UpdateResults
from aiida_difftre.engine.contract.validation import validate
from aiida_difftre.engine.errors import EngineError, ExitStatus

JOBS: dict[str, type[Job]] = {
    "pretrain": PretrainJob,
    "sample": SampleJob,
    "update": UpdateJob,
    "predict": PredictJob,
    "refine": RefineJob,
    "assess": AssessJob,
}
"""The model of ``job.json``, by the kind of the job."""

RESULTS_OF: dict[str, type[Results]] = {
    "pretrain": PretrainResults,
    "sample": SampleResults,
    "update": UpdateResults,
    "predict": PredictResults,
    "refine": RefineResults,
    "assess": AssessResults,
}
"""The model of ``results.json``, by the kind of the job."""


def read_job(path: Path, kind: str) -> Job:
    """Read and check a job file.

    Raises:
        EngineError: with status INVALID_INPUT, naming each offending value.
    """
    try:
        content = read_json(path)
    except ValueError as error:
        raise EngineError(ExitStatus.INVALID_INPUT, str(error)) from None
    try:
        return validate(JOBS[kind], content)
    except ValueError as error:
        raise EngineError(ExitStatus.INVALID_INPUT, f"{path.name}: {error}") from None
