"""A predicted observable, as jobs write it and comparisons with targets read it. Free of JAX."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from aiida_difftre.engine.contract.base import Strict


class Prediction(Strict):
    """A predicted observable in ``results.json``: values and standard errors in ``unit``, on labels or a grid.

    ``options`` are without tables; ``fitted`` holds the parameters of the measurement that were fitted.
    ``effective_samples`` says how many independent snapshots stand for the prediction, N_eff/g; results before this
    was recorded have none.
    """

    label: str
    observable: str
    options: dict[str, Any] = Field(default_factory=dict)
    unit: str
    labels: list[str]
    grid: list[float] | None = None
    values: list[float]
    errors: list[float]
    fitted: dict[str, float] = Field(default_factory=dict)
    effective_samples: float | None = None
