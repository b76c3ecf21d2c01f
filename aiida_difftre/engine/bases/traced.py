"""Base potentials that are functions of JAX: terms of this package with fixed parameters, compiled with the others.

Nothing is called back: dynamics, predictions and calculators see one potential, the sum of both
(:meth:`TracedBase.joined`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from aiida_difftre.engine.bases.protocol import EVERYTHING, PERIODIC, Evaluation, Quantity
from aiida_difftre.engine.contract.settings import PotentialSpec, TermSpec
from aiida_difftre.engine.errors import EngineError, ExitStatus
from aiida_difftre.engine.potentials.evaluator import Evaluator
from aiida_difftre.engine.potentials.potential import Potential, build, load
from aiida_difftre.engine.potentials.term import Parameters


@dataclass(frozen=True, eq=False)
class TracedBase:
    """A potential of this package, with its parameters, as a base of others for the same species.

    Args:
        potential: The potential.
        parameters: Its parameters, which stay as they are.

    Example:
        >>> import jax
        >>> from aiida_difftre.engine.bases.traced import TracedBase
        >>> from aiida_difftre.engine.contract.settings import PotentialSpec
        >>> from aiida_difftre.engine.potentials.potential import build
        >>> prior = {"architecture": "repulsion", "cutoff": 3.0, "hyperparameters": {"epsilon": 1.0, "sigma": 1.2}}
        >>> repulsion = build(PotentialSpec(species=["C"], terms=[prior]))
        >>> spline = build(PotentialSpec(species=["C"], terms=[{"architecture": "pair_spline", "cutoff": 5.0}]))
        >>> base = TracedBase(repulsion, repulsion.init(jax.random.key(0)))
        >>> base.joined(spline, spline.init(jax.random.key(0)))[0].names()
        ['0_pair_spline', '1_repulsion']
    """

    potential: Potential
    parameters: Parameters

    def joined(self, potential: Potential, parameters: Parameters) -> tuple[Potential, Parameters]:
        """The sum of a potential and this base, as one potential; the terms of the base come last.

        Args:
            potential: The correction.
            parameters: Its parameters.

        Returns:
            The sum, and its parameters.

        Raises:
            EngineError: With status INVALID_INPUT, where the two are for other species.
        """
        species, mine = potential.spec.species, self.potential.spec.species
        if species != mine:
            raise EngineError(
                ExitStatus.INVALID_INPUT,
                f"the potential is for {', '.join(species)} and its base for {', '.join(mine)}; give both the same "
                "species in the same order",
            )
        fixed = [term.model_copy(update={"trainable": False}) for term in self.potential.spec.terms]
        spec = PotentialSpec(species=species, terms=[*potential.spec.terms, *fixed])
        together = Potential(spec, (*potential.terms, *self.potential.terms))
        values = [parameters["terms"][name] for name in potential.names()]
        values += [self.parameters["terms"][name] for name in self.potential.names()]
        references = parameters["atomic_energies"] + self.parameters["atomic_energies"]
        return together, {"atomic_energies": references, "terms": dict(zip(together.names(), values, strict=True))}

    @cached_property
    def _evaluator(self) -> Evaluator:
        return Evaluator(self.potential, self.parameters)

    def evaluate(
        self,
        symbols: Sequence[str],
        positions: NDArray[np.float64],
        cells: NDArray[np.float64],
        what: Sequence[Quantity] = EVERYTHING,
        *,
        pbc: tuple[bool, bool, bool] = PERIODIC,
    ) -> Evaluation:
        """Evaluate configurations, as :class:`~aiida_difftre.engine.bases.protocol.BasePotential` says."""
        energies, forces, stresses = (
            np.empty(len(positions)),
            np.empty(positions.shape),
            np.empty((len(positions), 3, 3)),
        )
        for number, (place, cell) in enumerate(zip(positions, cells, strict=True)):
            frame = Atoms(list(symbols), place, cell=cell, pbc=pbc)
            each, forces[number], strained = self._evaluator(frame)
            energies[number] = each.sum()
            stresses[number] = strained / frame.get_volume() if frame.cell.rank == 3 else np.nan
        return Evaluation(energies, forces, stresses)


def of_term(species: tuple[str, ...], *, name: str, cutoff: float, **hyperparameters: Any) -> TracedBase:
    """A term of this package with fixed hyperparameters."""
    term = TermSpec(architecture=name, cutoff=cutoff, hyperparameters=hyperparameters)
    potential = build(PotentialSpec(species=list(species), terms=[term]))
    return TracedBase(potential, potential.init(jax.random.key(0)))


def of_file(species: tuple[str, ...], *, potential: Path) -> TracedBase:
    """A potential of this package from a file; its own base, if it has one, is refused."""
    made, parameters = load(potential)
    if made.spec.base is not None:
        raise ValueError(f"{potential.name} has a base itself, {made.spec.base.label}; give one without")
    if made.has_external:
        raise ValueError(f"{potential.name} has an external field; give a potential of interactions alone")
    return TracedBase(made, parameters)


def lennard_jones(species: tuple[str, ...], **arguments: Any) -> TracedBase:
    """The term ``lennard_jones``, fixed."""
    return of_term(species, name="lennard_jones", **arguments)


def stillinger_weber(species: tuple[str, ...], **arguments: Any) -> TracedBase:
    """The term ``stillinger_weber``, fixed."""
    return of_term(species, name="stillinger_weber", **arguments)
