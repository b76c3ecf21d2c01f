"""Every reason why an input would be refused."""

from __future__ import annotations

from pathlib import Path


def refusals(file: Path, seed: int | None = None) -> list[str]:
    """Every reason why an input would be refused, each once; those that hide behind others come after these are mended.

    Args:
        file: The input; a profile has to be loaded.
        seed: Seed in place of that of the file.

    Returns:
        The messages; empty for an input that is right.
    """
    from aiida_difftre.workchains import codes, estimate, from_input
    from aiida_difftre.workchains.cells import elements_to_label
    from aiida_difftre.workchains.inputs import read_input

    try:
        run = read_input(file)
    except ValueError as error:
        return [str(error)]
    found: dict[str, None] = {}

    def attempt(step: object, *arguments: object) -> None:
        try:
            step(*arguments)  # type: ignore[operator] # each is a function
        except ValueError as error:
            found[str(error)] = None

    attempt(lambda: estimate.check(from_input.read_plan(file)))
    kinds = [kind for kind in codes.CHAIN_OF if kind not in ("dft", "feff", "pretraining")]
    kinds += ["dft"] if elements_to_label(run, file.parent) else []
    kinds += [] if run.model.potential is not None else ["pretraining"]
    for kind in kinds:
        attempt(codes.load_code, kind, getattr(run.machines, kind))
    attempt(lambda: from_input.read_builder(file, seed=seed))
    return list(found)
