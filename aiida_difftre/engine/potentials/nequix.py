r"""Equivariant message passing, the NequIP architecture as the package nequix has it, whose weights are trained.

.. math:: U = \sum_i s\, w \cdot h_i^{(L)}

with features h of each atom, tensors of several ranks, that are updated L times by messages from the neighbours: an
atom sees L cutoffs far. The package nequix and its pretrained weights (``difftre convert FILE.nqx``) are optional:
``pip install aiida-difftre[nequix]``. It is the accurate and slow kind of network, for a GPU.

References:
    S. Batzner et al., Nat. Commun. 13, 2453 (2022); T. Koker, A. Gangan, M. Kotak, J. Marian and T. Smidt, Training a
    foundation model for materials on a budget, arXiv:2508.16067 (2025).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from aiida_difftre.engine.contract.nequix_options import NequixOptions
from aiida_difftre.engine.potentials.term import Environment, Parameters, Term

ENERGIES = "atom_energies"
"""Of the package's model; here they are the reference energies of the potential."""


class Bonds(NamedTuple):
    """Vectors to the neighbours, which atoms these are, and the species of the atoms.

    Args:
        vectors: Å; beyond the cutoff where there is no neighbour within it.
        within: Whether there is one.
        index: Index of the neighbour.
        species: Of the centre.
    """

    vectors: Float[Array, "atoms neighbors 3"]
    within: Bool[Array, "atoms neighbors"]
    index: Int[Array, "atoms neighbors"]  # type: ignore[assignment]  # hides tuple.index, which nobody calls
    species: Int[Array, " atoms"]


@dataclass(frozen=True)
class Nequix(Term):
    """Equivariant network whose atoms pass messages, with the model and the weights of the package nequix.

    Args:
        species: Chemical symbols of the potential.
        cutoff: Distance beyond which a neighbour does not count, Å; an atom sees ``n_layers`` times as far.
        elements: Chemical symbols that the weights know, in the order of these; those of the potential where a spec
            leaves them out.
        hidden_irreps: Features of an atom: multiplicities and ranks, even or odd.
        lmax: Highest rank of the spherical harmonics of a bond.
        n_layers: Number of rounds of messages.
        radial_basis_size: Number of Bessel functions of the distance.
        radial_mlp_size: Width of the networks of the distance.
        radial_mlp_layers: Number of their hidden layers.
        radial_polynomial_p: Exponent of the envelope that ends at the cutoff.
        mlp_init_scale: Scale of their random weights.
        index_weights: Whether each element has weights of its own in the skip connections.
        layer_norm: Whether features are normalised.
        scale: Factor on the energies, eV.
        avg_n_neighbors: Number of neighbours by whose root sums of messages are divided.

    References:
        S. Batzner et al., Nat. Commun. 13, 2453 (2022).
    """

    elements: tuple[str, ...]
    hidden_irreps: str = "32x0e + 32x1o + 32x2e"
    lmax: int = 2
    n_layers: int = 3
    radial_basis_size: int = 8
    radial_mlp_size: int = 64
    radial_mlp_layers: int = 2
    radial_polynomial_p: float = 6.0
    mlp_init_scale: float = 4.0
    index_weights: bool = True
    layer_norm: bool = False
    scale: float = 1.0
    avg_n_neighbors: float = 20.0

    @classmethod
    def from_spec(cls, species: tuple[str, ...], cutoff: float, hyperparameters: dict[str, Any]) -> Self:
        """Check the hyperparameters.

        Raises:
            ValueError: naming the value; or where the package nequix is not installed.
        """
        fields = NequixOptions.read(hyperparameters).complete(species, cutoff)
        _package()
        return cls(species, cutoff, **fields)

    @property
    def is_message_passing(self) -> bool:
        """An atom sees ``n_layers`` cutoffs far."""
        return True

    def init(self, key: Array) -> Parameters:
        """Random weights."""
        weights: Parameters = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), tree_of(_model(self, key)))
        return weights

    def project(self, environment: Environment) -> Bonds:
        """Vectors to the neighbours within the cutoff."""
        squared = environment.squared_distances()
        within = environment.mask & (squared < self.cutoff**2) & (squared > 0)
        far = jnp.array([2 * self.cutoff, 0.0, 0.0], environment.displacements.dtype)
        vectors = jnp.where(within[..., None], environment.displacements, far)
        return Bonds(vectors, within, environment.neighbor_index(), environment.species)

    def energy(self, parameters: Parameters, projected: Bonds) -> Float[Array, " atoms"]:
        """Energy of each atom, eV."""
        package = _package()
        import e3nn_jax as e3nn

        dtype = projected.vectors.dtype
        model = filled(shape(self), jax.tree.map(lambda leaf: leaf.astype(dtype), parameters))
        atoms, neighbors, _ = projected.vectors.shape
        vectors = projected.vectors.reshape(-1, 3)
        receivers = jnp.repeat(jnp.arange(atoms), neighbors, total_repeat_length=atoms * neighbors)
        senders = jnp.where(projected.within, projected.index, jnp.arange(atoms)[:, None]).reshape(-1)
        kinds = jnp.array([self.elements.index(symbol) for symbol in self.species])[projected.species]
        distance = jnp.sqrt(jnp.sum(vectors**2, -1))
        bessel = package.bessel_basis(distance, self.radial_basis_size, self.cutoff)
        envelope = package.polynomial_cutoff(distance, self.cutoff, self.radial_polynomial_p)
        # Constants of the package are of double precision where JAX has it.
        radial = (bessel * envelope[:, None]).astype(dtype)
        harmonics = e3nn.spherical_harmonics(
            e3nn.s2_irreps(self.lmax), vectors, normalize=True, normalization="component"
        ).astype(dtype)
        known = len(self.elements)
        features = e3nn.IrrepsArray(f"{known}x0e", jax.nn.one_hot(kinds, known, dtype=dtype))
        with jax.default_matmul_precision("highest"):
            for layer in model.layers:
                features = layer(features, kinds, harmonics, radial, senders, receivers)
            energies = model.readout(features).array[:, 0]
        return (self.scale * energies).astype(dtype)


