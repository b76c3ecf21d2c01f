"""Commands on nodes that are not there, or not what they are for: one line that says so."""

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
