"""A refinement that matches labels on top of a base that is called: what it gives for them is computed once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiida import orm
from aiida.engine import run_get_node
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from aiida_difftre.data.base import BasePotentialData
from aiida_difftre.data.dataset import DatasetData
from aiida_difftre.data.potential import PotentialData
from aiida_difftre.data.target import TargetData
from aiida_difftre.engine.contract.files import write_potential
from aiida_difftre.engine.contract.settings import PotentialSpec
from aiida_difftre.engine.contract.validation import validate
from aiida_difftre.workchains import base_labels
from aiida_difftre.workchains.refine import RefineWorkChain
from tests.fixtures.chains import explain
from tests.fixtures.nodes import target_content

SAMPLING = {"walkers": 2, "timestep_fs": 4.0, "equilibration_fs": 40.0, "production_fs": 400.0, "stride_fs": 40.0}
MACHINE = {"threads": 1}


def labels(scale: float = 1.2) -> DatasetData:
    """Copper with energies and forces that are those of EMT times a factor."""
    frames = []
    for seed in range(3):
        atoms = bulk("Cu", "fcc", 3.6, cubic=True)
        atoms.rattle(0.1, seed=seed)
        atoms.calc = EMT()
        of_emt = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces(), "stress": atoms.get_stress()}
        atoms.calc = SinglePointCalculator(atoms, **{name: scale * value for name, value in of_emt.items()})
        frames.append(atoms)
    return DatasetData.from_ase(frames)


@pytest.fixture
def inputs(aiida_profile: Any, tmp_path: Path) -> dict[str, Any]:
    """A repulsion on top of EMT, and copper with a target."""
    base = BasePotentialData.from_name("emt")
    hyperparameters = {"epsilon": 1e-3, "sigma": 2.3}
    term = {"architecture": "repulsion", "cutoff": 4.0, "hyperparameters": hyperparameters}
    spec = validate(PotentialSpec, {"species": ["Cu"], "terms": [term], "base": base.spec.model_dump()})
    parameters = {"atomic_energies": np.zeros(1)} | {
        f"terms/0_repulsion/{name}": np.array([value]) for name, value in hyperparameters.items()
    }
    write_potential(tmp_path / "correction.safetensors", spec, parameters)
    target = TargetData(target_content(conditions={"temperature": 300.0}, values=[3.0], errors=[0.01]))
    point = {
        "structure": orm.StructureData(ase=bulk("Cu", "fcc", 3.6, cubic=True)),
        "temperature": orm.Float(300.0),
        "targets": {"pressure": target},
    }
    return {
        "potential": PotentialData.from_file(tmp_path / "correction.safetensors"),
        "base": base,
        "dataset": labels(),
        "state_points": {"solid": point},
        "overrides": {
            "settings": {"max_iterations": 1, "growth": {"thresholds": []}, "continued_equilibration_fs": 40.0},
            "sample": {"calc": {"parameters": {"sampling": SAMPLING, "machine": MACHINE}}},
            "update": {
                "calc": {
                    "parameters": {
                        "update": {"loss": {"dataset_weight": 1.0}, "gate": 0.2, "max_steps": 1, "bootstrap": 10},
                        "machine": MACHINE,
                    }
                }
            },
        },
    }


@pytest.mark.slow
def test_the_base_is_evaluated_once_before_anything_is_sampled(
    engine: orm.InstalledCode, inputs: dict[str, Any], job_options: dict[str, Any]
) -> None:
    builder = RefineWorkChain.get_builder_from_protocol(
        sample_code=engine, options={"sample": job_options, "update": job_options}, **inputs
    )
    node = run_get_node(builder)[1]
    assert node.is_finished_ok, explain(node)
    jobs = [child for child in node.called_descendants if isinstance(child, orm.CalcJobNode)]
    (predicted,) = (job for job in jobs if job.process_label == "PredictCalculation")
    (update,) = (job for job in jobs if job.process_label == "UpdateCalculation")
    assert min(jobs, key=lambda job: job.ctime) == predicted
    given = node.outputs.base_labels
    assert given.creator == predicted
    assert predicted.inputs.base.uuid == node.inputs.base.uuid
    assert predicted.inputs.structures.uuid == node.inputs.dataset.uuid
    assert update.inputs.base_labels.uuid == given.uuid
    assert update.outputs.output_parameters["history"][0]["loss_extra"] > 0
    energies = [atoms.get_potential_energy() / 1.2 for atoms in node.inputs.dataset.get_ase()]
    np.testing.assert_allclose(given.get_array("base_energies"), energies, atol=1e-5)

    again = builder._inputs(prune=True)
    assert base_labels.are_missing(again)
    assert not base_labels.are_missing({**again, "base_labels": given})


def test_base_labels_of_something_else_are_refused(code: Any, inputs: dict[str, Any]) -> None:
    def attempt(arrays: dict[str, Any], **changes: Any) -> str:
        node = orm.ArrayData()
        for name, array in arrays.items():
            node.set_array(name, np.asarray(array))
        builder = RefineWorkChain.get_builder_from_protocol(sample_code=code, **{**inputs, **changes})
        builder.base_labels = node
        with pytest.raises(ValueError) as caught:  # noqa: PT011 (the test checks the message)
            run_get_node(builder)
        return str(caught.value)

    arrays = {
        "base_digest": inputs["base"].digest, "base_energies": np.ones(4), "base_forces": np.ones((16, 3)),
        "base_stresses": np.ones((4, 6)), "base_positions": np.ones((16, 3)),
    }  # fmt: skip
    assert "base_labels are of 4 configurations, and the dataset has 3" in attempt(arrays)
    assert "of a base with the digest 0000" in attempt({**arrays, "base_digest": "0" * 64})
    assert "have no base_digest, base_energies, " in attempt({"energies": np.ones(3)})
    no_weight = {**inputs["overrides"], "update": {}}
    assert "there is no dataset" in attempt(arrays, dataset=None, overrides=no_weight)
