"""Parser of pretraining jobs."""

from __future__ import annotations

from typing import Any

from aiida import orm

from aiida_difftre.data.potential import PotentialData
from aiida_difftre.engine.contract.jobs import POTENTIAL_OUT
from aiida_difftre.parsers.engine import EngineParser


class PretrainParser(EngineParser):
    """The potential, with errors and history in the results."""

    def parse_results(self, results: dict[str, Any]) -> None:
        """Attach the outputs."""
        self.out("output_parameters", orm.Dict(results))
        self.attach("potential", POTENTIAL_OUT, PotentialData.from_file)
