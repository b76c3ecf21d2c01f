"""Reference of observables and of the terms of potentials, from their registries."""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Iterator
from typing import Any

from aiida_difftre.engine.contract.architectures import registry
from aiida_difftre.engine.contract.observables import ObservableSpec, observable, registered
from difftre_reference.text import arguments, body, table


def observables_page() -> str:
    """All registered observables."""
    return "\n".join(_observable(observable(name)) for name in sorted(registered()))


def _observable(spec: ObservableSpec) -> str:
    rows = [("unit", f"`{spec.unit}`")]
    if spec.grid_unit is not None:
        rows.append(("grid", f"in `{spec.grid_unit}`"))
    if spec.labels is not None:
        rows.append(("values", ", ".join(spec.labels(spec.options))))
    rows += [(f"option `{name}`", f"default `{json.dumps(value)}`") for name, value in spec.options.items()]
    module, _, name = spec.implementation.partition(":")
    implementation = getattr(importlib.import_module(module), name)
    description = spec.description[0].upper() + spec.description[1:] + "."
    # The first paragraph of the implementation says the same in other words.
    _, _, details = body(implementation).partition("\n\n")
    return f"## {spec.name}\n\n{description}\n\n{details}\n{table(('', ''), rows)}"


def potentials_page() -> str:
    """All registered terms."""
    return "\n".join(_term(name, point.load()) for name, point in sorted(registry().items()))


def _term(name: str, cls: Any) -> str:
    text = body(inspect.getmodule(cls))
    given = body(cls.from_spec).removeprefix("Check the hyperparameters").lstrip(";:.").strip()
    parts = [f"## {name}\n", text, table(("hyperparameter", "default", ""), _hyperparameters(cls))]
    return "\n".join([*parts, f"As given: {given}\n"] if given else parts)


def _hyperparameters(cls: Any) -> Iterator[tuple[str, str, str]]:
    signature = inspect.signature(cls).parameters
    told = arguments(cls, signature)
    for name, parameter in signature.items():
        if name in {"species", "cutoff"}:
            continue
        has_default = parameter.default is not inspect.Parameter.empty
        shown = list(parameter.default) if isinstance(parameter.default, tuple) else parameter.default
        yield f"`{name}`", f"`{json.dumps(shown)}`" if has_default else "", told[name]
