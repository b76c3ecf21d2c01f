"""What a base that is called gives for a labelled dataset: once per run, where the base is, for all updates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiida import orm
from aiida.common import AttributeDict

from aiida_difftre.calculations.checks import evaluates_elsewhere
from aiida_difftre.data.dataset import DatasetData
from aiida_difftre.data.potential import PotentialData
from aiida_difftre.workchains.engine import options_of_another

FROM_SAMPLING = ("max_lost", "on_cancelled")
"""What else of the restart chain of sampling holds for the one of the prediction."""


def are_missing(inputs: Mapping[str, Any]) -> bool:
    """Whether updates of a refinement need what its base gives for its dataset, and do not get it.

    Args:
        inputs: Inputs of the refinement.
    """
    base = inputs["potential"].spec.base
    return "base_labels" not in inputs and evaluates_elsewhere(base, inputs["update"]["calc"]["parameters"])


def prediction(sampling: AttributeDict, potential: PotentialData, dataset: DatasetData) -> AttributeDict:
    """Inputs of a prediction for a dataset with the code of sampling, which has the base.

    Args:
        sampling: Inputs of the restart chain of sampling.
        potential: Potential with the base.
        dataset: The dataset.

    Returns:
        Inputs of the restart chain of predictions; without the base.
    """
    machine = sampling.calc.parameters.get_dict().get("machine")
    inputs: dict[str, Any] = {
        "calc": {
            "code": sampling.calc.code,
            "potential": potential,
            "structures": dataset,
            "parameters": orm.Dict({} if machine is None else {"machine": machine}),
            "metadata": {"options": options_of_another(sampling.calc.metadata.options)},
        },
        **{name: sampling[name] for name in FROM_SAMPLING if name in sampling},
        "metadata": {"call_link_label": "base_labels"},
    }
    return AttributeDict(inputs)
