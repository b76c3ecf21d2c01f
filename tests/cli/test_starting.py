"""A first input, what is wrong with one, two nodes side by side, and what can be gone on with."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import jax
import pytest
from aiida import orm
from aiida.common.links import LinkType
from aiida.manage import get_manager
from ase.build import bulk
from ase.io import write
from click.testing import CliRunner, Result
from plumpy.process_states import ProcessState

from aiida_difftre.cli import cli, doer, starting
from aiida_difftre.cli.commands.preparing import base_to_set_up
from aiida_difftre.cli.costs import Process
from aiida_difftre.cli.resuming import builder_of
from aiida_difftre.data import extras
from aiida_difftre.engine.calculators.difftre import DiffTReCalculator
from aiida_difftre.engine.potentials import potential as potentials
from aiida_difftre.workchains import from_input, inputs
from aiida_difftre.workchains.input_models import RunInput
from aiida_difftre.workchains.inputs import read_input
from tests.fixtures.nodes import argon, labelled_frames, potential_file


def invoke(*words: Any) -> Result:
    profile = get_manager().get_profile()
    assert profile is not None
    return CliRunner().invoke(cli, ["-p", profile.name, *map(str, words)])


@pytest.fixture
def silicon(tmp_path: Path) -> Path:
    path = tmp_path / "silicon.cif"
    write(path, bulk("Si", "diamond", a=5.431, cubic=True))
    return path


def test_init_writes_an_input_that_is_read(silicon: Path, tmp_path: Path) -> None:
    path = tmp_path / "input.yaml"
    names = ("stiffness_298K", "density_298K", "heat_capacity_298K")
    targets = [word for name in names for word in ("-t", f"catalogue:Si/{name}")]
    assert invoke("init", silicon, "-o", path, *targets).exit_code == 0
    run = read_input(path)
    assert run.system.file == Path("silicon.cif")
    assert set(run.state_points) == {"T298K", "T298K_npt"}
    assert run.state_points["T298K_npt"].pressure == 1e-4
    assert run.state_points["T298K"].density == 2329.0  # the stiffness is of the crystal of that density
    assert list(run.state_points["T298K"].repeat) == [2, 2, 2]
    assert run.sampling["barostat"] == {"relaxation_time_fs": 500.0}
    assert path.read_text().count("#") > 10
    again = invoke("init", silicon, "-o", path, *targets)
    assert again.exit_code == 1
    assert "exists" in again.output


def test_init_asks(silicon: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    answer = CliRunner().invoke(cli, ["init", "--prior"], input=f"{silicon}\ncatalogue:Si/stiffness_298K\n")
    assert answer.exit_code == 0, answer.output
    assert "the catalogue has catalogue:Si/density_298K" in answer.output
    (term,) = read_input(tmp_path / "input.yaml").model.spec.terms  # type: ignore[union-attr] # it has one
    assert term.architecture == "stillinger_weber"
    assert term.hyperparameters["sigma"] == pytest.approx(5.431 * 3**0.5 / 4 / 2 ** (1 / 6), rel=1e-3)


def test_init_names_a_compound_as_chemists_do_and_guesses_no_charges(tmp_path: Path) -> None:
    write(tmp_path / "KCl.cif", bulk("KCl", "rocksalt", a=6.293))
    words = ["init", tmp_path / "KCl.cif", "-o", tmp_path / "input.yaml", "-t", "catalogue:KCl/stiffness_298K"]
    refused = invoke(*words, "--prior")
    assert refused.exit_code == 1
    assert "--prior is for one element, and here are Cl and K" in refused.output
    assert invoke(*words).exit_code == 0
    assert read_input(tmp_path / "input.yaml").label == "KCl"


def test_init_gives_metals_smearing_and_an_embedded_atom(tmp_path: Path, silicon: Path) -> None:
    write(tmp_path / "Al.cif", bulk("Al", "fcc", a=4.05))
    path = tmp_path / "input.yaml"
    assert invoke("init", tmp_path / "Al.cif", "-o", path, "-t", "catalogue:Al/stiffness_298K").exit_code == 0
    run = read_input(path)
    assert run.dft is not None
    assert list(run.dft.repeat) == [2, 2, 2]
    assert run.dft.pw_parameters["SYSTEM"]["occupations"] == "smearing"
    assert [term.architecture for term in run.model.spec.terms] == ["moment_network", "pair_spline"]  # type: ignore[union-attr]
    assert "# 1 atom;" in path.read_text()
    assert invoke("init", silicon, "-f", "-o", path, "-t", "catalogue:Si/stiffness_298K").exit_code == 0
    assert read_input(path).dft.pw_parameters == {}  # type: ignore[union-attr] # it has one


def gr(path: Path, points: int = 50, density: float | None = 1409.6) -> Path:
    """A target file of g(r) of argon from 3.3 Å on, in steps of 0.1 Å."""
    grid = [round(3.3 + 0.1 * number, 1) for number in range(points)]
    conditions: dict[str, float] = {"temperature": 85.0} | ({} if density is None else {"density": density})
    path.write_text(
        f"observable: rdf\ngrid: {grid}\nvalues: {[1.0] * points}\nerrors: {[0.02] * points}\nunit: '1'\n"
        f"conditions: {json.dumps(conditions)}\ncitation: none\n"
    )
    return path


def test_init_of_a_liquid(tmp_path: Path) -> None:
    """As many atoms as hold the curve, and parameters near those of A. Rahman, Phys. Rev. 136, A405 (1964)."""
    path = tmp_path / "input.yaml"
    words = ["init", "--liquid", "Ar", "-t", gr(tmp_path / "rdf.yaml"), "-o", path]
    told = invoke(*words)
    assert told.exit_code == 1
    assert "a liquid is too large for labels by DFT" in told.output
    assert invoke(*words, "--prior").exit_code == 0
    run = read_input(path)
    assert run.system.random is not None
    (number,) = run.system.random.composition.values()
    edge = (number / 0.02125) ** (1 / 3)
    assert 2 * 8.25 <= edge < 2 * 8.45
    assert run.validation.sampling["production_fs"] == 4 * run.sampling["production_fs"]
    for sampling in (run.sampling, run.validation.sampling):
        assert sampling["thermostat"] == {"name": "langevin", "friction_per_ps": 2.0}
    (term,) = run.model.spec.terms  # type: ignore[union-attr] # it has one
    assert term.hyperparameters["epsilon"] == pytest.approx(0.01032, rel=0.05)
    assert term.hyperparameters["sigma"] == pytest.approx(3.405, rel=0.01)


@pytest.mark.parametrize(
    ("curve", "words", "told"),
    [
        ({}, ["--liquid", "Argon"], "give the formula of the liquid, such as Ar or GeO2"),
        ({"density": None}, ["--liquid", "Ar"], "nothing tells the density of the liquid"),
        ({"points": 250}, ["--liquid", "Ar"], "one of 500 ends at 14.3 Å, and a cheap one of 100 at 8.38 Å"),
        ({}, ["--liquid", "GeO2"], "--prior is for one element, and here are Ge and O"),
        ({}, ["silicon.cif", "--liquid", "Ar"], "do not go together"),
    ],
)
def test_liquids_that_are_refused(
    silicon: Path, tmp_path: Path, curve: dict[str, Any], words: list[str], told: str
) -> None:
    target = gr(tmp_path / "rdf.yaml", **curve)
    words = [str(silicon) if word == "silicon.cif" else word for word in words]
    answer = invoke("init", *words, "--prior", "-t", target, "-o", tmp_path / "input.yaml")
    assert answer.exit_code != 0
    assert told in answer.output
    assert not (tmp_path / "input.yaml").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["-t", "catalogue:Si/stifness_298K"], "did you mean 'Si/stiffness_298K'?"),
        (["-t", "no-such-file.yaml"], f"there is no file 'no-such-file.yaml' in {Path.cwd()}"),
        (["-t", "catalogue:Si/stiffness_298K", "--prior", "--labels", "x"], "do not go together"),
        (
            ["-t", "catalogue:Ag/stiffness_298K"],
            "was measured of Ag, and the structure has Si",
        ),
        (["-t", "catalogue:Si/stiffness_298K", "--labels", "nothere.extxyz"], "there is no file 'nothere.extxyz'"),
        (
            ["-t", "catalogue:Si/stiffness_298K", "--potential", "emt"],
            "another program is given as --base emt",
        ),
    ],
)
def test_init_refuses(silicon: Path, tmp_path: Path, words: list[str], told: str) -> None:
    answer = invoke("init", silicon, "-o", tmp_path / "input.yaml", *words)
    assert answer.exit_code != 0
    assert told in answer.output
    assert not (tmp_path / "input.yaml").exists()


def test_init_takes_a_node_by_its_label(silicon: Path, tmp_path: Path, potential: Any) -> None:
    potential.label = "stillinger"
    potential.store()
    words = ["init", silicon, "-o", tmp_path / "input.yaml", "-t", "catalogue:Si/stiffness_298K"]
    assert invoke(*words, "--potential", "stillinger").exit_code == 0
    assert 'potential: "stillinger"' in (tmp_path / "input.yaml").read_text()


def test_what_init_writes_is_accepted_by_check(
    tmp_path: Path, engine: orm.InstalledCode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Argon with labels, and with a potential that exist; the codes are those of the profile."""
    from aiida_difftre.workchains import codes

    monkeypatch.setattr(codes, "DEFAULT_CODES", dict.fromkeys(codes.DEFAULT_CODES, engine.full_label))
    write(tmp_path / "argon.extxyz", argon(1))
    write(tmp_path / "labels.extxyz", labelled_frames())
    potential_file(tmp_path / "argon.safetensors")
    monkeypatch.chdir(tmp_path)
    starts = ("--labels", "labels.extxyz"), ("--potential", "argon.safetensors"), ("--prior",)
    before = orm.QueryBuilder().append(orm.Node).count()
    reading = inputs._read_model
    inputs_read: list[str] = []

    def counted(path: Path, model: Any) -> Any:
        inputs_read.extend([path.name] * (model is RunInput))
        return reading(path, model)

    for start in starts:
        path = tmp_path / "input.yaml"
        made = invoke("init", tmp_path / "argon.extxyz", "-o", path, "-f", "-t", "catalogue:Ar/density_85K", *start)
        assert made.exit_code == 0, made.output
        inputs_read.clear()
        with monkeypatch.context() as patch:
            patch.setattr(inputs, "_read_model", counted)
            checked = invoke("check", path)
        assert inputs_read == ["input.yaml"]
        assert checked.exit_code == 0, checked.output
        assert "start and compilation of at most" in checked.output
        assert "sampling and starts take at most" in checked.output
        end = f"the input is right; nothing was started; next: aiida-difftre run {path}"
        assert checked.output.splitlines()[-1] == end
    assert orm.QueryBuilder().append(orm.Node).count() == before
    path.write_text(path.read_text() + "machines:\n  sampling: {code: none@here}\n  update: {code: nor@there}\n")
    checked = invoke("check", path)
    assert checked.exit_code == 1
    assert "machines.sampling: there is no code 'none@here'" in checked.output
    assert "machines.update: there is no code 'nor@there'" in checked.output


