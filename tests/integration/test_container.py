"""Jobs in a container: a small container engine makes a root of its own, in which only bound folders are seen.

By hand also with a real engine, and an image that was built by ``packaging/containers/Dockerfile``::

    podman build -f packaging/containers/Dockerfile -t difftre-engine .
    export DIFFTRE_CONTAINERS=podman DIFFTRE_IMAGE=localhost/difftre-engine
    pytest -n 0 -m long tests/integration/test_container.py
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from aiida import orm
from aiida.engine import run_get_node

from aiida_difftre.engine.contract.jobs import JOB
from aiida_difftre.workchains.codes import load_code
from aiida_difftre.workchains.from_input import read_builder
from aiida_difftre.workchains.machines import JobMachine
from aiida_difftre.workchains.refine import RefineWorkChain
from tests.fixtures.chains import explain

ROOT = Path(__file__).parents[2]
PROGRAM = "/opt/difftre/bin/difftre"
"""In the container; there is no such file outside."""

ENGINE = """#!/bin/sh
# exec --bind FOLDER IMAGE PROGRAM...: run a program with an image as root, in which FOLDER of the host is seen too.
set -e
[ "$1" = exec ] && [ "$2" = --bind ] || { echo "usage: exec --bind FOLDER IMAGE PROGRAM..." >&2; exit 2; }
folder=$3 image=$4
shift 4
here=$PWD
export folder image here
exec unshare --mount sh -ec '
    mkdir -p "$image$folder"
    mount --rbind "$folder" "$image$folder"
    while read -r seen; do mkdir -p "$image$seen"; mount --rbind "$seen" "$image$seen"; done < "$image/layers"
    exec chroot "$image" sh -ec "cd \\"$here\\"; exec \\"\\$@\\"" sh "$@"
