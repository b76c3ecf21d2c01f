"""The update: its gradient against plain autodiff, descent, backtracking, gates, states, refusals."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import ase.io
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from numpy.typing import NDArray
from scipy.optimize import minimize

from aiida_difftre.engine import optimizers, units
from aiida_difftre.engine.calculators.difftre import DiffTReCalculator
from aiida_difftre.engine.contract.jobs import LossSettings, Machine, OptimizerSpec, UpdateJob, UpdateSettings
from aiida_difftre.engine.contract.targets import Target
from aiida_difftre.engine.contract.trajectories import Trajectory, write_trajectory
from aiida_difftre.engine.errors import EngineError, ExitStatus
from aiida_difftre.engine.geometry import neighbor_list
from aiida_difftre.engine.jobs import update
from aiida_difftre.engine.matching.dataset_loss import dataset_loss
from aiida_difftre.engine.potentials import potential as potentials
from aiida_difftre.engine.potentials.potential import Potential
from aiida_difftre.engine.potentials.term import Environment, Parameters, species_index
from aiida_difftre.engine.refinement import gauss_newton, objective
from aiida_difftre.engine.refinement.gauss_newton import TrustRegion
from aiida_difftre.engine.refinement.minimise import OptimizerMemory, Outcome
from aiida_difftre.engine.refinement.minimise import minimise as minimise_objective
from aiida_difftre.engine.refinement.objective import ExtraLoss, PreparedStatePoint
from aiida_difftre.engine.runtime import device
from aiida_difftre.engine.runtime.progress import Silent
from aiida_difftre.engine.runtime.stop import Stop
from tests.fixtures.engine import DOUBLE, alloy, argon, lennard_jones, network, prepared, rattled, target

TEMPERATURE = 300.0
CENTRES = [1.4, 1.5, 1.6, 1.7]
POTENTIAL, START = lennard_jones()


def small_network() -> tuple[Potential, Parameters]:
    return network(rank=2, n_radial=2, hidden=(4,), scale=3.0)


def targets_of_every_kind(symmetry: str) -> list[Target]:
    values = 3 if symmetry == "cubic" else 21
    options = {"symmetry": symmetry, "born_stride": 2}
    return [
        target("stress", [1.0, -2.0, 0.5, 0.3, -0.4, 0.1], weight=0.7),
        target("stiffness", np.linspace(50, 100, values), error=20.0, options=options),
        target("rdf", [0.1, 1.5, 0.7, 0.9], error=0.05, grid=CENTRES),
        target("potential_energy", [0.3], error=0.02),
        target("pressure", [40.0], role="selection"),
    ]


def independent_loss(
    potential: Potential, trajectory: Trajectory, data: PreparedStatePoint, symmetry: str, reference: Parameters
) -> Any:
    """The loss as the equations say, through the weights and everything, by autodiff of the potential alone."""
    cell = jnp.asarray(trajectory.cell)
    volume = float(np.linalg.det(trajectory.cell))
    positions = jnp.asarray(trajectory.positions, jnp.float64)
    lists = neighbor_list.build_batch(positions, cell, potential.cutoff)
    species = jnp.asarray(species_index(trajectory.species, potential.spec.species))
    kT, gpa = units.BOLTZMANN * trajectory.temperature, units.EV_PER_A3_IN_GPA
    ideal = len(trajectory.species) * kT / volume * gpa

    def energy(parameters: Parameters, x: Any, neighbors: Any, voigt: Any) -> Any:
        e = voigt
        strain = jnp.array([[2 * e[0], e[5], e[4]], [e[5], 2 * e[1], e[3]], [e[4], e[3], 2 * e[2]]]) / 2
        vectors = ((x[neighbors.index] - x[:, None] + neighbors.shift) @ cell) @ (
            jnp.eye(3) + strain - strain @ strain / 2
        )
        return potential.total(parameters, Environment(vectors, neighbors.mask, species, species[neighbors.index]))

    def features(parameters: Parameters) -> tuple[Any, Any, Any]:
        def one(x: Any, neighbors: Any) -> tuple[Any, Any, Any]:
            zero = jnp.zeros(6)
            value, slope = jax.value_and_grad(energy, 3)(parameters, x, neighbors, zero)
            return value, slope, jax.hessian(energy, 3)(parameters, x, neighbors, zero)

        u, s, b = jax.lax.map(lambda a: one(*a), (positions, lists))
        return u, s * gpa / volume, b * gpa / volume

    reference_energies = features(reference)[0]
    histogram = np.stack([rdf_by_hand(x, trajectory.cell) for x in np.asarray(positions)])

    def loss(parameters: Parameters) -> Any:
        u, s, b = features(parameters)
        w = jnp.exp(-(u - reference_energies) / kT)
        w = w / w.sum()
        stress = w @ s - ideal * jnp.array([1, 1, 1, 0, 0, 0])
        covariance = (jnp.einsum("i,ia,ib->ab", w, s, s) - jnp.outer(w @ s, w @ s)) / (1 - jnp.sum(w**2))
        matrix = -volume / kT / gpa * covariance + ideal * jnp.diag(jnp.array([2.0, 2, 2, 1, 1, 1]))
        sx, sy, sz, syz, sxz, sxy = stress
        # B - C in Voigt notation, symmetrised, written out from the tensor formula.
        correction = jnp.array(
            [
                [sx, -(sx + sy) / 2, -(sx + sz) / 2, -syz / 2, sxz / 2, sxy / 2],
                [-(sx + sy) / 2, sy, -(sy + sz) / 2, syz / 2, -sxz / 2, sxy / 2],
                [-(sx + sz) / 2, -(sy + sz) / 2, sz, syz / 2, sxz / 2, -sxy / 2],
                [-syz / 2, syz / 2, syz / 2, (sy + sz) / 2, sxy / 2, sxz / 2],
                [sxz / 2, -sxz / 2, sxz / 2, sxy / 2, (sx + sz) / 2, syz / 2],
                [sxy / 2, sxy / 2, -sxy / 2, sxz / 2, syz / 2, (sx + sy) / 2],
            ]
        )
        matrix = matrix + correction
        subset, rows = w[::2] / w[::2].sum(), b[::2]
        if symmetry == "general":
            stiffness = (matrix + jnp.einsum("i,iab->ab", subset, rows))[np.triu_indices(6)]
        else:
            turn = np.arange(len(rows)) % 3
            axis = rows[np.arange(len(rows)), turn, turn]
            shear = rows[np.arange(len(rows)), 3 + turn, 3 + turn]
            bulk = rows[:, :3, :3].sum((1, 2))
            c11 = jnp.trace(matrix[:3, :3]) / 3
            c12 = (matrix[:3, :3].sum() - 3 * c11) / 6
            born = [subset @ axis, (subset @ bulk - 3 * subset @ axis) / 6, subset @ shear]
            stiffness = jnp.array([c11, c12, jnp.trace(matrix[3:, 3:]) / 3]) + jnp.array(born)
        predictions = [stress, stiffness, w @ histogram, jnp.array([w @ u / 8]), -stress[:3].mean()[None]]
        total = 0.0
        for term, prediction in list(zip(data.terms, predictions, strict=True))[:4]:
            error = np.asarray(term.target.errors) ** 2 + term.simulation_errors**2
            total += term.target.weight * jnp.mean((prediction - np.array(term.target.values)) ** 2 / error)
        return total, predictions

    return loss


def rdf_by_hand(x: np.ndarray, cell: np.ndarray) -> np.ndarray:
    shifts = np.stack(np.meshgrid(*[range(-3, 4)] * 3), -1).reshape(-1, 3)
    difference = (x[None, :, None] - x[:, None, None] + shifts) @ cell
    r = np.linalg.norm(difference, axis=-1).ravel()
    edges = np.linspace(1.35, 1.75, 5)
    counts = np.histogram(r, edges)[0]
    return counts * abs(np.linalg.det(cell)) / (len(x) ** 2 * 4 / 3 * np.pi * np.diff(edges**3))


@pytest.mark.parametrize("symmetry", ["cubic", pytest.param("general", marks=pytest.mark.slow)])
def test_gradient_equals_autodiff_through_the_weights(symmetry: str) -> None:
    """At the reference and away from it, where the weights are not uniform; to 1e-10 in double precision."""
    potential, parameters = small_network()
    atoms = alloy(("C",))
    # So cold that the weights differ much once the parameters have moved a little.
    trajectory = rattled(potential, parameters, atoms, snapshots=7, amplitude=0.1, temperature=60.0)
    data = prepared(potential, parameters, trajectory, targets_of_every_kind(symmetry), UpdateSettings(bootstrap=10))
    plain = jax.jit(
        jax.value_and_grad(independent_loss(potential, trajectory, data, symmetry, parameters), has_aux=True)
    )
    rng = np.random.default_rng(1)
    moved = jax.tree.map(lambda p: p + 0.02 * jnp.asarray(rng.normal(size=p.shape)), parameters)
    moved["atomic_energies"] = parameters["atomic_energies"]
    for point in (parameters, moved):
        evaluation = objective.evaluate([data], point)
        found = objective.gradient([data], point, evaluation)
        (loss, predictions), expected = plain(point)
        for a, b in zip(evaluation.predictions["point"], predictions, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10)
        assert evaluation.loss == pytest.approx(float(loss), rel=1e-11)
        largest = max(float(jnp.abs(g).max()) for g in jax.tree.leaves(expected["terms"]))
        assert largest > 1e-3
        for a, b in zip(*map(jax.tree.leaves, (found["terms"], expected["terms"])), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10 * largest)
    assert 1.5 < evaluation.effective["point"].kish < 6.9


@cache
def argon_trajectory() -> Trajectory:
    return rattled(POTENTIAL, START, argon(1), snapshots=60, amplitude=0.12, temperature=85.0, walkers=2)


def settings_of(learning_rate: float = 1e-3, **options: Any) -> UpdateSettings:
    optimizer = options.pop("optimizer", OptimizerSpec(learning_rate=learning_rate))
    return UpdateSettings(optimizer=optimizer, bootstrap=10, **options)


def argon_data(settings: UpdateSettings, shift: float = 0.02, label: str = "point") -> PreparedStatePoint:
    """A pressure a little above the present one."""
    first = prepared(POTENTIAL, START, argon_trajectory(), [target("pressure", [0.0])], settings)
    wanted = first.before[0].values[0] + shift
    return prepared(
        POTENTIAL, START, argon_trajectory(), [target("pressure", [wanted], error=0.005)], settings, label=label
    )


def minimise(
    data: list[PreparedStatePoint],
    settings: UpdateSettings,
    begin: Parameters = START,
    extra: ExtraLoss | None = None,
    **options: Any,
) -> Outcome:
    whole = objective.Objective(data, settings, begin, extra)
    return minimise_objective(whole, POTENTIAL, seed=0, progress=Silent(), **options)


def test_loss_falls_monotonically_and_the_mean_energy_stays() -> None:
    settings = settings_of(gate=0.5, max_steps=6)
    data = argon_data(settings)
    labelled = {**START, "atomic_energies": jnp.array([-3.0])}
    outcome = minimise([data], settings, labelled)
    losses = [entry.loss for entry in outcome.history]
    assert outcome.reason == "max_steps"
    assert len(losses) == 7
    assert all(b <= a for a, b in itertools.pairwise(losses))
    assert losses[-1] < 0.9 * losses[0]
    assert outcome.history[0].n_eff_fraction == pytest.approx(1, abs=1e-12)
    assert outcome.after["point"][0].values[0] > data.before[0].values[0]

    def mean(parameters: Parameters) -> float:
        own = data.reference.snapshots.energies(parameters).mean()
        return own + 4 * float(parameters["atomic_energies"][0])

    assert mean(outcome.parameters) == pytest.approx(mean(labelled), abs=1e-11)
    assert float(outcome.parameters["atomic_energies"][0]) != -3

    # A potential of pairs that no labels gave an energy of the atom gets none from the targets either.
    without = minimise([data], settings)
    assert [entry.loss for entry in without.history] == pytest.approx(losses, rel=1e-12)
    assert float(without.parameters["atomic_energies"][0]) == 0


def test_a_long_step_is_halved_and_keeps_effective_samples() -> None:
    settings = settings_of(learning_rate=0.5, max_steps=2, gate=0.1, max_halvings=14)
    outcome = minimise([argon_data(settings, shift=0.5)], settings)
    assert outcome.history[0].step_scale < 1
    fractions = [entry.n_eff_fraction for entry in outcome.history]
    assert all(b >= (1 - settings.max_step_loss) * a for a, b in itertools.pairwise(fractions))


def test_no_step_is_small_enough() -> None:
    settings = settings_of(learning_rate=0.5, max_halvings=0)
    with pytest.raises(EngineError, match="lower the learning rate") as caught:
        minimise([argon_data(settings, shift=0.5)], settings)
    assert caught.value.status == ExitStatus.TOO_FEW_EFFECTIVE_SAMPLES


def test_gate_and_chi2_end_an_update() -> None:
    closed = settings_of(learning_rate=5e-3, gate=0.999, max_steps=30)
    outcome = minimise([argon_data(closed, shift=0.5)], closed)
    assert outcome.reason == "gate"
    assert outcome.history[-1].n_eff_fraction < 0.999
    assert all(entry.n_eff_fraction >= 0.999 for entry in outcome.history[:-1])
    met = settings_of(learning_rate=1e-3, chi2_stop=3.0, gate=0.2, max_steps=30)
    outcome = minimise([argon_data(met)], met)
    assert outcome.reason == "chi2"
    assert outcome.history[-1].chi2 <= 3 < outcome.history[-2].chi2
    assert outcome.history[0].loss == pytest.approx(outcome.history[0].chi2, rel=1e-12)


def test_two_state_points_add_up() -> None:
    settings = settings_of()
    one, other = argon_data(settings), argon_data(settings, shift=-0.1, label="other")
    separate = [objective.evaluate([data], START) for data in (one, other)]
    both = objective.evaluate([one, other], START)
    assert both.loss == pytest.approx(sum(e.loss for e in separate))
    parts = [objective.gradient([data], START, e) for data, e in zip((one, other), separate, strict=True)]
    summed = jax.tree.map(jnp.add, *parts)
    found = objective.gradient([one, other], START, both)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(summed), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_state_points_share_the_memory_of_a_job() -> None:
    """What is kept of their snapshots is divided among them, and the loss and its gradient are those with all kept."""
    trajectory, machine = argon_trajectory(), Machine(precision="float64", batch_size=2)

    def points(number: int) -> list[PreparedStatePoint]:
        return [
            prepared(
                POTENTIAL, START, trajectory, [target("pressure", [0.1])], settings_of(), label=f"point{each}",
                machine=machine.share_of(number), seed=each,
            )
            for each in range(number)
        ]  # fmt: skip

    def kept(made: list[PreparedStatePoint]) -> int:
        return sum(point.reference.snapshots.nbytes for point in made)

    plenty = points(2)
    one = kept(points(1))
    assert kept(plenty) == 2 * one
    machine = machine.model_copy(update={"snapshot_cache_mib": one / (1 << 20)})
    scarce = points(2)
    assert kept(scarce) <= one + kept(plenty) // 8
    moved = jax.tree.map(lambda x: 1.001 * x, START)
    found = []
    for made in (plenty, scarce):
        evaluation = objective.evaluate(made, moved)
        found.append((evaluation.loss, objective.gradient(made, moved, evaluation)))
    for a, b in zip(jax.tree.leaves(found[0]), jax.tree.leaves(found[1]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9)


def test_gauss_newton_meets_a_target_in_few_steps() -> None:
    settings = settings_of(
        optimizer=OptimizerSpec(name="gauss_newton", learning_rate=1), gate=0.2, max_steps=5, chi2_stop=1e-3
    )
    outcome = minimise([argon_data(settings)], settings)
    assert outcome.reason == "chi2"
    assert len(outcome.history) <= 5


def test_optimizer_state_goes_out_and_in(tmp_path: Path) -> None:
    """Two updates of one step each are one of two."""
    twice, once = settings_of(gate=0.2, max_steps=2), settings_of(gate=0.2, max_steps=1)
    data = argon_data(twice)
    whole = minimise([data], twice)
    first = minimise([data], once)
    optimizers.write_state(tmp_path / "state", first.optimizer_state)
    optimizer = optimizers.of_update(once.optimizer)
    state = optimizers.read_state(tmp_path / "state", jax.eval_shape(optimizer.init, START))
    second = minimise([data], once, first.parameters, memory=OptimizerMemory(state))
    for a, b in zip(jax.tree.leaves(whole.parameters), jax.tree.leaves(second.parameters), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)
    another = optimizers.make(OptimizerSpec(name="sgd"), optimizers.exponential(once.optimizer))
    with pytest.raises(EngineError, match="another optimizer") as caught:
        optimizers.read_state(tmp_path / "state", jax.eval_shape(another.init, START))
    assert caught.value.status == ExitStatus.CORRUPT_FILE


def test_fixed_terms_do_not_move() -> None:
    terms = [
        {"architecture": "lennard_jones", "cutoff": 5.0, "hyperparameters": {"epsilon": 0.0104, "sigma": 3.4}},
        {"architecture": "repulsion", "cutoff": 5.0, "hyperparameters": {"epsilon": 0.001, "sigma": 3.0}},
    ]
    spec = potentials.PotentialSpec(species=["Ar"], terms=[{**terms[0], "trainable": False}, terms[1]])
    potential = potentials.build(spec)
    parameters = potential.init(jax.random.key(0))
    # Decay of weights is an update even where the gradient is zero.
    settings = settings_of(
        gate=0.2, max_steps=1, optimizer=OptimizerSpec(name="adamw", learning_rate=1e-3, options={"weight_decay": 1.0})
    )
    trajectory = rattled(potential, parameters, argon(1), snapshots=20, amplitude=0.1, temperature=85.0)
    data = prepared(potential, parameters, trajectory, [target("pressure", [5.0])], settings)
    whole = objective.Objective([data], settings, parameters, None)
    outcome = minimise_objective(whole, potential, seed=0, progress=Silent())
    before, after = parameters["terms"], outcome.parameters["terms"]
    assert jax.tree.all(jax.tree.map(jnp.array_equal, before["0_lennard_jones"], after["0_lennard_jones"]))
    assert not jax.tree.all(jax.tree.map(jnp.array_equal, before["1_repulsion"], after["1_repulsion"]))


def labelled(folder: Path) -> Path:
    """Labels of a slightly different Lennard-Jones potential."""
    term = {"epsilon": jnp.array([0.011]), "sigma": jnp.array([3.45])}
    truth = DiffTReCalculator(POTENTIAL, {**START, "terms": {"0_lennard_jones": term}})
    frames = []
    for seed in range(2):
        atoms = argon(1)
        atoms.rattle(0.1, seed=seed)
        truth.calculate(atoms)
        names = ("energy", "forces", "stress")
        atoms.calc = SinglePointCalculator(atoms, **{name: truth.results[name] for name in names})
        frames.append(atoms)
    ase.io.write(folder / "dataset.extxyz", frames)
    return folder / "dataset.extxyz"


def test_dataset_and_anchor_act_and_the_total_falls(tmp_path: Path) -> None:
    path = labelled(tmp_path)
    loss = LossSettings(dataset_weight=3.0, anchor_weight=50.0)
    extra = dataset_loss(POTENTIAL, path, loss, DOUBLE)
    assert extra is not None
    settings = settings_of(gate=0.2, max_steps=3, loss=loss)
    data = argon_data(settings)

    def moved(epsilon: float, sigma: float) -> Parameters:
        term = {"epsilon": jnp.array([epsilon]), "sigma": jnp.array([sigma])}
        return {"atomic_energies": jnp.array([0.003]), "terms": {"0_lennard_jones": term}}

    whole = objective.Objective([data], settings, START, extra)
    point = whole(moved(0.0107, 3.42))
    slopes = whole.gradient(point)["terms"]["0_lennard_jones"]
    h = 1e-6
    found = [float(slopes["epsilon"][0]), float(slopes["sigma"][0])]
    numerical = [
        (whole(moved(0.0107 + a, 3.42 + b)).loss - whole(moved(0.0107 - a, 3.42 - b)).loss) / (2 * h)
        for a, b in ((h, 0), (0, h))
    ]
    np.testing.assert_allclose(found, numerical, rtol=1e-5)
    # The offset of the energy is no distance from the start.
    free = settings_of(loss=LossSettings(dataset_weight=3.0))
    without_anchor = objective.Objective([data], free, START, extra)(moved(0.0107, 3.42)).extra_loss
    assert point.extra_loss - without_anchor == pytest.approx(50 * (0.0003**2 + 0.02**2), rel=1e-9)
    assert without_anchor == pytest.approx(extra(moved(0.0107, 3.42))[0])

    outcome = minimise([data], settings, extra=extra)
    total = [entry.loss for entry in outcome.history]
    assert len(total) == 4
    assert all(b <= a for a, b in itertools.pairwise(total))
    # What the history says is the loss of the parameters that come out, with their offset.
    last = objective.Objective([data], settings, START, extra)(outcome.parameters)
    assert outcome.history[-1].loss_extra == pytest.approx(last.extra_loss, rel=1e-9)


@pytest.mark.parametrize("anchor_weight", [0.0, 3000.0])
def test_gauss_newton_finds_the_best_between_labels_and_targets(tmp_path: Path, anchor_weight: float) -> None:
    """As a general minimiser does, which is told nothing but the loss on the same snapshots."""
    loss = LossSettings(dataset_weight=300.0, anchor_weight=anchor_weight)
    extra = dataset_loss(POTENTIAL, labelled(tmp_path), loss, DOUBLE)
    data = argon_data(settings := settings_of(loss=loss))
    whole = objective.Objective([data], settings, START, extra)
    free = POTENTIAL.trainable(START)
    held = whole.held_rows([bool(moves) for moves in jax.tree.leaves(free)])

    def at(x: NDArray[np.float64]) -> Parameters:
        term = START["terms"]["0_lennard_jones"]
        moved = {"epsilon": term["epsilon"] + 1e-3 * x[0], "sigma": term["sigma"] + 1e-2 * x[1]}
        return {**START, "terms": {"0_lennard_jones": moved}}

    def after(steps: int, held: NDArray[np.float64] | None) -> float:
        point = whole(START)
        for _ in range(steps):
            step = gauss_newton.step(whole.data, point, free, TrustRegion(radius=10.0, damping=1e-9), held=held)[0]
            point = whole(jax.tree.map(jnp.add, point.parameters, step))
        return point.loss

    best = minimize(lambda x: whole(at(x)).loss, np.zeros(2), method="Nelder-Mead", options={"xatol": 1e-4})
    first = whole(START).loss
    assert after(3, held) - best.fun < 1e-3 * (first - best.fun)
    assert after(1, None) > first  # a step that knows the slope of the labels only goes far beyond


def test_curvature_of_many_parameters_is_known_in_the_directions_that_labels_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of more parameters than directions: labels of two frames determine few, and all of those are found."""
    potential, parameters = small_network()
    path = tmp_path / "dataset.extxyz"
    frames = []
    for seed in range(2):
        atoms = bulk(potential.spec.species[0], "diamond", a=3.6, cubic=True)
        atoms.rattle(0.05, seed=seed)
        atoms.calc = SinglePointCalculator(atoms, energy=0.1 * seed, forces=np.zeros((len(atoms), 3)))
        frames.append(atoms)
    ase.io.write(path, frames)
    loss = LossSettings(dataset_weight=1.0)
    extra = dataset_loss(potential, path, loss, DOUBLE)
    whole = objective.Objective([], settings_of(loss=loss), parameters, extra)
    movable = [bool(moves) for moves in jax.tree.leaves(potential.trainable(parameters))]
    exact = whole.held_rows(movable)
    monkeypatch.setattr(objective, "HELD_RANK", exact.shape[1] - 5)
    found = whole.held_rows(movable)
    assert found.shape[0] < exact.shape[1]
    np.testing.assert_allclose(found.T @ found, exact.T @ exact, atol=1e-5 * np.abs(exact.T @ exact).max())


