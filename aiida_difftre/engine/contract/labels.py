"""Labelled configurations: which labels count, which frames are atoms alone, what is missing. Free of JAX.

It is the one rule of all that read training data. Energies are in eV, forces in eV/Å, stresses in eV/Å³ (positive in
tension); a virial in eV becomes -virial/V.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aiida_difftre.engine.contract.frames import RENAMED, check_places, read_frames
from aiida_difftre.engine.contract.label_checks import check_stresses
from aiida_difftre.engine.contract.label_names import KINDS, NONE, LabelKeys, agree, choose, similar_names

if TYPE_CHECKING:
    from ase import Atoms

WORDS = {"energy": "energies", "forces": "forces", "stress": "stresses", "virial": "stresses (-virial/V)"}

MARKING_KEYS = {"configtype", "configname", "kind", "name", "tag", "type"}
SINGLE_ATOM_MARKS = {"isolatedatom", "isolated", "singleatom", "freeatom", "atom"}
"""By which files mark an atom alone, such as ``config_type=IsolatedAtom``; without case and punctuation."""

ISOLATED = "isolated"
"""The mark that this package writes, as ``kind``."""

VACUUM = 8.0
"""Å. A single atom as far from its images is an atom in free space: no crystal has its nearest neighbours there."""

SAME_ENERGY = 1e-3
"""eV, within which reference energies of one species agree."""


@dataclass(frozen=True)
class Labelled:
    """Configurations with their labels in calculators of ase, under ase's names and in its units.

    Args:
        frames: copies; an atom alone has neither cell nor periodicity, and an energy as its only label.
        alone: (frames,), True for an atom alone whose energy is known.
        origins: names under which labels of each kind were found, with the number of frames.
        places: how messages name each frame.
        unused_stresses: number of frames whose stress does not count, since they are not periodic in three directions.
    """

    frames: list[Atoms]
    alone: NDArray[np.bool_]
    origins: dict[str, dict[str, int]]
    places: list[str]
    unused_stresses: int = 0

    def describe(self) -> str:
        """Where the labels come from, in one line; empty where there are none."""
        parts = [
            f"{WORDS[kind]} from {name}" + ("" if count == len(self.frames) else f" in {count} frames")
            for kind, names in self.origins.items()
            for name, count in names.items()
        ]
        if self.unused_stresses:
            parts.append(f"no stresses of {self.unused_stresses} frames, which are not periodic in three directions")
        if references := self.references():
            parts.append(f"reference energies of {', '.join(sorted(references))} from atoms alone")
        return "; ".join(parts)

    def references(self) -> dict[str, float]:
        """Reference energies (eV) by species, from atoms alone.

        Raises:
            ValueError: for atoms of one species whose energies differ.
        """
        found: dict[str, tuple[float, str]] = {}
        for index in np.flatnonzero(self.alone):
            atoms, where = self.frames[index], self.places[index]
            energy, symbol = float(atoms.calc.results["energy"]), atoms.get_chemical_symbols()[0]
            first, other = found.setdefault(symbol, (energy, where))
            if abs(first - energy) > SAME_ENERGY:
                raise ValueError(
                    f"{other} and {where} are both an atom of {symbol} alone, with {first:.10g} and {energy:.10g} eV; "
                    "keep the one that is the reference energy"
                )
        return {symbol: energy for symbol, (energy, _) in found.items()}

    def species(self) -> list[str]:
        """Chemical symbols of all frames, sorted."""
        return sorted({symbol for atoms in self.frames for symbol in atoms.get_chemical_symbols()})


def read_labelled(path: Path, keys: LabelKeys | None = None, *, kind: str | None = None) -> Labelled:
    """Read configurations, with labels as far as they have some.

    Args:
        path: A file that ase reads, with an index of the frames or without (then all of them).
        keys: where labels have other names than the usual ones.
        kind: name of ase's format; by default that of the file's name or content.

    Returns:
        The configurations.

    Raises:
        ValueError: naming file, frame and value, and the remedy.
    """
    return labelled(read_frames(path, kind=kind), keys, path.name)


def labelled(frames: Sequence[Atoms], keys: LabelKeys | None = None, name: str = "") -> Labelled:
    """Configurations with the labels that count.

    Args:
        frames: Structures with labels in calculators, ``info`` or arrays of ase.
        keys: where labels have other names than the usual ones.
        name: Name of the file, for messages.

    Returns:
        The configurations, copies.

    Raises:
        ValueError: naming frame and value, and the remedy.
    """
    keys = keys or LabelKeys()
    places = [
        f"frame {atoms.info.get('frame', index)} of {name}" if name else f"configuration {index}"
        for index, atoms in enumerate(frames)
    ]
    alone = np.array([is_alone(atoms, where) for atoms, where in zip(frames, places, strict=True)], bool)
    for atoms, where in zip(frames, places, strict=True):
        check_places(atoms, where)
    chosen = {kind: choose(kind, keys, frames, places, alone) for kind in KINDS}
    alone &= np.array([choice is not None for choice in chosen["energy"]], bool)
    origins: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
    made, unused = [], 0
    for index, atoms in enumerate(frames):
        choices = {kind: choice for kind in KINDS if (choice := chosen[kind][index]) is not None}
        strained = {"stress", "virial"} & choices.keys()
        if alone[index] or not atoms.pbc.all():
            unused += bool(strained) and not alone[index]
            choices = {kind: choice for kind, choice in choices.items() if kind not in strained}
        if alone[index]:
            choices.pop("forces", None)
        _convert_virial(choices, atoms, keys, places[index])
        for kind, (label, _) in choices.items():
            origins[kind][label] += 1
        labels = {"stress" if kind == "virial" else kind: value for kind, (_, value) in choices.items()}
        made.append(_with_labels(atoms, labels, alone=bool(alone[index])))
    found = Labelled(made, alone, {kind: dict(names) for kind, names in origins.items() if names}, places, unused)
    found.references()
    if not keys.trust_stress:
        check_stresses(made, places)
    return found


def _convert_virial(choices: dict[str, Any], atoms: Atoms, keys: LabelKeys, where: str) -> None:
    """Turn a virial into the stress of its frame, in place; one beside a stress must say the same."""
    if "virial" not in choices:
        return
    name, virial = choices.pop("virial")
    stress = -virial / atoms.get_volume()
    if "stress" not in choices:
        choices["virial"] = (name, stress)
    elif keys.chosen("virial") is None:
        agree("stress", choices["stress"], (name, stress), len(atoms), where)


def _with_labels(atoms: Atoms, labels: dict[str, Any], *, alone: bool) -> Atoms:
    from ase.calculators.singlepoint import SinglePointCalculator  # late, with SciPy behind it

    copy = atoms.copy()
    copy.info = {key: value for key, value in copy.info.items() if not str(key).startswith(RENAMED)}
    if alone:
        copy.set_cell(None)
        copy.pbc = False
        copy.info["kind"] = ISOLATED
    labels = {kind: float(value) if kind == "energy" else value for kind, value in labels.items()}
    copy.calc = SinglePointCalculator(copy, **labels) if labels else None
    return copy


def require(found: Labelled, keys: LabelKeys | None = None) -> None:
    """Refuse configurations that lack an energy, or forces where going without is not explicitly allowed.

    Raises:
        ValueError: naming the frame, what it has instead, and the remedy.
    """
    keys = keys or LabelKeys()
    if found.alone.all():
        raise ValueError("all frames are atoms alone; interactions are learnt from frames of several atoms")
    without_forces = keys.missing_forces or keys.forces == NONE
    for kind, word, remedy in (
        ("energy", "energy", "label or drop it, or name the energy: keys: {energy: NAME}"),
        ("forces", "forces", "name them, keys: {forces: NAME}, or allow it, keys: {missing_forces: true}"),
    ):
        lacking = [
            index
            for index, atoms in enumerate(found.frames)
            if (atoms.calc is None or kind not in atoms.calc.results) and (kind == "energy" or not found.alone[index])
        ]
        if not lacking or (kind == "forces" and without_forces):
            continue
        there = similar_names(found.frames[lacking[0]], kind)
        has = f" under a name that is known (it has {', '.join(there)})" if there else ""
        more = f", nor have {len(lacking) - 1} others" if len(lacking) > 1 else ""
        raise ValueError(f"{found.places[lacking[0]]} has no {word}{has}{more}; {remedy}")


def is_alone(atoms: Atoms, where: str) -> bool:
    """Whether a frame is a single atom in free space, whose energy is a reference energy.

    It is one without periodicity, one whose images are :data:`VACUUM` away, or one that is marked so.

    Args:
        atoms: the frame.
        where: how messages name it.

    Returns:
        Whether it is one.

    Raises:
        ValueError: for such a mark at a frame of several atoms.
    """
    marks = {
        _plain(value) for key, value in atoms.info.items() if isinstance(value, str) and _plain(key) in MARKING_KEYS
    }
    if len(atoms) > 1:
        if "isolatedatom" in marks:
            raise ValueError(f"{where} is marked as an isolated atom, but has {len(atoms)} atoms; mend the mark")
        return False
    if marks & SINGLE_ATOM_MARKS or not atoms.pbc.any():
        return True
    steps = [np.array([-1, 0, 1]) if periodic else np.array([0]) for periodic in atoms.pbc]
    shifts = np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1).reshape(-1, 3)
    distances = np.linalg.norm(shifts[shifts.any(axis=1)] @ np.asarray(atoms.cell), axis=1)
    return bool(distances.min() >= VACUUM)


def _plain(text: str) -> str:
    return "".join(re.findall("[a-z]+", text.lower()))


def known_references(
    given: Mapping[str, float] | None,
    species: Sequence[str],
    there: Sequence[str],
    alone: Mapping[str, float],
    *,
    has_base: bool = False,
) -> dict[str, float]:
    """Atomic reference energies (eV) by species that need no fit: those that are given, and those of atoms alone.

    Args:
        given: Reference energies by species; None where none is given.
        species: Species of the potential.
        there: species of the dataset.
        alone: energies of single atoms in the dataset, by species.
        has_base: True where they are of the whole, and those that are given without a base: they are not compared.

    Returns:
        Reference energies by species, eV.

    Raises:
        ValueError: for energies that are given for a part of the dataset's species, or otherwise than an atom alone
            says. Those of species that are in no configuration may be given by themselves.
    """
    given = given or {}
    missing = sorted(set(there) - set(given) - set(alone))
    if missing and set(given) - (set(species) - set(there)):
        raise ValueError(
            f"atomic_energies = {dict(given)!r} gives no reference energy for {', '.join(missing)}, which the dataset "
            "contains; add it, or leave atomic_energies out to fit all of them"
        )
    for symbol, energy in alone.items():
        if not has_base and abs(given.get(symbol, energy) - energy) > SAME_ENERGY:
            raise ValueError(
                f"atomic_energies gives {given[symbol]:.10g} eV for {symbol}, whose atom alone in the dataset has "
                f"{energy:.10g} eV; leave one of them out"
            )
    return {**alone, **given}


def check_seen(species: Sequence[str], there: Sequence[str], known: Mapping[str, float]) -> None:
    """Refuse species of a new potential that nothing tells about, not even a reference energy.

    Args:
        species: Species of the potential.
        there: species of the dataset.
        known: reference energies by species.

    Raises:
        ValueError: naming the species.
    """
    if unseen := sorted(set(species) - set(there) - set(known)):
        raise ValueError(
            f"species {', '.join(unseen)} of the potential is in no configuration of the dataset; label some with it, "
            "give its reference energy in atomic_energies, or leave it out of species"
        )
