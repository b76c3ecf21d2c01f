"""Commands on nodes that are not there, or not what they are for: one line that says so."""

from typing import Any

import pytest
from aiida import orm
from aiida.manage import get_manager
from click.testing import CliRunner

from aiida_difftre.cli import cli

COMMANDS = (["status"], ["report"], ["plot"], ["lineage"], ["potential", "export"])


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
