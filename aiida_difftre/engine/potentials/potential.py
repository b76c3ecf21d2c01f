"""A potential: the sum of its terms, and forces and virial of it; building, reading and writing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from numpy.typing import NDArray

from aiida_difftre.engine.contract import architectures, files
from aiida_difftre.engine.contract.jobs import PotentialSpec, TermSpec
from aiida_difftre.engine.errors import EngineError, ExitStatus
from aiida_difftre.engine.potentials.derivatives import component_gradients, forces, radial_slope, virial
from aiida_difftre.engine.potentials.parameters import flatten, unflatten
from aiida_difftre.engine.potentials.term import Environment, Kind, Parameters, Term, add_up, check_term, species_index

# Forces and virial are those of a potential: whoever imports it finds them beside it.
__all__ = ["Potential", "build", "check_temperature", "forces", "load", "save", "species_of", "virial"]


@dataclass(frozen=True)
class Potential:
    r"""An interatomic potential: the sum of its terms and of a reference energy for each atom.

    A base that the spec names is no part of what its methods compute: see
    ``aiida_difftre.engine.bases.protocol``.

    .. math:: U = \sum_i \Big[ E_{s_i} + \sum_t u_t(i) \Big]

    It holds no parameters: these are a tree of arrays that each method takes, so that JAX can differentiate by them.
    :func:`build` makes a potential from its spec, and :func:`load` reads one with its parameters.

    Args:
        spec: Species, and architecture, cutoff and hyperparameters of each term.
        terms: One term for each of the spec, in the same order.

    Example:
        >>> import jax
        >>> from aiida_difftre.engine.contract.settings import PotentialSpec
        >>> from aiida_difftre.engine.potentials.potential import build
        >>> hyperparameters = {"epsilon": 0.0103, "sigma": 3.4}
        >>> term = {"architecture": "lennard_jones", "cutoff": 8.5, "hyperparameters": hyperparameters}
        >>> potential = build(PotentialSpec(species=["Ar"], terms=[term]))
        >>> parameters = potential.init(jax.random.key(0))
        >>> potential.names(), potential.cutoff, sorted(parameters["terms"]["0_lennard_jones"])
        (['0_lennard_jones'], 8.5, ['epsilon', 'sigma'])
    """

    spec: PotentialSpec
    terms: tuple[Term, ...]

    @property
    def cutoff(self) -> float:
        """The largest cutoff, Å."""
        return self.spec.cutoff

    def without_base(self) -> Potential:
        """Leave out the base.

        Returns:
            The same terms on top of nothing.
        """
        return replace(self, spec=self.spec.model_copy(update={"base": None}))

    def names(self) -> list[str]:
        """Keys of the terms in the parameter tree."""
        return [f"{number}_{term.architecture}" for number, term in enumerate(self.spec.terms)]

    def init(self, key: Array) -> Parameters:
        """Make the initial parameters; the reference energies of the atoms are zero.

        Args:
            key: Random key of JAX.

        Returns:
            ``atomic_energies``, (species,), eV, and under ``terms`` the parameters of each term by its name.
        """
        keys = jax.random.split(key, len(self.terms))
        terms = {name: term.init(k) for name, term, k in zip(self.names(), self.terms, keys, strict=True)}
        return {"atomic_energies": jnp.zeros(len(self.spec.species)), "terms": terms}

    def project(self, environment: Environment) -> tuple[Any, ...]:
        """Compute what the energies need of the neighbours and what does not depend on the parameters.

        Args:
            environment: The neighbours of all atoms.

        Returns:
            The projection of each term, and the species of the atoms last.
        """
        return (*(term.project(environment) for term in self.terms), environment.species)

    def energy(self, parameters: Parameters, projected: tuple[Any, ...]) -> Float[Array, " atoms"]:
        """Compute the energy of each atom from projections.

        Args:
            parameters: Parameters of the potential.
            projected: What ``project`` returned.

        Returns:
            Energy of each atom, (atoms,), eV, with the reference energies.
        """
        *parts, species = projected
        energy = parameters["atomic_energies"][species]
        for name, term, part in zip(self.names(), self.terms, parts, strict=True):
            energy = energy + term.energy(parameters["terms"][name], part)
        return energy

    def energies(self, parameters: Parameters, environment: Environment) -> Float[Array, " atoms"]:
        """Compute the energy of each atom.

        Args:
            parameters: Parameters of the potential.
            environment: The neighbours of all atoms.

        Returns:
            Energy of each atom, (atoms,), eV, with the reference energies.
        """
        return self.energy(parameters, self.project(environment))

    def total(self, parameters: Parameters, environment: Environment) -> Float[Array, ""]:
        """Compute the potential energy.

        Args:
            parameters: Parameters of the potential.
            environment: The neighbours of all atoms.

        Returns:
            The energy of all atoms, eV.
        """
        return jnp.sum(self.energies(parameters, environment))

    @property
    def has_neighbors(self) -> bool:
        """Whether a term looks at neighbours."""
        return any(term.kind is not Kind.EXTERNAL for term in self.terms)

    @property
    def has_external(self) -> bool:
        """Whether a term is an external field, whose forces do not come from displacements between atoms."""
        return any(term.kind is Kind.EXTERNAL for term in self.terms)

    @property
    def is_message_passing(self) -> bool:
        """Whether a term passes messages, so that an atom sees farther than the cutoff."""
        return any(term.is_message_passing for term in self.terms)

    def external_forces(
        self, parameters: Parameters, environment: Environment, cell: Float[Array, "3 3"]
    ) -> Float[Array, "atoms 3"]:
        r"""Compute the forces of the external fields.

        .. math:: \mathbf{F} = -\frac{\partial U}{\partial \mathbf{s}} (\mathbf{h}^\mathsf{T})^{-1}

        with fractional positions s and the lattice vectors as rows of h.

        Args:
            parameters: Parameters of the potential.
            environment: The neighbours of all atoms, with fractional positions.
            cell: Lattice vectors in rows, (3, 3), Å.

        Returns:
            Forces, (atoms, 3), eV/Å.
        """
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
        """Compute forces and the trace of the virial, as fast as molecular dynamics wants them.

        External fields aside, these are the numbers that ``forces`` and ``virial`` give, of
        ``aiida_difftre.engine.potentials.derivatives``.

        Args:
            parameters: Parameters of the potential.
            components: The x, y and z of the displacements as separate arrays, (atoms, neighbors), Å.
            environment: The neighbours of all atoms; its displacements are not used.
            index: Index of each neighbour, (atoms, neighbors).

        Returns:
            Forces, (atoms, 3), eV/Å, and the trace of the virial, eV.
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
                slope = radial_slope(energy, components, environment, beyond=2 * self.cutoff)
                gradients = [slope * part for part in components]
                force = force + 2 * jnp.stack([add_up(gradient) for gradient in gradients])
            else:
                # Put together, or XLA would compute them twice: for the atom and for its neighbours.
                if kind is Kind.RADIAL:
                    gradient = jnp.stack(components) * radial_slope(
                        energy, components, environment, beyond=2 * self.cutoff
                    )
                else:
                    gradient = jnp.stack(component_gradients(energy, components, environment))
                gradients = list(gradient)
                force = force + add_up(gradient) - jnp.zeros_like(force).at[:, index].add(gradient)
            trace = trace + sum(jnp.vdot(g, part) for g, part in zip(gradients, components, strict=True))
        return force.T, trace + 3 * self.tail_work(parameters, environment)

    def tail_work(self, parameters: Parameters, environment: Environment) -> Float[Array, ""]:
        """Compute the volume times the derivative by it of what lies beyond the cutoffs.

        Args:
            parameters: Parameters of the potential.
            environment: The neighbours of all atoms.

        Returns:
            The part of each diagonal element of the virial, eV; zero without a tail or a cell.
        """
        tails = [
            (term, parameters["terms"][name])
            for name, term in zip(self.names(), self.terms, strict=True)
            if term.has_tail
        ]
        if not tails or environment.densities is None:
            return jnp.zeros((), environment.displacements.dtype)

        def energy(densities: Array) -> Array:
            thinner = environment._replace(densities=densities)
            return sum((jnp.sum(term.energy(values, term.project(thinner))) for term, values in tails), jnp.zeros(()))

        return -jnp.vdot(environment.densities, jax.grad(energy)(environment.densities))

    def trainable(self, parameters: Parameters) -> Parameters:
        """Tell which parameters an optimizer may move: not those of fixed terms, buffers and reference energies.

        Args:
            parameters: Parameters of the potential.

        Returns:
            A tree of booleans in the shape of the parameters.
        """
        tree: Parameters = {"atomic_energies": False, "terms": {}}
        for name, term, spec in zip(self.names(), self.terms, self.spec.terms, strict=True):

            def is_free(place: tuple[Any, ...], _: Any, spec: TermSpec = spec, term: Term = term) -> bool:
                named = [str(part.key) for part in place]
                return named[0] not in term.buffers and spec.trains("/".join(named))

            tree["terms"][name] = jax.tree_util.tree_map_with_path(is_free, parameters["terms"][name])
        return tree


