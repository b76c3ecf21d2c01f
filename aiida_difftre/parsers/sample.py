"""Parser of sampling jobs."""

from __future__ import annotations

from typing import Any

from aiida import orm

from aiida_difftre.data.trajectory import TrajectoryEnsembleData
from aiida_difftre.engine.contract.jobs import TRAJECTORY
from aiida_difftre.parsers.engine import EngineParser


class SampleParser(EngineParser):
    """Trajectory, predictions, and the rest of the results; a trajectory that drifts is named in the job's log."""

    def parse_results(self, results: dict[str, Any]) -> None:
        """Attach the outputs."""
        predictions = self.predictions(results.pop("predictions", None))
        self.out("output_parameters", orm.Dict(results))
        warning = (results.get("stationarity") or {}).get("warning")
        if warning:
            self.logger.warning(warning)
        self.attach("trajectory", TRAJECTORY, TrajectoryEnsembleData.from_file)
        if predictions is not None:
            self.out("predictions", predictions)

    def parse_remains(self) -> None:
        """A run that went bad leaves its good snapshots, from which another can start."""
        self.attach("trajectory", TRAJECTORY, TrajectoryEnsembleData.from_file, lenient=True)
