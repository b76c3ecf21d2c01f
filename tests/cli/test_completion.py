"""What the shell proposes with Tab."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from aiida import orm
from aiida.manage import get_manager
from click.shell_completion import ShellComplete
from plumpy.process_states import ProcessState

from aiida_difftre.cli import cli, completion


def proposed(words: list[str], incomplete: str) -> list[tuple[str, str]]:
    complete = ShellComplete(cli, {}, "aiida-difftre", "_AIIDA_DIFFTRE_COMPLETE")
    return [(str(item.value), item.type) for item in complete.get_completions(words, incomplete)]


@pytest.mark.parametrize(
    ("words", "incomplete", "told"),
    [
        (["init", "Ni.cif", "--target"], "catalogue:Ni/s", ["catalogue:Ni/stiffness_298K"]),
        (["init", "Ni.cif", "-t"], "Ni/st", ["Ni/stiffness_298K"]),
        (["target", "list", "--system"], "Ni", ["Ni"]),
        (["target", "list", "--observable"], "stif", ["stiffness"]),
        (["target", "import", "table.csv", "--observable"], "stif", ["stiffness"]),
        (["init", "Ni.cif", "--base"], "em", ["emt"]),
        (["setup", "--base"], "chg", ["chgnet"]),
    ],
)
def test_names(words: list[str], incomplete: str, told: list[str]) -> None:
    assert proposed(words, incomplete) == [(one, "plain") for one in told]


def test_target_files() -> None:
    assert proposed(["init", "Ni.cif", "--target"], "./mea") == [("./mea", "file")]


def test_a_catalogue_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DIFFTRE_CATALOGUE", str(tmp_path / "nowhere"))
    assert proposed(["target", "list", "--system"], "Ni") == []
    assert proposed(["init", "--target"], "Ni/") == [("Ni/", "file")]


def test_runs(aiida_profile: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    node = orm.WorkChainNode(label="nickel")
    node.set_process_type("aiida.workflows:difftre.train")
    node.set_process_label("TrainWorkChain")
    node.set_process_state(ProcessState.WAITING)
    node.store()
    profile = get_manager().get_profile()
    assert profile is not None
    assert (str(node.pk), "plain") in proposed(["-p", profile.name, "status"], "")
    assert proposed(["-p", profile.name, "report"], str(node.pk)) == [(str(node.pk), "plain")]
    monkeypatch.setattr(completion, "COMPLETED_RUNS", 1)
    assert proposed(["-p", profile.name, "report"], "9999999") == []
    assert proposed(["-p", "no-such-profile", "report"], "") == []
