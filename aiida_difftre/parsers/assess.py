"""Parser of assessments."""

from __future__ import annotations

from aiida import orm

from aiida_difftre.data.potential import PotentialData
from aiida_difftre.engine.contract.assessment import AssessResults
from aiida_difftre.parsers.engine import EngineParser


class AssessParser(EngineParser[AssessResults]):
    """What the targets determine and leave open, as numbers and in words; members of an ensemble."""

    MODEL = AssessResults

    def parse_results(self, results: AssessResults) -> None:
        """Attach the outputs."""
        self.out("output_parameters", orm.Dict(results.content()))
        for member in results.members:
            name = member.file.partition(".")[0]
            self.attach(f"members.{name}", member.file, PotentialData.from_file)
