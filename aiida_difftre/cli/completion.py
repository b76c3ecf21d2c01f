"""What the shell proposes with Tab: names of the catalogue, of bases and of runs."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem

COMPLETED_RUNS = 30
"""The newest ones."""


def _starting(names: dict[str, str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(name, help=told or None) for name, told in names.items() if name.startswith(incomplete)]


def targets(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of the catalogue, with ``catalogue:`` where it was typed; where none begins so, files.

    Bash breaks words at a colon, so that there the names without it are what completes.
    """
    from aiida_difftre import catalogue

    prefix = catalogue.PREFIX if incomplete.startswith(catalogue.PREFIX) else ""
    try:
        names = {f"{prefix}{entry.name}": "" for entry in catalogue.entries()}
    except ValueError:
        names = {}
    return _starting(names, incomplete) or [CompletionItem(incomplete, type="file")]


def systems(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Systems of the catalogue."""
    from aiida_difftre import catalogue

    try:
        return _starting({entry.system: "" for entry in catalogue.entries()}, incomplete)
    except ValueError:
        return []


def observables(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of observables."""
    from aiida_difftre.engine.contract.observables import registered

    return _starting(dict.fromkeys(sorted(registered()), ""), incomplete)


def bases(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of base potentials."""
    from aiida_difftre.engine.contract import known_bases

    return _starting({base.name: base.description for base in known_bases.registry().values()}, incomplete)


def runs(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """PKs of the newest runs, with their labels and states; none where no profile can be loaded."""
    from aiida_difftre.cli.nodes import load
    from aiida_difftre.cli.runs import newest

    try:
        load(context.find_root().params.get("profile"))
        found = newest(COMPLETED_RUNS)
    except Exception:  # a shell shows whatever is raised in the middle of the line that is typed
        return []
    return _starting({str(one["run"]): f"{one['label']}, {one['state']}" for one in found}, incomplete)