' sh "$@"
"""


@pytest.fixture
def containers(tmp_path: Path) -> Callable[[], tuple[Path, Path]]:
    """A function () -> program of the engine of containers, and an image with the engine in it."""
    tried = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
    if tried.returncode or not Path("/usr/sbin/chroot").exists():
        pytest.skip("no private mounts and changed roots for this user; a container engine needs them")

    def make() -> tuple[Path, Path]:
        program, image = tmp_path / "container-engine", tmp_path / "image"
        program.write_text(ENGINE)
        program.chmod(0o755)
        (image / "opt").mkdir(parents=True)
        # What a built image holds in layers of its own is bound from this machine.
        (image / "opt" / "difftre").symlink_to(sys.prefix)
        for name in ("bin", "sbin", "lib", "lib64"):
            if Path("/", name).is_symlink():
                (image / name).symlink_to(os.readlink(Path("/", name)))
        layers = ["/usr", "/etc", "/proc", "/dev", "/sys", sys.prefix, sys.base_prefix, str(ROOT)]
        layers += [os.environ["DIFFTRE_CACHE"]]
        seen = [one for one in layers if not any(one != other and one.startswith(f"{other}/") for other in layers)]
        (image / "layers").write_text("".join(f"{one}\n" for one in dict.fromkeys(seen)))
        (image / "tmp").mkdir()
        return program, image

    return make


def containerized(computer: orm.Computer, engine: Path | str, image: Path | str) -> orm.ContainerizedCode:
    return orm.ContainerizedCode(
        label=f"contained-{uuid4().hex[:8]}",
        computer=computer,
        engine_command=f"{engine} exec --bind {computer.get_workdir()} {{image_name}}",
        image_name=str(image),
        filepath_executable=PROGRAM,
        default_calc_job_plugin="difftre.sample",
    ).store()


def test_an_image_that_is_not_there(aiida_localhost: orm.Computer, tmp_path: Path) -> None:
    code = containerized(aiida_localhost, "apptainer", tmp_path / "difftre.sif")
    with pytest.raises(ValueError, match=r"machines\.update: .*difftre\.sif is not on the computer 'localhost'"):
        load_code("update", JobMachine(code=code.full_label))
    (tmp_path / "difftre.sif").touch()
    assert load_code("update", JobMachine(code=code.full_label)).uuid == code.uuid
    named = containerized(aiida_localhost, "apptainer", "docker://registry/difftre-engine")
    assert load_code("update", JobMachine(code=named.full_label)).uuid == named.uuid


def refined_in(code: orm.ContainerizedCode, argon_input: Any, environment: dict[str, str]) -> None:
    """Refine with a code: a sampling job, an update that links to its trajectory, and a sampling job that does, too."""

    def contained(content: dict[str, Any]) -> None:
        content["refinement"]["settings"]["max_iterations"] = 1
        for machine in ("sampling", "update"):
            content["machines"][machine]["code"] = code.full_label
            content["machines"][machine]["options"]["environment_variables"] = environment

    _, node = run_get_node(read_builder(argon_input(contained), RefineWorkChain))
    assert node.is_finished_ok, explain(node)
    jobs = [job for job in node.called_descendants if isinstance(job, orm.CalcJobNode)]
    assert [job.exit_status for job in jobs] == [0, 0, 0]
    digests = [json.loads(job.base.repository.get_object_content(JOB))["digests"] for job in jobs]
    assert sum(bool(one) for one in digests) == 2, "the update and the second sampling link to trajectories"
    assert all(job.inputs.code.uuid == code.uuid for job in jobs)


@pytest.mark.slow
def test_a_refinement_in_containers(argon_input: Any, engine: orm.InstalledCode, containers: Any) -> None:
    program, image = containers()
    refined_in(
        containerized(engine.computer, program, image), argon_input, {"DIFFTRE_CACHE": os.environ["DIFFTRE_CACHE"]}
    )
    assert shutil.which(PROGRAM) is None


@pytest.fixture
def quoting_doubly(engine: orm.InstalledCode, tmp_path: Path) -> orm.Computer:
    """This machine, with the double quotes that let a shell replace variables."""
    computer = orm.Computer(
        label=f"quoting-{uuid4().hex[:8]}", hostname="localhost", transport_type="core.local",
        scheduler_type="core.direct", workdir=str(tmp_path / "scratch"),
    )  # fmt: skip
    computer.set_use_double_quotes(True)
    computer.set_minimum_job_poll_interval(0.0)
    computer.store().configure(safe_interval=0.0)
    return computer


def with_variable(computer: orm.Computer, program: str, image: str) -> orm.ContainerizedCode:
    """As docs/howto/cluster.md has it for Docker, but for the GPUs."""
    scratch = computer.get_workdir()
    return orm.ContainerizedCode(
        label=f"built-{uuid4().hex[:8]}", computer=computer, image_name=image, filepath_executable="difftre",
        engine_command=f"{program} run --rm --network none -v {scratch}:{scratch} -w $PWD {{image_name}}",
        default_calc_job_plugin="difftre.sample",
    ).store()  # fmt: skip


def test_variables_that_no_shell_would_replace(aiida_localhost: orm.Computer, quoting_doubly: orm.Computer) -> None:
    code = with_variable(aiida_localhost, "docker", "difftre-engine")
    with pytest.raises(ValueError, match=r"machines\.update: .* has a variable, .* --use-double-quotes"):
        load_code("update", JobMachine(code=code.full_label))
    code = with_variable(quoting_doubly, "docker", "difftre-engine")
    assert load_code("update", JobMachine(code=code.full_label)).uuid == code.uuid


@pytest.mark.long
def test_a_refinement_in_an_image_that_was_built(argon_input: Any, quoting_doubly: orm.Computer) -> None:
    program, image = os.environ.get("DIFFTRE_CONTAINERS"), os.environ.get("DIFFTRE_IMAGE")
    if not program or not image:
        pytest.skip("set DIFFTRE_CONTAINERS to docker or podman, and DIFFTRE_IMAGE to an image that was built")
    refined_in(with_variable(quoting_doubly, program, image), argon_input, {})
