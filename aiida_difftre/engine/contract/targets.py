"""Experimental targets: what was measured, with errors, conditions and source. Free of JAX."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from aiida_difftre.engine.contract.agreement import Points, Role
from aiida_difftre.engine.contract.base import Name, Strict
from aiida_difftre.engine.contract.bounds import (
    Density,
    GridValue,
    Limits,
    Measurement,
    Pressure,
    Temperature,
    Weight,
    is_entering,
)
from aiida_difftre.engine.contract.correlations import Systematic, covariance, independent
from aiida_difftre.engine.contract.documents import read_yaml
from aiida_difftre.engine.contract.filters import NOTHING_LOST
from aiida_difftre.engine.contract.observables import Measured, ObservableRequest, observable
from aiida_difftre.engine.contract.validation import validate

SMALLEST_ERROR = 1e-12
"""In any unit; its square is still a number in float32."""


CORRELATIONS = ("correlation_length", "covariance", "systematic")
"""Fields that only targets have whose points share errors."""


class Conditions(Strict):
    """The conditions of a measurement.

    Args:
        temperature: Temperature, K.
        pressure: Pressure, GPa; None where it is not stated.
        density: Density, kg/m³; None where it is not stated.

    Example:
        >>> from aiida_difftre.engine.contract.targets import Conditions
        >>> Conditions(temperature=298.15, pressure=1.01325e-4).temperature
        298.15
    """

    temperature: Temperature
    pressure: Pressure | None = None
    density: Density | None = None


class Source(Strict):
    """The table from which a target was made.

    Args:
        file: its name.
        sha256: digest of its bytes.
        processing: what was done to it, in words.
    """

    file: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    processing: str = ""


class Target(Strict):
    """A measured observable with its errors, conditions and source, checked when it is made.

    Args:
        observable: Name under which the observable is registered.
        options: Options of the observable; those that are left out have their defaults.
        grid: Values of the independent variable, in the grid unit of the observable; required where it has one.
        values: Measured values, in ``unit``, in the order of the observable's labels or of the grid.
        errors: Standard errors of the values, in ``unit``, positive.
        unit: Unit of values and errors, which must be the observable's own.
        correlation_length: Distance on the grid within which the noise of a curve is correlated, in its grid unit; None
            for independent points.
        covariance: Covariance of the noise of all points, in ``unit`` squared, in place of that length.
        systematic: Errors that all points share, such as of the scale: standard deviations of their priors.
        error_source: Whether the errors were ``measured``, or are ``assumed`` by the user.
        conditions: Conditions of the measurement.
        citation: The publication.
        doi: Its digital object identifier; None where there is none.
        role: ``training`` targets enter the loss; ``selection`` targets do not, and choose the best iteration and when
            to stop; ``test`` targets have no part in a refinement and are predicted in its validation alone.
        weight: Factor gamma of the target in the loss.
        label: Name in results; None for the name of the observable.
        source: The table from which it was made; None where there is none.
        checked_against: Other sources with which the values were compared, and what these say; None where that was not
            done.

    Example:
        >>> from aiida_difftre.engine.contract.targets import Target
        >>> target = Target(
        ...     observable="stress",
        ...     values=[0.0] * 6,
        ...     errors=[0.1] * 6,
        ...     unit="GPa",
        ...     error_source="assumed",
        ...     conditions={"temperature": 298.15},
        ...     citation="ambient pressure",
        ... )
        >>> target.is_in_loss, target.component_labels()
        (True, ['xx', 'yy', 'zz', 'yz', 'xz', 'xy'])
    """

    observable: str
    options: dict[str, Any] = Field(default_factory=dict)
    grid: list[GridValue] | None = None
    values: list[Measurement]
    errors: list[Measurement]
    unit: str
    correlation_length: Annotated[float, Limits(above=0, most=1e6, reason="a curve is shorter")] | None = None
    covariance: list[list[Measurement]] | None = None
    systematic: Systematic | None = None
    error_source: Literal["measured", "assumed"] = "measured"
    conditions: Conditions
    citation: str = Field(min_length=1)
    doi: str | None = None
    role: Role = "training"
    weight: Weight = 1.0
    label: Name | None = None
    source: Source | None = None
    checked_against: Annotated[str, Field(min_length=1)] | None = None

    @field_validator("role", mode="before")
    @classmethod
    def _renamed(cls, role: Any) -> Any:
        if role == "held_out":
            raise ValueError(
                "role held_out is now test (never influences the run) or selection (chooses the best iteration); "
                "name one of them"
            )
        return role

    @field_validator("citation")
    @classmethod
    def _stated(cls, citation: str) -> str:
        if is_entering() and not citation.strip():
            raise ValueError("it is blank; say where the values are from")
        return citation

    @field_validator("values", "errors", mode="before")
    @classmethod
    def _finite(cls, numbers: Any, info: Any) -> Any:
        if isinstance(numbers, list | tuple):
            for index, number in enumerate(numbers):
                if isinstance(number, int | float) and not math.isfinite(number):
                    raise ValueError(f"{info.field_name}[{index}] is {number!r}; remove the point or give a number")
        return numbers

    @model_validator(mode="after")
    def _consistent(self) -> Target:
        request = self.request()
        spec = observable(self.observable)
        self.options.update(request.options)
        if spec.is_dynamic and self.role != "test":
            raise ValueError(
                f"target {self.name!r} has the role {self.role}, but {self.observable} is a property of the dynamics, "
                "which no weights of snapshots tell: reweighting cannot train it; give it role: test"
            )
        unit = spec.unit_for(self.options)
        if self.unit != unit:
            raise ValueError(
                f"target {self.name!r} is in {self.unit!r}; observable {self.observable!r} comes in {unit!r}"
            )
        expected = len(self.grid) if self.grid is not None else len(self.component_labels())
        for what, numbers in (("values", self.values), ("errors", self.errors)):
            if len(numbers) != expected:
                raise ValueError(f"target {self.name!r} has {len(numbers)} {what} where {expected} are expected")
        if is_entering():
            self._check_curve()
        self._check_errors()
        self._check_covariance()
        return self

    @model_serializer(mode="wrap")
    def _without_independence(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # What has independent errors is written as it was before there were others: nodes stay the same.
        content: dict[str, Any] = handler(self)
        return {key: value for key, value in content.items() if key not in CORRELATIONS or value is not None}

    def _check_covariance(self) -> None:
        if self.covariance is not None and self.correlation_length is not None:
            raise ValueError(f"target {self.name!r}: give covariance or correlation_length, not both")
        if is_entering() and self.systematic is not None and not self.systematic.model_dump(exclude_none=True):
            raise ValueError(
                f"target {self.name!r}: systematic names no error; give scale, offset or slope, or leave it"
            )
        try:
            self.shared_errors()
        except ValueError as problem:
            raise ValueError(f"target {self.name!r}: {problem}") from None

    def shared_errors(self) -> NDArray[np.float64] | None:
        """Compute the covariance of the errors of the measurement.

        Returns:
            The covariance, systematic errors included, (points, points), in ``unit`` squared; None where the points are
            independent.
        """
        if self.covariance is None and self.correlation_length is None and self.systematic is None:
            return None
        return covariance(
            self.values, self.errors, self.grid,
            length=self.correlation_length, systematic=self.systematic, given=self.covariance,
        )  # fmt: skip

    def correlations(self) -> dict[str, Any]:
        """What the points of the measurement share, by field; empty where they are independent."""
        return self.model_dump(mode="json", include=set(CORRELATIONS), exclude_none=True)

    def shared_in_words(self) -> list[str]:
        """Say what the points of the measurement share; nothing where they are independent."""
        systematic = {} if self.systematic is None else self.systematic.model_dump(exclude_none=True)
        length = [] if self.correlation_length is None else [f"correlated over {self.correlation_length:g}"]
        given = [] if self.covariance is None else ["with a covariance"]
        return [*length, *given, *(f"systematic {name} {prior:g}" for name, prior in systematic.items())]

    def total_errors(self) -> NDArray[np.float64]:
        """Standard errors of single points, what they share included, (points,), in ``unit``."""
        shared = self.shared_errors()
        return np.asarray(self.errors) if shared is None else np.sqrt(np.diag(shared))

    def points(self, values: NDArray[np.float64], errors: NDArray[np.float64]) -> Points:
        """Put a prediction beside the measurement.

        Args:
            values: Predicted values, (points,), in the unit of the target.
            errors: Their standard errors, (points,).

        Returns:
            Deviations and errors; of independent combinations, where points of the measurement share errors.
        """
        deviations, matrix = np.subtract(values, self.values), self.shared_errors()
        if matrix is None:
            return Points(deviations, np.asarray(self.errors), errors)
        return independent(deviations, matrix, np.asarray(errors))

    def _check_curve(self) -> None:
        """Refuse values that are not those of the observable, or that have not gone through its filter."""
        spec = observable(self.observable)
        if spec.check_values is not None:
            grid = np.array(self.grid or [])
            try:
                spec.check_values(self.options, grid, np.array(self.values), np.array(self.errors))
            except ValueError as problem:
                raise ValueError(f"target {self.name!r} is no {self.observable}: {problem}") from None
        filtering = None if spec.filter_of is None or self.grid is None else spec.filter_of(self.options, self.grid)
        if filtering is not None and (lost := filtering.lost(np.array(self.values))) > NOTHING_LOST:
            raise ValueError(
                f"the values of target {self.name!r} have not gone through its filter: {100 * lost:.0f} % of them lie "
                "outside of what it passes; make the target with `aiida-difftre target import`, which filters"
            )

    def _check_errors(self) -> None:
        for index, error in enumerate(self.errors):
            if 0 < error < SMALLEST_ERROR and is_entering():
                raise ValueError(
                    f"errors[{index}] of target {self.name!r} is {error!r}; nothing is measured so well: give at least "
                    f"{SMALLEST_ERROR:g}"
                )
            if error <= 0:
                raise ValueError(
                    f"errors[{index}] of target {self.name!r} is {error!r}; a standard error must be positive "
                    "(state an assumed one, with error_source: assumed, where the experiment gives none)"
                )

    @property
    def is_in_loss(self) -> bool:
        """Whether a refinement works towards it."""
        return self.role == "training" and self.weight > 0

    @property
    def is_decisive(self) -> bool:
        """Whether a refinement looks at it at all: to work towards it, or to choose the best iteration."""
        return self.is_in_loss or self.role == "selection"

    @property
    def name(self) -> str:
        """The label, or the observable's name."""
        return self.label or self.observable

    def request(self) -> ObservableRequest:
        """Ask for the observable that predicts this target.

        Returns:
            The request, with the options and the grid of the target.
        """
        measured = self._measured() if observable(self.observable).is_fitted else None
        return ObservableRequest(
            observable=self.observable, options=dict(self.options), grid=self.grid, label=self.label, measured=measured
        )

    def _measured(self) -> Measured:
        """What parameters of the measurement are fitted to, with the errors that chi² has."""
        matrix = self.shared_errors()
        return Measured(values=self.values, errors=self.errors, covariance=None if matrix is None else matrix.tolist())

    def component_labels(self) -> list[str]:
        """Name each value.

        Returns:
            The labels of the observable, or each value of the grid with its unit.
        """
        spec = observable(self.observable)
        if spec.labels is not None:
            return list(spec.labels(self.options))
        return [f"{value:g} {spec.grid_unit}" for value in self.grid or []]


def read_fields(path: Path) -> Target:
    """Read the fields of a target from a YAML or JSON file.

    Args:
        path: The file.

    Returns:
        The target.

    Raises:
        ValueError: Naming the offending value, and not the file.
    """
    content = read_yaml(path)
    if not isinstance(content, dict):
        found = type(content).__name__
        remedy = "`aiida-difftre target import` makes one of a table"
        raise ValueError(f"expected the fields of a target, found {found}; {remedy}")
    return validate(Target, content)
