"""A dry run checks an input, says what it will take, and starts nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ase
import ase.io
from aiida import orm


def test_a_dry_run_starts_nothing(cli: Any, argon_input: Any) -> None:
    before = orm.QueryBuilder().append(orm.Node).count()
    for command in ("run", "submit"):
        answer = cli(command, argon_input(), "--dry-run")
        assert answer.exit_code == 0, answer.output
        assert "core minutes" in answer.output
        assert "the input is right; nothing was started; next: aiida-difftre run " in answer.output
    assert orm.QueryBuilder().append(orm.Node).count() == before

    def absurd(content: dict[str, Any]) -> None:
        times = {"production_fs": 1e9, "stride_fs": 1e8, "timestep_fs": 1.0, "walkers": 65536}
        content.setdefault("sampling", {}).update(times)

    answer = cli("submit", argon_input(absurd), "--dry-run")
    assert answer.exit_code == 1
    assert "core hours would be needed" in answer.output


def test_vacuum_is_said(cli: Any, argon_input: Any, tmp_path: Path) -> None:
    ase.io.write(tmp_path / "cluster.xyz", ase.Atoms("Ar2", positions=[(0, 0, 0), (0, 0, 3.8)]), plain=True)

    def change(content: dict[str, Any]) -> None:
        content["system"] = {"file": "cluster.xyz", "vacuum": 10.0}
        content["state_points"]["solid"]["repeat"] = [1, 1, 1]

    answer = cli("submit", argon_input(change), "--dry-run")
    assert answer.exit_code == 0, answer.output
    assert "state point solid: vacuum of 10 Å on both sides" in answer.output
