"""Reference of the processes from their specs: inputs, outputs, exit codes, and the steps of the work chains."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from typing import Any

from aiida import orm
from aiida.plugins import CalculationFactory, WorkflowFactory
from plumpy.ports import UNSPECIFIED

from difftre_reference.text import UndocumentedError, body, cell, table

GROUPS = {"aiida.workflows": WorkflowFactory, "aiida.calculations": CalculationFactory}
PREFIX, PACKAGE = "difftre.", "aiida_difftre."
ORDER = (
    "difftre.train", "difftre.dataset", "difftre.refine", "difftre.validate",
    "difftre.pretrain.base", "difftre.sample.base", "difftre.update.base", "difftre.predict.base",
    "difftre.assess.base", "difftre.feff.base", "difftre.pw.base",
    "difftre.pretrain", "difftre.sample", "difftre.update", "difftre.predict", "difftre.assess", "difftre.feff",
)  # fmt: skip
FOREIGN = {"code", "monitors", "remote_folder"}
"""Ports that AiiDA gives every job."""


def names(group: str) -> list[str]:
    """Our entry points in a group, in the order of the reference; one that the order does not name comes last."""
    found = [point.name for point in entry_points(group=group) if point.name.startswith(PREFIX)]
    return sorted(found, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))


def page() -> str:
    """The whole page."""
    return "\n".join(section(name, factory(name)) for group, factory in GROUPS.items() for name in names(group))


def section(name: str, process: Any) -> str:
    """What one process takes, gives, and how it can end."""
    spec = process.spec()
    parts = [f"## {name}\n", body(process)]
    if not process.define.__func__.__module__.startswith(PACKAGE):
        return "\n".join(parts)  # its ports are those of another package, whose documentation has them
    parts += ["### Inputs\n", table(("input", "type", "default", ""), inputs(spec))]
    parts += ["### Outputs\n", table(("output", "type", ""), outputs(spec))]
    codes = sorted(spec.exit_codes.values(), key=lambda code: code.status)
    rows = [(str(code.status), cell(code.message)) for code in codes if code.status >= 200]
    parts += ["### Exit codes\n", table(("status", "message"), rows)]
    return "\n".join(parts)


def exposed(spec: Any) -> dict[str, tuple[Any, list[str]]]:
    """By namespace the process whose inputs it holds, and which of them are left out."""
    found = {}
    for namespace, processes in spec._exposed_inputs.items():
        for process in processes:
            if namespace:
                here = set(_paths(spec.inputs[namespace]))
                found[namespace] = (process, sorted(set(_paths(process.spec().inputs)) - here))
    return found


def _paths(namespace: Any, prefix: str = "") -> Iterator[str]:
    for name, port in namespace.items():
        if name == "metadata":
            continue
        yield prefix + name
        if isinstance(port, Mapping):
            yield from _paths(port, f"{prefix}{name}.")


def inputs(spec: Any) -> Iterator[tuple[str, str, str, str]]:
    """Rows: path, type, default, description; inputs of another process are named, not repeated."""
    yield from _inputs(spec.inputs, exposed(spec))


def _inputs(namespace: Any, inner: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str, str, str]]:
    for name, port in namespace.items():
        path = prefix + name
        if name == "metadata":
            continue
        if path in inner:
            process, without = inner[path]
            but = f", without {', '.join(f'`{item}`' for item in without)}" if without else ""
            yield (
                f"`{path}`",
                "namespace",
                _presence(port),
                f"{cell(port.help or '')} Inputs of {_name(process)}{but}.".strip(),
            )
            continue
        yield f"`{path}`", types(port), default(port), description(path, port)
        if isinstance(port, Mapping):
            yield from _inputs(port, inner, f"{path}.")


def outputs(spec: Any) -> Iterator[tuple[str, str, str]]:
    """Rows: path, type, description."""
    for name, port in spec.outputs.items():
        if isinstance(port, Mapping) and port.required is False and not port.help and not port.dynamic:
            continue
        optional = "" if port.required else " (optional)"
        yield f"`{name}`", types(port) + optional, description(name, port)


def description(path: str, port: Any) -> str:
    """The help of a port.

    Raises:
        UndocumentedError: where there is none.
    """
    if not port.help:
        if path.split(".")[-1] in FOREIGN:
            return "See AiiDA's documentation."
        raise UndocumentedError(f"port {path!r} has no help")
    return cell(port.help)


def types(port: Any) -> str:
    """The valid types of a port."""
    if isinstance(port, Mapping):
        return "namespace" + (" by label" if port.dynamic else "")
    valid = port.valid_type if isinstance(port.valid_type, tuple) else (port.valid_type,)
    return ", ".join(f"`{kind.__name__}`" for kind in valid if kind is not None and kind is not type(None)) or "any"


def _presence(port: Any) -> str:
    return "*required*" if port.required else "*optional*"


def default(port: Any) -> str:
    """The default of a port, or whether it is required."""
    value = getattr(port, "default", UNSPECIFIED) if getattr(port, "has_default", lambda: False)() else UNSPECIFIED
    if value is UNSPECIFIED or isinstance(port, Mapping):
        return _presence(port)
    value = value() if callable(value) else value
    if isinstance(value, orm.Dict):
        value = value.get_dict()
    elif isinstance(value, orm.BaseType):
        value = value.value
    return f"`{value!r}`"


def _name(process: Any) -> str:
    for group in GROUPS:
        for point in entry_points(group=group):
            if point.value == f"{process.__module__}:{process.__name__}":
                anchor = point.name.replace(".", "")
                return f"[{point.name}](#{anchor})" if point.name.startswith(PREFIX) else f"`{point.name}`"
    return f"`{process.__name__}`"
