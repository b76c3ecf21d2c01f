"""Commands on nodes that are not there, or not what they are for: one line that says so."""

from typing import Any

import pytest
from aiida import orm
from aiida.manage import get_manager
from click.testing import CliRunner

from aiida_difftre.cli import cli
from aiida_difftre.workchains.main import launch

COMMANDS = (["status"], ["report"], ["plot"], ["lineage"], ["potential", "export"], ["trajectory", "fetch"])


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_wrong_nodes(command: list[str]) -> None:
    number = orm.Int(1).store()
    for pk, told in ((number.pk, "Int"), (10**6, "1000000")):
        result = CliRunner().invoke(cli, ["-p", get_manager().get_profile().name, *command, str(pk)])
        assert result.exit_code == 1, result.output
        assert isinstance(result.exception, SystemExit)
        assert result.output.startswith("Error: ")
        assert told in result.output
        assert len(result.output.splitlines()) == 1


def test_a_run_without_its_inputs(aiida_profile: Any) -> None:
    node = orm.WorkChainNode(label="bare")
    node.set_process_type("aiida.workflows:difftre.train")
    node.set_process_label("TrainWorkChain")
    node.set_process_state("finished")
    node.set_exit_status(503)
    node.store()
    for words in (["status", "--once", str(node.pk)], ["report", str(node.pk)]):
        answer = CliRunner().invoke(cli, ["-p", aiida_profile.name, *words])
        assert answer.exception is None or isinstance(answer.exception, SystemExit), answer.output


def test_a_node_of_the_wrong_kind_for_a_script(code: Any, capsys: pytest.CaptureFixture[str]) -> None:
    number = orm.Int(1).store()
    words = ["--code", str(code.pk), "--potential", str(number.pk), "--structure", str(number.pk), "--temperature", "1"]
    with pytest.raises(SystemExit):
        launch("difftre.sample.base", nodes=("potential", "structure"), values={"temperature": float}, arguments=words)
    assert f"--potential is a Int<{number.pk}>; give a PotentialData" in capsys.readouterr().err
    words = ["--code", str(number.pk), "--structure", str(number.pk)]
    with pytest.raises(SystemExit):
        launch("difftre.dataset", nodes=("structure",), arguments=words)
    assert "--code" in capsys.readouterr().err
