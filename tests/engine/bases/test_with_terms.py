"""A potential on top of a base: the same dynamics, weights, gradients and observables as of their sum as terms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase import Atoms

from aiida_difftre.engine.bases import loading
from aiida_difftre.engine.bases.calculators import CalculatorBase
from aiida_difftre.engine.bases.callback import Callback
from aiida_difftre.engine.bases.protocol import BasePotential, Evaluation
from aiida_difftre.engine.calculators.difftre import DiffTReCalculator
from aiida_difftre.engine.contract.bases import BaseSpec
from aiida_difftre.engine.contract.jobs import SamplingSettings, UpdateSettings
from aiida_difftre.engine.contract.observables import ObservableRequest
from aiida_difftre.engine.contract.sampling_settings import BarostatSpec
from aiida_difftre.engine.contract.settings import PotentialSpec
from aiida_difftre.engine.contract.state_points import StatePoint
from aiida_difftre.engine.contract.trajectories import Trajectory
from aiida_difftre.engine.errors import EngineError, ExitStatus
from aiida_difftre.engine.potentials import potential as potentials
from aiida_difftre.engine.potentials.potential import Potential
from aiida_difftre.engine.potentials.term import Parameters
from aiida_difftre.engine.refinement import objective
from aiida_difftre.engine.reweighting.predictions import reweighted_predictions
from aiida_difftre.engine.reweighting.reference import prepare_reference
from aiida_difftre.engine.sampling import protocol
from tests.fixtures.engine import DOUBLE, argon, prepared, silicon, simulate, start, target

SW = {"epsilon": 2.1683, "sigma": 2.0951}
LJ = {"epsilon": 0.0104, "sigma": 3.4}
SPLINE = {"architecture": "pair_spline", "cutoff": 5.0, "hyperparameters": {"knots": 6, "inner": 2.0}}
SETTINGS = SamplingSettings(
    walkers=2, timestep_fs=4.0, equilibration_fs=40.0, production_fs=320.0, stride_fs=40.0,
)  # fmt: skip


def on_base(name: str, species: str, arguments: dict[str, Any]) -> tuple[Potential, Parameters, BasePotential]:
    """A spline on top of a fixed term."""
    spec = BaseSpec(engine="jax", name=name, arguments=arguments)
    potential = potentials.build(PotentialSpec(species=[species], terms=[SPLINE], base=spec))
    return potential, bent(potential), loading.load(spec, [species], Path())


def whole(name: str, species: str, arguments: dict[str, Any]) -> tuple[Potential, Parameters]:
    """The same, as two terms."""
    hyperparameters = {key: value for key, value in arguments.items() if key != "cutoff"}
    fixed = {"architecture": name, "cutoff": arguments["cutoff"], "hyperparameters": hyperparameters}
    spec = PotentialSpec.model_validate({"species": [species], "terms": [SPLINE, {**fixed, "trainable": False}]})
    potential = potentials.build(spec)
    return potential, bent(potential)


def bent(potential: Potential) -> Parameters:
    """A spline that is not zero."""
    parameters = potential.init(jax.random.key(0))
    knots = jax.tree.map(lambda leaf: leaf + 2e-3 * jnp.cos(jnp.arange(leaf.size)).reshape(leaf.shape),
                         parameters["terms"]["0_pair_spline"])  # fmt: skip
    return {**parameters, "terms": {**parameters["terms"], "0_pair_spline": knots}}


ARGON = ("lennard_jones", "Ar", {"cutoff": 5.0, **LJ})
SILICON = ("stillinger_weber", "Si", {"cutoff": 3.7712, **SW})


class Counting:
    """A base that counts its calls and the configurations in each."""

    def __init__(self, base: BasePotential) -> None:
        self._base, self.sizes = base, list[int]()

    def evaluate(self, symbols: Sequence[str], positions: Any, cells: Any, *what: Any, **options: Any) -> Evaluation:
        self.sizes.append(len(positions))
        return self._base.evaluate(symbols, positions, cells, *what, **options)


def as_calculator(base: BasePotential) -> CalculatorBase:
    """The same as a calculator of ASE."""
    return CalculatorBase(DiffTReCalculator(base.potential, base.parameters))  # type: ignore[attr-defined]  # traced


def three(
    system: tuple[str, str, dict[str, Any]], atoms: Atoms, **options: Any
) -> tuple[Trajectory, Trajectory, Trajectory]:
    """Trajectories of the sum as terms, with a base of JAX, and with one that is called; of one seed."""
    begin = start(atoms, 2)
    as_terms = simulate(*whole(*system), begin, **options)
    potential, parameters, base = on_base(*system)
    counting = Counting(as_calculator(base))
    options["born_stride"] = 0 if "pressure" in options else 2
    traced = simulate(potential, parameters, begin, base=base, **options)
    called = simulate(potential, parameters, begin, base=counting, **options)
    assert set(counting.sizes[1:20]) == {2}  # both walkers in each call, after the first check
    for name in ("positions", "scales", "last_velocities", "energies"):
        np.testing.assert_array_equal(getattr(traced, name), getattr(as_terms, name))
        np.testing.assert_allclose(getattr(called, name), getattr(as_terms, name), rtol=1e-6, atol=1e-6)
    assert traced.base is not None
    assert called.base is not None
    assert traced.base.digest == called.base.digest
    # The energies of the whole are more than those of the base, by those of the spline.
    assert np.ptp(traced.energies - traced.base.energies) > 1e-4
    return as_terms, traced, called


@cache
def pairs() -> tuple[Trajectory, Trajectory, Trajectory]:
    return three(ARGON, argon(1, 5.3), temperature=60.0, settings=SETTINGS)


def test_a_base_gives_the_trajectory_of_the_same_term() -> None:
    pairs()


def test_a_base_gives_the_trajectory_of_the_same_term_at_constant_pressure() -> None:
    """Stillinger-Weber, which sees angles, and a cell that changes."""
    times = {"timestep_fs": 1.0, "equilibration_fs": 0.0, "production_fs": 40.0, "stride_fs": 20.0}
    settings = SETTINGS.model_copy(update={**times, "barostat": BarostatSpec(relaxation_time_fs=50.0)})
    called = three(SILICON, silicon(5.5), temperature=300.0, pressure=0.0, settings=settings)[2]
    assert np.ptp(called.scales) > 1e-5


REQUESTS = [
    ObservableRequest(observable=name, options=options)
    for name, options in (
        ("potential_energy", {}), ("heat_capacity", {"kind": "cv"}), ("pressure", {}), ("stress", {}),
        ("stiffness", {"symmetry": "cubic", "born_stride": 2}),
    )
]  # fmt: skip


def moved(parameters: Parameters, size: float = 2e-4) -> Parameters:
    """Other parameters of the spline."""
    terms = dict(parameters["terms"])
    terms["0_pair_spline"] = jax.tree.map(lambda x: x + size * jnp.sin(1.0 + jnp.arange(x.size)).reshape(x.shape),
                                          terms["0_pair_spline"])  # fmt: skip
    return {**parameters, "terms": terms}


def test_weights_and_observables_are_those_of_the_whole() -> None:
    as_terms, traced, called = pairs()
    full, of_full = whole(*ARGON)
    potential, parameters, _ = on_base(*ARGON)
    point = StatePoint(70.0)  # reached by reweighting, for which the energy of the base counts
    expected = prepare_reference(full, of_full, as_terms, REQUESTS, DOUBLE, point)
    there = reweighted_predictions(expected, moved(of_full), replicates=10, seed=0)[0]
    for found, born in ((traced, 1e-9), (replace(traced, base=called.base), 1e-3)):
        ref = prepare_reference(potential, parameters, found, REQUESTS, DOUBLE, point)
        energies = [
            jnp.asarray(one.snapshots.energies(moved(start_)))
            for one, start_ in ((expected, of_full), (ref, parameters))
        ]
        np.testing.assert_allclose(ref.weights(energies[1]), expected.weights(energies[0]), rtol=1e-12)
        for one, other in zip(
            reweighted_predictions(ref, moved(parameters), replicates=10, seed=0)[0], there, strict=True
        ):
            tolerance = born if one.observable == "stiffness" else 1e-9
            np.testing.assert_allclose(one.values, other.values, rtol=tolerance, atol=tolerance)
            np.testing.assert_allclose(one.errors, other.errors, rtol=max(tolerance, 1e-6), atol=tolerance)


TARGETS = [
    target("stress", [0.1, -0.2, 0.05, 0.03, -0.04, 0.01], error=0.1),
    target("stiffness", [3.0, 2.0, 1.5], error=0.5, options={"symmetry": "cubic", "born_stride": 2}),
    target("potential_energy", [-0.05], error=0.01),
]


def test_the_gradient_is_that_of_the_whole_and_of_finite_differences() -> None:
    as_terms, traced, _ = pairs()
    full, of_full = whole(*ARGON)
    potential, parameters, _ = on_base(*ARGON)
    settings = UpdateSettings(bootstrap=10)
    losses, slopes = [], []
    for one, values, trajectory in ((full, of_full, as_terms), (potential, parameters, traced)):
        data = [prepared(one, values, trajectory, TARGETS, settings)]
        evaluation = objective.evaluate(data, moved(values))
        losses.append(evaluation.loss)
        slopes.append(objective.gradient(data, moved(values), evaluation)["terms"]["0_pair_spline"])
    assert losses[1] == pytest.approx(losses[0], rel=1e-9)
    for one, other in zip(jax.tree.leaves(slopes[1]), jax.tree.leaves(slopes[0]), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-9)
    up, down = (objective.evaluate(data, moved(parameters, 2e-4 + step)).loss for step in (1e-7, -1e-7))
    along = sum(
        float(jnp.sum(slope * jnp.sin(1.0 + jnp.arange(slope.size)).reshape(slope.shape)))
        for slope in jax.tree.leaves(slopes[1])
    )
    assert (up - down) / 2e-7 == pytest.approx(along, rel=1e-4)


def test_a_trajectory_without_what_the_base_gave_is_refused() -> None:
    _, traced, _ = pairs()
    potential, parameters, _ = on_base(*ARGON)
    assert traced.base is not None
    stiffness = [ObservableRequest(observable="stiffness", options={"symmetry": "cubic", "born_stride": 3})]
    for found, requests, message in (
        (replace(traced, base=None), [], "sampled with no base, and the potential has a base with the digest"),
        (replace(traced, base=replace(traced.base, digest="0" * 64)), [], "sampled with a base with the digest 000000"),
        (traced, stiffness, "Born term of the base for every 3 snapshots, .* holds one for every 2 snapshots"),
        (replace(traced, base=replace(traced.base, born=None)), stiffness, "the trajectory holds none"),
    ):
        with pytest.raises(EngineError, match=message) as caught:
            prepare_reference(potential, parameters, found, requests, DOUBLE)
        assert caught.value.status == ExitStatus.INVALID_INPUT
    bare = potential.without_base()
    with pytest.raises(EngineError, match="and the potential has no base; give the potential that sampled it"):
        prepare_reference(bare, parameters, traced, [], DOUBLE)


class Failing(Counting):
    """A base that fails after some calls."""

    def evaluate(self, symbols: Sequence[str], positions: Any, cells: Any, *what: Any, **options: Any) -> Evaluation:
        if len(self.sizes) > 15:
            raise RuntimeError("no more")
        return super().evaluate(symbols, positions, cells, *what, **options)


def test_a_base_that_fails_during_a_run_ends_it_with_its_message() -> None:
    potential, parameters, base = on_base(*ARGON)
    failing = Failing(as_calculator(base))
    with pytest.raises(EngineError, match="the base potential failed: RuntimeError: no more"):
        simulate(potential, parameters, start(argon(1, 5.3), 2), temperature=60.0, settings=SETTINGS, base=failing)


def test_a_base_that_fails_where_atoms_are_too_close_tells_of_unstable_dynamics() -> None:
    """Which a refinement takes back, where another failure of the base ends it."""
    failing = Failing(as_calculator(on_base(*ARGON)[2]))
    failing.sizes = [1] * 16
    atoms = argon(1, 5.3)
    for distance, status in ((0.5, ExitStatus.ATOMS_TOO_CLOSE), (1.5, ExitStatus.INVALID_INPUT)):
        callback = Callback(failing, list(atoms.symbols), atoms.cell.array, needs_virial=False)
        assert callback.failure_within(0.7) is None
        near = atoms.copy()
        near.positions[1] = near.positions[0] - [distance, 0, 0]
        forces, _ = jax.jit(callback)(jnp.asarray(near.get_scaled_positions()), 1.0)
        assert np.isnan(forces).all()
        failure = callback.failure_within(0.7)
        assert failure is not None
        assert failure.status == status
        assert "the base potential failed: RuntimeError: no more" in failure.message


def test_a_checkpoint_belongs_to_a_base(tmp_path: Path) -> None:
    potential, parameters, base = on_base(*ARGON)
    options: dict[str, Any] = {"temperature": 60.0, "settings": SETTINGS, "folder": tmp_path}
    begin = start(argon(1, 5.3), 2)
    whole_run = simulate(potential, parameters, begin, base=as_calculator(base), **options)
    again = Counting(as_calculator(base))
    np.testing.assert_array_equal(
        simulate(potential, parameters, begin, base=again, **options).positions, whole_run.positions
    )
    assert sum(again.sizes) < 30  # it was all sampled, and the base is evaluated on the snapshots alone
    other = replace(potential, spec=potential.spec.model_copy(update={"base": BaseSpec(engine="ase", name="emt")}))
    with pytest.raises(EngineError, match="is the checkpoint of another potential"):
        simulate(other, parameters, begin, base=as_calculator(base), **options)


def test_samplers_that_know_no_base_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    potential, parameters, base = on_base(*ARGON)
    monkeypatch.setattr(protocol, "load", lambda name: lambda *arguments: pytest.fail("it sampled"))
    options: dict[str, Any] = {"temperature": 60.0, "settings": SETTINGS}
    with pytest.raises(EngineError, match="takes no base potential, and this potential has one, 'lennard_jones'"):
        simulate(potential, parameters, start(argon(1, 5.3), 1), base=as_calculator(base), **options)
    with pytest.raises(EngineError, match="has the base 'lennard_jones', which was not loaded"):
        simulate(potential, parameters, start(argon(1, 5.3), 1), **options)
