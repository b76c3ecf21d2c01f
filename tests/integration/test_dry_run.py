"""A dry run checks an input, says what it will take, and starts nothing."""

from __future__ import annotations

from typing import Any

from aiida import orm


def test_a_dry_run_starts_nothing(cli: Any, argon_input: Any) -> None:
    before = orm.QueryBuilder().append(orm.Node).count()
    for command in ("run", "submit"):
        answer = cli(command, argon_input(), "--dry-run")
        assert answer.exit_code == 0, answer.output
        assert "core minutes" in answer.output
        assert answer.output.endswith("the input is right; nothing was started\n")
    assert orm.QueryBuilder().append(orm.Node).count() == before

    def absurd(content: dict[str, Any]) -> None:
        times = {"production_fs": 1e9, "stride_fs": 1e8, "timestep_fs": 1.0, "walkers": 65536}
        content.setdefault("sampling", {}).update(times)

    answer = cli("submit", argon_input(absurd), "--dry-run")
    assert answer.exit_code == 1
    assert "core hours would be needed" in answer.output
