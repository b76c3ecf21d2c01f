"""What the builders of all chains share: protocols as methods, codes by label, and refusal of what would be dropped."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar

from aiida import orm
from aiida.common import AiidaException

from aiida_difftre.workchains.protocols import available_protocols, default_protocol, load_protocol, protocol_file


class ProtocolMixin:
    """The protocols of a chain, by the methods that aiida-quantumespresso made customary."""

    CHAIN: ClassVar[str]
    """Name of the protocol file."""

    @classmethod
    def get_protocol_filepath(cls) -> Path:
        """The YAML file that holds the presets of the chain."""
        return protocol_file(cls.CHAIN)

    @classmethod
    def get_default_protocol(cls) -> str:
        """Name of the preset that is taken where none is named."""
        return default_protocol(cls.CHAIN)

    @classmethod
    def get_available_protocols(cls) -> dict[str, dict[str, str]]:
        """Names of the presets, the default first, each with its ``description``."""
        return {name: {"description": text} for name, text in available_protocols(cls.CHAIN).items()}

    @classmethod
    def get_protocol_inputs(
        cls, protocol: str | None = None, overrides: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """The inputs of a preset with overrides merged in, as plain dictionaries.

        Args:
            protocol: name of a preset; None for the default one.
            overrides: merged key by key.

        Raises:
            ValueError: for an unknown preset, naming those that there are.
        """
        return load_protocol(cls.CHAIN, protocol, overrides)


def load_code(code: orm.AbstractCode | str) -> orm.AbstractCode:
    """A code, or the one of that label, PK or UUID.

    Raises:
        ValueError: where there is none, or more than one.
    """
    if isinstance(code, orm.AbstractCode):
        return code
    try:
        return orm.load_code(code)
    except (AiidaException, ValueError, TypeError) as error:
        raise ValueError(f"there is no code {code!r}: {error}; `verdi code list` shows those that there are") from None


def refuse_unknown(given: Mapping[str, Any] | None, known: Collection[str], what: str) -> None:
    """Refuse what a builder would drop.

    Args:
        given: by name.
        known: the names that are used.
        what: that is given, such as ``overrides of refine``.

    Raises:
        ValueError: naming the unknown and the known names.
    """
    unknown = sorted(set(given or {}) - set(known))
    if unknown:
        raise ValueError(f"{what}: unknown {', '.join(map(repr, unknown))}; known are {', '.join(sorted(known))}")
