"""What the comparisons with backpropagation share: a trajectory that can be differentiated in reverse, and norms."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any


def trajectory(step: Callable[[Any], Any], start: Any, stride: int, snapshots: int) -> Any:
    """Positions after every ``stride`` steps; the reverse derivative keeps a checkpoint at each snapshot and step."""
    import jax

    @jax.checkpoint
    def checked(state: Any, _: None) -> tuple[Any, None]:
        return step(state), None

    @jax.checkpoint
    def block(state: Any, _: None) -> tuple[Any, Any]:
        state, _ = jax.lax.scan(checked, state, None, length=stride)
        return state, state.position

    return jax.lax.scan(block, start, None, length=snapshots)[1]


def norm(tree: Any) -> float:
    """Euclidean norm of all arrays of a tree; whole where the squares of what explodes overflow."""
    import jax
    import jax.numpy as jnp

    values = jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(tree)])
    scale = float(jnp.max(jnp.abs(values)))
    return scale * float(jnp.linalg.norm(values / scale)) if 0 < scale < math.inf else scale
