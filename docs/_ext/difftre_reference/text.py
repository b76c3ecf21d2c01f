"""Docstrings (Google style, reStructuredText roles) to MyST Markdown, and Markdown tables."""

from __future__ import annotations

import ast
import inspect
import itertools
import re
import textwrap
from collections.abc import Iterable, Sequence
from enum import Enum


class UndocumentedError(ValueError):
    """A public name has no description."""


def inline(text: str) -> str:
    """Roles and double backticks as Markdown; the line breaks of the source are dropped."""
    text = re.sub(r":math:`([^`]+)`", r"$\1$", text)
    text = re.sub(r":[a-z:]+:`~?([^`]+)`", lambda match: f"`{match[1].split('.')[-1]}`", text)
    return " ".join(text.replace("``", "`").split())


def cell(text: str) -> str:
    """Text that does not end a cell of a table."""
    return inline(text).replace("|", "\\|")


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def summary(documented: object) -> str:
    """The first paragraph of a docstring."""
    return inline(_docstring(documented).split("\n\n")[0])


def _docstring(documented: object) -> str:
    found = inspect.getdoc(documented)
    if not found:
        raise UndocumentedError(f"{documented!r} has no docstring")
    return found


def body(documented: object) -> str:
    """A docstring without its sections (Args and the like) as Markdown: paragraphs, equations, code."""
    text = _docstring(documented)
    references = re.search(r"\n\nReferences:\n((?:[ ]+.*\n?)+)", text)
    text = re.split(r"\n\n(?:Args|Raises|Returns|References|Attributes|Example):\n", text)[0]
    parts = []
    for paragraph in text.split("\n\n"):
        if paragraph.startswith(".. math::"):
            equation, rest = _equation(paragraph)
            parts.append(f"```{{math}}\n{equation}\n```")
            if rest:
                parts.append(inline(rest))
        elif paragraph.startswith("    "):
            parts.append(f"```text\n{inspect.cleandoc(paragraph)}\n```")
        else:
            parts.append(inline(paragraph))
    if references:
        parts.append(f"*References.* {inline(references[1])}")
    return "\n\n".join(parts) + "\n"


def _equation(paragraph: str) -> tuple[str, str]:
    first, *others = paragraph.split("\n")
    lines = [first.removeprefix(".. math::").strip()]
    while others and others[0].startswith("    "):
        lines.append(others.pop(0).strip())
    return "\n".join(line for line in lines if line), "\n".join(others)


def meanings(documented: type[Enum]) -> dict[str, str]:
    """The docstrings below the values of an enumeration, by name.

    Raises:
        UndocumentedError: where one of the values has none.
    """
    definition = ast.parse(textwrap.dedent(inspect.getsource(documented))).body[0]
    lines = definition.body if isinstance(definition, ast.ClassDef) else []
    told = {
        line.targets[0].id: text.value.value
        for line, text in itertools.pairwise(lines)
        if isinstance(line, ast.Assign)
        and isinstance(line.targets[0], ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
    }
    for one in documented:
        if one.name not in told:
            raise UndocumentedError(f"{documented.__name__}.{one.name} has no description")
    return told


def arguments(documented: object, names: Iterable[str]) -> dict[str, str]:
    """The descriptions in the Args section of a docstring.

    Raises:
        UndocumentedError: where one of the names has none.
    """
    wanted = set(names)
    section = re.search(r"(?:^|\n)Args:\n(.*?)(?=\n\n|\Z)", _docstring(documented), re.DOTALL)
    found: dict[str, str] = {}
    current = None
    for line in (section[1] if section else "").splitlines():
        name, colon, text = line.strip().partition(":")
        if colon and name in wanted and name not in found:
            current = name
            found[name] = text
        elif current is not None:
            found[current] += " " + line.strip()
    missing = sorted(wanted - set(found))
    if missing:
        raise UndocumentedError(f"{documented!r} does not describe {', '.join(missing)}")
    return {name: inline(text) for name, text in found.items()}
