"""The ASE calculator, under the name that users import."""

from __future__ import annotations

from aiida_difftre.engine.calculators.difftre import DiffTReCalculator

__all__ = ["DiffTReCalculator"]
