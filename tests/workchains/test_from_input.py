from pathlib import Path
from typing import Any
from uuid import uuid4

import ase.io
import numpy as np
import pytest
import yaml
from aiida import orm
from ase.calculators.singlepoint import SinglePointCalculator

from aiida_difftre.data.dataset import DatasetData
from aiida_difftre.data.structures import EQUILIBRIUM
from aiida_difftre.workchains.from_input import read_builder
from aiida_difftre.workchains.label_counts import lines
from aiida_difftre.workchains.refine import RefineWorkChain
from aiida_difftre.workchains.state_points import sampling_parameters
from aiida_difftre.workchains.train import TrainWorkChain
from aiida_difftre.workchains.validate import ValidateWorkChain
from tests.fixtures.nodes import argon, labelled_frames, potential_file, target_content


@pytest.fixture
def program(aiida_localhost: orm.Computer, tmp_path: Path) -> orm.InstalledCode:
    """A code that is never run, whose executable may be taken away."""
    script = tmp_path / "difftre"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    code = orm.InstalledCode(
        label=f"never-run-{uuid4().hex}", computer=aiida_localhost, filepath_executable=str(script)
    )
    return code.store()


@pytest.fixture
def content(tmp_path: Path, program: orm.InstalledCode) -> dict[str, Any]:
    """An input whose potential and labels are files, on a code that exists."""
    potential_file(tmp_path / "argon.safetensors")
    ase.io.write(tmp_path / "labels.extxyz", labelled_frames())
    argon(1).write(tmp_path / "cell.cif")
    machine = {"code": program.full_label, "options": {"max_wallclock_seconds": 77}}
    return {
        "label": "argon",
        "seed": 5,
        "system": {"file": "cell.cif"},
        "dft": {"dataset": "labels.extxyz"},
        "model": {"potential": "argon.safetensors"},
        "state_points": {"liquid": {"temperature": 85.0, "repeat": [2, 2, 2], "targets": {"p": target_content()}}},
        "sampling": {"walkers": 3},
        "refinement": {"settings": {"max_iterations": 2}, "update": {"gate": 0.5}},
        "machines": {
            "sampling": {**machine, "engine": {"threads": 2}},
            "update": machine,
            "prediction": machine,
        },
    }


def read(tmp_path: Path, content: dict[str, Any], *chain: Any) -> Any:
    path = tmp_path / "input.yaml"
    path.write_text(yaml.safe_dump(content))
    return read_builder(path, *chain)


def test_everything_arrives(tmp_path: Path, content: dict[str, Any]) -> None:
    builder = read(tmp_path, content)
    assert builder["metadata"]["label"] == "argon"
    assert builder["potential"].species == ["Ar"]
    assert len(builder["dataset"]) == 3
    point = builder["state_points"]["liquid"]
    assert len(point["structure"].sites) == 32
    assert point["targets"]["p"].target.name == "p"
    refine = builder["refine"]
    assert refine["settings"]["max_iterations"] == 2
    assert refine["settings"]["seed"] == 5
    assert read_builder(tmp_path / "input.yaml", seed=7)["refine"]["settings"]["seed"] == 7
    sampling = refine["sample"]["calc"]["parameters"].get_dict()
    assert sampling["sampling"]["walkers"] == 3
    assert sampling["machine"] == {"threads": 2}
    assert refine["sample"]["calc"]["metadata"]["options"]["max_wallclock_seconds"] == 77
    assert refine["update"]["calc"]["parameters"]["update"]["gate"] == 0.5
    assert builder["validate"]["sample"]["calc"]["parameters"]["sampling"]["walkers"] != 3


