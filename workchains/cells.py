"""The cells that the input of a run describes: to label, of its state points, and of its stages."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiida_difftre.engine.geometry.lattice import strained
from aiida_difftre.workchains.input_models import Dft, Refinement, RunInput, Stage
from aiida_difftre.workchains.paths import beside
from aiida_difftre.workchains.protocols import deep_merge
from aiida_difftre.workchains.systems import (
    read_structure,
    read_structures,
    repeated,
    with_density,
    with_masses,
)

if TYPE_CHECKING:
    from ase import Atoms


def system_cell(run: RunInput, folder: Path) -> Atoms:
    """The cell of ``system``; ``folder`` is that of the YAML."""
    return run.system.atoms(folder)


def labelled_cell(run: RunInput, folder: Path) -> Atoms:
    """The seed cell of the labels."""
    dft = run.dft or Dft()
    return repeated((dft.system or run.system).atoms(folder), dft.repeat)


def labelled_files(run: RunInput, folder: Path) -> list[Atoms]:
    """The further structures to label."""
    return [atoms for path in (run.dft or Dft()).structures for atoms in read_structures(beside(folder, path))]


def elements_to_label(run: RunInput, folder: Path) -> list[str]:
    """The elements that need a pseudopotential, sorted; none where labels or a potential exist.

    Raises:
        ValueError: for a structure that cannot be read.
    """
    if run.dft is None or run.dft.dataset is not None or run.model.potential is not None:
        return []
    cells = [labelled_cell(run, folder), *labelled_files(run, folder)]
    return sorted({symbol for cell in cells for symbol in cell.get_chemical_symbols()})


def of_stage(run: RunInput, stage: Stage) -> RunInput:
    """The run with the cells, the targets and the settings of one of its stages."""
    points = dict(run.state_points)
    for label, point in stage.state_points.items():
        merged = {**points[label].targets, **point.targets}
        changes: dict[str, Any] = {"targets": {name: one for name, one in merged.items() if one is not None}}
        if point.structure is not None:
            changes["structure"] = point.structure
        if point.repeat is not None:
            changes |= {"structure": None, "repeat": point.repeat}
        points[label] = points[label].model_copy(update=changes)
    refinement = Refinement(
        settings=deep_merge(run.refinement.settings, stage.settings),
        update=deep_merge(run.refinement.update, stage.update),
    )
    sampling = deep_merge(run.sampling, stage.sampling)
    return run.model_copy(update={"state_points": points, "refinement": refinement, "sampling": sampling})


def simulation_cell(run: RunInput, label: str, folder: Path) -> Atoms:
    """The simulation cell of a state point."""
    point = run.state_points[label]
    if point.structure is not None:
        atoms = with_masses(read_structure(beside(folder, point.structure)), run.system.masses)
    else:
        atoms = repeated(system_cell(run, folder), point.repeat)
    if point.density is not None:
        atoms = with_density(atoms, point.density)
    if point.strain is not None:
        atoms.set_cell(strained(atoms.cell.array, point.strain), scale_atoms=True)
    return atoms
