"""Parser of sampling jobs."""

from __future__ import annotations

from functools import partial

from aiida import orm

from aiida_difftre.data.dataset import DatasetData
from aiida_difftre.data.trajectory import TrajectoryEnsembleData
from aiida_difftre.engine.contract.hot import BLOWN_UP
from aiida_difftre.engine.contract.jobs import TRAJECTORY, TRAJECTORY_PART
from aiida_difftre.engine.contract.results import SampleResults
from aiida_difftre.parsers.engine import EngineParser


class SampleParser(EngineParser[SampleResults]):
    """Trajectory, predictions, and the rest of the results; a trajectory that drifts is named in the job's log."""

    MODEL = SampleResults

    def parse_results(self, results: SampleResults) -> None:
        """Attach the outputs."""
        predictions = self.predictions(results.predictions)
        self.out("output_parameters", orm.Dict(results.content(exclude={"predictions"})))
        if results.stationarity is not None and results.stationarity.warning:
            self.logger.warning(results.stationarity.warning)
        self._attach_trajectory()
        self.attach("blown_up", BLOWN_UP, DatasetData.from_file, lenient=True)
        if predictions is not None:
            self.out("predictions", predictions)

    def parse_remains(self) -> None:
        """A run that went bad leaves its good snapshots, from which another can start."""
        self._attach_trajectory(lenient=True)

    def _attach_trajectory(self, *, lenient: bool = False) -> None:
        """Attach the trajectory, or the part of it that is kept."""
        is_part = self.temporary is not None and (self.temporary / TRAJECTORY_PART).is_file()
        read = partial(TrajectoryEnsembleData.from_file, may_be_part=is_part)
        self.attach("trajectory", TRAJECTORY_PART if is_part else TRAJECTORY, read, lenient=lenient)
