from collections.abc import Callable
from typing import Any

import pytest
import yaml
from aiida import orm
from aiida.engine import run_get_node
from aiida.manage.caching import enable_caching
from click.testing import CliRunner, Result

from aiida_difftre.cli import cli, lineage, live, plots, report, snapshots
from aiida_difftre.engine.contract.records import read
from aiida_difftre.engine.contract.verdict import Verdict
from aiida_difftre.workchains.train import TrainWorkChain
from tests.fixtures.chains import SHORT_SAMPLING, explain
from tests.fixtures.nodes import target_content
from tests.fixtures.questions import DOI, check_commands, check_facts, check_questions

MACHINE = {"threads": 1}


@pytest.fixture
def train(
    engine: orm.InstalledCode, argon_potential: Any, argon_state_points: Any, dataset: Any, job_options: Any
) -> Callable[[], orm.WorkChainNode]:
    """Runs the real engine from a potential and labels that exist; each time with other nodes of the same content."""

    def run() -> orm.WorkChainNode:
        return run_get_node(_builder(engine, argon_potential, argon_state_points, dataset, job_options))[1]

    return run


@pytest.fixture
def trained(train: Callable[[], orm.WorkChainNode]) -> orm.WorkChainNode:
    """A run that is over."""
    return train()


def _builder(engine: Any, argon_potential: Any, argon_state_points: Any, dataset: Any, job_options: Any) -> Any:
    sample = {"calc": {"parameters": {"sampling": SHORT_SAMPLING, "machine": MACHINE}}}
    widths = {"energy": 0.1, "volumes": [40.0]}
    loss = {"dataset_weight": 1e-6, "dataset_widths": widths}
    steps = {"max_steps": 2, "gate": 0.2, "bootstrap": 20, "loss": loss}
    update = {"calc": {"parameters": {"update": steps, "machine": MACHINE}}}
    return TrainWorkChain.get_builder_from_protocol(
        codes=dict.fromkeys(("sample", "update", "predict"), engine),
        state_points=argon_state_points(values=[-0.5], errors=[0.01], doi=DOI),
        potential=argon_potential(),
        dataset=dataset,
        overrides={
            "refine": {
                "settings": {"max_iterations": 1, "growth": {"thresholds": []}}, "sample": sample, "update": update
            },
            "validate": {"sample": sample, "predict": {"calc": {"parameters": {"machine": MACHINE}}}},
        },
        options=dict.fromkeys(("sample", "update", "predict"), job_options),
    )  # fmt: skip


@pytest.mark.slow
def test_a_second_run_with_caching_redoes_nothing(train: Callable[[], orm.WorkChainNode]) -> None:
    """What a run makes is the same node for the same content, so that all that comes after it is found too."""
    first = train()
    assert first.is_finished_ok, explain(first)
    with enable_caching():
        second = train()
    assert second.is_finished_ok, explain(second)
    steps = [node for node in second.called_descendants if isinstance(node, orm.CalculationNode)]
    assert len(steps) == sum(isinstance(node, orm.CalculationNode) for node in first.called_descendants)
    assert {"SampleCalculation", "UpdateCalculation", "PredictCalculation"} <= {node.process_label for node in steps}
    redone = [node.process_label for node in steps if not node.base.caching.is_created_from_cache]
    assert redone == ["collect_history"]  # which names the potentials of its own run by their UUIDs, and costs nothing
    assert second.outputs.potential.digest == first.outputs.potential.digest


@pytest.mark.slow
def test_train_and_everything_that_shows_it(trained: orm.WorkChainNode, tmp_path: Any) -> None:
    assert trained.is_finished_ok, explain(trained)
    found = trained.outputs.report.get_dict()
    pressure = found["state_points"]["solid"]["pressure"]
    for when in ("before", "after"):
        assert pressure[when]["errors"][0] > 0
        assert found["chi2"][when]["training"] > 0
        assert found["dataset"][when]["force_rmse"] > 0
        assert found["static"][when]["stiffness"]["C11"] > found["static"][when]["stiffness"]["C12"] > 0
    judged = read(Verdict, found["verdict"])
    assert judged.lattices["solid"].rigidities[0] > 0
    assert judged.targets[0].change is not None
    assert not judged.holes
    assert not judged.unchecked
    _validation_shares_nothing_with_training(trained)

    check_facts(trained)
    check_questions(trained)
    check_commands(trained)

    snapshot = snapshots.take(trained.pk)
    assert snapshot.is_over
    assert len(snapshot.iterations) == 2
    running = snapshots._iterations(trained.called[0].base.links.get_outgoing().all()[0].node.caller)
    assert next(iter(running)).state_points == snapshot.iterations[0].state_points
    text = "\n".join(live.lines(snapshot))
    assert "iteration 0: chi²" in text
    row = next(line for line in report.text_table(snapshot) if line.startswith("P / GPa"))
    assert [cell.strip() for cell in row.split("|")][1] == "-0.5"
    assert row.count("±") == 2
    for path in plots.plot(snapshot, tmp_path / "plots"):
        assert path.stat().st_size > 5000

    update = next(child for child in trained.called_descendants if child.process_label == "UpdateCalculation")
    for command, expected in (
        (["status", str(trained.pk), "--once"], "iteration"),
        (["report", str(trained.pk)], "meV/Å"),
        (["report", str(trained.pk)], f"Verdict: {judged.line}"),
        (["report", str(trained.pk)], "labels that count in updates: energy "),
        (["plot", str(trained.pk), "-o", str(tmp_path)], "course.png"),
        (["lineage", str(trained.pk)], "potential"),
        (["lineage", str(update.outputs.potential.pk)], "Yarnell"),
        (["potential", "export", str(trained.pk), "-o", str(tmp_path / "p.safetensors")], "wrote"),
    ):
        result = invoke(trained, command)
        assert result.exit_code == 0, result.output
        assert expected in result.output
    assert (
        "exists"
        in invoke(trained, ["potential", "export", str(trained.pk), "-o", str(tmp_path / "p.safetensors")]).output
    )