def job(**changes: Any) -> UpdateJob:
    point = {"label": "point", "temperature": 85.0, "targets": [target("pressure", [0.1], error=0.01).model_dump()]}
    return UpdateJob(**{"state_points": [point], "update": settings_of().model_dump(), **changes})


def write(folder: Path, parameters: Parameters = START) -> Path:
    potentials.save(folder / "potential.safetensors", POTENTIAL, parameters)
    write_trajectory(folder / "trajectory.npz", argon_trajectory())
    return folder


def test_trajectory_of_another_potential_is_refused(tmp_path: Path) -> None:
    term = {"epsilon": jnp.array([0.0104]), "sigma": jnp.array([3.5])}
    write(tmp_path, {**START, "terms": {"0_lennard_jones": term}})
    with pytest.raises(EngineError, match="was not sampled with this potential") as caught:
        update.run(job(), tmp_path, Silent())
    assert caught.value.status == ExitStatus.INVALID_INPUT


def test_trajectory_of_another_temperature_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    point = job().state_points[0].model_dump() | {"temperature": 95.0}
    with pytest.raises(EngineError, match="95") as caught:
        update.run(job(state_points=[point]), tmp_path, Silent())
    assert caught.value.status == ExitStatus.INVALID_INPUT


def test_gradient_that_is_not_finite_is_named() -> None:
    settings = settings_of()
    data = argon_data(settings)

    class NotFinite:
        def __call__(self, parameters: Parameters) -> tuple[float, Parameters]:
            return 0.0, jax.tree.map(lambda p: jnp.full_like(p, np.nan), parameters)

        def offset(self, _: Parameters) -> float:
            return 0.0

        def curvature(self, _: Parameters, movable: Sequence[bool], ways: NDArray[np.float64]) -> NDArray[np.float64]:
            return np.full_like(ways, np.nan)

    with pytest.raises(EngineError, match="gradient at step 0") as caught:
        minimise([data], settings, extra=NotFinite())
    assert caught.value.status == ExitStatus.NOT_FINITE


def test_walltime_before_the_first_step_is_a_failure_and_no_result(tmp_path: Path) -> None:
    # A result without a step would look like an update that found none.
    with pytest.raises(EngineError, match="before the first step") as caught:
        update.run(job(machine={"walltime_s": 1e-6}), write(tmp_path), Silent())
    assert caught.value.status == ExitStatus.WALLTIME


def test_walltime_after_a_step_ends_the_update_with_what_it_has() -> None:
    class AfterOneStep(Stop):
        asked = 0

        def requested(self) -> EngineError | None:
            self.asked += 1
            return EngineError(ExitStatus.WALLTIME, "over") if self.asked > 1 else None

    settings = settings_of(max_steps=5)
    outcome = minimise([argon_data(settings)], settings, stop=AfterOneStep(None))
    assert (outcome.reason, len(outcome.history)) == ("walltime", 2)
    assert outcome.history[1].loss < outcome.history[0].loss


def test_compiler_is_checked_before_the_update(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(device.SELF_CHECK_TOLERANCE, "float64", -1.0)  # which no difference meets
    with pytest.raises(EngineError, match="miscompiles") as caught:
        update.run(job(), write(tmp_path), Silent())
    assert caught.value.status == ExitStatus.SELF_CHECK_FAILED
