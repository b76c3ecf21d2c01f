"""Contract tests of a potential: padding, cutoff, forces, stress, symmetries, size and precision."""

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

from aiida_difftre.engine.calculators.difftre import DiffTReCalculator
from aiida_difftre.engine.geometry.neighbor_list import NeighborList, build_batch, components, neighbors
from aiida_difftre.engine.geometry.strain import voigt_matrix
from aiida_difftre.engine.potentials.potential import Potential
from aiida_difftre.engine.potentials.term import Environment, Parameters
from aiida_difftre.engine.snapshots.snapshots import environment
from aiida_difftre.testing.expectations import STEP, close, require

PADDED = 3
"""Entries without a neighbour that are put behind the real ones."""


@dataclass(frozen=True)
class PotentialExample:
    """A potential with parameters, and a structure that it describes.

    Choose parameters that are not zero, and atoms off their sites, some of which are nearer than the cutoff.

    Args:
        potential: The potential.
        parameters: Its parameters, float64.
        atoms: A periodic structure.
    """

    potential: Potential
    parameters: Parameters
    atoms: Atoms

    @cached_property
    def _double(self) -> DiffTReCalculator:
        # Kept, so that the checks of one example share its compiled programs.
        return DiffTReCalculator(self.potential, self.parameters)

    def results(self, atoms: Atoms) -> dict[str, Any]:
        """Energy, forces and stress of another structure in double precision, by the names of ASE."""
        self._double.calculate(atoms)
        return self._double.results

    def energy(self, atoms: Atoms) -> float:
        """Energy of another structure, eV."""
        return float(self.results(atoms)["energy"])

    def rattled(self) -> Atoms:
        """The structure with atoms off their sites, the same each time."""
        atoms: Atoms = self.atoms.copy()
        atoms.positions += np.random.default_rng(7).normal(scale=0.03, size=atoms.positions.shape)
        return atoms

    def lists(self) -> NeighborList:
        """Neighbour lists of the rattled structure, with a leading axis of one."""
        positions = self.rattled().get_scaled_positions(wrap=False)
        return build_batch(positions[None], self.atoms.cell.array, self.potential.cutoff)

    def environment(self) -> Environment:
        """The environment of the rattled structure, float64."""
        atoms = self.rattled()
        positions, symbols = atoms.get_scaled_positions(wrap=False), atoms.get_chemical_symbols()
        return environment(self.potential, positions, atoms.cell.array, symbols, "float64", self.lists())


def padding_is_ignored(example: PotentialExample) -> None:
    """Entries without a neighbour change neither energies nor gradients, and all gradients are finite."""
    with jax.enable_x64(True):
        environment = example.environment()
        wide = [(0, 0), (0, PADDED)]
        padded = environment._replace(
            displacements=jnp.pad(environment.displacements, [*wide, (0, 0)]),
            mask=jnp.pad(environment.mask, wide),
            neighbor_species=jnp.pad(environment.neighbor_species, wide),
            neighbors=jnp.pad(environment.neighbor_index(), wide),
        )

        @jax.jit
        def derivatives(surroundings: Environment) -> tuple[Any, Any, Any]:
            place = surroundings.displacements

            def total(parameters: Parameters, displacements: Any) -> Any:
                return example.potential.total(parameters, surroundings._replace(displacements=displacements))

            def work(parameters: Parameters) -> Any:
                """Derivative of the energy by a strain of all axes; refinement takes its gradient."""
                return jax.jvp(lambda moved: total(parameters, moved), (place,), (place,))[1]

            energy, (slopes, pull) = jax.value_and_grad(total, (0, 1))(example.parameters, place)
            return energy, (slopes, jax.grad(work)(example.parameters)), pull

        energy, slopes, pull = derivatives(environment)
        energy_padded, slopes_padded, pull_padded = derivatives(padded)
    for name, gradient in (("parameters", slopes_padded), ("displacements", pull_padded)):
        require(
            all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient)),
            f"gradients by the {name} are not finite where lists are padded; replace masked distances before you take "
            "powers, roots or logarithms of them: jnp.where(mask, squared, 1.0)",
        )
    close(energy_padded, energy, 1e-10, "the energy (eV) depends on entries of the list that are no neighbours")
    for padded_leaf, leaf in zip(jax.tree.leaves(slopes_padded), jax.tree.leaves(slopes), strict=True):
        close(padded_leaf, leaf, 1e-8, "gradients by parameters depend on entries that are no neighbours")
    close(pull_padded[:, :-PADDED], pull, 1e-8, "forces depend on entries that are no neighbours")


