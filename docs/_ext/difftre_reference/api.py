"""The public names, which the pages of ``docs/reference/api`` list: each must say how it is called, with an example.

What is listed there is what users and authors of plug-ins import. What ``aiida_difftre.engine.calculator`` and its like
offer in their ``__all__`` has to be listed too.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil
import re
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from difftre_reference.text import UndocumentedError, arguments

LISTED = re.compile(r"^\.\. auto(?:function|class|exception|method):: (\S+)$", re.MULTILINE)
OFFERING = "aiida_difftre.engine"
"""The package whose modules are the short names that users import; the modules deeper down only help each other."""


def listed(folder: Path) -> list[str]:
    """The public names, as the pages in a folder list them: module and name, with dots."""
    return [name for page in sorted(folder.glob("*.md")) for name in LISTED.findall(page.read_text(encoding="utf-8"))]


def found(name: str) -> Any:
    """The object of a public name, which may be a method of a class."""
    return pkgutil.resolve_name(name)


def check(folder: Path) -> None:
    """Refuse public names without documentation, and names that a module offers and no page lists.

    Raises:
        UndocumentedError: for all of them together.
    """
    names = listed(folder)
    problems = [problem for name in names for problem in complaints(name, found(name))]
    known = {id(found(name)) for name in names}
    problems += [f"{name} is offered by __all__, and no page lists it" for name, it in offered() if id(it) not in known]
    if problems:
        raise UndocumentedError("; ".join(problems))


def offered() -> Iterator[tuple[str, Any]]:
    """What the modules that users import offer in their ``__all__``."""
    for info in pkgutil.iter_modules(importlib.import_module(OFFERING).__path__, f"{OFFERING}."):
        spec = importlib.util.find_spec(info.name)
        if spec is not None and spec.origin is not None and "\n__all__" in Path(spec.origin).read_text("utf-8"):
            module = importlib.import_module(info.name)
            yield from ((f"{info.name}.{name}", getattr(module, name)) for name in module.__all__)


def complaints(name: str, documented: Any) -> Iterator[str]:
    """What the docstring of a public name lacks."""
    text = inspect.getdoc(documented) or ""
    summary = text.split("\n\n")[0]
    if not text or "\n" in summary or not summary.endswith("."):
        yield f"{name} has no summary of one line"
        return
    try:
        arguments(documented, parameters(documented))
    except UndocumentedError as error:
        yield f"{name}: {error}"
    returned = inspect.signature(documented).return_annotation if inspect.isroutine(documented) else None
    if returned not in (None, "None", inspect.Signature.empty) and "\nReturns:\n" not in text:
        yield f"{name} does not say what it returns"
    if "\nExample:\n" not in text or ">>> " not in text:
        yield f"{name} has no example"


def parameters(documented: Any) -> list[str]:
    """Names of the arguments that a caller gives."""
    if inspect.isclass(documented):
        if issubclass(documented, Enum) or getattr(documented, "_is_protocol", False):
            return []
        if issubclass(documented, BaseModel):
            return list(documented.model_fields)
        maker = next(one for one in documented.__mro__ if {"__init__", "__new__"} & set(vars(one)))
        if not maker.__module__.startswith("aiida_difftre"):
            return []  # those of a node of AiiDA, which has methods to make it
    return [
        name
        for name, parameter in inspect.signature(documented).parameters.items()
        if name != "self" and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
