"""Optax optimizers from their name and options, with the learning rate of an :class:`OptimizerSpec`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from aiida_difftre.engine.contract import files
from aiida_difftre.engine.contract.jobs import OptimizerSpec
from aiida_difftre.engine.contract.optimizer_options import GAUSS_NEWTON
from aiida_difftre.engine.errors import EngineError, ExitStatus


def cosine(spec: OptimizerSpec, steps: int) -> optax.Schedule:
    """Learning rate that falls as a cosine over ``decay_steps`` of the spec, or over ``steps`` where that is 0."""
    return optax.cosine_decay_schedule(
        spec.learning_rate, spec.decay_steps or steps, alpha=spec.final_learning_rate_fraction
    )


def exponential(spec: OptimizerSpec) -> optax.Schedule:
    """Learning rate that falls exponentially over ``decay_steps`` of the spec, then stays; constant where that is 0."""
    fraction = spec.final_learning_rate_fraction
    if spec.decay_steps == 0 or fraction == 1:
        return optax.constant_schedule(spec.learning_rate)
    return optax.exponential_decay(
        spec.learning_rate, spec.decay_steps, fraction, end_value=spec.learning_rate * fraction
    )


def make(spec: OptimizerSpec, schedule: optax.Schedule) -> optax.GradientTransformation:
    """The optimizer that a spec describes.

    Args:
        spec: name, options, clipping; of an optimizer of optax.
        schedule: learning rate as a function of the step.

    Returns:
        The optimizer, of optax.

    Raises:
        EngineError: with status INVALID_INPUT, for options whose values optax refuses.
    """
    factory = getattr(optax, spec.name)
    try:
        optimizer = factory(schedule, **spec.options)
    except (TypeError, ValueError) as error:
        message = f"options {spec.options} of optimizer {spec.name!r} are refused by optax: {error}"
        raise EngineError(ExitStatus.INVALID_INPUT, message) from None
    return optimizer if spec.clip_norm is None else optax.chain(optax.clip_by_global_norm(spec.clip_norm), optimizer)


def of_update(spec: OptimizerSpec) -> optax.GradientTransformation:
    """The optimizer of an update; that of Gauss-Newton takes the whole step and returns the part of it to go.

    Raises:
        EngineError: as :func:`make`.
    """
    if spec.name != GAUSS_NEWTON:
        return _as_one_program(make(spec, exponential(spec)))
    part = optax.scale_by_schedule(exponential(spec))
    return _as_one_program(
        part if spec.clip_norm is None else optax.chain(optax.clip_by_global_norm(spec.clip_norm), part)
    )


def _as_one_program(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """The same optimizer, compiled: operation by operation, a step of a short job costs ten times as much."""
    return optax.GradientTransformation(optimizer.init, jax.jit(optimizer.update))


def write_state(path: Path, state: Any) -> None:
    """Write an optimizer state: its leaves by number."""
    files.write_arrays(path, {str(number): np.asarray(leaf) for number, leaf in enumerate(jax.tree.leaves(state))})


def read_state(path: Path, like: Any) -> Any:
    """Read an optimizer state into the structure of ``like``.

    Raises:
        EngineError: with status CORRUPT_FILE, when it belongs to another optimizer or potential.
    """
    arrays, _ = files.read_arrays(path)
    leaves, structure = jax.tree.flatten(like)
    stored = [arrays.get(str(number)) for number in range(len(leaves))]
    restored = [
        jnp.asarray(array, leaf.dtype)
        for array, leaf in zip(stored, leaves, strict=True)
        if array is not None and array.shape == leaf.shape
    ]
    if not len(arrays) == len(leaves) == len(restored):
        raise EngineError(
            ExitStatus.CORRUPT_FILE,
            f"{path.name} is the state of another optimizer or potential; leave it out to start afresh",
        )
    return jax.tree.unflatten(structure, restored)
