r"""Energies, forces and stresses that a potential gives for labelled configurations.

What a term takes from the environment does not depend on the parameters (``project``), and neither do its derivatives:
with φ_i the projection of atom i,

    F_k = -Σ_i ∂E_i/∂φ_i · ∂φ_i/∂R_k,    V σ = Σ_i ∂E_i/∂φ_i · ∂φ_i/∂ε

so that :func:`linearise` computes the Jacobians once, and a training step differentiates the network alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from numpy.typing import NDArray

from aiida_difftre.engine.errors import EngineError, ExitStatus
from aiida_difftre.engine.geometry.strain import voigt_matrix
from aiida_difftre.engine.matching.configurations import Configurations
from aiida_difftre.engine.potentials.derivatives import forces, virial
from aiida_difftre.engine.potentials.potential import Potential
from aiida_difftre.engine.potentials.term import Environment, Parameters

ATOMS_AT_ONCE = 32
"""Atoms whose Jacobians are computed together; bounds the memory."""

JACOBIAN_LIMIT = 2 << 30
"""Bytes of Jacobians above which forces are differentiated anew in every step."""

CONFIGURATIONS_AT_ONCE = 16
"""Configurations predicted together where a whole dataset is; bounds the memory."""


class Predicted(NamedTuple):
    """Energies, forces and stresses that a potential gives for configurations.

    Args:
        energy: Energies without the reference energies of the atoms, (configurations,), eV.
        forces: Forces, (configurations, atoms, 3), eV/Å.
        stress: Stresses, (configurations, 6), eV/Å³, Voigt order, positive in tension.

    Example:
        >>> import jax.numpy as jnp
        >>> from aiida_difftre.engine.matching.prediction import Predicted
        >>> Predicted(jnp.zeros(2), jnp.zeros((2, 4, 3)), jnp.zeros((2, 6))).forces.shape
        (2, 4, 3)
    """

    energy: Float[Array, " configurations"]
    forces: Float[Array, "configurations atoms 3"]
    stress: Float[Array, "configurations 6"]


class Linearised(NamedTuple):
    """Projections of configurations and their derivatives.

    Args:
        projected: Projections of the potential; their leaves have leading axes (configurations, atoms).
        jacobian: derivatives of the inexact leaves of an atom's projection, flattened and joined, with respect to the
            positions of the atoms of its neighbourhood (3 each, itself first) and to the strain (6, Voigt).
        slots: the atoms of each neighbourhood; padded with the atom itself, with zero derivatives.
        real: (configurations, atoms), 1 for atoms, 0 for padding.
        volume: (configurations,), Å³.
    """

    projected: Any
    jacobian: Float[Array, "configurations atoms features coordinates"]
    slots: Int[Array, "configurations atoms slots"]
    real: Float[Array, "configurations atoms"]
    volume: Float[Array, " configurations"]


def linearise(potential: Potential, configurations: Configurations, dtype: Any) -> Linearised:
    """Projections and Jacobians of configurations.

    Args:
        potential: whose terms project.
        configurations: padded.
        dtype: precision of the result.

    Returns:
        Projections and Jacobians.
    """
    slots, position = _neighbourhoods(configurations)
    environment = configurations.environment
    shape = environment.species.shape
    flat = jax.tree.map(lambda leaf: jnp.asarray(leaf).reshape(-1, *leaf.shape[2:]), environment)
    flat = flat._replace(displacements=flat.displacements.astype(dtype), neighbors=None)
    projected, jacobian = _linearise(
        potential, slots.shape[-1], flat, jnp.asarray(position).reshape(-1, position.shape[-1])
    )
    projected = jax.tree.map(lambda leaf: leaf.reshape(*shape, *leaf.shape[1:]), projected)
    return Linearised(
        projected,
        jacobian.reshape(*shape, *jacobian.shape[1:]),
        jnp.asarray(slots),
        jnp.asarray(configurations.real, dtype),
        jnp.asarray(configurations.volume, dtype),
    )


def jacobian_bytes(potential: Potential, configurations: Configurations, dtype: Any) -> int:
    """Memory that the Jacobians of configurations take."""
    environment = configurations.environment
    one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), environment)
    one = one._replace(displacements=jax.ShapeDtypeStruct(one.displacements.shape, dtype))
    shapes = jax.eval_shape(potential.project, one)
    atoms = environment.species.shape[1]
    features = sum(leaf.size // atoms for leaf in jax.tree.leaves(shapes) if jnp.issubdtype(leaf.dtype, jnp.inexact))
    slots = _neighbourhoods(configurations)[0].shape[-1]
    return int(environment.species.size * features * (3 * slots + 6) * np.dtype(dtype).itemsize)


def _neighbourhoods(configurations: Configurations) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The distinct atoms of each neighbourhood, the centre first, and the position of each neighbour among them."""
    neighbors = np.asarray(configurations.neighbors)
    count, atoms, _ = neighbors.shape
    present = np.zeros((count, atoms, atoms), bool)
    np.put_along_axis(present, neighbors, True, axis=2)
    present[:, np.arange(atoms), np.arange(atoms)] = False
    rank = np.cumsum(present, axis=2) * present  # 0 for the centre itself, whose images move with it
    position = np.take_along_axis(rank, neighbors, axis=2).astype(np.int32)
    slots = np.broadcast_to(np.arange(atoms)[None, :, None], (count, atoms, int(rank.max()) + 1)).astype(np.int32)
    c, i, j = np.nonzero(present)
    slots[c, i, rank[c, i, j]] = j
    return slots, position