@pytest.mark.slow
def test_from_scratch(engine: orm.InstalledCode, argon_state_points: Any, job_options: Any) -> None:
    sample = {"calc": {"parameters": {"sampling": SHORT_SAMPLING, "machine": MACHINE}}}
    update = {"calc": {"parameters": {"update": {"max_steps": 2, "gate": 0.2, "bootstrap": 20}, "machine": MACHINE}}}
    jobs = ("pretrain", "sample", "update", "predict")
    hyperparameters = {"epsilon": 0.0103, "sigma": 3.4}
    term = {"architecture": "lennard_jones", "cutoff": 8.0, "hyperparameters": hyperparameters}
    settings = {"max_iterations": 1, "growth": {"thresholds": []}}
    builder = TrainWorkChain.get_builder_from_protocol(
        codes=dict.fromkeys(jobs, engine),
        state_points=argon_state_points(values=[-0.5], errors=[0.01]),
        spec={"species": ["Ar"], "terms": [term]},
        overrides={
            "pretrain": {"calc": {"parameters": {"machine": MACHINE}}},
            "refine": {"settings": settings, "sample": sample, "update": update},
            "validate": {"settings": {"static_stiffness": False, "verdict": False}, "sample": sample},
        },
        options=dict.fromkeys(jobs, job_options),
    )
    node = run_get_node(builder)[1]
    assert node.is_finished_ok, explain(node)
    configurations = node.outputs.potential_pretrained.creator.inputs.dataset
    assert not configurations.labelled
    made_by = configurations.creator.inputs
    assert made_by.solid.uuid == node.inputs.state_points.solid.structure.uuid
    assert "dataset" not in node.outputs
    assert any("made by PretrainCalculation" in line for line in lineage.lines(node.outputs.potential))

    snapshot = snapshots.take(node.pk)
    assert not any("pretraining" in line for line in live.lines(snapshot))
    assert "DFT" not in "\n".join(report.text_table(snapshot) + report.notes(snapshot))
    assert report.table(snapshot).row_count == 1


def invoke(node: orm.Node, command: list[str]) -> Result:
    from aiida.manage import get_manager

    return CliRunner().invoke(cli, ["-p", get_manager().get_profile().name, *command])


def _validation_shares_nothing_with_training(trained: orm.WorkChainNode) -> None:
    samples = [child for child in trained.called_descendants if child.process_label == "SampleCalculation"]
    validated = [job for job in samples if job.caller.caller.process_label == "ValidateWorkChain"]
    assert len(samples) == 4
    assert len(validated) == 2
    assert all("start_trajectory" not in job.inputs for job in validated)
    assert len({job.inputs.parameters["seed"] for job in samples}) == 4


def test_wrong_combinations_are_refused(code: Any, argon_potential: Any, argon_state_points: Any, dataset: Any) -> None:
    def refused(**inputs: Any) -> str:
        builder = TrainWorkChain.get_builder_from_protocol(
            codes=dict.fromkeys(("pretrain", "sample", "update", "predict"), code),
            state_points=argon_state_points(),
            **inputs,
        )
        with pytest.raises(ValueError) as caught:  # noqa: PT011 (the test checks the message)
            run_get_node(builder)
        return str(caught.value)

    term = {"architecture": "lennard_jones", "cutoff": 5.0, "hyperparameters": {"epsilon": 0.003, "sigma": 2.8}}
    neon = {"species": ["Ne"], "terms": [term]}
    steps = {"pretrain": {"calc": {"parameters": {"steps": 10}}}}
    assert "10 steps of pretraining need labels" in refused(spec=neon, overrides=steps)
    assert "holds Ar, but the potential is for Ne" in refused(spec=neon)
    assert "holds Ar, but the potential is for Ne" in refused(spec=neon, dataset=dataset)
    weight = {"refine": {"update": {"calc": {"parameters": {"update": {"loss": {"dataset_weight": 1.0}}}}}}}
    assert "no dataset" in refused(potential=argon_potential(), overrides=weight)
    smooth = {"update": {"loss": {"curvature_width": 0.001}}}
    stages = {"stage_0": {"changes": orm.Dict(smooth)}}
    refused_stage = refused(potential=argon_potential(), stages=stages)
    assert "stage_0: loss.curvature_width is 0.001 eV/Å², the prior of a pair_spline" in refused_stage


def test_commands_explain_what_is_wrong(tmp_path: Any) -> None:
    node = orm.Int(1).store()
    assert "is a Int" in invoke(node, ["status", str(node.pk)]).output
    assert "is no node" in invoke(node, ["lineage", "no-such-node"]).output
    target = tmp_path / "target.yaml"
    target.write_text(yaml.safe_dump(target_content(errors=[-3.0])))
    result = invoke(node, ["target", "import", str(target)])
    assert result.exit_code == 1
    assert "-3.0" in result.output
    target.write_text(yaml.safe_dump(target_content()))
    pk = invoke(node, ["target", "import", str(target)]).output.split()[-1]
    assert f"is stored already, as {pk}" in invoke(node, ["target", "import", str(target)]).output
