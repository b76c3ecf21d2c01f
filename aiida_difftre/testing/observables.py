"""Contract tests of an observable: gradients, padding, and the order of atoms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from aiida_difftre.engine.contract.observables import ObservableRequest, observable
from aiida_difftre.engine.contract.settings import Machine
from aiida_difftre.engine.contract.trajectories import Trajectory
from aiida_difftre.engine.potentials.potential import Potential
from aiida_difftre.engine.potentials.term import Parameters
from aiida_difftre.engine.reweighting.reference import Reference, prepare_reference
from aiida_difftre.engine.snapshots.snapshots import energies
from aiida_difftre.testing.expectations import STEP, close, require


@dataclass(frozen=True)
class ObservableExample:
    """What is asked of an observable, and a system that has it.

    Args:
        request: The observable with grid and options.
        atoms: A periodic structure; snapshots are this one with atoms off their sites.
        potential: A potential that describes the structure.
        parameters: Its parameters.
        temperature: K.
    """

    request: ObservableRequest
    atoms: Atoms
    potential: Potential
    parameters: Parameters
    temperature: float = 300.0

    @property
    def is_for_fluctuating_cells(self) -> bool:
        """Whether only trajectories at constant pressure have the observable."""
        ensembles = observable(self.request.observable).ensembles
        return ensembles is not None and "NVT" not in ensembles(self.request.options)

    def trajectory(self, order: NDArray[np.intp] | None = None) -> Trajectory:
        """Twelve snapshots of three walkers, not drawn from any ensemble, with atoms in another order if asked for."""
        rng, count, walkers = np.random.default_rng(13), 12, 3
        moved = self.atoms.positions + rng.normal(scale=0.05, size=(count, len(self.atoms), 3))
        order = np.arange(len(self.atoms)) if order is None else order
        cell, symbols = self.atoms.cell.array, tuple(self.atoms.symbols[order])
        positions = (moved @ np.linalg.inv(cell)).astype(np.float32)[:, order]
        scales = 1 + 0.01 * rng.normal(size=count) * self.is_for_fluctuating_cells
        last = positions[count // walkers - 1 :: count // walkers].astype(np.float64)
        return Trajectory(
            positions=positions,
            cell=cell,
            species=symbols,
            energies=energies(self.potential, self.parameters, positions, cell, symbols, scales=scales),
            walkers=np.repeat(np.arange(walkers, dtype=np.int32), count // walkers),
            times=np.tile(np.arange(count // walkers) + 1.0, walkers),
            temperatures=np.full(count, self.temperature),
            last_positions=last,
            last_velocities=np.zeros_like(last),
            temperature=self.temperature,
            scales=scales,
            last_scales=np.ones(walkers),
            pressure=0.1 if self.is_for_fluctuating_cells else None,
        )

    @cached_property
    def reference(self) -> Reference:
        """The trajectory with all that the observable needs of it."""
        return self._reference(self.trajectory())

    def _reference(self, trajectory: Trajectory) -> Reference:
        machine = Machine(precision="float64")
        return prepare_reference(self.potential, self.parameters, trajectory, [self.request], machine)

    def inputs(self, reference: Reference) -> dict[str, Any]:
        """What the observable combines: features, or quantities of the potential, of all snapshots."""
        values = reference.snapshots.evaluate(self.parameters)
        return reference.inputs(0, {name: jnp.asarray(value) for name, value in values.items()})


def _weights(snapshots: int) -> NDArray[np.float64]:
    weights = np.random.default_rng(17).uniform(0.5, 1.5, snapshots)
    return weights / weights.sum()


def combined_gradients_are_derivatives(example: ObservableExample) -> None:
    """Gradients of ``combine`` by weights and inputs are finite, and those of finite differences."""
    with jax.enable_x64(True):
        reference, rng = example.reference, np.random.default_rng(19)
        inputs, weights = example.inputs(reference), jnp.asarray(_weights(len(reference.energies)))
        implementation, point = reference.implementations[0], reference.point
        combine = jax.jit(lambda inputs, weights: implementation.combine(inputs, weights, point))
        values = combine(inputs, weights)
        require(values.ndim == 1 and len(values), f"combine gives an array of shape {values.shape}; give (values,)")
        require(np.isfinite(values).all(), f"the values are not finite: {np.asarray(values)}")
        pull = rng.normal(size=values.shape)
        slopes = jax.jit(jax.grad(lambda *x: jnp.vdot(pull, combine(*x)), (0, 1)))(inputs, weights)
        for name, slope in {**slopes[0], "the weights": slopes[1]}.items():
            require(np.isfinite(slope).all(), f"the gradient of the values by {name} is not finite")
        # Weights keep their sum; inputs change by a fraction of what they are.
        ways = {name: rng.normal(size=np.shape(x)) * (np.std(x) + 1e-3 * np.abs(x)) for name, x in inputs.items()}
        way = rng.normal(size=len(weights))
        way = (way - way.mean()) / len(weights)
        moves = {name: ({**{n: 0 * x for n, x in inputs.items()}, name: ways[name]}, 0 * way) for name in inputs}
        moves["the weights"] = ({name: 0 * x for name, x in inputs.items()}, way)
        for name, move in moves.items():
            ahead = jax.tree.map(lambda x, change: x + STEP * change, (inputs, weights), move)
            behind = jax.tree.map(lambda x, change: x - STEP * change, (inputs, weights), move)
            expected = float(jnp.vdot(pull, combine(*ahead) - combine(*behind))) / (2 * STEP)
            found = sum(float(jnp.vdot(a, b)) for a, b in zip(*map(jax.tree.leaves, (slopes, move)), strict=True))
            rounding = 1e-12 / STEP * float(jnp.abs(pull) @ jnp.abs(values))
            message = f"the gradient of the values by {name} is not that of finite differences"
            close(found, expected, 1e-4, message, rounding + 1e-12)


def padded_snapshots_are_ignored(example: ObservableExample) -> None:
    """Snapshots of no weight, such as those that fill up a batch, change no value; Born terms are passed over."""
    with jax.enable_x64(True):
        reference = example.reference
        inputs, weights = example.inputs(reference), _weights(len(reference.energies))
        if any(len(x) != len(weights) for x in inputs.values()):
            return
        implementation, point = reference.implementations[0], reference.point
        filled = {name: jnp.concatenate([x, x[:2]]) for name, x in inputs.items()}
        before = implementation.combine(inputs, jnp.asarray(weights), point)
        after = implementation.combine(filled, jnp.asarray([*weights, 0.0, 0.0]), point)
        close(after, before, 1e-9, "snapshots whose weight is zero change the values")


def observable_invariant_under_permutation(example: ObservableExample) -> None:
    """The values do not change when atoms are listed in another order."""
    with jax.enable_x64(True):
        order = np.random.default_rng(23).permutation(len(example.atoms))
        values = []
        for reference in (example.reference, example._reference(example.trajectory(order))):
            weights = jnp.asarray(_weights(len(reference.energies)))
            values.append(reference.implementations[0].combine(example.inputs(reference), weights, reference.point))
        close(values[1], values[0], 1e-6, "the values depend on the order of the atoms")


ObservableCheck = Callable[[ObservableExample], None]

OBSERVABLE_CHECKS: dict[str, ObservableCheck] = {
    check.__name__: check
    for check in (
        combined_gradients_are_derivatives, padded_snapshots_are_ignored, observable_invariant_under_permutation,
    )
}  # fmt: skip
"""By name; each takes an :class:`ObservableExample`."""
