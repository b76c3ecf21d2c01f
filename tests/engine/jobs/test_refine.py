"""Refinements of the engine by ``difftre refine``: trajectories that cannot tell what is asked of them."""

from __future__ import annotations

from pathlib import Path

import ase.io
import pytest

from aiida_difftre.engine.contract.jobs import POTENTIAL_IN, STRUCTURE, RefineJob
from aiida_difftre.engine.contract.validation import validate
from aiida_difftre.engine.errors import EngineError, ExitStatus
from aiida_difftre.engine.jobs import refine
from aiida_difftre.engine.potentials import potential as potentials
from aiida_difftre.engine.runtime.progress import Silent
from tests.fixtures.engine import argon, lennard_jones


def test_a_prediction_that_is_no_number_ends_a_refinement_by_its_name(tmp_path: Path) -> None:
    """Neither a target nor the choice of the best sees it: the heat capacity of one snapshot, which does not vary."""
    potentials.save(tmp_path / POTENTIAL_IN, *lennard_jones())
    ase.io.write(tmp_path / STRUCTURE, argon(1))
    target = {
        "observable": "heat_capacity", "options": {"kind": "cv"}, "values": [25.0], "errors": [1.0],
        "unit": "J/mol/K", "conditions": {"temperature": 40.0}, "citation": "a test", "label": "C_V",
    }  # fmt: skip
    content = {
        "state_points": [{"label": "cold", "temperature": 40.0, "targets": [target]}], "max_iterations": 1, "seed": 1,
        "sampling": {"walkers": 1, "timestep_fs": 4.0, "equilibration_fs": 0.0, "production_fs": 8.0, "stride_fs": 8.0},
    }  # fmt: skip
    message = r"prediction 'C_V' is not finite: \[nan\] ± \[nan\]; sample more snapshots"
    with pytest.raises(EngineError, match=message) as raised:
        refine.run(validate(RefineJob, content), tmp_path, Silent())
    assert raised.value.status is ExitStatus.NOT_FINITE
