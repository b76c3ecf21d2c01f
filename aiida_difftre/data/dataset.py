"""Configurations with energies, forces and stresses as a node: one extended-XYZ file and the source of each label."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ase.io
from aiida import orm
from aiida.common import exceptions
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from aiida_difftre.data import display
from aiida_difftre.data.structures import DIMER, EQUILIBRIUM, GIVEN, RATTLED, SCALED, STRAINED
from aiida_difftre.engine.contract.jobs import DATASET
from aiida_difftre.engine.contract.label_names import LabelKeys
from aiida_difftre.engine.contract.labels import ISOLATED, Labelled, labelled, read_labelled, require

KINDS = (EQUILIBRIUM, RATTLED, STRAINED, SCALED, DIMER, GIVEN, ISOLATED)
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class DatasetData(orm.SinglefileData):
    """Configurations as a node, labelled with energy (eV), forces (eV/Å) and stress (eV/Å³), or not yet labelled.

    Attributes to query: ``number_of_configurations``, ``species``, ``labelled``, ``has_forces``, ``has_stress``,
    ``references`` (energies of single atoms in free space, eV, by species), ``origins`` (under which names the labels
    were found, with the number of frames), ``sources`` (for each configuration the UUID of the calculation that
    labelled it, or None), ``kinds`` (number of configurations of each kind: equilibrium, rattled, strained, scaled,
    dimer, given, isolated).

    Example:
        >>> import numpy as np
        >>> from ase import Atoms
        >>> from ase.calculators.singlepoint import SinglePointCalculator
        >>> from aiida_difftre.data.dataset import DatasetData
        >>> dimer = Atoms("Ar2", positions=[[0, 0, 0], [3.8, 0, 0]])
        >>> dimer.calc = SinglePointCalculator(dimer, energy=-0.01, forces=np.zeros((2, 3)))
        >>> node = DatasetData.from_ase([dimer], label="argon")
        >>> len(node), node.species, node.labelled
        (1, ['Ar'], True)
    """

    DEFAULT_FILENAME = DATASET

    @classmethod
    def from_ase(cls, frames: Sequence[Atoms], *, keys: LabelKeys | None = None, **kwargs: Any) -> DatasetData:
        """Make an (unstored) node from ase structures.

        Args:
            frames: Structures with energy (eV), forces (eV/Å) and, optionally, stress (eV/Å³) or virial (eV) in a
                calculator, ``info`` or arrays, or without any labels; ``info["source"]`` may be the UUID of the
                labelling calculation and ``info["kind"]`` one of equilibrium, rattled, strained, scaled, dimer, given
                (the default).
            keys: Names of the labels, where these are not the usual ones; else None.
            **kwargs: Label, description and the like.

        Returns:
            The node.

        Raises:
            ValueError: With the frame and what is wrong with it.
        """
        return cls._from_labelled(labelled(frames, keys), keys or LabelKeys(), **kwargs)

    @classmethod
    def from_file(cls, path: str | Path, *, keys: LabelKeys | None = None, **kwargs: Any) -> DatasetData:
        """Make an (unstored) node from a file that ase reads, such as extended XYZ.

        Args:
            path: The file, with an index of the frames behind its name (``md.extxyz@::5``), or without: then all of
                them.
            keys: Names of the labels, where these are not the usual ones; else None.
            **kwargs: Label, description and the like.

        Returns:
            The node.

        Raises:
            ValueError: With the file, and what is wrong with it.
        """
        try:
            return cls._from_labelled(read_labelled(Path(path), keys), keys or LabelKeys(), **kwargs)
        except ValueError as error:
            raise ValueError(f"cannot use {str(path)!r} as a dataset: {error}") from None

    @classmethod
    def _from_labelled(cls, found: Labelled, keys: LabelKeys, **kwargs: Any) -> DatasetData:
        if not found.frames:
            raise ValueError("a dataset needs at least one configuration, got none")
        has_labels = any(atoms.calc is not None and "energy" in atoms.calc.results for atoms in found.frames)
        if has_labels or found.origins:
            require(found, keys)
        cleaned = [_clean(atoms) for atoms in found.frames]
        crowded = [atoms for atoms, alone in zip(cleaned, found.alone, strict=True) if not alone]
        text = io.StringIO()
        ase.io.write(text, cleaned, format="extxyz")
        kwargs.setdefault("description", found.describe())
        node = cls(io.BytesIO(text.getvalue().encode()), DATASET, **kwargs)
        node.base.attributes.set_many(
            {
                "number_of_configurations": len(cleaned),
                "species": sorted({symbol for atoms in cleaned for symbol in atoms.get_chemical_symbols()}),
                "labelled": has_labels,
                "has_forces": _all_have("forces", crowded),
                "has_stress": _all_have("stress", crowded),
                "references": found.references(),
                "origins": found.origins,
                "sources": [atoms.info.get("source") for atoms in cleaned],
                "kinds": dict(Counter(atoms.info["kind"] for atoms in cleaned)),
            }
        )
        return node

    def get_ase(self) -> list[Atoms]:
        """Read the configurations.

        Returns:
            Structures of ase, with labels in their calculators, source and kind in ``info``.
        """
        frames = ase.io.read(io.StringIO(self.get_content(mode="r")), index=":", format="extxyz")
        return frames if isinstance(frames, list) else [frames]

    @property
    def species(self) -> list[str]:
        """Chemical symbols in the dataset, sorted."""
        return list(self.base.attributes.get("species"))

    @property
    def labelled(self) -> bool:
        """Whether every configuration carries an energy and, unless going without was allowed, forces."""
        return self.base.attributes.get("labelled")

    @property
    def references(self) -> dict[str, float]:
        """Reference energies (eV) by species, of single atoms in free space."""
        return dict(self.base.attributes.get("references", {}))

    @property
    def job_keys(self) -> dict[str, Any]:
        """The ``keys`` of a job that reads this dataset, whose labels have ase's names and were checked."""
        return {"missing_forces": not self.base.attributes.get("has_forces", True), "trust_stress": True}

    def get_description(self) -> str:
        """Say what it is in one line, as lists of nodes show it.

        Returns:
            Species, number of configurations, and what is labelled.
        """
        known = self.base.attributes.all
        labels = ", ".join(["energies", *(name for name in ("forces", "stress") if known.get(f"has_{name}"))])
        return (
            f"{'-'.join(known.get('species', []))}, {counted(len(self), 'configuration')}, "
            f"{labels if known.get('labelled') else 'no labels'}"
        )

    def __len__(self) -> int:
        return self.base.attributes.get("number_of_configurations")

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        known = self.base.attributes.all
        labels = ("labelled", "energies"), ("has_forces", "forces"), ("has_stress", "stresses")
        kinds = ", ".join(f"{number} {kind}" for kind, number in known.get("kinds", {}).items())
        alone = ", ".join(f"{species} {energy:.6g} eV" for species, energy in known.get("references", {}).items())
        rows = [
            ("configurations", known.get("number_of_configurations")),
            ("of which", kinds or None),
            ("species", ", ".join(known.get("species", []))),
            ("labels", ", ".join(name for key, name in labels if known.get(key)) or "none"),
            ("atoms alone", alone or None),
            ("", self.description or None),
        ]
        return display.table(self, "dataset", rows)

    def _validate(self) -> bool:
        super()._validate()
        if "number_of_configurations" not in self.base.attributes:
            raise exceptions.ValidationError(
                "a DatasetData is made from structures: DatasetData.from_ase(frames) or DatasetData.from_file(path)"
            )
        return True


def _clean(atoms: Atoms) -> Atoms:
    """A copy with what belongs into a dataset and nothing else.

    What other programs mean by ``kind`` and ``source`` is left out.
    """
    kind, source = atoms.info.get("kind"), str(atoms.info.get("source"))
    clean = Atoms(atoms.numbers, cell=atoms.cell, positions=atoms.positions, pbc=atoms.pbc)
    clean.info["kind"] = kind if isinstance(kind, str) and kind in KINDS else GIVEN
    if UUID.fullmatch(source):
        clean.info["source"] = source
    if atoms.calc is not None:
        clean.calc = SinglePointCalculator(clean, **atoms.calc.results)
    return clean


def counted(number: int, what: str) -> str:
    """A number with what it counts, in the plural but for one."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _all_have(label: str, frames: Sequence[Atoms]) -> bool:
    return all(atoms.calc is not None and label in atoms.calc.results for atoms in frames)
