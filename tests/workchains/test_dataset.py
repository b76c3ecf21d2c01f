"""Labels by a real pw.x: the static reference of diamond, dropped failures, refused inputs."""

import numpy as np
import pytest
from aiida import orm
from aiida.engine import run_get_node
from aiida.plugins import WorkflowFactory
from ase import Atoms
from ase.build import bulk

from aiida_difftre.workchains.dataset import DftDatasetWorkChain
from aiida_difftre.workchains.labels import kind_of, labelled_frame
from aiida_difftre.workchains.pw import PwBaseWorkChain

CUBE = bulk("C", "diamond", a=3.567, cubic=True)
PRIMITIVE = bulk("C", "diamond", a=3.567)
CHEAP = {"pw": {"pw": {"parameters": {"SYSTEM": {"ecutwfc": 30.0, "ecutrho": 120.0}}}}}


def _builder(pw_code, **kwargs):
    inputs = {"structure": orm.StructureData(ase=CUBE), "kpoints": (2, 2, 2), "kpoints_offset": (0.5, 0.5, 0.5)}
    return DftDatasetWorkChain.get_builder_from_protocol(pw_code, **{**inputs, **kwargs})


@pytest.mark.dft
@pytest.mark.slow
def test_static_reference_of_diamond_is_that_of_lda(pw_code, carbon_family):
    generation = {
        "isotropic": [0.01],
        "rattles": [{"standard_deviation": 0.05, "count": 1}],
        "strains": [],
        "elastic": True,
    }
    builder = _builder(pw_code, overrides={"generation": generation})
    outputs, node = run_get_node(builder)
    assert node.is_finished_ok, node.exit_message

    reference = outputs["reference"].get_dict()
    pressure = -np.mean(reference["stress"][:3])
    assert pressure == pytest.approx(-15.1, abs=1.0), "GPa; converged ultrasoft LDA at this lattice"
    assert reference["stiffness"]["C11"] == pytest.approx(1023, abs=20)
    assert reference["stiffness"]["C12"] == pytest.approx(95, abs=10)
    assert reference["stiffness"]["C44"] == pytest.approx(552, abs=15)

    dataset = outputs["dataset"]
    assert len(dataset) == 6
    frames = dataset.get_ase()
    assert [frame.info["kind"] for frame in frames].count("strained") == 4
    jobs = {job.uuid: job for job in node.called_descendants if isinstance(job, orm.CalcJobNode)}
    assert {frame.info["source"] for frame in frames} == set(jobs), "every frame names the calculation of its label"
    equilibrium = next(frame for frame in frames if frame.info["kind"] == "equilibrium")
    np.testing.assert_allclose(equilibrium.get_forces(), 0, atol=1e-3)
    larger = next(
        frame for frame in frames if frame.info["kind"] == "strained" and frame.get_volume() > 1.02 * CUBE.get_volume()
    )
    # Stress is dE/dstrain / V: positive in tension, so the energy rises on expansion where the stress is positive.
    work = np.mean([equilibrium.get_stress()[0], larger.get_stress()[0]]) * (larger.get_volume() - CUBE.get_volume())
    assert larger.get_potential_energy() - equilibrium.get_potential_energy() == pytest.approx(work, rel=0.05)
    assert not any(child.process_label == "create_kpoints_from_distance" for child in node.called_descendants)


@pytest.mark.dft
def test_failed_label_is_dropped_and_reported(pw_code, carbon_family):
    overlapping = Atoms("C2", positions=[[0, 0, 0], [0, 0, 1e-4]], cell=[3, 3, 3], pbc=True)
    structures = {"good": orm.StructureData(ase=PRIMITIVE), "bad": orm.StructureData(ase=overlapping)}
    builder = _builder(
        pw_code,
        structure=None,
        structures=structures,
        kpoints=(1, 1, 1),
        overrides={**CHEAP, "min_fraction": 0.5},
    )
    outputs, node = run_get_node(builder)
    assert node.is_finished_ok, node.exit_message
    (frame,) = outputs["dataset"].get_ase()
    assert frame.info["kind"] == "given"
    messages = [log.message for log in orm.Log.collection.get_logs_for(node)]
    assert any("label 'given_bad' failed and is dropped" in message for message in messages)


@pytest.mark.dft
def test_too_few_labels_stop_the_chain_early(pw_code, carbon_family):
    # One step of self-consistency never converges.
    parameters = {"SYSTEM": CHEAP["pw"]["pw"]["parameters"]["SYSTEM"], "ELECTRONS": {"electron_maxstep": 1}}
    builder = _builder(
        pw_code,
        structure=None,
        structures={f"number_{index}": orm.StructureData(ase=PRIMITIVE) for index in range(5)},
        kpoints=(1, 1, 1),
        overrides={
            "pw": {"max_iterations": 1, "pw": {"parameters": parameters}},
            "max_concurrent": 1,
            "min_fraction": 0.8,
        },
    )
    _, node = run_get_node(builder)
    assert node.exit_status == 432
    assert "2 of 5 labels failed" in node.exit_message
    assert len([child for child in node.called if child.process_label == "PwBaseWorkChain"]) == 2