def goes_smoothly_to_zero(example: PotentialExample) -> None:
    """Energy and force go to zero, without a jump, as an atom leaves the cutoff of another that has a neighbour.

    External fields, which have no cutoff, are passed over.
    """
    if example.potential.has_external:
        return
    cutoff = example.potential.cutoff
    for near in example.potential.spec.species:
        for leaving in example.potential.spec.species:
            energies, forces = {}, {}
            for gap in (-1e-2, 1e-4, 1e-1):
                distance = (1 - gap) * cutoff
                places = [[0, 0, 0], [0.6 * cutoff, 0, 0], [-distance / 2, distance * 0.75**0.5, 0]]
                cluster = Atoms([near, near, leaving], places)
                results = example.results(cluster)
                energies[gap], forces[gap] = results["energy"], float(np.linalg.norm(results["forces"][2]))
            pair = f"{leaving} at the cutoff ({cutoff:g} Å) of {near}"
            beyond, step = forces[-1e-2], abs(energies[1e-4] - energies[-1e-2])
            require(beyond <= 1e-9, f"the force on {pair} is {beyond:.3g} eV/Å beyond it; it must be zero")
            require(
                step <= 0.02 * abs(energies[1e-1] - energies[-1e-2]) + 1e-9,
                f"the energy of {pair} jumps by {step:.3g} eV; let it go to zero with its derivative",
            )
            require(
                forces[1e-4] <= 0.05 * forces[1e-1] + 1e-9,
                f"the force on {pair} jumps by {forces[1e-4]:.3g} eV/Å; multiply the energy by a switch whose "
                "derivative is zero there, too",
            )


def forces_are_derivatives(example: PotentialExample) -> None:
    """Forces, those of molecular dynamics included, are minus the derivative of the energy, by finite differences."""
    atoms = example.rattled()
    results = example.results(atoms)
    directions = np.random.default_rng(3).normal(size=(4, len(atoms), 3))
    expected = []
    for direction in directions:
        pair = [atoms.copy(), atoms.copy()]
        for sign, moved in zip((1, -1), pair, strict=True):
            moved.positions += sign * STEP * direction
        expected.append((example.energy(pair[1]) - example.energy(pair[0])) / (2 * STEP))
    hint = "look for stop_gradient, custom derivatives and rounding in the energy"
    for name, forces in (("", results["forces"]), (" of molecular dynamics", _forces_of_dynamics(example)[0])):
        if name:
            hint = "look at the term's kind, which claims what its energy depends on"
        found = np.tensordot(directions, forces, 2)
        close(found, expected, 1e-5, f"forces{name} are not the derivative of the energy (eV/Å); {hint}", 1e-7)


def _forces_of_dynamics(example: PotentialExample) -> tuple[NDArray[np.float64], float]:
    """Forces, eV/Å, and the trace of the virial, eV, as molecular dynamics computes them."""
    with jax.enable_x64(True):
        atoms, environment = example.rattled(), example.environment()
        cell, lists = jnp.asarray(atoms.cell.array), jax.tree.map(lambda leaf: leaf[0], example.lists())
        positions = jnp.asarray(atoms.get_scaled_positions(wrap=False))
        parts = components(positions, cell, neighbors(lists, cell))

        @jax.jit
        def compute(parameters: Parameters, parts: list[Any], environment: Environment) -> tuple[Any, Any]:
            force, trace = example.potential.forces_and_virial(parameters, parts, environment, lists.index)
            if example.potential.has_external:
                force = force + example.potential.external_forces(parameters, environment, cell)
            return force, trace

        force, trace = compute(example.parameters, list(parts), environment)
        return np.asarray(force), float(trace)


