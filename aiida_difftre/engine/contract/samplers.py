"""The samplers that make trajectories, by name. Free of JAX: an unknown name is refused where it is read.

Samplers are registered under the entry-point group ``difftre.samplers``; what one has to be is described by
:class:`aiida_difftre.engine.sampling.protocol.Sampler`.
"""

from __future__ import annotations

import functools
from importlib.metadata import EntryPoint, entry_points

from aiida_difftre.engine.errors import did_you_mean

ENTRY_POINT_GROUP = "difftre.samplers"

JAX_MD = "jax_md"
"""The sampler of this package: molecular dynamics with the integrators of jax-md."""


@functools.cache
def registry() -> dict[str, EntryPoint]:
    """Entry points of all registered samplers, by name."""
    return {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}


def check(name: str) -> str:
    """The name of a registered sampler, unchanged.

    Raises:
        ValueError: for a name that nobody registered, with those that are known.
    """
    if name not in registry():
        known = ", ".join(sorted(registry()))
        raise ValueError(
            f"unknown sampler {name!r}; registered: {known} (one of another package has to be installed here)"
            f"{did_you_mean(name, registry())}"
        )
    return name
