"""Parser of prediction jobs."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from aiida import orm
from numpy.typing import NDArray

from aiida_difftre.engine.jobs import PREDICTIONS, RESULTS
from aiida_difftre.parsers.engine import EngineParser, OutputError


def read_predictions(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of ``predictions.npz``.

    Raises:
        ValueError: naming the file.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path.name} is not readable: {error}") from None


class PredictParser(EngineParser):
    """Energies, forces and stresses, and predictions of observables, in one array node."""

    def parse_results(self, results: dict[str, Any]) -> None:
        """Attach the outputs."""
        content = results.pop("predictions", None)
        self.out("output_parameters", orm.Dict(results))
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
        node = self.predictions(content, arrays)
        if node is not None:
            self.out("predictions", node)
