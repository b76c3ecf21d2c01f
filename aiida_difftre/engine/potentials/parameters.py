"""The tree of parameters of a potential: as arrays by path, and in a precision."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from aiida_difftre.engine.contract import files
from aiida_difftre.engine.potentials.term import Parameters


def flatten(parameters: Parameters) -> files.Arrays:
    """Turn a tree of parameters into arrays by path.

    Args:
        parameters: Parameters of a potential.

    Returns:
        The arrays by path, such as ``terms/0_moment_network/mlp/w0``.
    """
    leaves = jax.tree_util.tree_flatten_with_path(parameters)[0]
    return {"/".join(str(part.key) for part in path): np.asarray(leaf) for path, leaf in leaves}


def unflatten(arrays: files.Arrays) -> Parameters:
    """Turn arrays by path into a tree of parameters, the inverse of :func:`flatten`.

    Args:
        arrays: The arrays by path.

    Returns:
        Parameters of a potential, on the device.
    """
    tree: Parameters = {}
    for path, array in arrays.items():
        *folders, name = path.split("/")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[name] = jax.device_put(array)  # jnp.asarray compiles a program for each shape
    return tree


def without_references(parameters: Parameters, dtype: Any) -> Parameters:
    """Set the atomic reference energies to zero: large constants would cost all digits of a precision.

    Args:
        parameters: Parameters of a potential.
        dtype: The precision.

    Returns:
        Parameters in that precision.
    """
    free = {**parameters, "atomic_energies": jnp.zeros_like(parameters["atomic_energies"])}
    return jax.tree.map(lambda leaf: leaf.astype(dtype), free)