def test_what_is_kept_of_trajectories_arrives(tmp_path: Path, content: dict[str, Any], code: Any) -> None:
    sampling = content["machines"]["sampling"]
    sampling |= {"keep_every": 50, "stash": "/archive/difftre"}
    builder = read(tmp_path, content)
    for part in ("refine", "validate"):
        calc = builder[part]["sample"]["calc"]
        assert calc["parameters"]["keep_every"] == 50
        stash = {"target_base": "/archive/difftre", "source_list": ["trajectory.npz"], "stash_mode": "copy"}
        assert dict(calc["metadata"]["options"]["stash"]) == stash
    assert "keep_every" not in builder["refine"]["update"]["calc"]["parameters"].get_dict()
    read(tmp_path, {**content, "machines": {**content["machines"], "sampling": {**sampling, "clean_workdir": True}}})
    for changes, message in (
        ({"keep_every": 0}, r"machines\.sampling\.keep_every: must be at least 1 .*\(got 0\)"),
        ({"keep_every": -1}, r"machines\.sampling\.keep_every: must be at least 1 .*\(got -1\)"),
        ({"keep_every": 1.5}, r"machines\.sampling\.keep_every: .*1\.5"),
        ({"keep_every": True}, r"machines\.sampling\.keep_every: .*True"),
        ({"keep_every": "50"}, r"machines\.sampling\.keep_every: .*'50'"),
        ({"keep_every": 2_000_000}, r"machines\.sampling\.keep_every: must be .* at most 1000000"),
        ({"stash": "archive"}, r"machines\.sampling\.stash: 'archive' is no absolute path"),
        ({"options": {"stash": {"target_base": "/archive"}}}, "both stash and options.stash"),
        ({"clean_workdir": True, "stash": None}, "keep_every is 50, and clean_workdir deletes the folders in which"),
    ):
        machines = {**content["machines"], "sampling": {**sampling, **changes}}
        with pytest.raises(ValueError, match=message):
            read(tmp_path, {**content, "machines": machines})
    for name in ("dft", "update", "prediction", "pretraining", "feff"):
        with pytest.raises(ValueError, match=rf"machines\.{name}\.keep_every is of trajectories"):
            read(tmp_path, {**content, "machines": {**content["machines"], name: {"keep_every": 2}}})


def test_wholes_stay_where_updates_read_them(
    tmp_path: Path, content: dict[str, Any], aiida_computer_local: Any
) -> None:
    elsewhere = aiida_computer_local(label="elsewhere")
    other = orm.InstalledCode(label=f"other-{uuid4().hex}", computer=elsewhere, filepath_executable="/bin/true").store()
    content["machines"]["sampling"]["keep_every"] = 50
    content["machines"]["update"] = {"code": other.full_label}
    message = "stay on localhost, and the update on elsewhere needs them; give it a code on localhost"
    for chain in (TrainWorkChain, RefineWorkChain):
        with pytest.raises(ValueError, match=f"keep_every is 50: .*every 50th snapshot, {message}"):
            read(tmp_path, content, chain)
    content["machines"] |= {"update": content["machines"]["prediction"], "prediction": {"code": other.full_label}}
    content["validation"] = {"settings": {"assessment": True}}
    for chain in (TrainWorkChain, ValidateWorkChain):
        with pytest.raises(ValueError, match="the assessment on elsewhere needs them"):
            read(tmp_path, content, chain)
    content["validation"] = {}
    read(tmp_path, content)


def test_restarts_and_cleaning_arrive(tmp_path: Path, content: dict[str, Any]) -> None:
    choices = {"max_jobs": 40, "max_lost": 7, "on_cancelled": "end", "clean_workdir": True}
    content["machines"]["sampling"] |= choices
    content["machines"]["update"] = {**content["machines"]["update"], "clean_workdir": True}
    builder = read(tmp_path, content)
    for part in ("refine", "validate"):
        sample = builder[part]["sample"]
        assert (sample["max_iterations"].value, sample["max_lost"].value) == (40, 7)
        assert (sample["on_cancelled"].value, sample["clean_workdir"].value) == ("end", True)
    assert builder["refine"]["update"]["clean_workdir"].value is True
    assert "clean_workdir" not in builder["validate"]["predict"]
    for machine, message in (
        ({"max_jobs": 0}, "max_jobs: .*at least 1"),
        ({"max_lost": -1}, "max_lost: .*at least 0"),
        ({"on_cancelled": "stop"}, "on_cancelled: .*'end_if_own'"),
        ({"clean_workdir": "sometimes"}, "clean_workdir"),
    ):
        content["machines"]["sampling"] = machine
        with pytest.raises(ValueError, match=rf"machines\.sampling\.{message}"):
            read(tmp_path, content)
    content["machines"] = {"dft": {"max_lost": 3}}
    with pytest.raises(ValueError, match=r"machines\.dft\.max_lost: DFT does not take it"):
        read(tmp_path, content)
    content["machines"] = {"feff": {"max_jobs": 3}}
    with pytest.raises(ValueError, match=r"machines\.feff\.max_jobs: FEFF does not take it"):
        read(tmp_path, content)