def _linearise(potential: Potential, n_slots: int, environment: Environment, position: Array) -> tuple[Any, Array]:
    dtype = environment.displacements.dtype

    def one(atom: Environment, place: Array) -> tuple[Any, Array]:
        def project(coordinates: Array) -> tuple[Array, Any]:
            moves, strain = coordinates[:-6].reshape(n_slots, 3), voigt_matrix(coordinates[-6:])
            vectors = atom.displacements + moves[place] - moves[0]
            vectors = vectors + atom.displacements @ strain
            thinner = None if atom.densities is None else atom.densities / jnp.linalg.det(jnp.eye(3) + strain)
            single = jax.tree.map(lambda leaf: leaf[None], atom._replace(displacements=vectors, densities=thinner))
            result = jax.tree.map(lambda leaf: leaf[0], potential.project(single))
            return jnp.concatenate([leaf.reshape(-1) for leaf in inexact(result)]), result

        jacobian, projected = jax.jacfwd(project, has_aux=True)(jnp.zeros(3 * n_slots + 6, dtype))
        return projected, jacobian

    mapped = jax.jit(lambda *args: jax.lax.map(lambda pair: one(*pair), args, batch_size=ATOMS_AT_ONCE))
    return mapped(environment, position)


def inexact(tree: Any) -> list[Array]:
    """The leaves of a tree that have derivatives."""
    return [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]


def predict_linearised(potential: Potential, parameters: Parameters, batch: Linearised) -> Predicted:
    """Energies, forces and stresses from projections and Jacobians.

    Args:
        potential: the potential.
        parameters: Its parameters, from :func:`~aiida_difftre.engine.potentials.parameters.without_references`.
        batch: configurations.

    Returns:
        Energies, forces and stresses.
    """
    count, atoms = batch.real.shape
    leaves, structure = jax.tree.flatten(batch.projected)
    leaves = [leaf.reshape(count * atoms, *leaf.shape[2:]) for leaf in leaves]
    free = [number for number, leaf in enumerate(leaves) if jnp.issubdtype(leaf.dtype, jnp.inexact)]

    def energies(floats: list[Array]) -> Array:
        complete = list(leaves)
        for number, leaf in zip(free, floats, strict=True):
            complete[number] = leaf
        return potential.energy(parameters, jax.tree.unflatten(structure, complete))

    values, pullback = jax.vjp(energies, [leaves[number] for number in free])
    (slopes,) = pullback(batch.real.reshape(-1).astype(values.dtype))
    joined = jnp.concatenate([slope.reshape(count, atoms, -1) for slope in slopes], axis=-1)
    derivative = jnp.einsum("cif,cifx->cix", joined, batch.jacobian)
    per_slot = derivative[..., :-6].reshape(count, -1, 3)
    configuration = jnp.arange(count)[:, None]
    force = (
        jnp.zeros((count, atoms, 3), per_slot.dtype).at[configuration, batch.slots.reshape(count, -1)].add(-per_slot)
    )
    stress = jnp.sum(derivative[..., -6:], 1) / batch.volume[:, None]
    return Predicted(jnp.sum(values.reshape(count, atoms) * batch.real, 1), force, stress)


