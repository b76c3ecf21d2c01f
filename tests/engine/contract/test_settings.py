"""Settings of jobs: what is not named comes from the right default."""

from __future__ import annotations

import pytest

from aiida_difftre.engine.contract.jobs import OptimizerSpec, PretrainJob, SamplingSettings, UpdateSettings
from aiida_difftre.engine.contract.validation import validate


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"learning_rate": 1e-4}, {"learning_rate": 1e-4, "clip_norm": 1.0}),
        ({"name": "sgd"}, {"name": "sgd", "learning_rate": 2e-3, "clip_norm": 1.0}),
        ({"clip_norm": None}, {"learning_rate": 2e-3, "clip_norm": None}),
    ],
)
def test_optimizer_of_an_update_keeps_the_defaults_of_updates(
    given: dict[str, object], expected: dict[str, object]
) -> None:
    found = validate(UpdateSettings, {"optimizer": given}).optimizer
    assert {name: getattr(found, name) for name in expected} == expected


def test_complete_optimizers_are_left_alone() -> None:
    spec = OptimizerSpec(learning_rate=0.1)
    assert UpdateSettings(optimizer=spec).optimizer == spec
    stored = UpdateSettings(optimizer=spec).model_dump()
    assert validate(UpdateSettings, stored).optimizer == spec


def test_pretraining_has_defaults_of_its_own() -> None:
    job = validate(PretrainJob, {"initial_potential": "potential.safetensors", "optimizer": {"name": "sgd"}})
    assert (job.optimizer.learning_rate, job.optimizer.clip_norm) == (5e-3, None)


def test_a_step_of_gauss_newton_is_a_part_of_one() -> None:
    assert validate(UpdateSettings, {"optimizer": {"name": "gauss_newton"}}).optimizer.learning_rate == 1
    for learning_rate in (2e-3, 1.5):
        with pytest.raises(ValueError, match=f"learning_rate = {learning_rate:g} of gauss_newton .* name: adam"):
            validate(UpdateSettings, {"optimizer": {"name": "gauss_newton", "learning_rate": learning_rate}})


@pytest.mark.parametrize(
    ("atoms", "gpu", "running", "expected"),
    [
        (1000, False, None, (8, 8000.0)),
        (1000, True, None, (64, 1000.0)),  # as many as sample no less than they equilibrate; 65 would fill it
        (10_000, True, None, (8, 8000.0)),  # six would fill it
        (1000, True, 40, (40, 1600.0)),  # those of the trajectory go on
    ],
)
def test_walkers_fill_the_device(atoms: int, gpu: bool, running: int | None, expected: tuple[int, float]) -> None:
    settings = SamplingSettings(production_fs=8000.0, equilibration_fs=1000.0)
    walkers, shared = settings.on_device(atoms, gpu=gpu, running=running)
    assert (walkers, shared.production_fs) == expected
    assert walkers == shared.walkers
    assert walkers * shared.production_fs == 8 * settings.production_fs


def test_walkers_that_are_given_stay() -> None:
    settings = SamplingSettings(walkers=3, production_fs=8000.0)
    assert settings.on_device(64, gpu=True, running=8) == (3, settings)