@pytest.mark.dft
def test_generation_that_fails_is_explained(pw_code, carbon_family):
    generation = {
        "rattles": [{"standard_deviation": 0.9, "count": 5}],
        "strains": [],
        "isotropic": [],
        "elastic": False,
    }
    with pytest.raises(ValueError, match="lower the standard deviation"):
        run_get_node(_builder(pw_code, overrides={"generation": generation}))


def _run_changed(builder, change):
    change(builder)  # the builder validates what is assigned to it
    run_get_node(builder)


@pytest.mark.dft
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: b.pw.pw.pseudos.pop("C"), "no pseudopotential for C"),
        (lambda b: setattr(b, "structures", {"other": orm.StructureData(ase=bulk("Si"))}), "no pseudopotential for Si"),
        (lambda b: setattr(b, "generation", orm.Dict({"ratles": []})), "ratles"),
        (lambda b: setattr(b, "structure", orm.StructureData(ase=PRIMITIVE)), "conventional cubic cell"),
        (lambda b: delattr(b, "structure"), "without structure"),
        (lambda b: delattr(b, "generation"), "without generation"),
        (lambda b: setattr(b, "max_concurrent", orm.Int(0)), "max_concurrent is 0"),
        (lambda b: setattr(b, "min_fraction", orm.Float(1.5)), "min_fraction is 1.5"),
        (lambda b: delattr(b.pw, "kpoints"), "no k-points"),
        (lambda b: setattr(b.pw.pw, "parameters", orm.Dict({"CONTROL": {"calculation": "scf"}})), "tprnfor"),
    ],
)
def test_wrong_inputs_are_refused_before_anything_runs(pw_code, carbon_family, change, message):
    builder = _builder(pw_code)
    before = orm.QueryBuilder().append(orm.ProcessNode).count()
    with pytest.raises(ValueError, match=message):
        _run_changed(builder, change)
    assert orm.QueryBuilder().append(orm.ProcessNode).count() == before


@pytest.mark.dft
def test_builder_names_what_is_missing(pw_code, carbon_family):
    with pytest.raises(ValueError, match=r"no pseudopotential for Si in the family 'difftre/LDA/ld1'"):
        _builder(pw_code, structure=orm.StructureData(ase=bulk("Si")), pseudo_family=carbon_family.label)
    with pytest.raises(ValueError, match=r"no pseudopotential family 'nope'"):
        _builder(pw_code, pseudo_family="nope")
    with pytest.raises(ValueError, match="unknown protocol 'fast'"):
        _builder(pw_code, protocol="fast")
    with pytest.raises(ValueError, match="nothing to label"):
        _builder(pw_code, structure=None)


@pytest.mark.dft
def test_builder_takes_cutoffs_from_the_family_and_merges_overrides(pw_code, carbon_family):
    builder = _builder(pw_code, overrides={"generation": {"seed": 7}, "max_concurrent": 5}, options={"account": "me"})
    parameters = builder.pw.pw.parameters.get_dict()
    assert parameters["SYSTEM"]["ecutwfc"] == 70
    assert parameters["SYSTEM"]["ecutrho"] == 210
    assert parameters["ELECTRONS"]["conv_thr"] == pytest.approx(1e-7)
    assert builder.generation["seed"] == 7
    assert builder.max_concurrent.value == 5
    assert builder.pw.pw.metadata.options.account == "me"
    assert builder.pw.kpoints.get_kpoints_mesh() == ([2, 2, 2], [0.5, 0.5, 0.5])


class Repeating(PwBaseWorkChain):
    """Submits its calculation twice, as after a kill between the submission and the next checkpoint."""

    def run_process(self):
        """The step, which comes round again."""
        super().run_process()
        self.ctx.iteration -= 1
        return super().run_process()


@pytest.mark.dft
def test_a_calculation_is_submitted_once(pw_code, carbon_family):
    inputs = _builder(pw_code, kpoints=(1, 1, 1), overrides=CHEAP).pw._inputs(prune=True)
    inputs["pw"]["structure"] = orm.StructureData(ase=PRIMITIVE)
    _, node = run_get_node(Repeating, **inputs)
    assert node.is_finished_ok, node.exit_message
    assert [called.process_label for called in node.called] == ["PwCalculation"]


METAL = {"SYSTEM": {"occupations": "smearing", "smearing": "mv", "degauss": 0.2, "ecutwfc": 12.0, "ecutrho": 48.0}}


