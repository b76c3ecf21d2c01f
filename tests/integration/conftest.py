"""A run of seconds with everything real: Lennard-Jones argon, the engine's console script, an input file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiida import orm
from aiida.engine import run_get_node
from aiida.manage import get_manager
from click.testing import CliRunner, Result

from aiida_difftre.workchains.from_input import read_builder
from aiida_difftre.workchains.refine import RefineWorkChain
from tests.fixtures.chains import SHORT_SAMPLING, explain
from tests.fixtures.nodes import potential_file, target_content

ITERATIONS = 2


def argon_content(code: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """An input: 32 argon atoms at 85 K, whose pressure is to fall by a little, in two iterations of a few steps."""
    machine = {"code": code, "options": dict(options)}
    engine = {**machine, "engine": {"threads": 1}}
    return {
        "label": "argon",
        "seed": 3,
        "system": {"bulk": {"element": "Ar", "structure": "fcc", "lattice_constant": 5.4}},
        "model": {"potential": "argon.safetensors"},
        "state_points": {
            "solid": {
                "temperature": 85.0,
                "repeat": [2, 2, 2],
                "targets": {
                    "pressure": target_content(values=[-0.3], errors=[0.01]),
                    "energy": target_content(
                        observable="potential_energy", unit="eV/atom", values=[-0.07], errors=[0.1], weight=0.1
                    ),
                },
            }
        },
        "sampling": dict(SHORT_SAMPLING),
        "refinement": {
            "settings": {
                "max_iterations": ITERATIONS, "chi2_stop": 0.0, "patience": 9, "growth": {"thresholds": []},
                "continued_equilibration_fs": 50.0,
            },
            "update": {"max_steps": 2, "gate": 0.2, "chi2_stop": 0.0, "bootstrap": 20},
        },
        "validation": {
            "sampling": dict(SHORT_SAMPLING),
            "settings": {"static_stiffness": False, "verdict": False},
        },
        "machines": {"pretraining": engine, "sampling": engine, "update": engine, "prediction": engine, "dft": machine},
    }  # fmt: skip


@pytest.fixture
def argon_input(
    tmp_path: Path, engine: orm.InstalledCode, job_options: dict[str, Any]
) -> Callable[[Callable[[dict[str, Any]], Any]], Path]:
    """A function (change of the content in place) -> path of the input, with the files that it names beside it."""

    def write(change: Callable[[dict[str, Any]], Any] = lambda _: None) -> Path:
        potential_file(tmp_path / "argon.safetensors")
        content = argon_content(engine.full_label, job_options)
        change(content)
        path = tmp_path / "argon.yaml"
        path.write_text(yaml.safe_dump(content))
        return path

    return write


@pytest.fixture
def cli() -> Callable[..., Result]:
    """A function (arguments) -> what ``aiida-difftre`` answers in the profile of the tests."""
    from aiida_difftre.cli import cli

    def invoke(*arguments: Any) -> Result:
        profile = get_manager().get_profile()
        assert profile is not None
        return CliRunner().invoke(cli, ["-p", profile.name, *map(str, arguments)])

    return invoke


_refined: dict[str, str] = {}


@pytest.fixture
def refined(argon_input: Any) -> orm.WorkChainNode:
    """A finished refinement; made once, and again where another test has emptied the profile since."""
    found = orm.QueryBuilder().append(orm.WorkChainNode, filters={"uuid": _refined.get("uuid", "")}).first(flat=True)
    if found is not None:
        return found
    _, node = run_get_node(read_builder(argon_input(), RefineWorkChain))
    assert node.is_finished_ok, explain(node)
    _refined["uuid"] = node.uuid
    return node