def build(spec: PotentialSpec) -> Potential:
    """Make the potential that a spec describes.

    Args:
        spec: Species, and architecture, cutoff and hyperparameters of each term. Architectures are found by entry point
            (``difftre.potentials``), also those of other packages.

    Returns:
        The potential.

    Raises:
        EngineError: With status INVALID_INPUT, for an unknown architecture or a hyperparameter out of range.

    Example:
        >>> from aiida_difftre.engine.contract.settings import PotentialSpec
        >>> from aiida_difftre.engine.potentials.potential import build
        >>> prior = {"architecture": "repulsion", "cutoff": 3.0, "hyperparameters": {"epsilon": 1.0, "sigma": 1.2}}
        >>> network = {"architecture": "moment_network", "cutoff": 5.0}
        >>> build(PotentialSpec(species=["C"], terms=[prior, network])).names()
        ['0_repulsion', '1_moment_network']
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
            check_term(terms[-1], term)
        except ValueError as error:
            raise EngineError(ExitStatus.INVALID_INPUT, f"potential term {term.architecture!r}: {error}") from None
    return Potential(spec, tuple(terms))


def species_of(potential: Potential, symbols: Sequence[str]) -> NDArray[np.int32]:
    """Find the index of each atom's element in a potential, which must be made for such a composition.

    Args:
        potential: The potential.
        symbols: Chemical symbol of each atom.

    Returns:
        Indices in the species of the potential, (atoms,).

    Raises:
        EngineError: Naming elements that the potential does not know, or numbers of atoms that it is not made for.
    """
    found = species_index(tuple(symbols), potential.spec.species)
    try:
        architectures.check_composition(potential.spec, symbols)
    except ValueError as error:
        raise EngineError(ExitStatus.INVALID_INPUT, str(error)) from None
    return found


def check_temperature(potential: Potential, temperature: float) -> None:
    """Refuse a temperature (K) for which a potential is not made.

    Raises:
        EngineError: naming it.
    """
    try:
        architectures.check_temperature(potential.spec, temperature)
    except ValueError as error:
        raise EngineError(ExitStatus.INVALID_INPUT, str(error)) from None


def load(path: Path) -> tuple[Potential, Parameters]:
    """Read a potential and its parameters from a file.

    Args:
        path: A ``.safetensors`` file that this package wrote.

    Returns:
        The potential, and its parameters.

    Raises:
        EngineError: Where the file is corrupt, or its parameters do not fit its spec.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import jax
        >>> from aiida_difftre.engine.contract.settings import PotentialSpec
        >>> from aiida_difftre.engine.potentials.potential import build, load, save
        >>> hyperparameters = {"epsilon": 0.0103, "sigma": 3.4}
        >>> term = {"architecture": "lennard_jones", "cutoff": 8.5, "hyperparameters": hyperparameters}
        >>> potential = build(PotentialSpec(species=["Ar"], terms=[term]))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(Path(folder, "argon.safetensors"), potential, potential.init(jax.random.key(0)))
        ...     same, parameters = load(Path(folder, "argon.safetensors"))
        >>> same == potential, [round(value, 4) for value in parameters["terms"]["0_lennard_jones"]["sigma"].tolist()]
        (True, [3.4])
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
    """Write a potential and its parameters to a file.

    Args:
        path: The file to write, which is replaced as a whole where it exists.
        potential: The potential.
        parameters: Its parameters.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import jax
        >>> from aiida_difftre.engine.contract.settings import PotentialSpec
        >>> from aiida_difftre.engine.potentials.potential import build, save
        >>> potential = build(PotentialSpec(species=["C"], terms=[{"architecture": "pair_spline", "cutoff": 5.0}]))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "potential.safetensors")
        ...     save(path, potential, potential.init(jax.random.key(0)))
        ...     path.exists()
        True
    """
    files.write_potential(path, potential.spec, flatten(parameters))
