"""Set-up: from nothing to codes and pseudopotentials; twice changes nothing; failures are explained."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from aiida import orm

from aiida_difftre.cli import quantum_espresso
from aiida_difftre.cli import setup as module
from aiida_difftre.cli.quantum_espresso import QuantumEspressoError
from aiida_difftre.cli.setup import SetupError, ensure_code, ensure_computer
from aiida_difftre.workchains.inputs import example

SCRIPT = """
import json, warnings
warnings.simplefilter("ignore")
from dataclasses import asdict
from aiida_difftre.cli.setup import ensure_profile, setup
ensure_profile("mine")
results = [asdict(setup("difftre")), asdict(setup("difftre"))]
from aiida import orm
from aiida.manage.configuration import get_config
config = get_config()
codes = {label: orm.load_code(label) for label in (results[0]["engine"], results[0]["pw"])}
computer = orm.load_computer(results[0]["computer"])
print("RESULT" + json.dumps({
    "results": results,
    "default": config.default_profile_name,
    "profiles": config.profile_names,
    "timeout": config.get_option("daemon.timeout", "difftre"),
    "broker": config.get_profile("difftre").process_control_backend,
    "storage": config.get_profile("difftre").storage_backend,
    "executables": {label: str(code.filepath_executable) for label, code in codes.items()},
    "plugin": codes[results[0]["pw"]].default_calc_job_plugin,
    "interval": computer.get_minimum_job_poll_interval(),
    "safe_interval": computer.get_configuration()["safe_interval"],
}))
"""


@pytest.mark.dft
@pytest.mark.slow
def test_setup_from_nothing_and_again(tmp_path: Path, qe_programs):
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, "AIIDA_PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout.split("RESULT")[1])
    first, second = found["results"]
    assert len(first["created"]) == 5
    assert second["created"] == []
    assert {**first, "created": []} == second
    assert first["engine"] == "difftre@localhost"
    assert first["pw"] == "pw@localhost"
    assert first["pseudo_family"] == "difftre/LDA/ld1"
    assert found["default"] == "mine", "the default profile of before is left alone"
    assert found["timeout"] > 20
    assert (found["storage"], found["broker"]) == ("core.sqlite_dos", "core.zeromq")
    assert found["plugin"] == "quantumespresso.pw"
    assert found["interval"] <= 1
    assert found["safe_interval"] == 0
    assert all(Path(path).is_file() and Path(path).is_absolute() for path in found["executables"].values())


@pytest.mark.dft
def test_wrapper_runs_a_calculation(qe_programs, carbon_family):
    with carbon_family.get_pseudo("C").as_path() as path:
        quantum_espresso.check_scf(qe_programs.pw, path, "C")


def _script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_pw_that_is_none_is_refused_with_what_it_says(tmp_path: Path):
    with pytest.raises(QuantumEspressoError, match=r"no working pw\.x.*I am a teapot"):
        quantum_espresso.find_programs(_script(tmp_path / "pw.x", "echo I am a teapot"))


def test_pw_that_does_not_exist_is_refused(tmp_path: Path):
    with pytest.raises(QuantumEspressoError, match="does not start"):
        quantum_espresso.find_programs(tmp_path / "pw.x")


def test_pw_on_path_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = _script(tmp_path / "pw.x", "echo '  Program PWSCF v.9.9 starts on'")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    programs = quantum_espresso.find_programs()
    assert programs == quantum_espresso.Programs(pw=path, ld1=None, version="9.9", private=False)


def test_calculation_that_does_not_finish_is_reported(tmp_path: Path):
    with pytest.raises(QuantumEspressoError, match=r"(?s)one C atom.*segmentation"):
        quantum_espresso.check_scf(_script(tmp_path / "pw.x", "echo segmentation fault"), tmp_path / "C.upf", "C")


def test_failed_installation_names_the_remedies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DIFFTRE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setattr(quantum_espresso, "PACKAGES", ("./no-such-package",))
    with pytest.raises(QuantumEspressoError, match=r"(?s)no-such-package.*--pw.*DIFFTRE_HOME"):
        quantum_espresso.private_programs()
    assert not list(tmp_path.glob("qepy-venv*")), "nothing is left that looks installed"


def test_home_can_be_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("DIFFTRE_HOME", str(tmp_path / "there"))
    assert quantum_espresso.home() == tmp_path / "there"
    monkeypatch.delenv("DIFFTRE_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert quantum_espresso.home() == tmp_path / "difftre"


def test_existing_computer_and_code_are_taken(aiida_profile_clean, tmp_path: Path):
    made: list[str] = []
    program = _script(tmp_path / "program", "true")
    computer = ensure_computer(made.append)
    code = ensure_code(computer, "pw", program, description="x", made=made.append)
    assert len(made) == 2
    assert ensure_computer(made.append).uuid == computer.uuid
    assert ensure_code(computer, "pw", program, description="x", made=made.append).uuid == code.uuid
    assert len(made) == 2


def test_programs_on_this_machine_do_not_wait_for_profile_files(
    aiida_profile_clean, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / ".bash_profile").write_text("echo slow\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    computer = ensure_computer()
    with computer.get_transport() as transport:
        assert transport.exec_command_wait("echo quick", workdir=tmp_path) == (0, "quick\n", "")


def test_code_of_another_program_gives_up_its_label(aiida_profile_clean, tmp_path: Path):
    computer = ensure_computer()
    old = ensure_code(computer, "pw", _script(tmp_path / "one", "true"), description="x")
    new = ensure_code(computer, "pw", _script(tmp_path / "two", "true"), description="x")
    assert orm.load_code("pw@localhost").uuid == new.uuid
    assert orm.load_node(old.pk).label == f"pw-{old.pk}"


def test_remote_localhost_is_refused(aiida_profile_clean):
    orm.Computer(
        label="localhost", hostname="elsewhere", transport_type="core.ssh", scheduler_type="core.direct", workdir="/tmp"
    ).store()
    with pytest.raises(SetupError, match=r"computer: 'localhost'.*core\.ssh"):
        ensure_computer()


def test_missing_engine_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, aiida_profile_clean):
    monkeypatch.setattr(module, "ensure_profile", lambda *_, **__: None)
    monkeypatch.setattr(quantum_espresso.sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SetupError, match=r"engine: there is no script 'difftre'"):
        module.setup()


def test_without_dft_no_program_is_looked_for(monkeypatch: pytest.MonkeyPatch, aiida_profile_clean):
    def refuse(*_: object) -> None:
        raise AssertionError("looked for pw.x")

    monkeypatch.setattr(module, "ensure_profile", lambda *_, **__: None)
    monkeypatch.setattr(module, "find_programs", refuse)
    made = module.setup(dft=False)
    assert made.pw is None
    assert made.pseudo_family is None
    assert orm.QueryBuilder().append(orm.InstalledCode).count() == 1
    assert orm.load_code(made.engine).label == "difftre"


@pytest.mark.dft
def test_ld1_of_the_wheel_helps_out_where_path_has_only_pw(
    aiida_profile_clean, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ld1: Path
):
    program = _script(tmp_path / "pw.x", "echo '  Program PWSCF v.9.9 starts on'; echo JOB DONE")
    monkeypatch.setattr(module, "ensure_profile", lambda *_, **__: None)
    monkeypatch.setattr(
        module,
        "private_programs",
        lambda _: quantum_espresso.Programs(pw=program, ld1=ld1, version="7.2", private=True),
    )
    monkeypatch.setattr(quantum_espresso, "_on_path", lambda name: program if name == "pw.x" else None)
    assert module.setup().pseudo_family == "difftre/LDA/ld1"


@pytest.mark.usefixtures("aiida_profile_clean")
def test_input_of_elements_without_recipe_is_told_what_there_is(tmp_path: Path):
    from click.testing import CliRunner

    from aiida_difftre.cli import cli

    content = yaml.safe_load(example("diamond/quick.yaml").read_text())
    content["dft"]["system"] = {"bulk": {"element": "Xe", "structure": "fcc", "lattice_constant": 6.2}}
    path = tmp_path / "xenon.yaml"
    path.write_text(yaml.safe_dump(content))
    result = CliRunner().invoke(cli, ["run", str(path)])
    assert result.exit_code == 1
    for fragment in ("no LDA pseudopotential for Xe", "Al, C, Cu, Si, Ti", "aiida-pseudo install", "dft.pseudo_family"):
        assert fragment in result.output


@pytest.mark.dft
@pytest.mark.usefixtures("aiida_profile_clean")
def test_pseudopotentials_are_generated_where_they_are_missing(qe_programs):
    said: list[str] = []
    family = module.ensure_pseudopotentials(["Al"], "LDA", report=said.append)
    assert family.label == "difftre/LDA/ld1"
    assert any("LDA, Al" in line for line in said)
    both = module.ensure_pseudopotentials(["Al", "C"], "LDA", report=said.append)
    assert both.uuid == family.uuid
    assert {"Al", "C"} <= set(both.elements)
    said.clear()
    module.ensure_pseudopotentials(["C"], "LDA", report=said.append)
    assert said == []
