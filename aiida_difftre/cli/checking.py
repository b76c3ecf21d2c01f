"""An input, examined: every reason why it would be refused, and what its run would do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from aiida.engine import ProcessBuilder

    from aiida_difftre.workchains.estimate import Sampling
    from aiida_difftre.workchains.input_models import RunInput

T = TypeVar("T")


@dataclass(frozen=True)
class Examined:
    """An input that was read, and what follows from it.

    Args:
        run: The input.
        refusals: Every reason why it would be refused, each once; those that hide behind others come after these are
            mended.
        plan: What its run samples; None where that is refused.
        builder: What would be submitted; None where it is refused.
    """

    run: RunInput
    refusals: list[str]
    plan: list[Sampling] | None
    builder: ProcessBuilder | None


def examine(file: Path, seed: int | None = None) -> Examined:
    """Read an input once, and try everything that a submission does before it submits.

    Args:
        file: The input; a profile has to be loaded.
        seed: Seed in place of that of the file.

    Raises:
        ValueError: for a file that cannot be read as an input at all.
    """
    from aiida_difftre.workchains import codes, estimate, from_input
    from aiida_difftre.workchains.cells import elements_to_label
    from aiida_difftre.workchains.inputs import read_input

    run = read_input(file)
    found: dict[str, None] = {}

    def attempt(step: Callable[[], T]) -> T | None:
        try:
            return step()
        except ValueError as error:
            found[str(error)] = None
            return None

    plan = attempt(lambda: from_input.plan_of(run, file.parent))
    if plan is not None:
        attempt(lambda: estimate.check(plan))
    kinds = [kind for kind in codes.CHAIN_OF if kind not in ("dft", "feff", "pretraining")]
    kinds += ["dft"] if elements_to_label(run, file.parent) else []
    kinds += [] if run.model.potential is not None else ["pretraining"]
    for kind in kinds:
        attempt(lambda kind=kind: codes.load_code(kind, getattr(run.machines, kind), codes.code_of(run)))  # type: ignore[misc]
    builder = attempt(lambda: from_input.builder_of(run, file, seed=seed))
    return Examined(run, list(found), plan, builder)
