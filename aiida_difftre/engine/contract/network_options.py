"""The hyperparameters of networks and what they may be. Free of JAX: an input is refused where it is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ACTIVATIONS = ("silu", "tanh", "softplus")


def check_moment_network(hyperparameters: Mapping[str, Any]) -> None:
    """Refuse hyperparameters of ``moment_network`` of another type, or out of range; those not given are right.

    Raises:
        ValueError: naming the value, and what is wanted.
    """
    integers = {"n_radial": (2, 32), "rank": (0, 3)}
    for name, (least, most) in integers.items():
        value = hyperparameters.get(name, least)
        if not _is_integer(value) or not least <= value <= most:
            raise ValueError(f"{name} = {value!r} must be an integer from {least} to {most}")
    hidden = hyperparameters.get("hidden", (1,))
    is_list = isinstance(hidden, list | tuple) and len(hidden) > 0
    if not is_list or not all(_is_integer(width) and width >= 1 for width in hidden):
        raise ValueError(f"hidden = {hidden!r} must be a list of positive integers, the widths of the hidden layers")
    activation = hyperparameters.get("activation", ACTIVATIONS[0])
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation = {activation!r} must be one of {', '.join(ACTIVATIONS)}")
    scale = hyperparameters.get("output_scale", 0)
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not 0 <= scale <= 1:
        raise ValueError(f"output_scale = {scale!r} must be a number from 0 (a zero residual) to 1")


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
