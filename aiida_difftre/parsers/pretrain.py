"""Parser of pretraining jobs."""

from __future__ import annotations

from aiida import orm

from aiida_difftre.data.potential import PotentialData
from aiida_difftre.engine.contract.jobs import POTENTIAL_OUT
from aiida_difftre.engine.contract.matching_results import PretrainResults
from aiida_difftre.parsers.engine import EngineParser


class PretrainParser(EngineParser[PretrainResults]):
    """The potential, with errors and history in the results."""

    MODEL = PretrainResults

    def parse_results(self, results: PretrainResults) -> None:
        """Attach the outputs."""
        self.out("output_parameters", orm.Dict(results.content()))
        self.attach("potential", POTENTIAL_OUT, PotentialData.from_file)