def test_without_dft_the_potential_starts_from_initial_parameters(tmp_path: Path, content: dict[str, Any]) -> None:
    del content["dft"]
    spec = {"species": ["Ar"], "terms": [{"architecture": "pair_spline", "cutoff": 6.0}]}
    content["model"] = {"spec": spec}
    content["machines"]["pretraining"] = content["machines"]["update"]
    builder = read(tmp_path, content)  # there is no code of pw.x to be found
    assert "potential" not in builder
    assert "structure" not in builder["dataset_inputs"]
    parameters = builder["pretrain"]["calc"]["parameters"].get_dict()
    assert parameters["steps"] == 0
    assert parameters["seed"] == 5
    content["pretraining"] = {"steps": 50}
    with pytest.raises(ValueError, match="50 steps of pretraining need labels"):
        read(tmp_path, content)


def test_labels_under_other_names_and_frames_of_a_file(tmp_path: Path, content: dict[str, Any]) -> None:
    frames = labelled_frames(5)
    for number, atoms in enumerate(frames):
        atoms.info["REF_energy"] = -float(number)
    ase.io.write(tmp_path / "labels.extxyz", frames)
    with pytest.raises(ValueError, match=r"labels\.extxyz.*frame 0 .* REF_energy .* disagree; choose one with keys: "):
        read(tmp_path, content)
    content["dft"] = {"dataset": "labels.extxyz@::2", "keys": {"energy": "REF_energy"}}
    dataset = read(tmp_path, content)["dataset"]
    assert [atoms.get_potential_energy() for atoms in dataset.get_ase()] == [0.0, -2.0, -4.0]
    assert dataset.label == "labels"
    assert dataset.description == "energies from REF_energy; forces from forces; stresses from stress"
    dataset.store()
    content["dft"]["dataset"] = str(dataset.pk)
    with pytest.raises(
        ValueError, match=rf"dft\.keys are those of a file, not of a node: there is no file '{dataset.pk}' in"
    ):
        read(tmp_path, content)
    content["dft"] = {"keys": {"energy": "REF_energy"}}
    with pytest.raises(ValueError, match="keys are those of a file of labels, but dataset names none"):
        read(tmp_path, content)


def test_static_stiffness_of_atoms_packed_at_random_has_to_be_asked_for(
    tmp_path: Path, content: dict[str, Any]
) -> None:
    content["system"] = {"random": {"composition": {"Ar": 32}, "box": 12.0}}
    content["state_points"]["liquid"]["repeat"] = [1, 1, 1]
    message = r"static_stiffness: atoms packed at random \(liquid\) .*; say false for a liquid, or true to relax them"
    for chain in (TrainWorkChain, ValidateWorkChain):
        with pytest.raises(ValueError, match=message):
            read(tmp_path, content, chain)
    assert read(tmp_path, content, RefineWorkChain)  # which makes no use of it
    for stated in (False, True):
        content["validation"] = {"settings": {"static_stiffness": stated}}
        assert read(tmp_path, content)["validate"]["settings"]["static_stiffness"] is stated


def test_static_stiffness_is_that_of_the_cell_of_the_labels(tmp_path: Path, content: dict[str, Any]) -> None:
    content["system"] = {"random": {"composition": {"Ar": 32}, "box": 12.0}}
    content["state_points"]["liquid"]["repeat"] = [1, 1, 1]
    frames = labelled_frames()
    frames[0].info["kind"] = EQUILIBRIUM
    dataset = DatasetData.from_ase(frames).store()
    content["dft"] = {"dataset": str(dataset.pk)}
    assert read(tmp_path, content)["validate"]["settings"]["static_stiffness"]


