r"""The fast invariant network: radial functions times Cartesian moments, contracted to invariants, then an MLP.

For atom i with neighbours j at distance r and direction u (per species s of the neighbour, radial function k):

    A⁰_sk = Σ_j B_k(r_ij),   A¹_sk = Σ_j B_k u_ij,   A²_sk = Σ_j B_k u⊗u,   A³_sk = Σ_j B_k u⊗u⊗u
    B_k(r) = T_k(1 - 2 r/r_c) (1 - (r/r_c)²)³

With several species, learned weights mix the (s, k) channels of the moments into ``n_radial`` channels for each species
of the centre; with one there is nothing to mix. Invariants are A⁰_n and, for n <= m, the full contractions A^l_n :
A^l_m. They are standardised over the training set and passed through an MLP, one for each species of the centre.

The family: moment tensor potentials (Shapeev, Multiscale Model. Simul. 14, 1153 (2016)), Gaussian-moment networks
(Zaverkin & Kästner, J. Chem. Theory Comput. 16, 5410 (2020)), ACE (Drautz, Phys. Rev. B 99, 014104 (2019)).
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from aiida_difftre.engine.contract.term_options import ACTIVATIONS as NAMES
from aiida_difftre.engine.contract.term_options import MomentNetworkOptions
from aiida_difftre.engine.potentials.pairs import masked_distances
from aiida_difftre.engine.potentials.term import Environment, Kind, Parameters, Term, add_up

ACTIVATIONS = dict(zip(NAMES, (jax.nn.silu, jnp.tanh, jax.nn.softplus), strict=True))

# Distinct components of the symmetric tensors u⊗u (xx yy zz yz xz xy) and u⊗u⊗u, and how often each occurs in the
# full one.
_RANK2 = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
_RANK3 = ((0, 0, 0), (1, 1, 1), (2, 2, 2), (0, 0, 1), (0, 0, 2), (0, 1, 1), (1, 1, 2), (0, 2, 2), (1, 2, 2), (0, 1, 2))
_MULTIPLICITY = {1: (1, 1, 1), 2: (1, 1, 1, 2, 2, 2), 3: (1, 1, 1, 3, 3, 3, 3, 3, 3, 6)}


def radial_functions(x: Float[Array, "*shape"], count: int) -> list[Float[Array, "*shape"]]:
    """B_k of x = r/r_c, and zero from 1 on.

    From T_2k = 2 T_k² - 1 and T_2k+1 = 2 T_k T_k+1 - T_1: XLA evaluates each function anew where it is used, and so
    with fewer operations than along the recurrence from one to the next.
    """
    envelope = jnp.where(x < 1, (1 - x * x) ** 3, 0.0)
    return [envelope * polynomial for polynomial in _chebyshev(1 - 2 * x, count)]


def radial_slopes(x: Float[Array, "*shape"], count: int) -> list[Float[Array, "*shape"]]:
    """dB_k/dx, from T_k' = k U_k-1, with U_2k = 2 T_k U_k - 1 and U_2k-1 = 2 T_k U_k-1 of the second kind."""
    inside = jnp.where(x < 1, 1 - x * x, 0.0)
    envelope, slope = inside**3, -6 * x * inside * inside
    argument = 1 - 2 * x
    first, second = _chebyshev(argument, count), [jnp.ones_like(x), 2 * argument]
    for k in range(2, count - 1):
        half = first[(k + 1) // 2]
        second.append(2 * half * second[(k - 1) // 2] if k % 2 else 2 * half * second[k // 2] - 1)
    return [slope] + [slope * first[k] - 2 * k * envelope * second[k - 1] for k in range(1, count)]


def _chebyshev(argument: Array, count: int) -> list[Array]:
    found = [jnp.ones_like(argument), argument]
    for k in range(2, count):
        half = found[k // 2]
        found.append(2 * half * found[k // 2 + 1] - argument if k % 2 else 2 * half * half - 1)
    return found


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def radial_sums(x: Float[Array, "*atoms neighbors"], count: int) -> Float[Array, "*atoms count"]:
    """Σ_j B_k(x_ij): a network of rank zero sees nothing else.

    With derivatives of its own: those of a recurrence are several times as much work, and keep all its steps.
    """
    return jnp.stack([add_up(part) for part in radial_functions(x, count)], -1)


@radial_sums.defjvp
def _radial_sums_jvp(count: int, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,), (change,) = primals, tangents
    return radial_sums(x, count), jnp.stack([add_up(slope * change) for slope in radial_slopes(x, count)], -1)


class Moments(NamedTuple):
    """Moments of the neighbour density, free of parameters, and the species of the centre."""

    values: Float[Array, "atoms channels components"]
    species: Int[Array, " atoms"]


@dataclass(frozen=True)
class MomentNetwork(Term):
    """Neural network of the distances and angles around each atom, which rotations and permutations leave unchanged.

    Cartesian moments of the neighbour density, of rank 0 to 3, are contracted to invariants, which go through a
    multilayer perceptron for each species of the centre. The module's documentation has the equations.

    Args:
        species: Chemical symbols of the potential.
        cutoff: Distance beyond which a neighbour does not count, Å.
        n_radial: Number of radial functions, and of channels after mixing species.
        rank: Highest rank of the moments, 0 to 3; 0 sees distances and no angles.
        hidden: Widths of the hidden layers.
        activation: ``silu``, ``tanh`` or ``softplus``.
        output_scale: Factor on the random weights of the last layer; with 0 the term starts as exactly zero, and leaves
            a prior as it is.

    References:
        A. V. Shapeev, Multiscale Model. Simul. 14, 1153 (2016); V. Zaverkin and J. Kästner, J. Chem. Theory Comput. 16,
        5410 (2020); R. Drautz, Phys. Rev. B 99, 014104 (2019).

    Example:
        >>> from aiida_difftre.engine.potentials.moment_network import MomentNetwork
        >>> term = MomentNetwork.from_spec(("C",), 5.0, {"n_radial": 6, "rank": 2, "hidden": [32, 32]})
        >>> term.rank, term.hidden, term.kind.name
        (2, (32, 32), 'GENERAL')
    """

    n_radial: int = 8
    rank: int = 2
    hidden: tuple[int, ...] = (48, 48)
    activation: str = "silu"
    output_scale: float = 0.1

    buffers: ClassVar[tuple[str, ...]] = ("mean", "deviation")

    @classmethod
    def from_spec(cls, species: tuple[str, ...], cutoff: float, hyperparameters: dict[str, Any]) -> Self:
        """Check the hyperparameters.

        Raises:
            ValueError: naming the value.
        """
        return cls(species, cutoff, **MomentNetworkOptions.read(hyperparameters).complete(species, cutoff))

    @property
    def kind(self) -> Kind:
        """A network of rank zero sees distances alone."""
        return Kind.RADIAL if self.rank == 0 else Kind.GENERAL

    @property
    def n_invariants(self) -> int:
        """Invariants per atom."""
        return self.n_radial + self.rank * self.n_radial * (self.n_radial + 1) // 2

    def init(self, key: Array) -> Parameters:
        """LeCun-normal weights, zero biases; the last layer times ``output_scale``, so that a residual starts small."""
        elements = len(self.species)
        widths = (self.n_invariants, *self.hidden, 1)
        keys = jax.random.split(key, len(widths))
        layers = {}
        for number, (n_in, n_out) in enumerate(itertools.pairwise(widths)):
            weights = jax.random.normal(keys[number], (elements, n_in, n_out)) / np.sqrt(n_in)
            last = number == len(widths) - 2
            layers[f"w{number}"] = weights * (self.output_scale if last else 1.0)
            layers[f"b{number}"] = jnp.zeros((elements, n_out))
        parameters: Parameters = {
            "mlp": layers,
            "mean": jnp.zeros(self.n_invariants),
            "deviation": jnp.ones(self.n_invariants),
        }
        if elements > 1:
            noise = jax.random.normal(keys[-1], (elements, elements * self.n_radial, self.n_radial))
            identity = jnp.tile(jnp.eye(self.n_radial), (elements, 1))
            parameters["mixing"] = identity[None] / elements**0.5 + 0.3 * noise / elements**0.5
        return parameters

    def project(self, environment: Environment) -> Moments:
        """The moments."""
        return Moments(self._moments(environment), environment.species)

    def _moments(self, environment: Environment) -> Float[Array, "atoms channels components"]:
        elements = range(len(self.species))
        if self.rank == 0:
            x = masked_distances(environment, self.cutoff)[0] / self.cutoff
            each = [x]
            if len(elements) > 1:
                # Other elements at the cutoff, where all is zero.
                each = [jnp.where(environment.neighbor_species == element, x, 1.0) for element in elements]
            return jnp.concatenate([radial_sums(part, self.n_radial) for part in each], -1)[..., None]
        # The mask acts before the square root and the division: padded pairs sit at r = 0, where both have no
        # derivative.
        squared = jnp.where(environment.mask, environment.squared_distances(), self.cutoff**2)
        inverse = jax.lax.rsqrt(squared)
        x = squared * inverse / self.cutoff
        radial = radial_functions(x, self.n_radial)
        unit = [part * inverse for part in environment.axes()]
        tensors = [jnp.ones_like(x), *unit]
        if self.rank >= 2:
            tensors += [unit[a] * unit[b] for a, b in _RANK2]
        if self.rank >= 3:
            tensors += [unit[a] * unit[b] * unit[c] for a, b, c in _RANK3]
        channels = []
        for element in elements:
            if len(elements) > 1:
                channels += [jnp.where(environment.neighbor_species == element, part, 0.0) for part in radial]
            else:
                channels += radial
        # Neighbours last in both factors: the fastest layout on CPU, in compilation too.
        return jnp.einsum("...cn,...tn->...ct", jnp.stack(channels, -2), jnp.stack(tensors, -2))

    def invariants(self, parameters: Parameters, moments: Moments) -> Float[Array, "atoms invariants"]:
        """Invariants before standardisation."""
        values = moments.values
        if "mixing" in parameters:
            mixing = parameters["mixing"].astype(values.dtype)[moments.species]
            values = jnp.einsum("...cm,...cn->...nm", values, mixing)
        upper = np.triu_indices(self.n_radial)
        parts, start = [values[..., 0]], 1
        for rank in range(1, self.rank + 1):
            multiplicity = np.array(_MULTIPLICITY[rank])
            tensor = values[..., start : start + len(multiplicity)]
            start += len(multiplicity)
            gram = jnp.einsum("...nc,...mc->...nm", tensor * multiplicity.astype(values.dtype), tensor)
            parts.append(gram[..., upper[0], upper[1]])
        return jnp.concatenate(parts, -1)

    def energy(self, parameters: Parameters, projected: Moments) -> Float[Array, " atoms"]:
        """Energy of each atom, eV."""
        dtype = projected.values.dtype
        invariants = self.invariants(parameters, projected)
        hidden = (invariants - parameters["mean"].astype(dtype)) / parameters["deviation"].astype(dtype)
        activation = ACTIVATIONS[self.activation]
        layers = len(self.hidden) + 1
        per_element = []
        for element in range(len(self.species)):
            x = hidden
            for number in range(layers):
                weights, bias = parameters["mlp"][f"w{number}"][element], parameters["mlp"][f"b{number}"][element]
                x = x @ weights.astype(dtype) + bias.astype(dtype)
                if number < layers - 1:
                    x = activation(x)
            per_element.append(x[..., 0])
        if len(per_element) == 1:
            return per_element[0]
        chosen = jax.nn.one_hot(projected.species, len(per_element), dtype=dtype)
        return jnp.sum(jnp.stack(per_element, -1) * chosen, -1)

    def standardise(self, parameters: Parameters, projected: Moments) -> Parameters:
        """Set mean and deviation of the invariants from training configurations.

        Args:
            parameters: Parameters of this term.
            projected: moments of real atoms, any leading shape flattened to atoms.

        Returns:
            The parameters with mean and deviation set.
        """
        invariants = self.invariants(parameters, projected)
        mean, deviation = jnp.mean(invariants, 0), jnp.std(invariants, 0)
        # An invariant that hardly varies in the training set must not be blown up outside it.
        floor = 1e-3 * jnp.maximum(jnp.abs(mean), jnp.max(deviation))
        return {**parameters, "mean": mean, "deviation": jnp.maximum(deviation, floor)}
