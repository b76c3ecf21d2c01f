"""Parser of assessments."""

from __future__ import annotations

from aiida import orm

from aiida_difftre.engine.contract.assessment import AssessResults
from aiida_difftre.parsers.engine import EngineParser


class AssessParser(EngineParser[AssessResults]):
    """What the targets determine and leave open, as numbers and in words."""

    MODEL = AssessResults

    def parse_results(self, results: AssessResults) -> None:
        """Attach the output."""
        self.out("output_parameters", orm.Dict(results.content()))
