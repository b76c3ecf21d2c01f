"""What pair terms share: pairs of species, distances that are safe to differentiate, the switch at the cutoff."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import combinations_with_replacement
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from aiida_difftre.engine.potentials import Environment


class PairDistances(NamedTuple):
    """Distances from each atom to its neighbours.

    Args:
        distance: Å; the cutoff where ``within`` is False.
        within: True for real neighbours inside the cutoff.
        pair: index into :func:`pair_labels`.
    """

    distance: Float[Array, "atoms neighbors"]
    within: Bool[Array, "atoms neighbors"]
    pair: Int[Array, "atoms neighbors"]


def pair_labels(species: tuple[str, ...]) -> list[str]:
    """Labels of the unordered pairs of species, such as ``C-C``, ``C-O``, ``O-O`` for C and O."""
    return [f"{a}-{b}" for a, b in combinations_with_replacement(species, 2)]


def pair_distances(environment: Environment, cutoff: float, n_species: int) -> PairDistances:
    """Distances within the cutoff and the pairs of species that they belong to."""
    distance, within = masked_distances(environment, cutoff)
    low = jnp.minimum(environment.species[..., None], environment.neighbor_species)
    high = jnp.maximum(environment.species[..., None], environment.neighbor_species)
    return PairDistances(distance, within, low * n_species - low * (low - 1) // 2 + high - low)


def masked_distances(
    environment: Environment, cutoff: float
) -> tuple[Float[Array, "atoms neighbors"], Bool[Array, "atoms neighbors"]]:
    """Distances, the cutoff where there is no neighbour within it, and where there is one.

    The mask acts before the square root: padded pairs sit at r = 0, where it has no derivative.
    """
    if environment.distances is not None:
        within = environment.mask & (environment.distances < cutoff)
        return jnp.where(within, environment.distances, cutoff), within
    squared = environment.squared_distances()
    within = environment.mask & (squared < cutoff**2)
    return jnp.sqrt(jnp.where(within, squared, cutoff**2)), within


def of_pair(values: Float[Array, " pairs"], distances: PairDistances) -> Array:
    """The parameter of each neighbour's pair of species, in the precision of the distances."""
    values = values.astype(distances.distance.dtype)
    return values[0] if values.shape[0] == 1 else values[distances.pair]


def half_sum(energy: Float[Array, "atoms neighbors"], distances: PairDistances) -> Float[Array, " atoms"]:
    """Energy of each atom, half of that of each of its pairs."""
    return 0.5 * jnp.sum(jnp.where(distances.within, energy, 0.0), -1)


def switch(distance: Float[Array, "*shape"], onset: float, cutoff: float) -> Float[Array, "*shape"]:
    """1 up to ``onset``, then 1 - 10 t³ + 15 t⁴ - 6 t⁵ to 0 at ``cutoff``: twice continuously differentiable."""
    t = jnp.clip((distance - onset) / (cutoff - onset), 0.0, 1.0)
    return 1 - t**3 * (10 - t * (15 - 6 * t))


def check_onset(onset: Any, cutoff: float) -> float:
    """The onset of the switch, 0.9 of the cutoff by default.

    Raises:
        ValueError: where it does not lie between zero and the cutoff.
    """
    if onset is None:
        return 0.9 * cutoff
    value = number("onset", onset)
    if not 0 < value < cutoff:
        raise ValueError(f"onset = {value} Å must lie between 0 and the cutoff, {cutoff} Å")
    return value


def number(name: str, value: Any) -> float:
    """A finite number.

    Raises:
        ValueError: naming it and the value.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name} = {value!r} must be a finite number")
    return float(value)


def positive(name: str, value: Any) -> float:
    """A positive number.

    Raises:
        ValueError: naming it and the value.
    """
    if number(name, value) <= 0:
        raise ValueError(f"{name} = {value!r} must be positive")
    return float(value)


def positive_per_pair(name: str, value: Any, species: tuple[str, ...]) -> tuple[float, ...]:
    """Positive numbers, one for each pair of species, from one number or from a mapping such as ``{"C-O": 1.2}``.

    Raises:
        ValueError: naming the number that is not positive, or the pair that is missing or unknown.
    """
    labels = pair_labels(species)
    if not isinstance(value, Mapping):
        return (positive(name, value),) * len(labels)
    ordered = {}
    for key, item in value.items():
        label = key if key in labels else "-".join(reversed(str(key).split("-")))
        if label not in labels:
            raise ValueError(f"{name} has a value for the pair {key!r}; pairs of this potential: {', '.join(labels)}")
        ordered[label] = positive(f"{name} of {key}", item)
    missing = [label for label in labels if label not in ordered]
    if missing:
        raise ValueError(f"{name} has no value for the pair {missing[0]!r}; give one, or one number for all pairs")
    return tuple(ordered[label] for label in labels)
