"""The optimizers and their options, by name. Free of JAX: an input is refused where it is read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

GAUSS_NEWTON = "gauss_newton"
"""Of updates alone: the step towards all targets, as far as the effective samples carry."""

DAMPING = 1.0
"""Default of its one option, ``damping``."""

OPTAX: dict[str, tuple[str, ...]] = {
    "adabelief": ("b1", "b2", "eps", "eps_root", "nesterov"),
    "adadelta": ("rho", "eps", "weight_decay", "weight_decay_mask"),
    "adagrad": ("initial_accumulator_value", "eps"),
    "adam": ("b1", "b2", "eps", "eps_root", "mu_dtype", "nesterov"),
    "adamax": ("b1", "b2", "eps"),
    "adamaxw": ("b1", "b2", "eps", "weight_decay", "mask"),
    "adamw": ("b1", "b2", "eps", "eps_root", "mu_dtype", "weight_decay", "mask", "nesterov"),
    "adan": ("b1", "b2", "b3", "eps", "eps_root", "weight_decay", "mask"),
    "amsgrad": ("b1", "b2", "eps", "eps_root", "mu_dtype", "bias_correction_mu", "bias_correction_nu"),
    "fromage": ("min_norm",),
    "lamb": ("b1", "b2", "eps", "eps_root", "weight_decay", "mask"),
    "lars": (
        "weight_decay",
        "weight_decay_mask",
        "trust_coefficient",
        "eps",
        "trust_ratio_mask",
        "momentum",
        "nesterov",
    ),
    "lion": ("b1", "b2", "mu_dtype", "weight_decay", "mask"),
    "nadam": ("b1", "b2", "eps", "eps_root", "mu_dtype", "nesterov"),
    "nadamw": ("b1", "b2", "eps", "eps_root", "mu_dtype", "weight_decay", "mask", "nesterov"),
    "novograd": ("b1", "b2", "eps", "eps_root", "weight_decay"),
    "radam": ("b1", "b2", "eps", "eps_root", "threshold", "nesterov"),
    "rmsprop": ("decay", "eps", "initial_scale", "eps_in_sqrt", "centered", "momentum", "nesterov", "bias_correction"),
    "sgd": ("momentum", "nesterov", "accumulator_dtype"),
    "yogi": ("b1", "b2", "eps"),
}
"""First-order optimizers of optax that need the gradient alone, and their options but for the learning rate."""

KNOWN: dict[str, tuple[str, ...]] = {**OPTAX, GAUSS_NEWTON: ("damping",)}


def check(name: str, options: Mapping[str, Any]) -> None:
    """Refuse an optimizer or an option that is not known.

    Raises:
        ValueError: naming it and the known ones.
    """
    if name not in KNOWN:
        raise ValueError(f"unknown optimizer {name!r}; known: {', '.join(KNOWN)}")
    for option in options:
        if option not in KNOWN[name]:
            raise ValueError(f"optimizer {name!r} has no option {option!r}; its options: {', '.join(KNOWN[name])}")
    if name == GAUSS_NEWTON:
        damping(options)


def damping(options: Mapping[str, Any]) -> float:
    """Damping of Gauss-Newton steps, relative to the mean of the diagonal of the metric of each array of parameters.

    Raises:
        ValueError: naming the value.
    """
    value = options.get("damping", DAMPING)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError(f"damping = {value!r} must be a positive number, such as {DAMPING}")
    return float(value)