def _package() -> Any:
    """The module of the model.

    Raises:
        ValueError: where it is not installed.
    """
    precision = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]  # made at run time
    try:
        import nequix.model
    except ImportError as error:
        raise ValueError(
            f"the package nequix cannot be imported ({error}); pip install 'aiida-difftre[nequix]', or without CUDA "
            "pip install equinox jraph e3nn-jax matscipy cloudpickle && pip install --no-deps nequix"
        ) from None
    finally:
        # The package changes it for everybody.
        jax.config.update("jax_default_matmul_precision", precision)
    return nequix.model


def _model(term: Nequix, key: Array) -> Any:
    names = ("lmax", "hidden_irreps", "n_layers", "radial_basis_size", "radial_mlp_size", "radial_mlp_layers")
    more = ("radial_polynomial_p", "mlp_init_scale", "index_weights", "scale", "avg_n_neighbors", "layer_norm")
    given = {name: getattr(term, name) for name in (*names, *more)}
    return _package().Nequix(key, len(term.elements), cutoff=term.cutoff, **given)


@functools.lru_cache(maxsize=8)
def shape(term: Nequix) -> Any:
    """The model with shapes in place of weights."""
    import equinox

    return equinox.filter_eval_shape(_model, term, jax.random.key(0))


def tree_of(model: Any) -> Parameters:
    """Weights of a model of the package as a tree of dictionaries, without the energies of the elements."""
    tree: Parameters = {}
    for path, leaf in _leaves(model)[0]:
        if not _is_weight(path, leaf):
            continue
        node = tree
        for part in path[:-1]:
            node = node.setdefault(part, {})
        node[path[-1]] = jnp.asarray(leaf)
    return tree


def filled(empty: Any, parameters: Parameters) -> Any:
    """A model of the package with these weights; the inverse of :func:`tree_of`, but for energies of zero."""
    named, structure = _leaves(empty)
    leaves = []
    for path, leaf in named:
        if _is_weight(path, leaf):
            leaf = functools.reduce(lambda node, part: node[part], path, parameters)
        elif path == (ENERGIES,):
            leaf = np.zeros(leaf.shape, np.float32)
        leaves.append(leaf)
    return jax.tree.unflatten(structure, leaves)


def read_into(empty: Any, stream: BinaryIO) -> Any:
    """A model with the arrays of a file of the package, each as NumPy writes it; no objects, which would be pickles.

    Raises:
        ValueError: for an array of another shape.
    """
    named, structure = _leaves(empty)
    leaves = []
    for path, leaf in named:
        found = np.load(stream, allow_pickle=False)
        if found.shape != np.shape(leaf) or found.dtype.kind not in "fiu":
            raise ValueError(f"{'/'.join(path)} is {found.dtype} of shape {found.shape}, and not {np.shape(leaf)}")
        leaves.append(found if hasattr(leaf, "shape") else type(leaf)(found))
    return jax.tree.unflatten(structure, leaves)


def _is_weight(path: tuple[str, ...], leaf: Any) -> bool:
    return hasattr(leaf, "shape") and path != (ENERGIES,)


def _leaves(model: Any) -> tuple[list[tuple[tuple[str, ...], Any]], Any]:
    """What is in a model by its path, and its structure."""
    named, structure = jax.tree_util.tree_flatten_with_path(model)
    return [(tuple(_name(part) for part in path), leaf) for path, leaf in named], structure


def _name(part: Any) -> str:
    """One part of a path, as a key of parameters: without slashes, which separate parts in files."""
    name = next(getattr(part, field) for field in ("name", "key", "idx") if hasattr(part, field))
    return str(name).replace("/", "|").strip("_")
