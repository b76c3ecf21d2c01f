"""What the builders of all chains share: protocols as methods, codes by label, and refusal of what would be dropped."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar

from aiida import orm
from aiida.common import AiidaException

from aiida_difftre.engine.contract.base import Strict
from aiida_difftre.engine.contract.validation import validate
from aiida_difftre.engine.errors import did_you_mean
from aiida_difftre.workchains.protocols import available_protocols, default_protocol, load_protocol, protocol_file


class ProtocolMixin:
    """The presets of a work chain, by the methods that aiida-quantumespresso made customary.

    Example:
        >>> from aiida_difftre.workchains.refine import RefineWorkChain
        >>> RefineWorkChain.get_default_protocol(), sorted(RefineWorkChain.get_available_protocols())
        ('quick', ['cpu', 'paper', 'quick'])
    """

    CHAIN: ClassVar[str]
    """Name of the protocol file."""

    @classmethod
    def get_protocol_filepath(cls) -> Path:
        """Find the YAML file that holds the presets of the chain.

        Returns:
            Its path.
        """
        return protocol_file(cls.CHAIN)

    @classmethod
    def get_default_protocol(cls) -> str:
        """Tell which preset is taken where none is named.

        Returns:
            Its name.
        """
        return default_protocol(cls.CHAIN)

    @classmethod
    def get_available_protocols(cls) -> dict[str, dict[str, str]]:
        """List the presets, the default first.

        Returns:
            For each name a dictionary with its ``description``.
        """
        return {name: {"description": text} for name, text in available_protocols(cls.CHAIN).items()}

    @classmethod
    def get_protocol_inputs(
        cls, protocol: str | None = None, overrides: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Read the inputs of a preset, with overrides merged in.

        Args:
            protocol: Name of the preset; None for the default one.
            overrides: What replaces values of the preset, merged key by key.

        Returns:
            Plain dictionaries, numbers and strings in the nesting of the chain's inputs.

        Raises:
            ValueError: For an unknown preset; the message lists those that there are.
        """
        return load_protocol(cls.CHAIN, protocol, overrides)


def load_code(code: orm.AbstractCode | str) -> orm.AbstractCode:
    """Find a code by its label, PK or UUID.

    Args:
        code: A code, which is given back as it is, or what identifies one.

    Returns:
        The code.

    Raises:
        ValueError: Where there is no such code, or more than one.

    Example:
        >>> from aiida_difftre.workchains.builders import load_code
        >>> load_code("difftre@nowhere")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        ValueError: there is no code 'difftre@nowhere': ...
    """
    if isinstance(code, orm.AbstractCode):
        return code
    try:
        return orm.load_code(code)
    except (AiidaException, ValueError, TypeError) as error:
        raise ValueError(f"there is no code {code!r}: {error}; `verdi code list` shows those that there are") from None


def settings_validator(model: type[Strict]) -> Callable[[orm.Dict | None, Any], str | None]:
    """Make the validator of a port that takes the settings of a work chain.

    Args:
        model: Model of the settings.

    Returns:
        A port validator.
    """

    def check(node: orm.Dict | None, _: Any) -> str | None:
        try:
            validate(model, node.get_dict() if node is not None else {})
        except ValueError as error:
            return f"settings: {error}"
        return None

    return check


def refuse_unknown(given: Mapping[str, Any] | None, known: Collection[str], what: str) -> None:
    """Refuse what a builder would drop.

    Args:
        given: What is given, by name.
        known: the names that are used.
        what: that is given, such as ``overrides of refine``.

    Raises:
        ValueError: naming the unknown and the known names.
    """
    unknown = sorted(set(given or {}) - set(known))
    if unknown:
        near = did_you_mean(unknown[0], known)
        raise ValueError(f"{what}: unknown {', '.join(map(repr, unknown))}; known are {', '.join(sorted(known))}{near}")
