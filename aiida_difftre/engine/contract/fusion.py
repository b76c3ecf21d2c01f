"""Whether atoms of a potential can fall into each other: pairs of ions need a wall that stands. Free of JAX.

The exponential of Buckingham is finite at no distance, and the attraction of charges and -C₆/r⁶ are not: without a
core, a hot pair of ions slips over the top of the energy and never comes back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from aiida_difftre.engine import units
from aiida_difftre.engine.contract.term_options import pair_labels

WALL = 10.0
"""Energy by which a pair must rise above its well before it may fall, eV: some 20 kT of a melt of 5000 K."""

NEAREST = 0.2
"""Distance below which no pair comes, Å."""

Distances: TypeAlias = NDArray[np.float64]


class Known(NamedTuple):
    """A term whose hyperparameters are known here: its name, its cutoff (Å) and its fields."""

    name: str
    cutoff: float
    fields: Mapping[str, Any]


def _born_mayer(term: Known, pair: int, r: Distances) -> Distances:
    return np.asarray(term.fields["amplitude"][pair] * np.exp(-r / term.fields["rho"][pair]))


def _buckingham(term: Known, pair: int, r: Distances) -> Distances:
    return np.asarray(_born_mayer(term, pair, r) - term.fields["c6"][pair] / r**6)


def _coulomb_dsf(term: Known, pair: int, r: Distances) -> Distances:
    charges, a, end = term.fields["charges"], term.fields["damping"], term.cutoff
    count = len(charges)
    first, second = [(i, j) for i in range(count) for j in range(i, count)][pair]
    edge = math.erfc(a * end) / end
    slope = edge / end + 2 * a / math.sqrt(math.pi) * math.exp(-((a * end) ** 2)) / end
    bare = np.array([math.erfc(a * x) / x for x in r])
    return np.asarray(units.COULOMB_CONSTANT * charges[first] * charges[second] * (bare - edge + slope * (r - end)))


def _lennard_jones(term: Known, pair: int, r: Distances) -> Distances:
    power = (term.fields["sigma"][pair] / r) ** 6
    return np.asarray(4 * term.fields["epsilon"][pair] * (power**2 - power))


def _repulsion(term: Known, pair: int, r: Distances) -> Distances:
    return np.asarray(term.fields["epsilon"][pair] * (term.fields["sigma"][pair] / r) ** term.fields["exponent"])


def _dispersion(term: Known, pair: int, r: Distances) -> Distances:
    return np.asarray(-term.fields["c6"][pair] / (r**6 + term.fields["radius"][pair] ** 6))


def _nothing(term: Known, pair: int, r: Distances) -> Distances:
    return np.zeros_like(r)


ENERGIES: dict[str, Callable[[Known, int, Distances], Distances]] = {
    "born_mayer": _born_mayer,
    "buckingham": _buckingham,
    "coulomb_dsf": _coulomb_dsf,
    "dispersion": _dispersion,
    "lennard_jones": _lennard_jones,
    "moment_network": _nothing,
    "repulsion": _repulsion,
}
"""Energies of pairs, eV, well inside of the cutoff. A network is a small correction when it starts, and no wall."""

ATTRACTIVE = ("buckingham", "coulomb_dsf")
"""Terms whose attraction has no end at short distances."""


def check(species: tuple[str, ...], terms: Sequence[Known]) -> None:
    """Refuse a potential of ions in which a pair has no wall; one with other terms cannot be judged, and passes.

    Raises:
        ValueError: naming the pair, how high its wall is, and what makes one.
    """
    if not any(term.name in ATTRACTIVE for term in terms) or any(term.name not in ENERGIES for term in terms):
        return
    reach = min(term.cutoff for term in terms if term.name in ATTRACTIVE)
    r = np.arange(NEAREST, 0.9 * reach, 0.01)[::-1]
    for pair, label in enumerate(pair_labels(species)):
        energy = sum(
            (np.where(r < term.cutoff, ENERGIES[term.name](term, pair, r), 0.0) for term in terms), np.zeros_like(r)
        )
        rise = energy - np.minimum.accumulate(energy)  # above the deepest place further out
        wall = float(rise.max())
        if wall < WALL:
            raise ValueError(
                f"the ions of {label} fuse: on the way inwards their energy rises by {wall:.3g} eV only before it "
                f"falls, and {WALL:g} eV keep them apart; give {label} a core, such as a term 'repulsion' with "
                "exponent 24, epsilon 1 eV and sigma some 0.8 of the bond, trainable: false"
            )