@pytest.mark.parametrize("chain", [RefineWorkChain, ValidateWorkChain])
def test_parts_alone(tmp_path: Path, content: dict[str, Any], chain: Any) -> None:
    builder = read(tmp_path, content, chain)
    assert builder.process_class is chain


@pytest.mark.parametrize(
    ("section", "value", "fragments"),
    [
        ("model", {"potential": "no-such-file"}, ["no-such-file", "neither a file"]),
        ("dft", {"dataset": "argon.safetensors"}, ["argon.safetensors"]),
        ("machines", {"sampling": {"code": "engine@moon"}}, ["machines.sampling", "engine@moon"]),
        ("sampling", {"timestep_fs": 50.0}, ["timestep_fs", "50.0"]),
        ("refinement", {"settings": {"patience": 0}}, ["patience", "0"]),
        ("system", {"bulk": {"element": "Ne", "structure": "fcc", "lattice_constant": 4.5}}, ["Ne", "Ar"]),
    ],
)
def test_refused_before_submission(
    tmp_path: Path, content: dict[str, Any], section: str, value: Any, fragments: list[str]
) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the test checks the message)
        read(tmp_path, {**content, section: value})
    for fragment in fragments:
        assert fragment in str(caught.value)


def test_labels_count_by_the_distance_from_the_state_points(tmp_path: Path, content: dict[str, Any]) -> None:
    """The volumes are those of the cells of the state points, and are told where nobody gives others."""
    widths, loss = {"energy": 0.02}, {"dataset_weight": 1.0}
    content["refinement"]["update"]["loss"] = {**loss, "dataset_widths": widths}
    stage = {"state_points": {"liquid": {"repeat": [1, 1, 1]}}, "update": {"loss": {"dataset_widths": {"force": 0.5}}}}
    content["refinement"]["stages"] = [stage]
    made = read(tmp_path, content)
    cell = argon(1)
    expected = [round(cell.get_volume() / len(cell), 6)]
    found = made.refine.update.calc.parameters.get_dict()["update"]["loss"]["dataset_widths"]
    assert found == {**widths, "volumes": expected}
    assert lines(made._inputs(prune=True)) == ["labels that count in loss.dataset_widths: energy 3 of 3"]
    assert made.stages["stage_0"]["changes"].get_dict()["update"]["loss"]["dataset_widths"]["volumes"] == expected

    stage["update"]["loss"]["dataset_widths"] = {"force": 0.02, "volumes": [30.0]}
    with pytest.raises(ValueError, match=r"stage_0: loss\.dataset_widths\.energy = 0\.02 leaves .* of 3 is .* away"):
        read(tmp_path, content)
    for taken_back in ({"dataset_widths": {"energy": None}}, {"dataset_weight": 0, "dataset_widths": {"energy": None}}):
        stage["update"]["loss"] = taken_back
        read(tmp_path, content)

    del content["refinement"]["stages"]
    content["refinement"]["update"]["loss"]["dataset_widths"] = {**widths, "volumes": [30.0]}
    with pytest.raises(ValueError, match=r"loss\.dataset_widths\.energy = 0\.02 leaves .* of 3 is .* away in ln V"):
        read(tmp_path, content)
    content["refinement"]["update"]["loss"] = {"dataset_widths": widths}
    with pytest.raises(ValueError, match="dataset_weight: 0 leaves out"):
        read(tmp_path, content)


DENSITY = target_content(observable="density", values=[1400.0], errors=[5.0], unit="kg/m3")


def test_pressure_and_barostat_arrive(tmp_path: Path, content: dict[str, Any]) -> None:
    content["state_points"]["liquid"] |= {"pressure": 0.01, "targets": {"density": DENSITY}}
    content["sampling"]["barostat"] = {"relaxation_time_fs": 300.0}
    with pytest.raises(ValueError, match="validate: state point 'liquid': observable 'density' needs an NPT traj"):
        read(tmp_path, content)
    content["validation"] = {"sampling": {"barostat": {}}}
    builder = read(tmp_path, content)
    point = builder["state_points"]["liquid"]
    template = builder["refine"]["sample"]["calc"]["parameters"].get_dict()
    parameters = sampling_parameters(template, point, seed=1, predict=True)
    assert parameters["pressure"] == 0.01
    assert parameters["sampling"]["barostat"] == {"relaxation_time_fs": 300.0}
    assert parameters["observables"][0]["observable"] == "density"


