"""From which volumes the labels of an input count less the further they are: those of its state points."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aiida_difftre.engine.contract.label_weights import volume_of
from aiida_difftre.workchains.cells import simulation_cell
from aiida_difftre.workchains.input_models import RunInput


def with_volumes(run: RunInput, folder: Path) -> RunInput:
    """A run whose widths say from which volumes labels are away: those of its state points, where it says of none.

    Args:
        run: The input.
        folder: Folder of the input.

    Returns:
        The run, with ``volumes`` (Å³ per atom, sorted) in ``pretraining.widths`` and in the ``loss.dataset_widths`` of
        updates and of those of its stages, wherever these have a width.
    """
    updates = [run.refinement.update, *(stage.update for stage in run.refinement.stages)]
    if not any(map(_lacks_volumes, (run.pretraining.get("widths"), *map(_widths_of, updates)))):
        return run
    cells = [simulation_cell(run, label, folder) for label in run.state_points]
    volumes = sorted({round(volume_of(cell), 6) for cell in cells})
    pretraining = run.pretraining
    if _lacks_volumes(pretraining.get("widths")):
        pretraining = {**pretraining, "widths": {**pretraining["widths"], "volumes": volumes}}
    filled = [_with_volumes(update, volumes) for update in updates]
    staged = [
        stage.model_copy(update={"update": update})
        for stage, update in zip(run.refinement.stages, filled[1:], strict=True)
    ]
    refinement = run.refinement.model_copy(update={"update": filled[0], "stages": staged})
    return run.model_copy(update={"pretraining": pretraining, "refinement": refinement})


def _widths_of(update: Mapping[str, Any]) -> Any:
    loss = update.get("loss")
    return loss.get("dataset_widths") if isinstance(loss, Mapping) else None


def _lacks_volumes(widths: Any) -> bool:
    return isinstance(widths, Mapping) and bool(widths) and "volumes" not in widths


def _with_volumes(update: dict[str, Any], volumes: list[float]) -> dict[str, Any]:
    widths = _widths_of(update)
    if not _lacks_volumes(widths):
        return update
    return {**update, "loss": {**update["loss"], "dataset_widths": {**widths, "volumes": volumes}}}
