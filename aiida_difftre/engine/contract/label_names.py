"""Under which names files carry energies, forces and stresses: the usual ones, or those that an input chooses."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aiida_difftre.engine.contract.base import Strict
from aiida_difftre.engine.contract.frames import RENAMED

if TYPE_CHECKING:
    from ase import Atoms

KINDS = ("energy", "forces", "stress", "virial")
UNITS = {"energy": "eV", "forces": "eV/Å", "stress": "eV/Å³", "virial": "eV"}

PROGRAMS = "ref|dft|qm|vasp|cp2k|qe|espresso|castep|aims|gpaw|abinit"
ALIAS = re.compile(rf"(?:(?:{PROGRAMS})_)?(?P<base>[a-z_]+?)(?:_(?:{PROGRAMS}))?")
BASES = {
    "energy": {"energy", "total_energy", "totenergy", "tot_energy", "toten", "potential_energy", "free_energy"},
    "forces": {"force", "forces"},
    "stress": {"stress"},
    "virial": {"virial", "virials"},
}
"""Recognised names, in any case, with ``ref`` or the name of a program before or behind them. Names of other potentials
(``MACE_energy``) are none: they carry predictions."""

WEIGHTS = {
    "energy": ("config_weight", "config_energy_weight"),
    "forces": ("config_weight", "config_forces_weight"),
    "stress": ("config_weight", "config_stress_weight"),
    "virial": ("config_weight", "config_virials_weight"),
}
"""Names of weights in files for MACE; a weight of zero marks a label that is none, such as zeros in place of forces."""

LARGEST = {"energy": 1e7, "forces": 1e6, "stress": 1e6, "virial": 1e7}
"""eV, eV/Å, eV/Å³ and eV for each atom; all electrons of the heaviest one have less than 2 MeV."""

AUTOMATIC = "auto"
NONE = "none"

TOLERANCES = {"energy": 1e-4, "forces": 1e-3, "stress": 1e-4, "virial": 1e-2}
"""Within which two names agree: eV per atom, eV/Å, eV/Å³ and eV; rounding in a file is smaller."""

BRACKETS = re.compile(r"\s*\[[][\d\s,.eE+-]*\]\s*")
NUMBERS = re.compile(r"[^][\s,]+")
LONGEST_TENSOR = 1000
"""Characters of nine numbers in brackets."""

Names = str | list[str]
Values = NDArray[np.float64]
Choice = tuple[str, Values] | None


class LabelKeys(Strict):
    """The names under which a file carries its energies, forces and stresses, where these are not the usual ones.

    Args:
        energy: Name of the energy, eV, or several of which the first that a frame has counts; ``auto`` recognises the
            usual names.
        forces: The same for forces, eV/Å; ``none`` trains without forces.
        stress: The same for the stress, eV/Å³, positive in tension; ``none`` trains without stresses.
        virial: The same for the virial, eV; a frame without a stress gets -virial/V.
        missing_forces: Whether frames without forces are taken.
        trust_stress: Whether stresses are taken that do not look like eV/Å³, positive in tension.

    Example:
        >>> from aiida_difftre.engine.contract.label_names import LabelKeys
        >>> LabelKeys(energy="my_energy", forces="none").chosen("energy")
        ['my_energy']
    """

    energy: Names = AUTOMATIC
    forces: Names = AUTOMATIC
    stress: Names = AUTOMATIC
    virial: Names = AUTOMATIC
    missing_forces: bool = False
    trust_stress: bool = False

    def chosen(self, kind: str) -> list[str] | None:
        """Names that count for a kind of label; None where the usual ones are recognised."""
        given: Names = getattr(self, kind)
        if given == AUTOMATIC:
            # Who names one of stress and virial, or wants no stress, has chosen between them.
            by_stress = kind == "virial" and self.stress != AUTOMATIC
            by_virial = kind == "stress" and self.virial not in (AUTOMATIC, NONE)
            return [] if by_stress or by_virial else None
        if given == NONE:
            return []
        return [given] if isinstance(given, str) else list(given)


@functools.cache
def label_kind(name: str) -> str | None:
    """What a name usually stands for: energy, forces, stress, virial, or None."""
    found = ALIAS.fullmatch(name.lower().replace("-", "_"))
    return next((kind for kind, bases in BASES.items() if found and found["base"] in bases), None)


def similar_names(atoms: Atoms, kind: str) -> list[str]:
    """Names in a frame that look like a kind of label, recognised or not."""
    stem = {"energy": "ener", "forces": "forc", "stress": "stress", "virial": "viri"}[kind]
    return [name for name in named_values(atoms) if stem in name.lower()]


def named_values(atoms: Atoms) -> dict[str, Any]:
    """All that a frame carries by name: results of a calculator, header, columns."""
    info = {str(name).removeprefix(RENAMED): value for name, value in atoms.info.items() if name != "frame"}
    columns = {name: values for name, values in atoms.arrays.items() if name not in ("numbers", "positions")}
    results = {} if atoms.calc is None else atoms.calc.results
    return {name: value for name, value in {**results, **info, **columns, **results}.items() if value is not None}


def choose(
    kind: str, keys: LabelKeys, frames: Sequence[Atoms], places: list[str], alone: NDArray[np.bool_]
) -> list[Choice]:
    """Name and value of one kind of label in each frame; None where there is none.

    Args:
        kind: energy, forces, stress or virial.
        keys: names that were chosen.
        frames: configurations.
        places: how messages name each of them.
        alone: (frames,), True for single atoms, whose energy may have a name of its own.

    Returns:
        Name and value for each frame.

    Raises:
        ValueError: for names whose values disagree, a name that no frame has, or a value that is no label.
    """
    given = keys.chosen(kind)
    found = [_candidates(kind, given, atoms, where) for atoms, where in zip(frames, places, strict=True)]
    if given is not None:
        if given and not any(found):
            there = ", ".join(named_values(frames[0])) or "nothing"
            raise ValueError(f"keys.{kind}: no frame has {' or '.join(given)}; {places[0]} has {there}")
        return [next(iter(candidates.items()), None) for candidates in found]
    for atoms, candidates, where in zip(frames, found, places, strict=True):
        if len(candidates) > 1:
            first, *others = candidates.items()
            for other in others:
                agree(kind, first, other, len(atoms), where)
    return _by_one_name(kind, found, places, alone)


def _by_one_name(
    kind: str, found: list[dict[str, Values]], places: list[str], alone: NDArray[np.bool_]
) -> list[Choice]:
    """One name for the whole file, where one is in all frames that have such a label."""
    counts = Counter(name for candidates in found for name in candidates)
    if not counts:
        return [None] * len(found)
    best = max(counts, key=lambda name: (counts[name], "free" not in name.lower(), name.lower() == kind, name))
    chosen: list[Choice] = []
    for candidates, single, where in zip(found, alone, places, strict=True):
        name = best if best in candidates else next(iter(candidates), None)
        if name not in (None, best) and not single:
            raise ValueError(
                f"{where} has {name} where other frames have {best}; if both are the same labels, say in which order "
                f"they count: keys: {{{kind}: [{best}, {name}]}}"
            )
        chosen.append(None if name is None else (name, candidates[name]))
    return chosen


def agree(kind: str, first: tuple[str, Values], other: tuple[str, Values], atoms: int, where: str) -> None:
    """Refuse two values for one label.

    Raises:
        ValueError: naming both, and how to choose.
    """
    allowed = TOLERANCES[kind] * (atoms if kind == "energy" else 1)
    if kind in ("stress", "virial"):
        allowed += 0.01 * float(np.abs(first[1]).max())
    difference = np.abs(first[1] - other[1])
    if difference.max() <= allowed:
        return
    worst = np.unravel_index(int(difference.argmax()), difference.shape)
    one, two = (f"{name} ({values[worst]:.10g} {UNITS[kind]})" for name, values in (first, other))
    names = [name for name, _ in (first, other) if name.isidentifier()]
    hint = " (forces are the derivatives of the free energy)" if any("free" in name.lower() for name in names) else ""
    choice = " or ".join(f"keys: {{{label_kind(name) or kind}: {name}}}" for name in names)
    raise ValueError(f"{where}: {one} and {two} disagree; choose one with {choice}{hint}")


def _candidates(kind: str, given: list[str] | None, atoms: Atoms, where: str) -> dict[str, Values]:
    values = named_values(atoms)
    if any(str(values.get(name)) in ("0", "0.0") for name in WEIGHTS[kind]):
        return {}
    names = (
        [name for name in values if label_kind(name) == kind] if given is None else [n for n in given if n in values]
    )
    return {name: _parsed(kind, name, values[name], len(atoms), where) for name in names}


def _parsed(kind: str, name: str, value: Any, atoms: int, where: str) -> Values:
    """A label as numbers: energy (), forces (atoms, 3), stress and virial (6,) in the order xx yy zz yz xz xy.

    Raises:
        ValueError: naming the value, where it is no such label.
    """
    raw = np.asarray(_bracketed(value))
    if raw.dtype.kind not in "fiu":
        shown = repr(raw.ravel()[:1].tolist()[0] if raw.size else "")
        raise ValueError(f"{where}: its {name} is {shown}, which is no number; mend it, or see keys: for another name")
    numbers = raw.astype(float)
    if numbers.size and np.isfinite(numbers).all() and np.abs(numbers).max() > LARGEST[kind] * atoms:
        raise ValueError(
            f"{where}: its {name} reaches {np.abs(numbers).max():g} {UNITS[kind]}, more than all electrons of "
            "heavy atoms could give: it is in another unit or damaged; mend it or drop the frame"
        )
    wanted = {"energy": (1,), "forces": (3 * atoms,), "stress": (6, 9), "virial": (6, 9)}[kind]
    if numbers.size not in wanted or (kind == "forces" and numbers.shape not in ((atoms, 3), (3,))):
        expected = {"energy": "one number", "forces": "three numbers for each atom"}.get(kind, "six or nine numbers")
        raise ValueError(
            f"{where}: its {name} has the shape {numbers.shape}, where {expected} in {UNITS[kind]} belong; choose "
            f"another name with keys: {{{kind}: NAME}}"
        )
    if not np.isfinite(numbers).all():
        bad = numbers.ravel()[~np.isfinite(numbers).ravel()][0]
        raise ValueError(f"{where}: its {name} is {bad}, which is not finite; label it again or drop the frame")
    if kind == "energy":
        return numbers.reshape(())
    if kind == "forces":
        return numbers.reshape(atoms, 3)
    return numbers.ravel() if numbers.size == 6 else _voigt(numbers.reshape(3, 3), name, kind, where)


def _bracketed(value: Any) -> Any:
    """Numbers in brackets, ``[[1,0,0],[0,1,0],[0,0,1]]``, which ase leaves as text; anything else as it is."""
    if not (isinstance(value, str) and len(value) < LONGEST_TENSOR and BRACKETS.fullmatch(value)):
        return value
    try:
        return np.array(NUMBERS.findall(value), float)
    except ValueError:
        return value


def _voigt(tensor: Values, name: str, kind: str, where: str) -> Values:
    skew = np.abs(tensor - tensor.T).max()
    if skew > TOLERANCES[kind] + 0.02 * np.abs(tensor).max():
        raise ValueError(f"{where}: its {name}, {tensor.ravel().tolist()}, is not symmetric; mend it or leave it out")
    return ((tensor + tensor.T) / 2)[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
