"""Builders from protocols, and launching from the shell."""

from typing import Any

import pytest
from aiida import orm
from aiida.plugins import WorkflowFactory

from aiida_difftre.data.dataset import DatasetData
from aiida_difftre.data.potential import PotentialData
from aiida_difftre.data.target import TargetData
from aiida_difftre.data.trajectory import TrajectoryEnsembleData
from aiida_difftre.workchains import main
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
