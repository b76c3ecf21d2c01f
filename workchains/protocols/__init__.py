"""Protocols: the inputs of a chain by preset, one YAML file per chain, with overrides merged in."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from aiida_difftre.engine.contract.documents import parse_yaml
from aiida_difftre.engine.errors import did_you_mean


def load_protocol(
    chain: str, protocol: str | None = None, overrides: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Read the inputs of a work chain for a preset, with overrides merged in.

    A file of presets holds ``default`` (a preset), ``inputs`` (of every preset) and ``presets`` (name to
    ``description`` and what differs from ``inputs``).

    Args:
        chain: Name of the file of presets, such as ``sample``.
        protocol: Name of the preset; None for the default one.
        overrides: What replaces values of the preset, merged key by key.

    Returns:
        Plain dictionaries, numbers and strings in the nesting of the chain's inputs; a copy that may be changed.

    Raises:
        ValueError: For an unknown chain or preset; the message lists those that there are.

    Example:
        >>> from aiida_difftre.workchains.protocols import load_protocol
        >>> inputs = load_protocol("refine", overrides={"settings": {"max_iterations": 7}})
        >>> inputs["settings"]["max_iterations"]
        7
    """
    content = _read(chain)
    name = protocol or content["default"]
    if name not in content["presets"]:
        known = ", ".join(f"{one} ({text})" for one, text in available_protocols(chain).items())
        near = did_you_mean(name, content["presets"])
        raise ValueError(f"unknown protocol {name!r} of {chain!r}; known protocols: {known}{near}")
    preset = {key: value for key, value in content["presets"][name].items() if key != "description"}
    return deep_merge(deep_merge(content.get("inputs") or {}, preset), overrides or {})


def protocol_file(chain: str) -> Path:
    """The file of a chain.

    Raises:
        ValueError: for an unknown chain, naming those that there are.
    """
    path = Path(str(files(__package__))) / f"{chain}.yaml"
    if not path.is_file():
        known = sorted(file.stem for file in path.parent.glob("*.yaml"))
        raise ValueError(f"there is no protocol for {chain!r}; chains with protocols: {', '.join(known)}")
    return path


def default_protocol(chain: str) -> str:
    """Name of the preset that is taken where none is named."""
    return str(_read(chain)["default"])


def available_protocols(chain: str) -> dict[str, str]:
    """The presets of a chain, each with a line of description; the default first."""
    content = _read(chain)
    names = sorted(content["presets"], key=lambda name: name != content["default"])
    return {name: content["presets"][name]["description"] for name in names}


def deep_merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of ``base`` in which ``changes`` replace values; where both hold a mapping, key by key.

    A mapping with another ``name`` is another thing (a thermostat, an optimizer) and replaces as a whole.
    """
    merged = {key: copy.deepcopy(value) for key, value in base.items()}
    for key, value in changes.items():
        before = merged.get(key)
        if isinstance(value, Mapping) and isinstance(before, Mapping) and not _is_another(before, value):
            merged[key] = deep_merge(before, value)
        else:
            merged[key] = deep_merge({}, value) if isinstance(value, Mapping) else value
    return merged


def _is_another(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    return "name" in before and "name" in after and before["name"] != after["name"]


def _read(chain: str) -> dict[str, Any]:
    return parse_yaml(protocol_file(chain).read_text(encoding="utf-8"))
