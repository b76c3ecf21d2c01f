"""Builders from protocols, and launching from the shell."""

from collections.abc import Iterator
from typing import Any

import pytest
from aiida import orm
from aiida.engine.processes.ports import PortNamespace
from aiida.plugins import CalculationFactory, WorkflowFactory

from aiida_difftre.calculations.assess import AssessCalculation
from aiida_difftre.data.dataset import DatasetData
from aiida_difftre.data.potential import PotentialData
from aiida_difftre.data.target import TargetData
from aiida_difftre.data.trajectory import TrajectoryEnsembleData
from aiida_difftre.workchains import main
from aiida_difftre.workchains.assess import AssessBaseWorkChain
from aiida_difftre.workchains.pretrain import PretrainBaseWorkChain
from aiida_difftre.workchains.sample import SampleBaseWorkChain


def test_sample(code: orm.InstalledCode, potential: PotentialData, structure: orm.StructureData) -> None:
    builder: Any = SampleBaseWorkChain.get_builder_from_protocol(
        code=code,
        potential=potential,
        structure=structure,
        temperature=85,
        observables=[{"observable": "pressure"}],
        protocol="cpu",
        overrides={"calc": {"parameters": {"sampling": {"walkers": 2}}}, "clean_workdir": True},
        options={"queue_name": "gpu", "max_wallclock_seconds": 60},
    )
    parameters = builder.calc.parameters.get_dict()
    assert (parameters["temperature"], parameters["sampling"]["walkers"]) == (85.0, 2)
    assert parameters["sampling"]["production_fs"] == 4000.0
    assert parameters["observables"] == [{"observable": "pressure"}]
    assert builder.calc.metadata.options.queue_name == "gpu"
    assert builder.calc.metadata.options.max_wallclock_seconds == 60
    assert builder.max_iterations.value == 5
    assert builder.clean_workdir.value is True
    assert builder.calc.potential is potential


def test_pretrain_takes_a_spec_or_a_potential(
    code: orm.InstalledCode, dataset: DatasetData, potential: PotentialData
) -> None:
    spec = {"species": ["Ar"], "terms": [{"architecture": "moment_network", "cutoff": 4.0}]}
    builder: Any = PretrainBaseWorkChain.get_builder_from_protocol(code=code, dataset=dataset, spec=spec)
    assert builder.calc.parameters["potential"] == spec
    builder = PretrainBaseWorkChain.get_builder_from_protocol(code=code, dataset=dataset, potential=potential)
    assert builder.calc.potential is potential


def test_wrong_parameters_are_refused_by_the_builder(code: orm.InstalledCode) -> None:
    with pytest.raises(ValueError, match="above 0"):
        SampleBaseWorkChain.get_builder_from_protocol(code=code, temperature=-1.0)


