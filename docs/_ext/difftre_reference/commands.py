"""Reference of the commands from click and argparse."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator

import click

from aiida_difftre.cli import cli
from aiida_difftre.cli.data import potential
from difftre_reference.text import UndocumentedError, cell, inline, table


def page() -> str:
    """All commands."""
    parts = [part for path, command in walk("aiida-difftre", cli) for part in section(path, command)]
    parts += [
        part for path, command in walk("verdi data difftre.potential", potential) for part in section(path, command)
    ]
    for name, words in (("difftre", []), ("difftre export", ["export"]), ("difftre convert", ["convert"])):
        parts += [f"## {name}\n", f"```text\n{engine_help(words)}```\n"]
    return "\n".join(parts)


def walk(path: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    """A command and all below it, with what one types."""
    yield path, command
    if isinstance(command, click.Group):
        for name, inner in sorted(command.commands.items()):
            yield from walk(f"{path} {name}", inner)


def section(path: str, command: click.Command) -> Iterator[str]:
    """Usage, description and options of a command.

    Raises:
        UndocumentedError: for a command or option without help.
    """
    if not command.help:
        raise UndocumentedError(f"command {path!r} has no help")
    context = click.Context(command, info_name=path)
    yield f"## {path}\n"
    yield f"```text\n{path} {' '.join(command.collect_usage_pieces(context))}\n```\n"
    yield f"{inline(command.help)}\n"
    rows = []
    for parameter in command.params:
        if not isinstance(parameter, click.Option):
            continue
        record = parameter.get_help_record(context)
        if record is None or not record[1]:
            raise UndocumentedError(f"option {parameter.name!r} of {path!r} has no help")
        rows.append((f"`{record[0]}`", cell(record[1])))
    if rows:
        yield table(("option", ""), rows)


def engine_help(words: list[str]) -> str:
    """What ``difftre --help`` prints, or that of one of its commands."""
    from aiida_difftre.engine.cli import cli as engine

    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        engine([*words, "--help"])
    return text.getvalue()
