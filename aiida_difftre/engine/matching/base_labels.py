"""What a base gives for labelled configurations, and labels without it: those that the terms of a potential match."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from numpy.typing import NDArray

from aiida_difftre.engine.bases.protocol import EVERYTHING, BasePotential, Quantity, explained
from aiida_difftre.engine.contract import files, reading
from aiida_difftre.engine.contract.bases import BaseSpec
from aiida_difftre.engine.contract.labels import Labelled
from aiida_difftre.engine.errors import EngineError, ExitStatus
from aiida_difftre.engine.geometry import voigt
from aiida_difftre.engine.units import EV_PER_A3_IN_GPA

FRAMES_AT_ONCE = 64
"""Of the same atoms, in one call of a base."""

SAME = 1e-4
"""Å, by which positions of the same configuration differ at most after they went through a file."""


@dataclass(frozen=True)
class BaseLabels:
    """Energies, forces and stresses that a base gives for configurations.

    Args:
        digest: Digest of the base.
        energies: (configurations,), eV.
        forces: Of all atoms of all configurations one after the other, (atoms, 3), eV/Å.
        stresses: dU/dε/V, (configurations, 6), eV/Å³; NaN where a configuration is not periodic.
        positions: Of all atoms, (atoms, 3), Å, by which configurations are recognised.
    """

    digest: str
    energies: NDArray[np.float64]
    forces: NDArray[np.float64]
    stresses: NDArray[np.float64]
    positions: NDArray[np.float64]

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Arrays by name, as ``predictions.npz`` holds them; stresses in GPa."""
        return {
            "base_digest": np.array(self.digest, np.str_),
            "base_energies": self.energies,
            "base_forces": self.forces,
            "base_stresses": self.stresses * EV_PER_A3_IN_GPA,
            "base_positions": self.positions,
        }


def of_frames(base: BasePotential, digest: str, frames: Sequence[Atoms]) -> BaseLabels:
    """Evaluate a base for configurations, those of the same atoms together.

    Args:
        base: The base.
        digest: Its digest.
        frames: Configurations.

    Returns:
        What it gives.

    Raises:
        EngineError: Where the base fails, or gives numbers that are not finite.
    """
    energies, stresses = np.empty(len(frames)), np.full((len(frames), 6), np.nan)
    forces: list[NDArray[np.float64]] = []

    def kind(number: int) -> tuple[Any, ...]:
        return tuple(frames[number].numbers), tuple(bool(x) for x in frames[number].pbc)

    i, j = np.transpose(voigt.COMPONENTS)
    for (_, pbc), group in groupby(range(len(frames)), kind):
        numbers = list(group)
        for start in range(0, len(numbers), FRAMES_AT_ONCE):
            rows = numbers[start : start + FRAMES_AT_ONCE]
            is_bulk = all(pbc)
            what: tuple[Quantity, ...] = EVERYTHING if is_bulk else ("energy", "forces")
            positions = np.array([frames[row].positions for row in rows])
            cells = np.array([frames[row].cell.array for row in rows])
            with explained():
                found = base.evaluate(frames[rows[0]].get_chemical_symbols(), positions, cells, what, pbc=pbc)
            for name, array in (("energy", found.energies), ("forces", found.forces)):
                if array is None or not np.isfinite(array).all():
                    raise EngineError(
                        ExitStatus.NOT_FINITE,
                        f"the {name} that the base gives of the configurations {rows[0]} to {rows[-1]} is not finite; "
                        "leave them out, or look at them",
                    )
            energies[rows] = found.energies
            forces += list(found.forces)  # type: ignore[arg-type]  # checked above
            if is_bulk and found.stresses is not None:
                stresses[rows] = found.stresses[:, i, j]
    places = np.concatenate([frame.positions for frame in frames])
    return BaseLabels(digest, energies, np.concatenate(forces), stresses, places)


def read(path: Path, spec: BaseSpec, found: Labelled) -> BaseLabels:
    """What a prediction with a base wrote for configurations, if these are they.

    Args:
        path: A ``predictions.npz``.
        spec: The base of the potential.
        found: The configurations.

    Returns:
        What the base gave.

    Raises:
        EngineError: For a file without such arrays, of another base, or of other configurations.
    """
    arrays = files.read_npz(path)
    with reading.reading(path, "file of predictions of a potential with a base"):
        labels = BaseLabels(
            str(arrays["base_digest"]), arrays["base_energies"], arrays["base_forces"],
            arrays["base_stresses"], arrays["base_positions"],
        )  # fmt: skip
        _check(labels)
    if labels.digest != spec.digest:
        raise EngineError(
            ExitStatus.INVALID_INPUT,
            f"{path.name} is of a base with the digest {labels.digest[:12]}, and that of the potential is "
            f"{spec.digest[:12]}; predict the dataset with this potential",
        )
    places = np.concatenate([frame.positions for frame in found.frames])
    if (
        len(labels.energies) != len(found.frames)
        or labels.positions.shape != places.shape
        or not np.allclose(labels.positions, places, rtol=0, atol=SAME)
    ):
        raise EngineError(
            ExitStatus.INVALID_INPUT,
            f"{path.name} is of other configurations than the dataset; predict the dataset with this potential",
        )
    return replace(labels, stresses=labels.stresses / EV_PER_A3_IN_GPA)


def _check(labels: BaseLabels) -> None:
    """Refuse arrays that do not belong together, or hold no numbers; only stresses may be missing.

    Raises:
        ValueError: naming the array.
    """
    count, atoms = len(labels.energies), len(labels.positions)
    for name, array, shape in (
        ("energies", labels.energies, (count,)),
        ("forces", labels.forces, (atoms, 3)),
        ("stresses", labels.stresses, (count, 6)),
        ("positions", labels.positions, (atoms, 3)),
    ):
        if array.shape != shape or array.dtype.kind not in "fiu":
            raise ValueError(f"base_{name} is {array.dtype} of the shape {array.shape}, not numbers of {shape}")
        if name != "stresses" and not np.isfinite(array).all():
            raise ValueError(f"base_{name} holds what is no finite number")


def subtracted(found: Labelled, base: BaseLabels) -> Labelled:
    """Labelled configurations whose labels are those of the terms alone: what is left without the base.

    Args:
        found: The configurations, with labels of the whole.
        base: What the base gives for them.

    Returns:
        Copies with the differences as labels.
    """
    frames, start = [], 0
    for number, frame in enumerate(found.frames):
        end = start + len(frame)
        of_base = {
            "energy": base.energies[number], "forces": base.forces[start:end], "stress": base.stresses[number],
        }  # fmt: skip
        results = {} if frame.calc is None else frame.calc.results
        kept = {name: results[name] - value for name, value in of_base.items() if results.get(name) is not None}
        copy = frame.copy()
        copy.calc = SinglePointCalculator(copy, **kept)
        frames.append(copy)
        start = end
    return replace(found, frames=frames)


def subtracting(base: BasePotential | None, digest: str) -> Callable[[Labelled], Labelled] | None:
    """What evaluates a base for configurations, and takes that off their labels; None without a base.

    Args:
        base: The base.
        digest: Its digest.

    Returns:
        The function.
    """
    if base is None:
        return None
    return lambda found: subtracted(found, of_frames(base, digest, found.frames))