def test_metals_are_not_computed_twice_for_their_empty_bands(pw_code, aluminium_family):
    builder = DftDatasetWorkChain.get_builder_from_protocol(
        pw_code, orm.StructureData(ase=bulk("Al", "fcc", a=4.05, cubic=True)), kpoints=(4, 4, 4)
    )
    (name,) = builder.pw.handler_overrides.get_dict()
    assert PwBaseWorkChain.is_process_handler(name)  # aiida-quantumespresso renames it: look at what it does
    assert not builder.pw.handler_overrides.get_dict()[name]["enabled"]


@pytest.mark.dft
def test_energy_of_a_metal_is_that_of_which_the_forces_are_derivatives(pw_code, aluminium_family):
    """With smearing the forces are derivatives of the free energy E - TS, not of the internal energy E."""
    step = 0.02
    cells = {}
    for name, shift in (("less", -step), ("middle", 0.0), ("more", step)):
        atoms = bulk("Al", "fcc", a=3.96).repeat((1, 1, 2))
        atoms.positions[1, 0] += 0.3 + shift
        cells[name] = orm.StructureData(ase=atoms)
    tight = {**METAL, "ELECTRONS": {"conv_thr": 1e-10}}
    builder = _builder(
        pw_code,
        structure=None,
        structures=cells,
        kpoints=(1, 1, 1),
        functional="LDA",
        overrides={"pw": {"pw": {"parameters": tight}}},
    )
    outputs, node = run_get_node(builder)
    assert node.is_finished_ok, node.exit_message
    less, middle, more = outputs["dataset"].get_ase()
    slope = (more.get_potential_energy() - less.get_potential_energy()) / (2 * step)
    assert abs(slope) > 0.3
    assert -slope == pytest.approx(middle.get_forces()[1, 0], rel=0.01)
    smearing = [
        orm.load_node(frame.info["source"]).outputs.output_trajectory.get_array("energy_smearing")[-1]
        for frame in (less, more)
    ]
    internal = slope - (smearing[1] - smearing[0]) / (2 * step)
    assert abs(internal - slope) > 0.05 * abs(slope), "the two energies would not be told apart"


@pytest.mark.dft
def test_supercells_take_a_thinner_mesh_and_dimers_take_gamma(pw_code, aluminium_family):
    generation = {
        "equilibrium": True,
        "elastic": False,
        "isotropic": [],
        "rattles": [{"standard_deviation": 0.05, "count": 1, "repeat": [1, 1, 2]}],
        "strains": [],
        "dimers": {"distances": [2.6], "box": 7.0},
    }
    builder = _builder(
        pw_code,
        structure=orm.StructureData(ase=bulk("Al", "fcc", a=3.96)),
        functional="LDA",
        overrides={"generation": generation, "pw": {"pw": {"parameters": METAL}}},
    )
    outputs, node = run_get_node(builder)
    assert node.is_finished_ok, node.exit_message
    frames = outputs["dataset"].get_ase()
    assert [(len(frame), frame.info["kind"]) for frame in frames] == [(1, "equilibrium"), (2, "rattled"), (2, "dimer")]
    jobs = [orm.load_node(frame.info["source"]).inputs for frame in frames]
    meshes = [job.kpoints.get_kpoints_mesh() for job in jobs]
    assert meshes == [([2, 2, 2], [0.5] * 3), ([2, 2, 1], [0.5] * 3), ([1, 1, 1], [0.0] * 3)]
    assert [job.settings.get_dict().get("gamma_only", False) for job in jobs] == [False, False, True]


@pytest.mark.dft
def test_family_has_to_name_the_functional(pw_code, carbon_family):
    with pytest.raises(ValueError, match="PBE pseudopotential families with C: none"):
        _builder(pw_code, functional="PBE")
    builder = _builder(pw_code, functional="LDA", kpoints=None, kpoints_distance=0.4)
    assert builder.pw.kpoints_distance.value == 0.4


def test_entry_point_is_the_chain():
    assert WorkflowFactory("difftre.dataset") is DftDatasetWorkChain


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("rattled_003", "rattled"),
        ("elastic_sheared", "strained"),
        ("equilibrium_000", "equilibrium"),
        ("given_rattled_1", "given"),
    ],
)
def test_kind_follows_from_the_name(name, kind):
    assert kind_of(name) == kind


def test_stress_changes_sign_and_unit(aiida_profile):
    trajectory = orm.TrajectoryData()
    trajectory.set_trajectory(
        symbols=["C"], positions=np.zeros((2, 1, 3)), cells=np.array([np.eye(3), 2 * np.eye(3)]), pbc=(True, True, True)
    )
    trajectory.set_array("energy", np.array([-1.0, -2.0]))
    trajectory.set_array("forces", np.ones((2, 1, 3)))
    trajectory.set_array("stress", np.array([np.zeros((3, 3)), 160.2176634 * np.arange(9.0).reshape(3, 3)]))
    frame = labelled_frame("given_x", trajectory)
    assert frame.get_potential_energy() == -2.0
    assert frame.cell[0, 0] == 2.0
    np.testing.assert_allclose(frame.get_stress(), [0, -4, -8, -5, -2, -1])