def stress_is_a_derivative(example: PotentialExample) -> None:
    """The stress, and the virial of molecular dynamics, are derivatives by strain, by finite differences."""
    atoms = example.rattled()
    volume = atoms.get_volume()
    expected = []
    for component in range(6):
        energies = []
        for sign in (1, -1):
            engineering = np.zeros(6)
            engineering[component] = sign * STEP
            with jax.enable_x64(True):
                strain = np.asarray(voigt_matrix(jnp.asarray(engineering)))
            strained = atoms.copy()
            strained.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
            energies.append(example.energy(strained))
        expected.append((energies[0] - energies[1]) / (2 * STEP))
    message = "is not the derivative of the energy by strain (eV)"
    close(example.results(atoms)["stress"] * volume, expected, 1e-5, f"the stress times the volume {message}", 1e-6)
    trace = _forces_of_dynamics(example)[1]
    close(trace, sum(expected[:3]), 1e-5, f"the virial of molecular dynamics {message}", 1e-6)


def invariant_under_permutation(example: PotentialExample) -> None:
    """The energy does not change, and forces move along, when atoms are listed in another order."""
    atoms = example.rattled()
    order = np.random.default_rng(5).permutation(len(atoms))
    before, after = example.results(atoms), example.results(atoms[order])
    close(after["energy"], before["energy"], 1e-10, "the energy (eV) depends on the order of the atoms")
    close(after["forces"], before["forces"][order], 1e-8, "forces (eV/Å) depend on the order of the atoms")


def invariant_under_rotation(example: PotentialExample) -> None:
    """The energy does not change, and forces turn along, when atoms and cell are rotated."""
    atoms = example.rattled()
    matrix, _ = np.linalg.qr(np.random.default_rng(11).normal(size=(3, 3)))
    rotation = matrix * np.linalg.det(matrix)
    turned = atoms.copy()
    turned.set_cell(atoms.cell.array @ rotation)
    turned.positions = atoms.positions @ rotation
    before, after = example.results(atoms), example.results(turned)
    close(after["energy"], before["energy"], 1e-9, "the energy (eV) depends on the orientation of the structure")
    close(after["forces"], before["forces"] @ rotation, 1e-7, "forces (eV/Å) do not turn with the structure")


def invariant_under_translation(example: PotentialExample) -> None:
    """The energy does not change when all atoms are moved together, or by lattice vectors; fields are passed over."""
    if example.potential.has_external:
        return
    atoms = example.rattled()
    moved = atoms.copy()
    moved.positions += np.array([0.37, -1.1, 0.6])
    moved.wrap()
    message = "the energy (eV) depends on where the structure stands in its cell"
    close(example.energy(moved), example.energy(atoms), 1e-9, message)


def extensive(example: PotentialExample) -> None:
    """Two cells have twice the energy of one; external fields, which span the cell, are passed over."""
    if example.potential.has_external:
        return
    atoms = example.rattled()
    message = "two cells have not twice the energy of one (eV)"
    close(example.energy(atoms.repeat((2, 1, 1))), 2 * example.energy(atoms), 1e-9, message)


def precisions_agree(example: PotentialExample) -> None:
    """Forces in single precision agree with those in double precision to four digits."""
    atoms = example.rattled()
    calculator = DiffTReCalculator(example.potential, example.parameters, precision="float32")
    calculator.calculate(atoms)
    single, double = calculator.results, example.results(atoms)
    message = "of single and double precision disagree; look for differences of large numbers"
    close(single["forces"], double["forces"], 1e-4, f"forces (eV/Å) {message}", 1e-6)
    scale = float(np.abs(double["energies"]).sum())
    close(single["energy"], double["energy"], 0.0, f"energies (eV) {message}", 1e-5 * scale + 1e-6)


PotentialCheck = Callable[[PotentialExample], None]

POTENTIAL_CHECKS: dict[str, PotentialCheck] = {
    check.__name__: check
    for check in (
        padding_is_ignored, goes_smoothly_to_zero, forces_are_derivatives, stress_is_a_derivative,
        invariant_under_permutation, invariant_under_rotation, invariant_under_translation, extensive, precisions_agree,
    )
}  # fmt: skip
"""By name; each takes a :class:`PotentialExample`."""
