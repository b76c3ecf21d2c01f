"""The optimizers and their options, by name. Free of JAX: an input is refused where it is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiida_difftre.engine.contract.bounds import Limits, is_number
from aiida_difftre.engine.errors import did_you_mean, shown

GAUSS_NEWTON = "gauss_newton"
"""Of updates alone: the step towards all targets, as far as the effective samples carry."""

DAMPING = 1.0
"""Default of its one option, ``damping``."""

OPTAX: dict[str, tuple[str, ...]] = {
    "adabelief": ("b1", "b2", "eps", "eps_root", "nesterov"),
    "adadelta": ("rho", "eps", "weight_decay"),
    "adagrad": ("initial_accumulator_value", "eps"),
    "adam": ("b1", "b2", "eps", "eps_root", "mu_dtype", "nesterov"),
    "adamax": ("b1", "b2", "eps"),
    "adamaxw": ("b1", "b2", "eps", "weight_decay"),
    "adamw": ("b1", "b2", "eps", "eps_root", "mu_dtype", "weight_decay", "nesterov"),
    "adan": ("b1", "b2", "b3", "eps", "eps_root", "weight_decay"),
    "amsgrad": ("b1", "b2", "eps", "eps_root", "mu_dtype", "bias_correction_mu", "bias_correction_nu"),
    "fromage": ("min_norm",),
    "lamb": ("b1", "b2", "eps", "eps_root", "weight_decay"),
    "lars": (
        "weight_decay",
        "trust_coefficient",
        "eps",
        "momentum",
        "nesterov",
    ),
    "lion": ("b1", "b2", "mu_dtype", "weight_decay"),
    "nadam": ("b1", "b2", "eps", "eps_root", "mu_dtype", "nesterov"),
    "nadamw": ("b1", "b2", "eps", "eps_root", "mu_dtype", "weight_decay", "nesterov"),
    "novograd": ("b1", "b2", "eps", "eps_root", "weight_decay"),
    "radam": ("b1", "b2", "eps", "eps_root", "threshold", "nesterov"),
    "rmsprop": ("decay", "eps", "initial_scale", "eps_in_sqrt", "centered", "momentum", "nesterov", "bias_correction"),
    "sgd": ("momentum", "nesterov", "accumulator_dtype"),
    "yogi": ("b1", "b2", "eps"),
}
"""First-order optimizers of optax that need the gradient alone, and their options but for the learning rate and for
masks, which are functions."""

_PAST = Limits(least=0, below=1, reason="it is the weight of the past in a running mean")
_SMALL = Limits(least=0, most=1, reason="it only keeps a division from overflowing")
_SCALE = Limits(least=0, most=1e6, reason="it is in units of the parameters or their gradients")

NUMBERS: dict[str, Limits] = {
    **dict.fromkeys(("b1", "b2", "b3", "rho", "decay", "momentum"), _PAST),
    **dict.fromkeys(("eps", "eps_root"), _SMALL),
    **dict.fromkeys(("initial_accumulator_value", "initial_scale", "min_norm"), _SCALE),
    "weight_decay": Limits(least=0, most=1, reason="it is the fraction of a parameter that a step takes away"),
    "trust_coefficient": Limits(above=0, most=1000, reason="it is the length of a step over that of the parameters"),
    "threshold": Limits(least=0, most=1e6, reason="it is a number of steps"),
    "damping": Limits(above=0, most=1e12, reason="it is relative to the curvature: 1 is usual"),
}
"""Options that are numbers; ``momentum`` may also be null."""

BOOLEANS = ("nesterov", "bias_correction", "bias_correction_mu", "bias_correction_nu", "centered", "eps_in_sqrt")

TYPES = ("mu_dtype", "accumulator_dtype")
"""Options that name the type of running means, or are null."""

KNOWN_TYPES = ("bfloat16", "float16", "float32", "float64")

KNOWN: dict[str, tuple[str, ...]] = {**OPTAX, GAUSS_NEWTON: ("damping",)}


def check(name: str, options: Mapping[str, Any]) -> None:
    """Refuse an optimizer or an option that is not known, and a value that the option cannot have.

    Raises:
        ValueError: naming it, and the known ones or the bounds.
    """
    if name not in KNOWN:
        raise ValueError(f"unknown optimizer {name!r}; known: {', '.join(KNOWN)}{did_you_mean(name, KNOWN)}")
    for option in options:
        if option not in KNOWN[name]:
            near, options_of = did_you_mean(option, KNOWN[name]), ", ".join(KNOWN[name])
            raise ValueError(f"optimizer {name!r} has no option {option!r}; its options: {options_of}{near}")
        _check_value(option, options[option])


def _check_value(option: str, value: Any) -> None:
    if option in BOOLEANS:
        right, wanted = isinstance(value, bool), "must be true or false"
    elif option in TYPES:
        right, wanted = value is None or value in KNOWN_TYPES, f"must be one of {', '.join(KNOWN_TYPES)}"
    else:
        right, wanted = is_number(value) or (option == "momentum" and value is None), "must be a number"
    if not right:
        raise ValueError(f"{option} = {shown(value)} {wanted}")
    if option in NUMBERS and value is not None:
        try:
            NUMBERS[option].check(value)
        except ValueError as error:
            raise ValueError(f"{option} = {shown(value)} {error}") from None


def damping(options: Mapping[str, Any]) -> float:
    """Damping of Gauss-Newton steps, relative to the mean of the diagonal of the metric of each array of parameters.

    Args:
        options: checked ones.
    """
    return float(options.get("damping", DAMPING))
