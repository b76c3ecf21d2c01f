"""The settings of a refinement by the work chain: those of the loop, and the seed."""

from __future__ import annotations

from typing import Any

from aiida import orm

from aiida_difftre.engine.contract.base import Seed
from aiida_difftre.engine.contract.loop_settings import LoopSettings
from aiida_difftre.engine.contract.validation import validate


class RefineSettings(LoopSettings):
    """How the loop goes on and ends, as in ``difftre refine``.

    Args:
        seed: Seed from which that of each job follows.
    """

    seed: Seed = 0


def check_settings(node: orm.Dict | None, _: Any) -> str | None:
    """Port validator of the settings of a refinement."""
    try:
        validate(RefineSettings, node.get_dict() if node is not None else {})
    except ValueError as error:
        return f"settings: {error}"
    return None
