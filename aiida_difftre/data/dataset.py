"""Configurations with energies, forces and stresses as a node: one extended-XYZ file and the source of each label."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from aiida import orm
from aiida.common import exceptions
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from aiida_difftre.engine.contract.jobs import DATASET

KINDS = ("equilibrium", "rattled", "strained", "scaled", "dimer", "given")
LABELS = ("energy", "forces", "stress")


class DatasetData(orm.SinglefileData):
    """Configurations, labelled (energy in eV, forces in eV/Å, stress in eV/Å³) or not yet labelled.

    Attributes to query: ``number_of_configurations``, ``species``, ``labelled``, ``has_stress``, ``sources`` (for each
    configuration the UUID of the calculation that labelled it, or None), ``kinds`` (number of configurations of each
    kind: equilibrium, rattled, strained, scaled, dimer, given).
    """

    DEFAULT_FILENAME = DATASET

    @classmethod
    def from_ase(cls, frames: Sequence[Atoms], **kwargs: Any) -> DatasetData:
        """Make an (unstored) node from ase structures.

        Args:
            frames: with a calculator that holds energy (eV), forces (eV/Å) and, optionally, stress (eV/Å³, Voigt order
                of ase), or without any; ``info["source"]`` is the UUID of the labelling calculation and
                ``info["kind"]`` one of equilibrium, rattled, strained, scaled, dimer, given (the default).
            **kwargs: label, description and the like.

        Raises:
            ValueError: naming the frame and what is wrong with it.
        """
        cleaned = [_clean(index, atoms) for index, atoms in enumerate(frames)]
        if not cleaned:
            raise ValueError("a dataset needs at least one configuration, got none")
        labelled = {atoms.calc is not None for atoms in cleaned}
        if len(labelled) == 2:
            without = [index for index, atoms in enumerate(cleaned) if atoms.calc is None]
            raise ValueError(f"configurations {without} carry no energy and forces, but others do; label or drop them")
        stressed = {atoms.calc is not None and "stress" in atoms.calc.results for atoms in cleaned}
        text = io.StringIO()
        ase.io.write(text, cleaned, format="extxyz")
        node = cls(io.BytesIO(text.getvalue().encode()), DATASET, **kwargs)
        node.base.attributes.set_many(
            {
                "number_of_configurations": len(cleaned),
                "species": sorted({symbol for atoms in cleaned for symbol in atoms.get_chemical_symbols()}),
                "labelled": labelled == {True},
                "has_stress": stressed == {True},
                "sources": [atoms.info.get("source") for atoms in cleaned],
                "kinds": dict(Counter(atoms.info["kind"] for atoms in cleaned)),
            }
        )
        return node

    @classmethod
    def from_file(cls, path: str | Path, **kwargs: Any) -> DatasetData:
        """Make an (unstored) node from a file that ase reads, such as extended XYZ.

        Raises:
            ValueError: naming the file, and what is wrong with it.
        """
        try:
            frames = ase.io.read(path, index=":")
            return cls.from_ase(frames if isinstance(frames, list) else [frames], **kwargs)
        except Exception as error:  # ase's many readers raise whatever they meet
            raise ValueError(f"cannot use {str(path)!r} as a dataset: {error}") from None

    def get_ase(self) -> list[Atoms]:
        """The configurations, labels in their calculators, source and kind in ``info``."""
        frames = ase.io.read(io.StringIO(self.get_content(mode="r")), index=":", format="extxyz")
        return frames if isinstance(frames, list) else [frames]

    @property
    def species(self) -> list[str]:
        """Chemical symbols in the dataset, sorted."""
        return list(self.base.attributes.get("species"))

    @property
    def labelled(self) -> bool:
        """Whether every configuration carries energy and forces."""
        return self.base.attributes.get("labelled")

    def __len__(self) -> int:
        return self.base.attributes.get("number_of_configurations")

    def _validate(self) -> bool:
        super()._validate()
        if "number_of_configurations" not in self.base.attributes:
            raise exceptions.ValidationError(
                "a DatasetData is made from structures: DatasetData.from_ase(frames) or DatasetData.from_file(path)"
            )
        return True


def _clean(index: int, atoms: Atoms) -> Atoms:
    """A copy with what belongs into a dataset and nothing else, checked."""
    kind = atoms.info.get("kind", "given")
    if kind not in KINDS:
        raise ValueError(f"configuration {index} is of kind {kind!r}; known kinds: {', '.join(KINDS)}")
    if not atoms.pbc.all() or abs(atoms.cell.volume) < 1e-6:
        raise ValueError(
            f"configuration {index} has pbc {atoms.pbc.tolist()} and volume {atoms.cell.volume:g} Å³; a cell that is "
            "periodic in three directions is needed (put a molecule into a large box)"
        )
    clean = Atoms(atoms.numbers, cell=atoms.cell, positions=atoms.positions, pbc=True, info={"kind": kind})
    source = atoms.info.get("source")
    if source is not None:
        clean.info["source"] = str(source)
    if not np.isfinite(clean.positions).all():
        raise ValueError(f"configuration {index} has positions that are not finite")
    results = {} if atoms.calc is None else {name: atoms.calc.results.get(name) for name in LABELS}
    labels = {name: value for name, value in results.items() if value is not None}
    if "energy" in labels and "forces" in labels:
        for name, value in labels.items():
            if not np.isfinite(value).all():
                raise ValueError(f"configuration {index}: its {name} is not finite; label it again or drop it")
        clean.calc = SinglePointCalculator(clean, **labels)
    return clean
