"""SampleCalculation: the job file that it writes, the files that it sends, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from aiida import orm
from aiida.plugins import CalculationFactory

from aiida_difftre.calculations.sample import SampleCalculation
from aiida_difftre.data.potential import PotentialData
from aiida_difftre.data.trajectory import TrajectoryEnsembleData
from aiida_difftre.engine.contract.files import write_potential
from aiida_difftre.engine.contract.jobs import PotentialSpec, SampleJob
from aiida_difftre.engine.contract.kinds import read_job
from aiida_difftre.engine.contract.trajectories import read_trajectory
from tests.fixtures.nodes import argon, make_trajectory, potential_file

PARAMETERS = {
    "temperature": 85.0,
    "sampling": {"walkers": 2, "production_fs": 100.0},
    "observables": [{"observable": "pressure"}],
}


@pytest.fixture
def inputs(potential: PotentialData, structure: orm.StructureData) -> dict[str, Any]:
    return {"parameters": orm.Dict(PARAMETERS), "potential": potential, "structure": structure}


@pytest.fixture
def continued(inputs: dict[str, Any], trajectory: TrajectoryEnsembleData) -> dict[str, Any]:
    """A structure, and a trajectory of it."""
    return {**inputs, "structure": orm.StructureData(ase=argon(1)), "start_trajectory": trajectory}


def test_entry_point() -> None:
    assert CalculationFactory("difftre.sample") is SampleCalculation


@pytest.mark.parametrize(("limit", "own"), [(60, 30), (300, 240), (1800, 1710), (12 * 3600, 0.95 * 12 * 3600)])
def test_the_engine_stops_before_the_scheduler(prepare: Any, inputs: dict[str, Any], limit: int, own: float) -> None:
    """Slurm looks at its limits every half a minute, and a job needs some seconds to start and to write."""
    _, folder = prepare("sample", {**inputs, "metadata": {"options": {"max_wallclock_seconds": limit}}})
    assert read_job(folder / "job.json", "sample").machine.walltime_s == pytest.approx(own)


def test_files(prepare: Any, inputs: dict[str, Any]) -> None:
    info, folder = prepare("sample", inputs)
    job = read_job(folder / "job.json", "sample")
    assert isinstance(job, SampleJob)
    assert job.temperature == 85.0
    assert job.sampling.walkers == 2
    assert job.machine.walltime_s == pytest.approx(0.95 * 12 * 3600)
    assert job.start_trajectory is None
    assert ase.io.read(folder / job.structure).get_chemical_symbols() == ["Ar"] * 108
    assert sorted(path.name for path in folder.iterdir()) == ["job.json", "structure.extxyz"]
    assert info.local_copy_list == [(inputs["potential"].uuid, "potential.safetensors", job.potential)]
    assert info.retrieve_list == ["results.json", "error.json", "progress.jsonl", "memory_events.txt"]
    assert info.retrieve_temporary_list == ["trajectory.npz", "blown_up.extxyz"]
    assert info.codes_info[0].cmdline_params == ["sample", "job.json"]
    assert info.remote_copy_list == info.remote_symlink_list == []


def test_masses_are_those_of_the_kinds(prepare: Any, inputs: dict[str, Any]) -> None:
    _, folder = prepare("sample", inputs)
    assert ase.io.read(folder / "structure.extxyz").get_masses() == pytest.approx([39.948] * 108, rel=1e-4)
    atoms = argon()
    atoms.set_masses([36.0] * len(atoms))
    _, folder = prepare("sample", {**inputs, "structure": orm.StructureData(ase=atoms)})
    assert (ase.io.read(folder / "structure.extxyz").get_masses() == 36.0).all()


def test_walltime_of_the_options_and_of_the_machine(prepare: Any, inputs: dict[str, Any]) -> None:
    options = {"metadata": {"options": {"max_wallclock_seconds": 100}}}
    _, folder = prepare("sample", {**inputs, **options})
    assert json.loads((folder / "job.json").read_text())["machine"]["walltime_s"] == 50.0
    parameters = orm.Dict({**PARAMETERS, "machine": {"walltime_s": 10.0}})
    _, folder = prepare("sample", {**inputs, **options, "parameters": parameters})
    assert json.loads((folder / "job.json").read_text())["machine"]["walltime_s"] == 10.0


def remote(computer: orm.Computer, path: str = "/scratch/job") -> orm.RemoteData:
    return orm.RemoteData(computer=computer, remote_path=path).store()


def test_start_trajectory_is_linked_on_the_same_computer(
    prepare: Any, continued: dict[str, Any], aiida_localhost: orm.Computer
) -> None:
    folder_node = remote(aiida_localhost)
    info, folder = prepare("sample", {**continued, "start_folder": folder_node})
    assert info.remote_symlink_list == [(aiida_localhost.uuid, "/scratch/job/trajectory.npz", "start.npz")]
    assert not (folder / "start.npz").exists()
    assert read_job(folder / "job.json", "sample").start_trajectory == "start.npz"  # type: ignore[attr-defined]


def test_start_trajectory_is_written_where_it_cannot_be_linked(
    prepare: Any, continued: dict[str, Any], aiida_computer_local: Any
) -> None:
    elsewhere = remote(aiida_computer_local(label="elsewhere"))
    info, folder = prepare("sample", {**continued, "start_folder": elsewhere})
    assert info.remote_symlink_list == []
    assert info.provenance_exclude_list == ["structure.extxyz", "start.npz"]
    assert read_trajectory(folder / "start.npz").species == make_trajectory().species


def test_start_trajectory_of_a_cleaned_folder_is_written(
    prepare: Any, continued: dict[str, Any], aiida_localhost: orm.Computer
) -> None:
    cleaned = remote(aiida_localhost)
    cleaned.base.extras.set(cleaned.KEY_EXTRA_CLEANED, True)
    info, folder = prepare("sample", {**continued, "start_folder": cleaned})
    assert info.remote_symlink_list == []
    assert (folder / "start.npz").exists()


def test_checkpoint_is_copied(prepare: Any, inputs: dict[str, Any], aiida_localhost: orm.Computer) -> None:
    info, _ = prepare("sample", {**inputs, "parent_folder": remote(aiida_localhost)})
    assert info.remote_copy_list == [
        (aiida_localhost.uuid, "/scratch/job/checkpoint.safetensors", "checkpoint.safetensors")
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": 0}, r"temperature: .*above 0.*\(got 0\)"),
        ({"observables": [{"observable": "presure"}]}, "unknown observable 'presure'; registered observables"),
        ({"observables": [{"observable": "pressure"}] * 2}, "label 'pressure' is used twice"),
        ({"observables": [{"observable": "pressure", "label": "p 0"}]}, "the observable label 'p 0' is no valid name"),
        (
            {"observables": [{"observable": "rdf", "grid": [1.0, 2.0], "options": {"pair": ["Ne", "Ar"]}}]},
            "cannot give 'rdf'.*Ne",
        ),
        ({"sampling": {"walker": 2}}, "sampling.walker"),
        ({"potential": "x.safetensors"}, "potential"),
        ({"seed": "x"}, "seed"),
        ({"seed": -1}, r"seed: .*at least 0 .*\(got -1\)"),
        ({"seed": 2**62}, f"seed: .*below {2**62}"),
    ],
)
def test_parameters_are_refused(prepare: Any, inputs: dict[str, Any], changes: dict, message: str) -> None:
    parameters = orm.Dict({**PARAMETERS, **changes})
    with pytest.raises(ValueError, match=message):
        prepare("sample", {**inputs, "parameters": parameters})


def test_species_unknown_to_the_potential(prepare: Any, inputs: dict[str, Any], tmp_path: Path) -> None:
    krypton = PotentialData.from_file(potential_file(tmp_path / "kr.safetensors", ("Kr",)))
    with pytest.raises(ValueError, match="the structure contains Ar, but the potential knows Kr only"):
        prepare("sample", {**inputs, "potential": krypton})


def test_a_composition_that_is_not_neutral(prepare: Any, inputs: dict[str, Any], tmp_path: Path) -> None:
    charges = {"charges": {"Ar": 1, "Kr": -1}, "formula": "ArKr"}
    cores = {"amplitude": 1000, "rho": 0.3}
    terms = [
        {"architecture": "coulomb_dsf", "cutoff": 5.0, "hyperparameters": charges},
        {"architecture": "born_mayer", "cutoff": 5.0, "hyperparameters": cores},
    ]
    spec = PotentialSpec.model_validate({"species": ["Ar", "Kr"], "terms": terms})
    write_potential(tmp_path / "salt.safetensors", spec, {"atomic_energies": np.zeros(2)})
    salt = PotentialData.from_file(tmp_path / "salt.safetensors")
    with pytest.raises(ValueError, match=r"the structure does not fit .*neutral in ArKr, but .* holds \d+ Ar; give a"):
        prepare("sample", {**inputs, "potential": salt})


def test_start_trajectory_of_other_species(prepare: Any, inputs: dict[str, Any]) -> None:
    other = TrajectoryEnsembleData.from_trajectory(make_trajectory("Kr"))
    with pytest.raises(ValueError, match="start_trajectory is of Kr, but the structure of Ar"):
        prepare("sample", {**inputs, "start_trajectory": other})


def test_start_trajectory_of_another_number_of_atoms(prepare: Any, continued: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="start_trajectory has 4 atoms, the structure 108"):
        prepare("sample", {**continued, "structure": orm.StructureData(ase=argon())})


def test_structure_of_an_alloy(prepare: Any, inputs: dict[str, Any]) -> None:
    structure = orm.StructureData(cell=[[20.0, 0, 0], [0, 20.0, 0], [0, 0, 20.0]])
    structure.append_atom(position=(0, 0, 0), symbols=["Ar", "Kr"], weights=[0.6, 0.4])
    with pytest.raises(ValueError, match=r"the structure has the kind 'ArKr' occupied by Ar 0.6, Kr 0.4; a simulation"):
        prepare("sample", {**inputs, "structure": structure})
    structure = orm.StructureData(cell=[[20.0, 0, 0], [0, 20.0, 0], [0, 0, 20.0]])
    structure.append_atom(position=(0, 0, 0), symbols="Ar", weights=0.9)
    with pytest.raises(ValueError, match=r"the structure has the kind 'ArX' occupied by Ar 0.9; a simulation"):
        prepare("sample", {**inputs, "structure": structure})


def test_structure_that_is_not_periodic(prepare: Any, inputs: dict[str, Any]) -> None:
    atoms = argon()
    atoms.pbc = (True, True, False)
    with pytest.raises(ValueError, match=r"the structure has pbc \(True, True, False\)"):
        prepare("sample", {**inputs, "structure": orm.StructureData(ase=atoms)})


def test_structure_thinner_than_any_atom(prepare: Any, inputs: dict[str, Any]) -> None:
    structure = orm.StructureData(cell=[[10.0, 0, 0], [0, 10.0, 0], [0, 10.0, 0.01]])
    structure.append_atom(position=(0, 0, 0), symbols="Ar")
    with pytest.raises(ValueError, match=r"the structure: its cell is 0\.01 Å thick; at least 0\.4 Å"):
        prepare("sample", {**inputs, "structure": structure})


def test_computer_that_is_disabled(prepare: Any, inputs: dict[str, Any], code: orm.InstalledCode) -> None:
    user = orm.User.collection.get_default()
    authinfo = code.computer.get_authinfo(user)
    authinfo.enabled = False
    try:
        with pytest.raises(ValueError, match=r"'localhost' of the code is disabled.*verdi computer enable localhost"):
            prepare("sample", inputs)
    finally:
        authinfo.enabled = True


def test_computer_that_is_not_configured(prepare: Any, inputs: dict[str, Any], aiida_computer_local: Any) -> None:
    computer = aiida_computer_local(label="bare", configure=False)
    bare = orm.InstalledCode(label="bare", computer=computer, filepath_executable="/bin/true").store()
    with pytest.raises(
        ValueError, match=r"'bare' of the code is not configured .*verdi computer configure core.local bare"
    ):
        prepare("sample", {**inputs, "code": bare})


def test_every_port_has_help() -> None:
    for kind in ("pretrain", "sample", "update", "predict"):
        spec = CalculationFactory(f"difftre.{kind}").spec()
        for ports in (spec.inputs, spec.outputs):
            for name, port in ports.items():
                assert port.help or name == "metadata", (kind, name)


@pytest.fixture
def given(inputs: dict[str, Any], trajectory: TrajectoryEnsembleData) -> dict[str, Any]:
    """A structure and a trajectory of it, to take in place of sampling."""
    return {**inputs, "structure": orm.StructureData(ase=argon(1)), "trajectory": trajectory}


def test_a_trajectory_that_exists_is_sent_whole(prepare: Any, given: dict[str, Any]) -> None:
    _, folder = prepare("sample", given)
    job = read_job(folder / "job.json", "sample")
    assert isinstance(job, SampleJob)
    assert job.trajectory == "given.npz"
    assert read_trajectory(folder / "given.npz").energies.tolist() == given["trajectory"].get_array("energies").tolist()


@pytest.mark.parametrize(
    ("parameters", "repeats", "stretched", "message"),
    [
        ({"temperature": 90.0}, 1, 1.0, "sampled at 85 K, and the state point is at 90 K"),
        ({}, 2, 1.0, "trajectory has 4 atoms of Ar, the structure 32 of Ar"),
        ({"pressure": 0.1, "sampling": {"barostat": {}}}, 1, 1.0, "of the ensemble NVT .no pressure was held."),
        ({}, 1, 1.01, "cell of the trajectory differs from that of the structure by 0.0099"),
    ],
)
def test_a_trajectory_of_another_state_point_is_refused(
    prepare: Any, given: dict[str, Any], parameters: dict[str, Any], repeats: int, stretched: float, message: str
) -> None:
    atoms = argon(repeats)
    atoms.set_cell(stretched * atoms.cell.array, scale_atoms=True)
    changed = {"parameters": orm.Dict({**PARAMETERS, **parameters}), "structure": orm.StructureData(ase=atoms)}
    with pytest.raises(ValueError, match=message):
        prepare("sample", {**given, **changed})
