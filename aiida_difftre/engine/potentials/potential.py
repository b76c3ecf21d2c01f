"""A potential: the sum of its terms, and forces and virial of it; building, reading and writing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from aiida_difftre.engine.contract import architectures, files
from aiida_difftre.engine.contract.jobs import PotentialSpec
from aiida_difftre.engine.errors import EngineError, ExitStatus
from aiida_difftre.engine.potentials.term import Environment, Kind, Parameters, Term, add_up


@dataclass(frozen=True)
class Potential:
    """A sum of terms and of atomic reference energies.

    Args:
        spec: what the potential is.
        terms: one for each term of the spec.
    """

    spec: PotentialSpec
    terms: tuple[Term, ...]

    @property
    def cutoff(self) -> float:
        """The largest cutoff, Å."""
        return self.spec.cutoff

    def names(self) -> list[str]:
        """Keys of the terms in the parameter tree."""
        return [f"{number}_{term.architecture}" for number, term in enumerate(self.spec.terms)]

    def init(self, key: Array) -> Parameters:
        """Initial parameters; atomic reference energies are zero."""
        keys = jax.random.split(key, len(self.terms))
        terms = {name: term.init(k) for name, term, k in zip(self.names(), self.terms, keys, strict=True)}
        return {"atomic_energies": jnp.zeros(len(self.spec.species)), "terms": terms}

    def project(self, environment: Environment) -> tuple[Any, ...]:
        """What the energies need of the environment, free of parameters, term by term; species last."""
        return (*(term.project(environment) for term in self.terms), environment.species)

    def energy(self, parameters: Parameters, projected: tuple[Any, ...]) -> Float[Array, " atoms"]:
        """Energy of each atom, eV, atomic reference energies included."""
        *parts, species = projected
        energy = parameters["atomic_energies"][species]
        for name, term, part in zip(self.names(), self.terms, parts, strict=True):
            energy = energy + term.energy(parameters["terms"][name], part)
        return energy

    def energies(self, parameters: Parameters, environment: Environment) -> Float[Array, " atoms"]:
        """Energy of each atom of an environment, eV."""
        return self.energy(parameters, self.project(environment))

    def total(self, parameters: Parameters, environment: Environment) -> Float[Array, ""]:
        """Potential energy, eV."""
        return jnp.sum(self.energies(parameters, environment))

    @property
    def has_neighbors(self) -> bool:
        """Whether a term looks at neighbours."""
        return any(term.kind is not Kind.EXTERNAL for term in self.terms)

    @property
    def has_external(self) -> bool:
        """Whether a term is an external field, whose forces do not come from displacements between atoms."""
        return any(term.kind is Kind.EXTERNAL for term in self.terms)

    def external_forces(
        self, parameters: Parameters, environment: Environment, cell: Float[Array, "3 3"]
    ) -> Float[Array, "atoms 3"]:
        """Forces of the external fields, eV/Å: -(∂U/∂s) (hᵀ)⁻¹ with fractional positions s and cell rows h."""
        external = [
            (term, parameters["terms"][name])
            for name, term in zip(self.names(), self.terms, strict=True)
            if term.kind is Kind.EXTERNAL
        ]

        def energy(positions: Array) -> Array:
            moved = environment._replace(positions=positions)
            parts = [jnp.sum(term.energy(values, term.project(moved))) for term, values in external]
            return sum(parts, start=jnp.zeros((), positions.dtype))

        return -jax.grad(energy)(environment.positions) @ jnp.linalg.inv(cell).T

    @property
    def is_pairwise(self) -> bool:
        """Whether all terms are sums over pairs."""
        return all(term.kind is Kind.PAIRWISE for term in self.terms)

    def forces_and_virial(
        self,
        parameters: Parameters,
        components: Sequence[Float[Array, "atoms neighbors"]],
        environment: Environment,
        index: Int[Array, "atoms neighbors"],
    ) -> tuple[Float[Array, "atoms 3"], Float[Array, ""]]:
        """Forces, eV/Å, and the trace of the virial, eV: what molecular dynamics needs, as fast as possible.

        External fields aside, the same numbers as of the gradient, :func:`forces` and :func:`virial`.

        Args:
            parameters: of the potential.
            components: x, y and z of the displacements, as separate arrays, Å.
            environment: the environment; its displacements are not used.
            index: neighbours.
        """
        named = list(zip(self.names(), self.terms, strict=True))
        dtype = components[0].dtype
        force, trace = jnp.zeros((3, len(index)), dtype), jnp.zeros((), dtype)
        for kind in (Kind.PAIRWISE, Kind.RADIAL, Kind.GENERAL):
            chosen = [(name, term) for name, term in named if term.kind is kind]
            if not chosen:
                continue

            def energy(surroundings: Environment, chosen: list[tuple[str, Term]] = chosen) -> Array:
                values = (term.energy(parameters["terms"][name], term.project(surroundings)) for name, term in chosen)
                return sum((jnp.sum(value) for value in values), start=jnp.zeros((), dtype))

            if kind is Kind.PAIRWISE:
                slope = _slope(energy, components, environment, beyond=2 * self.cutoff)
                gradients = [slope * part for part in components]
                force = force + 2 * jnp.stack([add_up(gradient) for gradient in gradients])
            else:
                # Put together, or XLA would compute them twice: for the atom and for its neighbours.
                if kind is Kind.RADIAL:
                    gradient = jnp.stack(components) * _slope(energy, components, environment, beyond=2 * self.cutoff)
                else:
                    gradient = jnp.stack(_gradients(energy, components, environment))
                gradients = list(gradient)
                force = force + add_up(gradient) - jnp.zeros_like(force).at[:, index].add(gradient)
            trace = trace + sum(jnp.vdot(g, part) for g, part in zip(gradients, components, strict=True))
        return force.T, trace

    def trainable(self, parameters: Parameters) -> Parameters:
        """Tree of booleans: which parameters an optimizer may move (not those of fixed terms, buffers, references)."""
        tree: Parameters = {"atomic_energies": False, "terms": {}}
        for name, term, spec in zip(self.names(), self.terms, self.spec.terms, strict=True):
            tree["terms"][name] = {
                key: jax.tree.map(lambda _, free=spec.trainable and key not in term.buffers: free, value)
                for key, value in parameters["terms"][name].items()
            }
        return tree


def _gradients(
    energy: Callable[[Environment], Array], components: Sequence[Array], environment: Environment
) -> list[Array]:
    """Derivatives of an energy with respect to x, y and z of the displacements."""

    def moved(components: tuple[Array, Array, Array]) -> Array:
        return energy(environment._replace(displacements=jnp.stack(components, -1), components=components))

    return [jnp.where(environment.mask, slope, 0.0) for slope in jax.grad(moved)(tuple(components))]


def _slope(
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
    """F_i = Σ_j dU/dr_ij - Σ_(k: i neighbour of k) dU/dr_ki, eV/Å."""
    return jnp.sum(gradient, 1) - jnp.zeros((gradient.shape[0], 3), gradient.dtype).at[index].add(gradient)


def virial(
    gradient: Float[Array, "atoms neighbors 3"], displacements: Float[Array, "atoms neighbors 3"]
) -> Float[Array, "3 3"]:
    """dU/dε = Σ dU/dr_ij ⊗ r_ij, eV; stress times volume, positive in tension."""
    total = jnp.einsum("ija,ijb->ab", gradient, displacements)
    return (total + total.T) / 2


def build(spec: PotentialSpec) -> Potential:
    """The potential that a spec describes.

    Raises:
        EngineError: with status INVALID_INPUT, for an unknown architecture or a hyperparameter out of range.
    """
    try:
        architectures.check(spec)
    except ValueError as error:
        raise EngineError(ExitStatus.INVALID_INPUT, str(error)) from None
    terms = []
    for term in spec.terms:
        cls = architectures.registry()[term.architecture].load()
        if not (isinstance(cls, type) and issubclass(cls, Term)):
            raise EngineError(
                ExitStatus.INVALID_INPUT,
                f"potential term {term.architecture!r}: {cls!r} does not inherit from {Term.__module__}.Term; let it, "
                "and state its kind in place of is_pairwise, is_radial or is_external",
            )
        try:
            terms.append(cls.from_spec(tuple(spec.species), term.cutoff, dict(term.hyperparameters)))
        except ValueError as error:
            raise EngineError(ExitStatus.INVALID_INPUT, f"potential term {term.architecture!r}: {error}") from None
    return Potential(spec, tuple(terms))


def flatten(parameters: Parameters) -> files.Arrays:
    """Parameter tree to arrays by path, such as ``terms/0_moment_network/mlp/w0``."""
    leaves = jax.tree_util.tree_flatten_with_path(parameters)[0]
    return {"/".join(str(part.key) for part in path): np.asarray(leaf) for path, leaf in leaves}


def unflatten(arrays: files.Arrays) -> Parameters:
    """The inverse of :func:`flatten`."""
    tree: Parameters = {}
    for path, array in arrays.items():
        *folders, name = path.split("/")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[name] = jax.device_put(array)  # jnp.asarray compiles a program for each shape
    return tree


def load(path: Path) -> tuple[Potential, Parameters]:
    """Read a potential file.

    Raises:
        EngineError: for a file that is corrupt, or whose parameters do not fit its spec.
    """
    spec, arrays = files.read_potential(path)
    potential = build(spec)
    expected = _shapes(potential)
    found = {name: array.shape for name, array in arrays.items()}
    if expected != found:
        differing = sorted(set(expected.items()) ^ set(found.items()))
        raise EngineError(ExitStatus.CORRUPT_FILE, f"parameters of {path.name} do not fit its spec: {differing[:4]}")
    return potential, unflatten(arrays)


def _shapes(potential: Potential) -> dict[str, tuple[int, ...]]:
    tree = jax.eval_shape(lambda: potential.init(jax.random.key(0)))
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {"/".join(str(part.key) for part in path): tuple(leaf.shape) for path, leaf in leaves}


def save(path: Path, potential: Potential, parameters: Parameters) -> None:
    """Write a potential file."""
    files.write_potential(path, potential.spec, flatten(parameters))


def without_references(parameters: Parameters, dtype: Any) -> Parameters:
    """Parameters in a precision, with atomic reference energies of zero: large constants would cost all digits."""
    free = {**parameters, "atomic_energies": jnp.zeros_like(parameters["atomic_energies"])}
    return jax.tree.map(lambda leaf: leaf.astype(dtype), free)