def test_files_of_the_working_folder_are_found_by_run(
    tmp_path: Path, engine: orm.InstalledCode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a command line names begins in the working folder, what an input names in its own."""
    from aiida_difftre.workchains import codes

    monkeypatch.setattr(codes, "DEFAULT_CODES", dict.fromkeys(codes.DEFAULT_CODES, engine.full_label))
    monkeypatch.chdir(tmp_path)
    write("argon.extxyz", argon(1))
    potential_file(tmp_path / "argon.safetensors")
    words = ("-t", "catalogue:Ar/density_85K", "--potential", "argon.safetensors")
    assert invoke("init", "argon.extxyz", "-o", "below/input.yaml", *words).exit_code == 0
    assert str(tmp_path / "argon.safetensors") in Path("below/input.yaml").read_text()
    monkeypatch.chdir(tmp_path.parent)
    checked = invoke("check", tmp_path / "below" / "input.yaml")
    assert checked.exit_code == 0, checked.output
    (tmp_path / "argon.safetensors").rename(tmp_path / "elsewhere")
    told = invoke("check", tmp_path / "below" / "input.yaml").output
    assert f"{tmp_path}/argon.safetensors' is neither a file in {tmp_path}/below, the folder of the input" in told


@pytest.mark.parametrize(("element", "base"), [("Ni", "emt"), ("Si", "chgnet")])
def test_init_on_a_base(
    tmp_path: Path, engine: orm.InstalledCode, monkeypatch: pytest.MonkeyPatch, element: str, base: str
) -> None:
    """The correction is zero at first, and check accepts what was written."""
    from aiida_difftre.workchains import codes

    monkeypatch.setattr(codes, "DEFAULT_CODES", dict.fromkeys(codes.DEFAULT_CODES, engine.full_label))
    write(tmp_path / "cell.cif", bulk(element, cubic=True))
    path = tmp_path / "input.yaml"
    words = ("-t", f"catalogue:{element}/stiffness_298K", "-t", f"catalogue:{element}/density_298K")
    made = invoke("init", tmp_path / "cell.cif", "-o", path, "--base", base, *words)
    assert made.exit_code == 0, made.output
    run = read_input(path)
    assert run.model.base is not None
    assert run.model.base.name == base
    assert base_to_set_up(path, []) == ("chgnet" if base == "chgnet" else None)
    assert base_to_set_up(path, ["chgnet"]) is None
    for module in (codes, from_input):  # no environment of the base is made here
        monkeypatch.setattr(module, "code_of", lambda run: None)
    checked = invoke("check", path)
    assert checked.exit_code == 0, checked.output
    spec = run.model.correction
    assert spec is not None
    correction = potentials.build(spec)
    frame = bulk(element, cubic=True)
    frame.rattle(0.1, seed=1)
    frame.calc = DiffTReCalculator(correction, correction.init(jax.random.key(0)))
    assert abs(frame.get_potential_energy()) < 1e-6


def test_init_refuses_bases(silicon: Path, tmp_path: Path) -> None:
    for base, told in (
        ("emt", "base 'emt' does not know Si; it is for Al, Cu"),
        ("chgnett", "did you mean 'chgnet'"),
        ("mace", "give --base mace=FILE"),
        ("mace=nothere.model", f"there is no file 'nothere.model' in {Path.cwd()}"),
        ("chgnet=a.model", "base 'chgnet' has no file"),
        ("stillinger_weber", "write model.base yourself"),
    ):
        answer = invoke("init", silicon, "-o", tmp_path / "input.yaml", "-t", "Si/density_298K", "--base", base)
        assert answer.exit_code == 1
        assert told in answer.output


def test_cells_are_wide_but_not_too_many_atoms() -> None:
    assert starting.repeats(bulk("Si", "diamond", a=5.431, cubic=True)) == [2, 2, 2]
    assert len(argon(6)) > starting.MOST_ATOMS
    assert starting.repeats(argon(6)) == [1, 1, 1]


@pytest.fixture
def run_node() -> Callable[..., orm.WorkChainNode]:
    """A function (state, exit status) -> the node of a run without parts."""

    def make(state: ProcessState, exit_status: int | None = None, **inputs: Any) -> orm.WorkChainNode:
        node = orm.WorkChainNode(label="argon")
        node.set_process_type("aiida.workflows:difftre.train")
        node.set_process_label("TrainWorkChain")
        node.set_process_state(state)
        if exit_status is not None:
            node.set_exit_status(exit_status)
        for name, value in inputs.items():
            node.base.links.add_incoming(value.store(), LinkType.INPUT_WORK, name)
        return node.store()

    return make


def test_resume_says_what_there_is_to_go_on_with(run_node: Any, potential: Any) -> None:
    assert "nothing to go on with" in invoke("resume", run_node(ProcessState.FINISHED, 0).pk).output
    assert (
        "goes on where it is as soon as the daemon runs" in invoke("resume", run_node(ProcessState.WAITING).pk).output
    )
    assert "give a run" in invoke("resume", orm.Int(1).store().pk).output
    killed = run_node(ProcessState.KILLED, potential=potential, refine__update__max_iterations=orm.Int(3))
    builder = builder_of(killed)
    assert builder.refine["update"].max_iterations == 3
    assert builder.potential.pk == potential.pk
    assert builder.metadata.description == f"goes on with the run {killed.uuid}"


@pytest.mark.parametrize(
    ("state", "status", "told"),
    [
        (ProcessState.WAITING, None, "is not over"),
        (ProcessState.FINISHED, 0, "has succeeded"),
        (ProcessState.FINISHED, 503, None),
        (ProcessState.KILLED, None, None),
    ],
)
def test_a_run_is_resumed_once(
    run_node: Any, potential: Any, state: ProcessState, status: int | None, told: str | None
) -> None:
    killed = run_node(ProcessState.KILLED, potential=potential)
    later = run_node(state, status)
    later.description = builder_of(killed).metadata.description
    if told is None:
        assert builder_of(killed).potential.pk == potential.pk
    else:
        answer = invoke("resume", killed.pk).output
        assert f"run {later.pk} goes on with the run {killed.pk} already, and {told}" in answer


def test_resume_of_a_run_whose_process_is_gone(run_node: Any, potential: Any) -> None:
    run = run_node(ProcessState.WAITING, potential=potential)
    doer.sign(run)
    assert doer.of(run) == f"process {os.getpid()} on {socket.gethostname()}"
    assert not doer.is_gone(run)
    assert "does it; end that first" in invoke("resume", run.pk).output
    assert doer.farewell(run) == ""
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    signed = run.base.extras.get(doer.EXTRA)
    run.base.extras.set(doer.EXTRA, {**signed, "host": "elsewhere"})
    assert not doer.is_gone(run)
    with pytest.raises(ValueError, match="on elsewhere does it"):
        builder_of(run)
    assert builder_of(run, gone=True).potential.pk == potential.pk
    for other in ({**signed, "pid": int(ended.stdout)}, {**signed, "began": signed["began"] - 1.0}):
        run.base.extras.set(doer.EXTRA, other)
        assert doer.is_gone(run)
    assert doer.farewell(run).endswith(f"go on with: aiida-difftre resume {run.pk}")
    assert builder_of(run).potential.pk == potential.pk
    doer.bury(run)
    doer.bury(run)  # as after an interruption
    assert run.is_killed
    assert run.is_sealed
    assert not doer.is_gone(run)


def test_only_the_job_itself_is_killed(tmp_path: Path, aiida_localhost: orm.Computer) -> None:
    """Of another process that has its PID by now nothing is known."""
    job = orm.CalcJobNode(computer=aiida_localhost)
    assert not doer.has_its_job(job)
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    job.set_job_id(int(ended.stdout))
    job.set_remote_workdir(str(tmp_path))
    assert not doer.has_its_job(job)
    with subprocess.Popen(["sleep", "60"], cwd=tmp_path) as process:
        job.set_job_id(process.pid)
        assert doer.has_its_job(job)
        job.set_remote_workdir(str(tmp_path.parent))
        assert not doer.has_its_job(job)
        process.kill()


def test_compare(run_node: Any, potential: Any) -> None:
    first, second = (run_node(ProcessState.FINISHED, 0, refine__settings=orm.Dict({"seed": seed})) for seed in (1, 2))
    for node, chi2 in ((first, 3.5), (second, 1.25)):
        extras.tell(node, {"system": "Ar", "chi2_training": chi2, "P": 0.1, "P_error": 0.02, "P_experiment": 0.11})
    lines = invoke("compare", first.pk, second.pk).output.splitlines()
    cells = {line.split("  ")[0]: line for line in lines}
    assert cells["chi2_training"].split()[1:] == ["3.5", "1.25"]
    assert "0.1 ± 0.02" in cells["P (experiment 0.11)"]
    assert cells["refine.settings.seed"].split()[1:] == ["1", "2"]
    potential.store()
    assert "cutoff" in invoke("compare", potential.pk, potential.pk).output
    assert "give two runs or two potentials" in invoke("compare", potential.pk, first.pk).output
    assert "is a Int" in invoke("compare", orm.Int(1).store().pk, first.pk).output


def test_a_run_of_the_daemon_that_no_worker_goes_on_with_is_told(run_node: Any, potential: Any) -> None:
    run = run_node(ProcessState.WAITING, potential=potential)
    now = datetime.now().astimezone()
    later = now + timedelta(minutes=12)
    over, job = (
        Process(1, "SampleCalculation", "refine", now, now, is_over, None, False, True, False, 1)
        for is_over in (True, False)
    )
    assert doer.neglected(run, [over], now) == ""
    assert doer.neglected(run, [over, job], later) == ""
    assert doer.neglected(run, [over], later).startswith("nothing has happened for 12 minutes, and no job runs")
    assert doer.neglected(run, [over], later).endswith("verdi daemon restart")
    changed = Process(2, "UpdateBaseWorkChain", "refine", now, later, False, None, False, False, False, 1)
    assert doer.neglected(run, [over, changed], later) == ""
    paused = Process(2, "UpdateBaseWorkChain", "refine", now, now, False, None, False, False, True, 1)
    assert doer.neglected(run, [over, paused], later) == ""
    doer.sign(run)  # a run that this process does
    assert doer.neglected(run, [over], later) == ""
