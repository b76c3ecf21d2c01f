"""Which labels of a run count, where they count less the further their volume is from that of the state points."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from aiida_difftre.engine.contract.label_weights import DatasetWidths, check_counting, told, volume_of
from aiida_difftre.engine.contract.validation import validate
from aiida_difftre.workchains.label_estimate import cells_to_label


def volumes_of(inputs: Mapping[str, Any]) -> list[float]:
    """The volumes of the labels of a run, those that exist or those that it will make.

    Args:
        inputs: Inputs with ``dataset``, or with ``dataset_inputs`` of a DftDatasetWorkChain.

    Returns:
        Å³ per atom; NaN for labels without a volume.
    """
    if "dataset" in inputs:
        return [volume_of(atoms) for atoms in inputs["dataset"].get_ase()]
    return [volume_of(cell) for cell in cells_to_label(inputs["dataset_inputs"]).values()]


def _parts(inputs: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The widths of a run or of a refinement, with their names."""
    if "pretrain" in inputs:
        yield "widths", inputs["pretrain"]["calc"]["parameters"].get_dict().get("widths") or {}
    refine = inputs.get("refine", inputs)
    if "update" in refine:
        loss = refine["update"]["calc"]["parameters"].get_dict().get("update", {}).get("loss", {})
        yield "loss.dataset_widths", loss.get("dataset_widths") or {}


def check_counts(inputs: Mapping[str, Any], losses: Mapping[str, Mapping[str, Any]] | None = None) -> str | None:
    """Find out whether enough labels count, of a run that has labels.

    Args:
        inputs: Inputs of a whole run or of a refinement.
        losses: Losses of the stages of a run, by their names.

    Returns:
        A message that names the width, or None.
    """
    stages = {f"{name}: loss.dataset_widths": loss.get("dataset_widths") or {} for name, loss in (losses or {}).items()}
    try:
        for name, given in [*_parts(inputs), *stages.items()]:
            widths = validate(DatasetWidths, given)
            if widths.given() and widths.volumes:
                check_counting(volumes_of(inputs), widths, name)
    except ValueError as error:
        return str(error)
    return None


def lines(inputs: Mapping[str, Any]) -> list[str]:
    """How many labels count, before a run, a line for each part of it that has widths."""
    found = []
    for name, given in _parts(inputs):
        widths = validate(DatasetWidths, given)
        if widths.given():
            found.append(shown(name, told(check_counting(volumes_of(inputs), widths, name), widths)))
    return found


def shown(name: str, weights: Mapping[str, Sequence[float]]) -> str:
    """How many labels count, in one line.

    Args:
        name: What the weights are of.
        weights: Weights of all labels, by quantity.

    Returns:
        The line, such as ``labels that count in updates: energy 23.4 of 52``.
    """
    counted = ", ".join(f"{quantity} {sum(each):.3g} of {len(each)}" for quantity, each in weights.items())
    return f"labels that count in {name}: {counted}"
