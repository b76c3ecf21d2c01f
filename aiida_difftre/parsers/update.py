"""Parser of update jobs."""

from __future__ import annotations

from pathlib import Path

from aiida import orm

from aiida_difftre.data.potential import PotentialData
from aiida_difftre.engine.contract.files import read_arrays
from aiida_difftre.engine.contract.jobs import OPTIMIZER_OUT, POTENTIAL_OUT
from aiida_difftre.engine.contract.results import UpdateResults
from aiida_difftre.engine.errors import EngineError
from aiida_difftre.parsers.engine import EngineParser


def read_optimizer_state(path: Path) -> orm.SinglefileData:
    """The optimizer's state as a node, refused where it is no safetensors file.

    Raises:
        ValueError: naming the file.
    """
    try:
        read_arrays(path)
    except EngineError as error:
        raise ValueError(error.message) from None
    return orm.SinglefileData(path.absolute())


class UpdateParser(EngineParser[UpdateResults]):
    """Potential, optimizer state, and the predictions of each state point after the last step."""

    MODEL = UpdateResults

    def parse_results(self, results: UpdateResults) -> None:
        """Attach the outputs; what is known of the state points before the first step stays in the results."""
        predictions = {label: self.predictions(point.after) for label, point in results.state_points.items()}
        without = {"state_points": {"__all__": {"after"}}}
        self.out("output_parameters", orm.Dict(results.content(exclude=without)))
        for label, node in predictions.items():
            if node is not None:
                self.out(f"predictions.{label}", node)
        self.attach("potential", POTENTIAL_OUT, PotentialData.from_file)
        self.attach("optimizer_state", OPTIMIZER_OUT, read_optimizer_state)
