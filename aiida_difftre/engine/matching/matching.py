r"""Energies, forces and stresses of labelled configurations, the matching loss, and errors.

What a term takes from the environment does not depend on the parameters (``project``), and neither do its derivatives:
with φ_i the projection of atom i,

    F_k = -Σ_i ∂E_i/∂φ_i · ∂φ_i/∂R_k,    V σ = Σ_i ∂E_i/∂φ_i · ∂φ_i/∂ε

so that :func:`linearise` computes the Jacobians once, and a training step differentiates the network alone.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from numpy.typing import NDArray

from aiida_difftre.engine.contract.jobs import DatasetWeights, LossSettings, Machine
from aiida_difftre.engine.contract.label_names import LabelKeys
from aiida_difftre.engine.contract.labels import Labelled
from aiida_difftre.engine.errors import EngineError, ExitStatus
from aiida_difftre.engine.geometry.strain import voigt_matrix
from aiida_difftre.engine.matching.configurations import Configurations, Labels, pad, read_training
from aiida_difftre.engine.potentials.derivatives import forces, virial
from aiida_difftre.engine.potentials.parameters import without_references
from aiida_difftre.engine.potentials.potential import Potential
from aiida_difftre.engine.potentials.term import Environment, Parameters
from aiida_difftre.engine.units import EV_PER_A3_IN_GPA

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
        >>> from aiida_difftre.engine.matching.matching import Predicted
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


def reference_energies(composition: NDArray[np.float64], atomic_energies: NDArray[np.float64]) -> NDArray[np.float64]:
    """Add up the atomic reference energies of each configuration.

    Args:
        composition: Atoms of each species in each configuration, (configurations, species).
        atomic_energies: Reference energy of each species, (species,), eV.

    Returns:
        The sums, (configurations,), eV.
    """
    return composition @ np.asarray(atomic_energies, np.float64)


def compositions(configurations: Configurations, n_species: int) -> NDArray[np.float64]:
    """Count the atoms of each species in each configuration.

    Args:
        configurations: The configurations, padded to the same number of atoms.
        n_species: Number of species of the potential.

    Returns:
        Numbers of atoms, (configurations, species).
    """
    kinds = np.asarray(configurations.environment.species)
    return np.stack([np.sum((kinds == kind) * configurations.real, axis=1) for kind in range(n_species)], axis=1)


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
        >>> from aiida_difftre.engine.matching.matching import predict_directly
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


def loss(
    predicted: Predicted,
    labels: Labels,
    real: Float[Array | np.ndarray, "configurations atoms"],
    weights: DatasetWeights,
) -> Float[Array, ""]:
    r"""Compute the matching loss of a batch.

    .. math:: w_E \langle(\Delta E/N)^2\rangle + w_F \langle\Delta F^2\rangle + w_\sigma \langle\Delta\sigma^2\rangle

    with means over the configurations, force components and stress components that have labels.

    Args:
        predicted: What the potential gives.
        labels: What was computed otherwise, without the reference energies of the atoms.
        real: 1 for atoms, 0 for padding, (configurations, atoms).
        weights: Weights w, per eV², (eV/Å)² and (eV/Å³)².

    Returns:
        The loss, dimensionless.

    Example:
        Two atoms whose energy is off by 0.2 eV, 0.1 eV per atom:

        >>> import jax.numpy as jnp
        >>> import numpy as np
        >>> from aiida_difftre.engine.contract.settings import DatasetWeights
        >>> from aiida_difftre.engine.matching.configurations import Labels
        >>> from aiida_difftre.engine.matching.matching import Predicted, loss
        >>> predicted = Predicted(jnp.array([-5.0]), jnp.zeros((1, 2, 3)), jnp.zeros((1, 6)))
        >>> one, none = np.ones(1), np.zeros(1)
        >>> labels = Labels(np.array([-5.2]), np.zeros((1, 2, 3)), np.zeros((1, 6)), one, none, none)
        >>> round(float(loss(predicted, labels, jnp.ones((1, 2)), DatasetWeights(energy=100.0))), 3)
        1.0
    """
    energy = labels.has_energy * ((predicted.energy - labels.energy) / jnp.sum(real, 1)) ** 2
    counted = real * labels.has_forces[:, None]
    force = counted * jnp.sum((predicted.forces - labels.forces) ** 2, -1) / 3
    stress = labels.has_stress * jnp.mean((predicted.stress - labels.stress) ** 2, -1)
    return (
        weights.energy * jnp.sum(energy) / jnp.maximum(jnp.sum(labels.has_energy), 1)
        + weights.force * jnp.sum(force) / jnp.maximum(jnp.sum(counted), 1)
        + weights.stress * jnp.sum(stress) / jnp.maximum(jnp.sum(labels.has_stress), 1)
    )


def features(
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


def matching_loss(
    potential: Potential,
    path: Path | None,
    settings: LossSettings,
    machine: Machine,
    keys: LabelKeys | None = None,
    without_base: Callable[[Labelled], Labelled] | None = None,
) -> Callable[[Parameters], tuple[float, Parameters]] | None:
    """The matching loss of a whole dataset, for refinement that must not forget it.

    Args:
        potential: the potential.
        path: Path of the dataset.
        settings: ``dataset_weight`` (included in the result) and ``dataset_weights``.
        machine: whose precision and size of batches are used.
        keys: Names under which the dataset has its labels.
        without_base: Takes what a base gives off the labels; None for a potential without a base.

    Returns:
        Parameters to value and gradient (zero for the atomic reference energies); None where there is no dataset or its
        weight is zero.

    Raises:
        EngineError: for a dataset that is invalid, or does not fit the potential.
    """
    if path is None or settings.dataset_weight == 0:
        return None
    found = read_training(path, keys)
    frames = (found if without_base is None else without_base(found)).frames
    configurations = pad(frames, potential.spec.species, potential.cutoff)
    dtype = jnp.dtype(machine.precision)
    predict, batch = features(potential, configurations, dtype)
    composition = jnp.asarray(compositions(configurations, len(potential.spec.species)))
    real = jnp.asarray(configurations.real)

    @jax.jit
    def value_and_gradient(parameters: Parameters, batch: Any, labels: Labels) -> tuple[Array, Parameters]:
        references = composition @ parameters["atomic_energies"]
        shifted = labels._replace(energy=labels.energy - jax.lax.stop_gradient(references))

        def value(parameters: Parameters) -> Array:
            free = without_references(parameters, dtype)
            predicted = predict_all(potential, predict, free, batch, machine.batch_size)
            return settings.dataset_weight * loss(predicted, shifted, real, settings.dataset_weights)

        return jax.value_and_grad(value)(parameters)

    def evaluate(parameters: Parameters) -> tuple[float, Parameters]:
        value, gradient = value_and_gradient(parameters, batch, configurations.labels)
        return float(value), gradient

    return evaluate


def errors(predicted: Predicted, labels: Labels, real: NDArray[Any]) -> dict[str, float]:
    """Compute root-mean-square and mean absolute errors of predictions; a quantity without labels is left out.

    Args:
        predicted: What the potential gives.
        labels: What was computed otherwise, without the reference energies of the atoms.
        real: 1 for atoms, 0 for padding, (configurations, atoms).

    Returns:
        ``energy_rmse``, ``energy_mae`` and, with the mean energy error removed, ``energy_shifted_rmse``,
        ``energy_shifted_mae`` (meV/atom); ``force_rmse``, ``force_mae`` (meV/Å, per component); ``stress_rmse``,
        ``stress_mae`` (GPa, per component).

    Example:
        >>> import jax.numpy as jnp
        >>> import numpy as np
        >>> from aiida_difftre.engine.matching.configurations import Labels
        >>> from aiida_difftre.engine.matching.matching import Predicted, errors
        >>> predicted = Predicted(jnp.array([-5.0]), jnp.zeros((1, 2, 3)), jnp.zeros((1, 6)))
        >>> one, none = np.ones(1), np.zeros(1)
        >>> labels = Labels(np.array([-5.2]), np.zeros((1, 2, 3)), np.zeros((1, 6)), one, none, none)
        >>> round(errors(predicted, labels, np.ones((1, 2)))["energy_rmse"], 2)  # meV/atom
        100.0
    """
    result: dict[str, float] = {}

    def add(name: str, differences: NDArray[Any]) -> None:
        if differences.size:
            result[f"{name}_rmse"] = float(np.sqrt(np.mean(differences**2)))
            result[f"{name}_mae"] = float(np.mean(np.abs(differences)))

    energy, force, stress = (np.asarray(part, np.float64) for part in predicted)
    real = np.asarray(real)
    per_atom = 1e3 * ((energy - np.asarray(labels.energy)) / real.sum(1))[np.asarray(labels.has_energy) > 0]
    add("energy", per_atom)
    add("energy_shifted", per_atom - per_atom.mean() if per_atom.size else per_atom)
    counted = (real * np.asarray(labels.has_forces)[:, None]) > 0
    add("force", 1e3 * (force - np.asarray(labels.forces))[counted])
    add("stress", EV_PER_A3_IN_GPA * (stress - np.asarray(labels.stress))[np.asarray(labels.has_stress) > 0])
    return result