@pytest.mark.parametrize("chain", [RefineWorkChain, ValidateWorkChain])
def test_a_density_needs_a_pressure(tmp_path: Path, content: dict[str, Any], chain: Any) -> None:
    content["state_points"]["liquid"]["targets"] = {"density": DENSITY}
    content["sampling"]["barostat"] = {}
    content["validation"] = {"sampling": {"barostat": {}}}
    with pytest.raises(ValueError, match="'liquid': observable 'density' needs an NPT trajectory, not NVT; give the"):
        read(tmp_path, content, chain)


@pytest.mark.usefixtures("aiida_profile_clean")  # other tests set the engine's code up
def test_engine_not_set_up(tmp_path: Path, content: dict[str, Any]) -> None:
    del content["machines"]
    with pytest.raises(ValueError, match=r"(?s)difftre@localhost.*aiida-difftre setup"):
        read(tmp_path, content)


def test_corrupt_potential_and_lost_program(tmp_path: Path, content: dict[str, Any], program: Any) -> None:
    (tmp_path / "argon.safetensors").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=r"argon\.safetensors"):
        read(tmp_path, content)
    Path(program.filepath_executable).unlink()
    content["model"] = {"potential": "argon.safetensors"}
    potential_file(tmp_path / "argon.safetensors")
    with pytest.raises(ValueError, match=r"machines\.sampling: code .* cannot be used"):
        read(tmp_path, content)


def foreign(folder: Path) -> Path:
    """Argon around its lattice, in a file of ase."""
    rng, frames = np.random.default_rng(0), []
    for _ in range(30):
        atoms = argon(2)
        atoms.positions += rng.normal(scale=0.1, size=(len(atoms), 3))
        atoms.calc = SinglePointCalculator(atoms, energy=rng.normal(scale=0.05))
        frames.append(atoms)
    ase.io.write(folder / "md.extxyz", frames)
    return folder / "md.extxyz"


def test_a_trajectory_of_another_program_is_the_first_reference(tmp_path: Path, content: dict[str, Any]) -> None:
    foreign(tmp_path)
    files = {"files": ["md.extxyz"], "interval_fs": 100.0, "equilibration_fs": 0.0}
    content["refinement"]["trajectory"] = {"liquid": files}
    builder = read(tmp_path, content)
    node = builder["state_points"]["liquid"]["trajectory"]
    assert node.temperature == 85.0
    assert node.number_of_snapshots == 30
    assert node.origin["files"][0]["name"] == "md.extxyz"
    assert node.origin["format"] == "extended XYZ"
    assert "trajectory" in read(tmp_path, content, RefineWorkChain)["state_points"]["liquid"]
    assert "trajectory" not in read(tmp_path, content, ValidateWorkChain)["state_points"]["liquid"]
    content["refinement"]["trajectory"] = {"liquid": str(node.store().uuid)}
    assert read(tmp_path, content)["state_points"]["liquid"]["trajectory"].pk == node.pk


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"solid": 12}, "refinement.trajectory names the state point 'solid'; there are: liquid"),
        ("md.extxyz", "give the label of a state point with each trajectory"),
        ({"liquid": "nothing"}, "refinement.trajectory.liquid: 'nothing' is neither a file"),
        ({"liquid": {"files": ["md.extxyz"]}}, "refinement.trajectory.liquid: md.extxyz does not say the time between"),
        ({"liquid": {"files": ["md.extxyz"], "interval": 3}}, r"liquid\..*interval: unknown key"),
        ({"liquid": {"files": ["md.extxyz@::2"], "interval_fs": 9.0, "equilibration_fs": 0.0}}, "32 atoms"),
    ],
)  # fmt: skip
def test_a_trajectory_that_does_not_fit_is_refused(
    tmp_path: Path, content: dict[str, Any], given: Any, message: str
) -> None:
    foreign(tmp_path)
    content["refinement"]["trajectory"] = given
    if "32 atoms" in message:
        content["state_points"]["liquid"]["repeat"] = [1, 1, 1]
    with pytest.raises(ValueError, match=message):
        read(tmp_path, content)


