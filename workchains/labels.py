"""Between structures and pw.x: cells from a seed cell, labelled frames from finished calculations, the dataset."""

from __future__ import annotations

from typing import Any

import numpy as np
from aiida import orm
from aiida.engine import calcfunction
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from aiida_difftre.data import elasticity
from aiida_difftre.data.dataset import DatasetData
from aiida_difftre.data.structures import (
    DIMER,
    EQUILIBRIUM,
    GIVEN,
    RATTLED,
    SCALED,
    STRAINED,
    Generation,
    generate,
)
from aiida_difftre.engine.contract.label_names import LabelKeys
from aiida_difftre.engine.units import EV_PER_A3_IN_GPA

ARRAYS = ("energy", "forces", "stress")
"""What makes a label, as aiida-quantumespresso names the arrays."""

GENERATED = (EQUILIBRIUM, RATTLED, STRAINED, SCALED, DIMER)


@calcfunction
def generate_structures(structure: orm.StructureData, generation: orm.Dict) -> dict[str, orm.StructureData]:
    """All cells that are to be labelled, from the seed cell; with ``elastic`` those for the stiffness too."""
    settings = Generation.model_validate(generation.get_dict())
    atoms = structure.get_ase()
    cells = generate(atoms, settings)
    if settings.elastic:
        cells |= elasticity.elastic_cells(atoms, settings.elastic_strain)
    return {name: orm.StructureData(ase=_bare(cell)) for name, cell in cells.items()}


@calcfunction
def collect_labels(**trajectories: orm.TrajectoryData) -> DatasetData:
    """The last frame of each labelling calculation, with energy, forces and stress, as one dataset."""
    frames = [labelled_frame(name, node) for name, node in trajectories.items()]
    return DatasetData.from_ase(frames, keys=LabelKeys(trust_stress=True))


@calcfunction
def static_reference(
    generation: orm.Dict,
    unstrained: orm.TrajectoryData,
    stretched: orm.TrajectoryData,
    compressed: orm.TrajectoryData,
    sheared: orm.TrajectoryData,
) -> orm.Dict:
    """Stress and stiffness of the cubic seed cell without temperature, as labelled."""
    frames = {
        elasticity.UNSTRAINED: labelled_frame(elasticity.UNSTRAINED, unstrained),
        elasticity.STRETCHED: labelled_frame(elasticity.STRETCHED, stretched),
        elasticity.COMPRESSED: labelled_frame(elasticity.COMPRESSED, compressed),
        elasticity.SHEARED: labelled_frame(elasticity.SHEARED, sheared),
    }
    strain = Generation.model_validate(generation.get_dict()).elastic_strain
    stresses = {name: frame.get_stress() for name, frame in frames.items()}
    return orm.Dict(elasticity.cubic_reference(frames[elasticity.UNSTRAINED], stresses, strain))


def _bare(atoms: Atoms) -> Atoms:
    return Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=True)


def kind_of(name: str) -> str:
    """The kind of a frame from its name: the part before the first underscore; elastic cells are strained ones."""
    kind = name.split("_")[0]
    return STRAINED if kind == "elastic" else kind if kind in GENERATED else GIVEN


def missing_labels(node: Any) -> list[str]:
    """What a calculation that ended well does not say in finite numbers, such as forces that are too large to print."""
    outputs = node.outputs
    if "output_trajectory" not in outputs:
        return list(ARRAYS)
    trajectory = outputs.output_trajectory
    there = {name for name in ARRAYS if name in trajectory.get_arraynames()}
    return [name for name in ARRAYS if name not in there or not np.isfinite(trajectory.get_array(name)[-1]).all()]


def labelled_frame(name: str, trajectory: orm.TrajectoryData) -> Atoms:
    """The last frame of a pw.x calculation.

    aiida-quantumespresso gives stresses in GPa and in the sign of pw.x, positive in compression; ase's are positive in
    tension.

    Args:
        name: Name of the structure; says its kind.
        trajectory: output of the PwCalculation.

    Returns:
        with energy (eV), forces (eV/Å) and stress (eV/Å³), ``info['source']`` being the UUID of the calculation.
    """
    atoms = Atoms(
        trajectory.symbols,
        positions=trajectory.get_array("positions")[-1],
        cell=trajectory.get_array("cells")[-1],
        pbc=True,
    )
    tensor = -trajectory.get_array("stress")[-1] / EV_PER_A3_IN_GPA
    atoms.calc = SinglePointCalculator(
        atoms,
        energy=float(trajectory.get_array("energy")[-1]),
        forces=trajectory.get_array("forces")[-1],
        stress=tensor[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]],
    )
    creator = trajectory.creator
    atoms.info = {"kind": kind_of(name), "source": creator.uuid if creator is not None else None}
    return atoms
