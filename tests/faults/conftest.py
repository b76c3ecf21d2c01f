"""One refinement without any fault, for the session; runs with faults are compared with it bit by bit."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiida import orm
from aiida.engine import ProcessBuilder, run_get_node

from aiida_difftre.workchains.from_input import read_builder
from aiida_difftre.workchains.refine import RefineWorkChain
from tests.fixtures.chains import explain
from tests.fixtures.nodes import potential_file
from tests.integration.conftest import argon_content

Fingerprint = dict[str, str]


def fingerprint(run: orm.ProcessNode) -> Fingerprint:
    """Digests of what a refinement found: each trajectory, each potential, and what was published."""
    found = {}
    for chain in run.called:
        (link,) = chain.base.links.get_incoming(node_class=orm.WorkChainNode).all_link_labels()
        if "trajectory" in chain.outputs:
            arrays = chain.outputs.trajectory
            found[link] = _digest({name: arrays.get_array(name) for name in arrays.get_arraynames()})
        if "potential" in chain.outputs:
            found[link] = chain.outputs.potential.digest
    found["published"] = run.outputs.potential.digest
    return found


def _digest(arrays: Mapping[str, Any]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(name.encode() + arrays[name].tobytes())
    return digest.hexdigest()


@pytest.fixture
def refinement(tmp_path: Path, engine: orm.InstalledCode) -> Callable[..., ProcessBuilder]:
    """A function (text of the submit scripts, before and after the engine) -> a refinement of one iteration."""

    def build(prepend: str = "", append: str = "") -> ProcessBuilder:
        potential_file(tmp_path / "argon.safetensors")
        # The cache that all sessions of tests share: most of what such a run computes is the programs.
        variables = {"DIFFTRE_CACHE": os.environ["DIFFTRE_CACHE"]}
        options = {"max_wallclock_seconds": 600, "environment_variables": variables, "prepend_text": prepend}
        options["append_text"] = append
        content = argon_content(engine.full_label, options)
        content["refinement"]["settings"]["max_iterations"] = 1
        path = tmp_path / "argon.yaml"
        path.write_text(yaml.safe_dump(content))
        return read_builder(path, RefineWorkChain)

    return build


_undisturbed: Fingerprint = {}


@pytest.fixture
def undisturbed(refinement: Any) -> Fingerprint:
    """What the refinement finds where nothing happens to it; computed once."""
    if not _undisturbed:
        _, node = run_get_node(refinement())
        assert node.is_finished_ok, explain(node)
        _undisturbed.update(fingerprint(node))
    return _undisturbed