def predict_directly(potential: Potential, parameters: Parameters, batch: Configurations) -> Predicted:
    """Predict energies, forces and stresses of configurations by differentiating the energy.

    Args:
        potential: The potential.
        parameters: Its parameters, from ``without_references``.
        batch: Padded configurations; the precision of the displacements is that of the result.

    Returns:
        Energies, forces and stresses.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from ase import Atoms
        >>> from aiida_difftre.engine.contract.settings import PotentialSpec
        >>> from aiida_difftre.engine.matching.configurations import pad
        >>> from aiida_difftre.engine.matching.prediction import predict_directly
        >>> from aiida_difftre.engine.potentials.parameters import without_references
        >>> from aiida_difftre.engine.potentials.potential import build
        >>> hyperparameters = {"epsilon": 0.0103, "sigma": 3.4}
        >>> term = {"architecture": "lennard_jones", "cutoff": 8.5, "hyperparameters": hyperparameters}
        >>> potential = build(PotentialSpec(species=["Ar"], terms=[term]))
        >>> parameters = without_references(potential.init(jax.random.key(0)), jnp.float32)
        >>> dimer = pad([Atoms("Ar2", positions=[[0, 0, 0], [3.4 * 2 ** (1 / 6), 0, 0]])], ["Ar"], 8.5)
        >>> predicted = predict_directly(potential, parameters, dimer)
        >>> round(float(predicted.energy[0]), 4)
        -0.0103
    """

    def one(environment: Environment, neighbors: Array, real: Array, volume: Array) -> Predicted:
        def total(displacements: Array) -> Array:
            energies = potential.energies(parameters, environment._replace(displacements=displacements))
            return jnp.sum(real * energies)

        energy, gradient = jax.value_and_grad(total)(environment.displacements)
        gradient = jnp.where(environment.mask[..., None], gradient, 0.0)
        beyond = potential.tail_work(parameters, environment) * jnp.eye(3)
        stress = (virial(gradient, environment.displacements) + beyond) / volume
        return Predicted(energy, forces(gradient, neighbors), stress[(0, 1, 2, 1, 0, 0), (0, 1, 2, 2, 2, 1)])

    dtype = batch.environment.displacements.dtype
    real, volume = jnp.asarray(batch.real, dtype), jnp.asarray(batch.volume, dtype)
    return jax.vmap(one)(batch.environment, jnp.asarray(batch.neighbors), real, volume)


def predictor(
    potential: Potential, configurations: Configurations, dtype: Any
) -> tuple[Callable[..., Predicted], Linearised | Configurations]:
    """The function that predicts, and what it wants: with stored Jacobians where they fit into memory, else without.

    Raises:
        EngineError: for a potential with external fields, whose forces are not differences between neighbours.
    """
    if potential.has_external:
        raise EngineError(
            ExitStatus.INVALID_INPUT,
            "labels cannot be matched by a potential with an external field; leave the field out, or the labels "
            "(pretraining with steps: 0, loss.dataset_weight: 0)",
        )
    # Jacobians are those of an atom by the atoms around it, which are not all that a term that passes messages sees.
    if not potential.is_message_passing and jacobian_bytes(potential, configurations, dtype) <= JACOBIAN_LIMIT:
        return predict_linearised, linearise(potential, configurations, dtype)
    environment = configurations.environment
    environment = environment._replace(displacements=environment.displacements.astype(dtype))
    return predict_directly, configurations._replace(environment=environment)


def predict_all(
    potential: Potential,
    predict: Callable[..., Predicted],
    parameters: Parameters,
    batch: Linearised | Configurations,
    batch_size: int = 0,
) -> Predicted:
    """Predict many configurations, a few at a time (0 to choose); derivatives are recomputed rather than kept."""

    @jax.checkpoint
    def one(single: Any) -> Predicted:
        found = predict(potential, parameters, jax.tree.map(lambda leaf: leaf[None], single))
        return jax.tree.map(lambda leaf: leaf[0], found)

    return jax.lax.map(one, batch, batch_size=batch_size or CONFIGURATIONS_AT_ONCE)