@pytest.mark.parametrize("chain", [RefineWorkChain, TrainWorkChain])
def test_an_earlier_run_that_does_not_serve_is_refused(tmp_path: Path, content: dict[str, Any], chain: Any) -> None:
    run = orm.WorkChainNode().store()
    for named, message in (("nothing", "'nothing' is no run"), (run.pk, f"run {run.pk}: none of its trajectories")):
        content["refinement"]["pool"] = {"runs": [named]}
        with pytest.raises(ValueError, match=f"refinement.pool.runs: {message}"):
            read(tmp_path, content, chain)


def with_base(content: dict[str, Any], **model: Any) -> dict[str, Any]:
    terms = [{"architecture": "pair_spline", "cutoff": 6.0}]
    copper = {"bulk": {"element": "Cu", "structure": "fcc", "lattice_constant": 3.615}}
    point = {"temperature": 85.0, "repeat": [2, 2, 2], "targets": {"p": target_content()}}
    correction = {"species": ["Cu"], "terms": terms}
    machines = {**content["machines"], "pretraining": content["machines"]["update"]}
    return {
        **{name: value for name, value in content.items() if name != "dft"},
        "system": copper,
        "model": {"base": {"name": "emt"}, "correction": correction, **model},
        "state_points": {"solid": point},
        "machines": machines,
    }


def test_a_correction_to_a_base(tmp_path: Path, content: dict[str, Any]) -> None:
    builder = read(tmp_path, with_base(content))
    assert builder["base"].model == "emt"
    made = builder["pretrain"]["calc"]["parameters"]["potential"]
    assert made["base"] == builder["base"].spec.model_dump(mode="json")
    assert made["terms"][0]["architecture"] == "pair_spline"
    content["model"]["base"] = {"node": builder["base"].store().uuid}
    with pytest.raises(ValueError, match="base is 'emt', but the potential has no base"):
        read(tmp_path, content)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"base": None}, "what it corrects is model.base; give base there"),
        ({"base": {"name": "emtt"}}, "model.base: unknown base 'emtt'"),
        ({"base": {"name": "emt"}, "correction": {"species": ["Si"]}}, "model.base: base 'emt' does not know Si"),
        ({"base": {"name": "mace", "files": {"model": "no.model"}}}, "model.base: there is no file 'no.model' in "),
        (
            {"base": {"name": "mace", "files": {"model": {"path": "/x", "sha256": "12"}}}},
            "files.model.sha256: ",
        ),
        ({"base": {"node": "999999"}}, "model.base.node: '999999' is no node: "),
        ({"base": {}}, "give either name .* or node"),
        ({"potential": "argon.safetensors"}, "give one of potential"),
    ],
)
def test_a_base_that_does_not_fit_is_refused(
    tmp_path: Path, content: dict[str, Any], model: dict[str, Any], message: str
) -> None:
    changed = with_base(content)
    terms = changed["model"]["correction"]["terms"]
    if "correction" in model:
        model = {**model, "correction": {**model["correction"], "terms": terms}}
    changed["model"] = {**changed["model"], **model}
    with pytest.raises(ValueError, match=message):
        read(tmp_path, changed)


def test_jobs_that_evaluate_a_base_have_its_code(tmp_path: Path, content: dict[str, Any]) -> None:
    changed = with_base(content, base={"name": "chgnet"})
    for kind in ("sampling", "pretraining", "prediction"):
        changed["machines"][kind] = {}
    message = r"there is no code 'difftre-chgnet@localhost'.*`aiida-difftre setup --base chgnet` makes it"
    with pytest.raises(ValueError, match=message):
        read(tmp_path, changed)
