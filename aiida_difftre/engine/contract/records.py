"""How jobs write and how others read what they wrote: the base of all results, ``error.json`` and ``progress.jsonl``.

The engine writes through these models, so that there is no key that they do not know; parsers, work chains and
displays read through them. Nodes live longer than versions: :func:`read` keeps what it does not know, and what an
earlier version did not record has its default. What was not recorded is not written either. Free of JAX.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, ValidationError, model_serializer

from aiida_difftre.engine.contract.validation import explain


class Record(BaseModel):
    """A part of what a job writes: unknown keys are refused, and fields that were not given are not written."""

    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="constants")

    @model_serializer(mode="wrap")
    def _given(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = handler(self)
        known = {name: value for name, value in written.items() if name in self.model_fields_set or self._filled(name)}
        return known | (self.model_extra or {})

    def _filled(self, name: str) -> bool:
        """Whether a field that was not given has something else than its default, such as a list that was added to."""
        field = type(self).model_fields.get(name)
        return field is not None and getattr(self, name) != field.get_default(call_default_factory=True)

    def content(self, exclude: Any = None) -> dict[str, Any]:
        """Plain data, as JSON holds it; numbers that are not finite stay what they are.

        Args:
            exclude: Fields to leave out, in pydantic's notation; None for none.

        Returns:
            The content by field; fields that were not given are missing.
        """
        return self.model_dump(mode="json", exclude=exclude)


class EngineDescription(Record):
    """What ran a job.

    Args:
        version: Version of this package.
        jax: Version of JAX.
        jaxlib: Version of jaxlib.
        platform: ``cpu`` or ``gpu``.
        device: The kind of device, as JAX names it.
        devices: Number of devices.
        host: Architecture of the machine, such as ``x86_64``.
        python: Version of Python.
        precision: ``float32`` or ``float64``.
    """

    version: str
    jax: str
    jaxlib: str | None = None
    platform: str
    device: str
    devices: int | None = None
    host: str | None = None
    python: str | None = None
    precision: str | None = None


class Timings(Record):
    """Where the time of a job went; each kind has parts of its own.

    Args:
        start_s: Duration until JAX was configured, s.
        total_s: Duration of the job, s.
        cpu_s: CPU time of all threads of the process, s.
        sampling_s: Equilibration and production, s.
        hot_s: Hot runs, s.
        observables_s: Predictions on the trajectory, s.
        prepare_s: Observables of the references of an update, s.
        update_s: Steps of an update and the predictions after them, s.
        structures_s: Predictions for structures, s.
        stability_s: Crystals at rest and pairs that come close, s.
        trajectory_s: Predictions on a trajectory, s.
        refine_s: All iterations and the validation, s.
    """

    start_s: float | None = None
    total_s: float | None = None
    cpu_s: float | None = None
    sampling_s: float | None = None
    hot_s: float | None = None
    observables_s: float | None = None
    prepare_s: float | None = None
    update_s: float | None = None
    structures_s: float | None = None
    stability_s: float | None = None
    trajectory_s: float | None = None
    refine_s: float | None = None


class Results(Record):
    """What the ``results.json`` of every kind has.

    Args:
        schema_version: Version of the file contract.
        kind: The kind of the job.
        engine: What ran the job.
        timings: Durations of the parts of the job.
    """

    schema_version: Literal[1] = 1
    kind: str
    engine: EngineDescription | None = None
    timings: Timings = Field(default_factory=Timings)


class ErrorReport(Record):
    """``error.json``: why a job failed.

    Args:
        schema_version: Version of the file contract.
        kind: The kind of the job.
        exit_status: Exit status of the engine; the reference of exit codes lists them.
        status: Name of the exit status.
        message: What went wrong, and the remedy.
        diagnostics: Numbers; those that are not finite as text.
    """

    schema_version: Literal[1] = 1
    kind: str | None = None
    exit_status: int
    status: str | None = None
    message: str
    diagnostics: dict[str, Any] = Field(default_factory=dict)


class ProgressLine(Record):
    """A line of ``progress.jsonl``: ``step`` of ``total`` of a phase is done. Other keys are numbers worth showing.

    Args:
        phase: What goes on, such as ``equilibration``.
        step: Number of steps that are done.
        total: Number of steps of the phase.
        seconds: Time since the job started, s.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, float] = Field(init=False)

    phase: str
    step: int
    total: int
    seconds: float | None = None

    @property
    def numbers(self) -> dict[str, float]:
        """Those that are worth showing, by name, such as a temperature in K."""
        return self.__pydantic_extra__


RecordT = TypeVar("RecordT", bound=Record)


def read(model: type[RecordT], content: Any) -> RecordT:
    """Read what a file or a node holds as a model; keys that the model does not know are kept aside.

    Args:
        model: The model to read it as.
        content: Plain data.

    Returns:
        The content as an instance of the model.

    Raises:
        ValueError: Naming each field that is missing or has another type.
    """
    try:
        return model.model_validate(content, extra="allow")
    except ValidationError as error:
        raise ValueError(explain(error)) from None


def not_finite(content: Any, where: str = "") -> Iterator[str]:
    """Find the numbers in plain data that JSON cannot hold: infinities and NaN.

    Args:
        content: Plain data.
        where: Path of ``content`` in what it is a part of, its keys joined by dots.

    Yields:
        The path of each such number, such as ``diagnostics.temperature``.
    """
    if isinstance(content, Mapping | list | tuple):
        items = content.items() if isinstance(content, Mapping) else enumerate(content)
        for key, value in items:
            yield from not_finite(value, f"{where}.{key}" if where else str(key))
    elif isinstance(content, float) and not math.isfinite(content):
        yield where


def finite(content: Any) -> Any:
    """Turn diagnostics into what JSON can hold: numbers that are not finite, often the very trouble, become strings.

    Args:
        content: Plain data.

    Returns:
        A copy of the data.

    Example:
        >>> from aiida_difftre.engine.contract.records import finite
        >>> finite({"temperature": float("inf"), "walker": 3})
        {'temperature': 'inf', 'walker': 3}
    """
    if isinstance(content, Mapping):
        return {key: finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [finite(value) for value in content]
    return str(content) if isinstance(content, float) and not math.isfinite(content) else content