@pytest.fixture
def submitted(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Builders that were submitted; nothing runs."""
    builders: list[Any] = []

    def record(builder: Any) -> orm.WorkChainNode:
        builders.append(builder)
        return orm.WorkChainNode()

    monkeypatch.setattr(main, "submit", record)
    return builders


def test_shell_sample(
    submitted: list[Any], code: orm.InstalledCode, potential: PotentialData, structure: orm.StructureData
) -> None:
    arguments = ["--code", code.full_label, "--potential", potential.store().uuid, "--structure",
                 str(structure.store().pk), "--temperature", "85", "--submit"]  # fmt: skip
    main.launch(
        "difftre.sample.base", nodes=("potential", "structure"), values={"temperature": float}, arguments=arguments
    )
    (builder,) = submitted
    assert builder.process_class is WorkflowFactory("difftre.sample.base")
    assert builder.calc.parameters["temperature"] == 85.0
    assert builder.calc.structure.uuid == structure.uuid


def test_shell_update(
    submitted: list[Any],
    code: orm.InstalledCode,
    potential: PotentialData,
    trajectory: TrajectoryEnsembleData,
    target: TargetData,
) -> None:
    nodes = {"potential": potential.store(), "trajectory": trajectory.store(), "target": target.store()}
    arguments = [f"--{name}={node.uuid}" for name, node in nodes.items()]
    main.launch(
        "difftre.update.base",
        nodes=tuple(nodes),
        prepare=main.one_state_point,
        arguments=["--code", str(code.pk), "--submit", *arguments],
    )
    assert submitted[0].calc.state_points["state_point"]["targets"]["target"].uuid == target.uuid


def test_shell_refuses_what_the_ports_refuse(
    code: orm.InstalledCode, potential: PotentialData, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--code", str(code.pk), "--potential", potential.store().uuid, "--temperature", "0"]
    with pytest.raises(SystemExit):
        main.launch("difftre.sample.base", nodes=("potential",), values={"temperature": float}, arguments=arguments)
    assert "temperature: must be above 0 and at most 100000 K" in capsys.readouterr().err


def test_shell_names_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main.launch("difftre.sample.base", nodes=("potential",), arguments=["--code", "x"])
    assert "--potential" in capsys.readouterr().err


CHAINS = ("dataset", "pretrain.base", "sample.base", "update.base", "predict.base", "refine", "validate", "train")
JOBS = ("pretrain", "sample", "update", "predict", "feff")


@pytest.mark.parametrize("name", CHAINS)
def test_protocols_by_method(name: str) -> None:
    chain: Any = WorkflowFactory(f"difftre.{name}")
    available = chain.get_available_protocols()
    assert next(iter(available)) == chain.get_default_protocol() == "quick"
    assert all(entry["description"] for entry in available.values())
    assert chain.get_protocol_filepath().is_file()
    changed = chain.get_protocol_inputs("cpu", {"settings": {"seed": 17}})
    assert changed["settings"]["seed"] == 17
    with pytest.raises(ValueError, match=r"unknown protocol 'fast'.*known protocols: quick"):
        chain.get_protocol_inputs("fast")


def test_codes_by_label(code: orm.InstalledCode) -> None:
    builder: Any = SampleBaseWorkChain.get_builder_from_protocol(code=code.full_label, temperature=85)
    assert builder.calc.code.uuid == code.uuid
    with pytest.raises(ValueError, match=r"there is no code 'nowhere'.*verdi code list"):
        SampleBaseWorkChain.get_builder_from_protocol(code="nowhere", temperature=85)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"samplng": {}}, "overrides of sample: unknown 'samplng'; known are calc, "),
        ({"calc": {"structur": 1}}, "overrides of sample.calc: unknown 'structur'; known are base, code, "),
    ],
)
def test_overrides_of_a_restart_chain_that_would_be_dropped(
    code: orm.InstalledCode, overrides: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        SampleBaseWorkChain.get_builder_from_protocol(code=code, temperature=85, overrides=overrides)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        (
            "refine",
            {"overrides": {"updates": {}}},
            "overrides of refine: unknown 'updates'; known are sample, settings, update",
        ),
        ("refine", {"options": {"predict": {}}}, "options of refine: unknown 'predict'; known are sample, update"),
        ("validate", {"overrides": {"update": {}}}, "overrides of validate: unknown 'update'"),
    ],
)
def test_overrides_of_a_composite_chain_that_would_be_dropped(
    code: orm.InstalledCode, name: str, arguments: dict[str, Any], message: str
) -> None:
    chain: Any = WorkflowFactory(f"difftre.{name}")
    with pytest.raises(ValueError, match=message):
        chain.get_builder_from_protocol(state_points={}, sample_code=code, **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"codes": {"smaple": "x"}}, "codes of train: unknown 'smaple'"),
        ({"codes": {"sample": "x"}}, "codes of train: update, predict, pretrain missing"),
        (
            {"codes": {}, "overrides": {"refinement": {}}},
            "overrides of train: unknown 'refinement'; known are dataset, feff",
        ),
        ({"codes": {}, "options": {"dft": {}}}, "options of train: unknown 'dft'; known are feff, predict"),
    ],
)
def test_arguments_of_train_that_would_be_dropped(arguments: dict[str, Any], message: str) -> None:
    chain: Any = WorkflowFactory("difftre.train")
    with pytest.raises(ValueError, match=message):
        chain.get_builder_from_protocol(state_points={}, **arguments)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"genertion": {}}, "overrides of dataset: unknown 'genertion'"),
        ({"pw": {"kpoints": 1}}, "overrides of dataset.pw: unknown 'kpoints'"),
        ({"pw": {"pw": {"parallelization": {}}}}, "overrides of dataset.pw.pw: unknown 'parallelization'"),
    ],
)
def test_overrides_of_labels_that_would_be_dropped(overrides: dict[str, Any], message: str) -> None:
    chain: Any = WorkflowFactory("difftre.dataset")
    with pytest.raises(ValueError, match=message):
        chain.get_builder_from_protocol("pw@localhost", overrides=overrides)


def test_each_exit_code_means_one_thing() -> None:
    meanings: dict[int, set[str]] = {}
    for name in CHAINS:
        for label, code in WorkflowFactory(f"difftre.{name}").spec().exit_codes.items():
            meanings.setdefault(code.status, set()).add(label)
    composite = {"ERROR_UNSTABLE", "ERROR_INITIAL_POTENTIAL_UNSTABLE"}
    assert {status: labels for status, labels in meanings.items() if len(labels) > 1} == {430: composite}


def namespaces(port: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    for name, child in port.items():
        if isinstance(child, PortNamespace) and name not in ("metadata", "monitors"):
            yield f"{path}.{name}", child
            yield from namespaces(child, f"{path}.{name}")


@pytest.mark.parametrize("name", CHAINS)
def test_every_namespace_has_help(name: str) -> None:
    inputs = WorkflowFactory(f"difftre.{name}").spec().inputs
    own = [(path, port) for path, port in namespaces(inputs) if ".pw" not in path]  # Quantum ESPRESSO's are its own
    assert [path for path, port in own if not port.help] == []


@pytest.mark.parametrize("name", JOBS)
def test_jobs_say_what_verdi_shows_of_them(name: str) -> None:
    spec = CalculationFactory(f"difftre.{name}").spec()
    assert spec.default_output_node in spec.outputs
    options = spec.inputs["metadata"]["options"]
    assert options["input_filename"].default in ("job.json", "feff.inp")
    assert options["output_filename"].default in ("results.json", "feff.out")


def test_shell_names_what_does_not_exist(
    code: orm.InstalledCode, potential: PotentialData, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"--code": str(code.pk), "--potential": potential.store().uuid}
    for name, wrong in (("--code", "nowhere@nothing"), ("--potential", "987654321")):
        arguments = [part for pair in {**given, name: wrong}.items() for part in pair]
        with pytest.raises(SystemExit):
            main.launch("difftre.sample.base", nodes=("potential",), arguments=arguments)
        assert f"sample.py: error: {name} {wrong}: " in capsys.readouterr().err


def test_labels_by_dft_take_the_code_of_pw() -> None:
    assert main.labels_by_dft({"code": 1, "structure": 2, "protocol": None}) == {
        "pw_code": 1,
        "structure": 2,
        "protocol": None,
    }


def test_an_assessment_without_members_lacks_nothing() -> None:
    """The outputs that a job may leave out are not asked for, or its chain reports that a required one is missing."""
    for process in (AssessCalculation, AssessBaseWorkChain):
        assert not process.spec().outputs["members"].required
