"""The checker of the engine's annotations, which jaxtyping's import hook puts around every function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from beartype import BeartypeConf, beartype
from beartype.door import is_bearable
from beartype.roar import BeartypeException

CONFIGURATION = BeartypeConf(is_pep484_tower=True)
"""An int does where a float is wanted, as for mypy."""

FunctionT = TypeVar("FunctionT", bound=Callable)


def checked(function: FunctionT) -> FunctionT:
    """Check arguments and what is returned, but for what beartype cannot check: ``Self``, and plain protocols.

    Nor entry points: they are of another class where ``importlib_metadata`` is loaded, which AiiDA's dependencies do.
    """
    hints = {name: Any if "EntryPoint" in str(hint) else hint for name, hint in function.__annotations__.items()}
    function.__annotations__ = hints
    try:
        return beartype(function, conf=CONFIGURATION)
    except BeartypeException:
        function.__annotations__ = {name: hint if _is_checkable(hint) else Any for name, hint in hints.items()}
        return beartype(function, conf=CONFIGURATION)


def _is_checkable(hint: Any) -> bool:
    try:
        is_bearable(None, hint)
    except BeartypeException:
        return False
    return True
