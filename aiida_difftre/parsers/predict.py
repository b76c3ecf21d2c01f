"""Parser of prediction jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from aiida import orm
from numpy.typing import NDArray

from aiida_difftre.engine.contract.files import read_npz
from aiida_difftre.engine.contract.jobs import PREDICTIONS, RESULTS
from aiida_difftre.engine.contract.results import PredictResults
from aiida_difftre.engine.errors import EngineError
from aiida_difftre.parsers.engine import EngineParser, OutputError


def read_predictions(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of ``predictions.npz``.

    Raises:
        ValueError: naming the file.
    """
    try:
        return read_npz(path)
    except EngineError as error:
        raise ValueError(error.message) from None


class PredictParser(EngineParser[PredictResults]):
    """Energies, forces and stresses, and predictions of observables, in one array node."""

    MODEL = PredictResults

    def parse_results(self, results: PredictResults) -> None:
        """Attach the outputs."""
        self.out("output_parameters", orm.Dict(results.content(exclude={"predictions"})))
        path = None if self.temporary is None else self.temporary / PREDICTIONS
        arrays = {}
        if path is not None and path.is_file():
            try:
                arrays = read_predictions(path)
            except ValueError as error:
                raise OutputError(self.exit_codes.ERROR_OUTPUT_UNREADABLE.format(message=str(error))) from None
        elif "structures" in self.node.inputs:
            message = f"{PREDICTIONS}, although {RESULTS} is there"
            raise OutputError(self.exit_codes.ERROR_OUTPUT_MISSING.format(message=message))
        node = self.predictions(results.predictions, arrays)
        if node is not None:
            self.out("predictions", node)
