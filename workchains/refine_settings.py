"""The settings of a refinement by the work chain: those of the loop, and the seed."""

from __future__ import annotations

from aiida import orm

from aiida_difftre.engine.contract.base import Seed
from aiida_difftre.engine.contract.loop_settings import LoopSettings
from aiida_difftre.engine.contract.sampling_settings import SamplingSettings
from aiida_difftre.engine.contract.validation import validate
from aiida_difftre.workchains.builders import settings_validator


class RefineSettings(LoopSettings):
    """How the loop goes on and ends, as in ``difftre refine``.

    Args:
        seed: Seed from which that of each job follows.
    """

    seed: Seed = 0


check_settings = settings_validator(RefineSettings)
"""Port validator of the settings of a refinement."""


def check_growth(settings: orm.Dict | None, sampling: orm.Dict) -> str | None:
    """A message where trajectories would grow beyond what a job takes, or None.

    Args:
        settings: of the refinement.
        sampling: parameters of the sampling jobs.
    """
    first = validate(SamplingSettings, sampling.get_dict().get("sampling", {}))
    try:
        validate(RefineSettings, settings.get_dict() if settings is not None else {}).check_lengths(first)
    except ValueError as error:
        return f"settings: {error}"
    return None
