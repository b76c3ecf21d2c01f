"""The settings by which parameters move: optimizer, loss, update, earlier trajectories. Free of JAX."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    field_validator,
    model_validator,
)

from aiida_difftre.engine.contract import optimizer_options
from aiida_difftre.engine.contract.base import Strict
from aiida_difftre.engine.contract.bounds import Chi2, Iterations, Limits, Weight
from aiida_difftre.engine.contract.label_weights import DatasetWidths, check_widths
from aiida_difftre.engine.contract.optimizer_options import GAUSS_NEWTON


class OptimizerSpec(Strict):
    """An optimizer.

    Args:
        name: Name of a first-order optimizer of optax, such as ``adam``; or, in an update, ``gauss_newton``.
        options: its keyword arguments, but for the learning rate.
        learning_rate: Learning rate at step 0.
        final_learning_rate_fraction: learning rate at the last step over that at step 0 (cosine in pretraining,
            exponential in refinement).
        decay_steps: steps over which it falls; 0 for a constant learning rate (pretraining takes its number of steps).
        clip_norm: global norm to which gradients are clipped; None for none.
    """

    name: str = "adam"
    options: dict[str, Any] = Field(default_factory=dict)
    learning_rate: Annotated[
        float,
        Limits(above=0, most=100, reason="it is in units of the parameters, of which most lie between 0.001 and 10"),
    ] = 5e-3
    final_learning_rate_fraction: Annotated[float, Limits(above=0, most=1, reason="a learning rate falls")] = 0.01
    decay_steps: Annotated[int, Limits(least=0, most=10_000_000, reason="no optimization takes more steps")] = 0
    clip_norm: (
        Annotated[float, Limits(above=0, most=1e12, reason="a larger norm clips nothing; leave it out")] | None
    ) = None

    @model_validator(mode="after")
    def _known(self) -> OptimizerSpec:
        optimizer_options.check(self.name, self.options)
        return self


class DatasetWeights(Strict):
    """Weights of energy (per atom, eV), force (eV/Å) and stress (eV/Å³) mean squared errors in a matching loss."""

    energy: Weight = 100.0
    force: Weight = 1.0
    stress: Weight = 1e4


class LossSettings(Strict):
    """The loss of an update.

    Args:
        kind: ``chi2``: sum of gamma_k mean[(pred - exp)²/(σ_exp² + σ_sim²)]; ``mse``: sum of gamma_k mean[(pred -
        exp)²].
        dataset_weight: factor of the energy, force and stress matching term on the DFT dataset; 0 for none.
        dataset_weights: inside that term.
        dataset_widths: how far from the volumes of the state points labels count inside that term; by default all do.
        anchor_weight: factor of the squared L2 distance of the parameters to those the update starts from.
        curvature_width: prior of smooth pair splines: the standard deviation of their second derivative at the cutoff,
            eV/Å², from where it grows inwards as (cutoff/r)⁸; it counts as one more target. None for none.
    """

    kind: Literal["chi2", "mse"] = "chi2"
    dataset_weight: Weight = 0.0
    dataset_weights: DatasetWeights = Field(default_factory=DatasetWeights)
    dataset_widths: DatasetWidths = Field(default_factory=DatasetWidths)
    anchor_weight: Weight = 0.0
    curvature_width: (
        Annotated[
            float,
            Limits(least=1e-9, most=100, unit="eV/Å²", reason="pairs of argon have some 0.001 at 6 Å, bonds some 10"),
        ]
        | None
    ) = None

    @model_validator(mode="after")
    def _widths_of_labels(self) -> LossSettings:
        if self.dataset_widths.given() and self.dataset_weight == 0:
            raise ValueError(
                "dataset_widths are of labels, which dataset_weight: 0 leaves out; give dataset_weight, or leave "
                "dataset_widths out (in a stage of a run that has them, null for each)"
            )
        check_widths(self.dataset_widths, self.dataset_weights.model_dump(), "dataset_widths")
        return self

    @model_validator(mode="after")
    def _in_units_of_errors(self) -> LossSettings:
        if self.kind == "mse" and self.curvature_width is not None:
            raise ValueError(
                f"curvature_width = {self.curvature_width:g} counts in units of errors, which a loss of the kind mse "
                "does not have; take kind: chi2, or leave it out"
            )
        return self


UPDATE_OPTIMIZER: dict[str, Any] = {"learning_rate": 2e-3, "clip_norm": 1.0}
"""In which the optimizer of an update differs from that of pretraining."""

LEAST_PART = 0.05
"""Of a Gauss-Newton step; a smaller learning rate is one of another optimizer."""


class PoolSettings(Strict):
    """Which earlier trajectories an update takes beside the newest one.

    Args:
        overlap: fraction of the snapshots of an earlier trajectory that must be left effective when it alone is
            reweighted to the potential that the update starts from.
        max_snapshots: snapshots in all, those of the newest trajectory included; the earliest are left out first.
    """

    overlap: Annotated[float, Limits(above=0, below=1, reason="it is a fraction of the snapshots")] = 0.1
    max_snapshots: Annotated[
        int, Limits(least=1, most=10_000_000, reason="an update evaluates each snapshot in every step")
    ] = 100_000


class UpdateSettings(Strict):
    """How parameters move on one set of trajectories.

    Args:
        loss: what is minimised.
        optimizer: optax optimizer; what is not given is as in the default, not as in ``OptimizerSpec``. Or
            ``gauss_newton``, whose steps are the longest towards the targets that ``max_step_loss`` allows; its
            learning rate is the part of the step to go, 1 by default, and its option ``damping`` (1) holds what the
            snapshots hardly tell. It takes the derivatives of the energy of each snapshot by all parameters.
        gate: resample when the effective fraction of snapshots falls below this (0.9 in the original work); of that
            at the first step, where something else sampled the trajectory.
        max_step_loss: a single step may lose at most this fraction of the effective samples, else it is halved.
        max_halvings: halvings of a step before the update ends.
        max_steps: optimizer steps on one set of trajectories.
        chi2_stop: stop when the reduced chi² of the training targets is below this; where labels or the distance to the
            start are in the loss, an update goes on to the least loss.
        chi2_converged: take no step at all when the reduced chi² of the potential that sampled is below this.
        bootstrap: replicates of the block bootstrap.
        pool: which earlier trajectories are taken, where the job has some.
    """

    loss: LossSettings = Field(default_factory=LossSettings)
    optimizer: OptimizerSpec = Field(default_factory=lambda: OptimizerSpec(**UPDATE_OPTIMIZER))
    gate: Annotated[float, Limits(above=0, below=1, reason="it is a fraction of the effective samples")] = 0.9
    max_step_loss: Annotated[float, Limits(above=0, below=1, reason="it is a fraction of the effective samples")] = 0.3
    max_halvings: Annotated[int, Limits(least=0, most=60, reason="a step halved more often moves nothing")] = 12
    max_steps: Iterations = 20
    chi2_stop: Chi2 = 0.0
    chi2_converged: Chi2 = 0.0
    bootstrap: Annotated[
        int, Limits(least=10, most=100_000, reason="fewer give no error, and a thousand are enough")
    ] = 200
    pool: PoolSettings = Field(default_factory=PoolSettings)

    @field_validator("optimizer", mode="before")
    @classmethod
    def _complete(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        default = {"learning_rate": 1.0} if given.get("name") == GAUSS_NEWTON else UPDATE_OPTIMIZER
        return {**default, **given}

    @model_validator(mode="after")
    def _part_of_a_step(self) -> UpdateSettings:
        optimizer = self.optimizer
        if optimizer.name == GAUSS_NEWTON and not LEAST_PART <= optimizer.learning_rate <= 1:
            raise ValueError(
                f"learning_rate = {optimizer.learning_rate:g} of gauss_newton is the part of a step to go, from "
                f"{LEAST_PART} to 1; for a length in units of the parameters give another optimizer, such as name: adam"
            )
        return self
