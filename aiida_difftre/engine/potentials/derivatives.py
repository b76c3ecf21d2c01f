"""Derivatives of energies: by displacements and distances; forces and virial from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from aiida_difftre.engine.potentials.term import Environment


def component_gradients(
    energy: Callable[[Environment], Array], components: Sequence[Array], environment: Environment
) -> list[Array]:
    """Differentiate an energy with respect to x, y and z of the displacements.

    Args:
        energy: Energy of an environment, eV.
        components: The x, y and z of the displacements as separate arrays, (atoms, neighbors), Å.
        environment: The neighbours of all atoms; its displacements are not used.

    Returns:
        Derivatives by x, y and z, (atoms, neighbors) each, eV/Å; zero where a list is padded.
    """

    def moved(components: tuple[Array, Array, Array]) -> Array:
        return energy(environment._replace(displacements=jnp.stack(components, -1), components=components))

    return [jnp.where(environment.mask, slope, 0.0) for slope in jax.grad(moved)(tuple(components))]


def radial_slope(
    energy: Callable[[Environment], Array], components: Sequence[Array], environment: Environment, *, beyond: float
) -> Array:
    """Derivative with respect to distances, over the distance, of an energy that sees no directions.

    Only distances count: neighbours may as well lie along x, and one derivative does for three. Padded ones are put
    ``beyond`` the cutoff, which is cheaper than to mask them again and again. The derivative ends in a division, so
    that XLA computes it once and not for each of the three.
    """
    squared = sum(part * part for part in components)
    distance = jnp.sqrt(jnp.where(environment.mask, squared, beyond**2))
    surroundings = environment._replace(mask=jnp.ones_like(environment.mask))

    def moved(distance: Array) -> Array:
        nothing = jnp.zeros_like(distance)
        vectors = jnp.stack([distance, nothing, nothing], -1)
        return energy(surroundings._replace(displacements=vectors, distances=distance))

    return jax.grad(moved)(distance) / distance


def forces(
    gradient: Float[Array, "atoms neighbors 3"], index: Int[Array, "atoms neighbors"]
) -> Float[Array, "atoms 3"]:
    r"""Compute forces from the derivatives of the energy by the displacements to the neighbours.

    .. math:: \mathbf{F}_i = \sum_j \frac{\partial U}{\partial \mathbf{r}_{ij}}
        - \sum_{k:\, i \text{ neighbour of } k} \frac{\partial U}{\partial \mathbf{r}_{ki}}

    Args:
        gradient: Derivatives ∂U/∂r_ij, (atoms, neighbors, 3), eV/Å; zero where a list is padded.
        index: Index of each neighbour, (atoms, neighbors).

    Returns:
        Forces, (atoms, 3), eV/Å.

    Example:
        A bond along x that pulls its two atoms together with 0.2 eV/Å, half of which each atom holds:

        >>> import jax.numpy as jnp
        >>> from aiida_difftre.engine.potentials.derivatives import forces
        >>> gradient = jnp.array([[[0.1, 0.0, 0.0]], [[-0.1, 0.0, 0.0]]])
        >>> [round(x, 3) for x in forces(gradient, jnp.array([[1], [0]]))[:, 0].tolist()]
        [0.2, -0.2]
    """
    return jnp.sum(gradient, 1) - jnp.zeros((gradient.shape[0], 3), gradient.dtype).at[index].add(gradient)


def virial(
    gradient: Float[Array, "atoms neighbors 3"], displacements: Float[Array, "atoms neighbors 3"]
) -> Float[Array, "3 3"]:
    r"""Compute the derivative of the energy by strain, which is the stress times the volume: positive in tension.

    .. math:: \frac{\partial U}{\partial \varepsilon} = \sum_{ij} \frac{\partial U}{\partial \mathbf{r}_{ij}} \otimes
        \mathbf{r}_{ij}

    Args:
        gradient: Derivatives ∂U/∂r_ij, (atoms, neighbors, 3), eV/Å; zero where a list is padded.
        displacements: Vectors r_ij to the neighbours, (atoms, neighbors, 3), Å.

    Returns:
        The symmetric tensor, (3, 3), eV.

    Example:
        >>> import jax.numpy as jnp
        >>> from aiida_difftre.engine.potentials.derivatives import virial
        >>> gradient = jnp.array([[[0.5, 0.0, 0.0]], [[-0.5, 0.0, 0.0]]])
        >>> virial(gradient, 2 * jnp.sign(gradient)).tolist()
        [[2.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    """
    total = jnp.einsum("ija,ijb->ab", gradient, displacements)
    return (total + total.T) / 2
