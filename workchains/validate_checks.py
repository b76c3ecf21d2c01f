"""Settings of a validation, and what of its inputs does not go together, before anything is submitted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from aiida_difftre.calculations.checks import check_base
from aiida_difftre.data.dataset import DatasetData
from aiida_difftre.data.structures import EQUILIBRIUM
from aiida_difftre.engine.contract.base import Seed, Strict
from aiida_difftre.engine.contract.bounds import Limits
from aiida_difftre.engine.contract.hot import HotSettings
from aiida_difftre.engine.contract.samplers import JAX_MD
from aiida_difftre.engine.contract.validation import validate
from aiida_difftre.engine.contract.verdict import MeasuredPhonon
from aiida_difftre.workchains import absorption
from aiida_difftre.workchains.kept import check_kept
from aiida_difftre.workchains.state_points import check_dynamic_targets, check_structures, check_targets

WHEN = ("before", "after")
"""The potentials that a validation may have."""


def has_undistorted_cell(dataset: DatasetData) -> bool:
    """Whether the static stiffness is that of a cell of this dataset, and not of a state point."""
    return bool(dataset.get_ase()[0].info["kind"] == EQUILIBRIUM)


class ValidateSettings(Strict):
    """How to validate.

    Args:
        seed: Seed from which that of each job follows; other streams than those of a refinement with the same seed.
        static_stiffness: also the static stiffness of each potential (T = 0), to compare with that of DFT: at the
            undistorted cell of the dataset, else at the structure of the first state point; of a crystal, at its
            primitive cell, which gives the same.
        verdict: also whether the refined potential holds the lattices of the state points at rest, and pairs of atoms
            apart at short distances; the report says for what it may be used, and for what not.
        phonons: Measured frequencies by state point and name, with which the refined potential at rest is compared.
        assessment: also what the training targets determine of the refined potential and what they leave open
            (:mod:`aiida_difftre.workchains.assess`), on the trajectories of the validation.
        members: potentials that the assessment draws from what the targets leave open, as an ensemble; 0 for none.
        hot: also short runs of the refined potential above the temperature of each state point, of which the verdict
            tells; what blows up is kept as structures. True for 1.5 and 2 times the temperature, or how hot and how
            long.
    """

    seed: Seed = 0
    static_stiffness: bool = True
    verdict: bool = True
    phonons: dict[str, dict[str, MeasuredPhonon]] = Field(default_factory=dict)
    assessment: bool = False
    members: Annotated[int, Limits(least=0, most=1000, reason="a few dozen tell a spread")] = 0
    hot: HotSettings | None = None

    @field_validator("hot", mode="before")
    @classmethod
    def _in_one_word(cls, given: Any) -> Any:
        return ({} if given else None) if isinstance(given, bool) else given

    @model_validator(mode="after")
    def _looked_at(self) -> ValidateSettings:
        if self.phonons and not self.verdict:
            raise ValueError("phonons are looked at for the verdict; leave verdict true, or phonons out")
        if self.members and not self.assessment:
            raise ValueError(f"members = {self.members} are drawn by the assessment; set assessment to true")
        return self


def check_inputs(inputs: Mapping[str, Any], _: Any) -> str | None:
    """Validator of all inputs together."""
    for name in WHEN:
        if name in inputs:
            problem = check_structures(inputs[name], inputs["state_points"]) or check_base(
                inputs.get("base"), inputs[name].spec.base, None
            )
            if problem:
                return f"{name}: {problem}"
    if problem := absorption.check_paths(inputs["state_points"]):
        return problem
    if "dataset" in inputs and "predict" not in inputs:
        return "a dataset was given, but no `predict` inputs with the code that evaluates it"
    settings = validate(ValidateSettings, inputs["settings"].get_dict())
    for label in settings.phonons:
        if label not in inputs["state_points"]:
            return f"settings.phonons: there is no state point {label!r}; there are {', '.join(inputs['state_points'])}"
    if settings.phonons and "predict" not in inputs:
        return "settings.phonons were given, but no `predict` inputs with the code that looks at the lattice"
    points, sampling = inputs["state_points"], inputs["sample"]["calc"]["parameters"]
    if settings.hot is not None and (name := _sampler(sampling)) != JAX_MD:
        return f"settings.hot: hot runs are molecular dynamics, and the sampler is {name!r}; set hot to false"
    takers = {"assessment": inputs["predict"]} if assesses(inputs) else {}
    return (
        check_kept(inputs["sample"], takers)
        or check_targets(points, sampling)
        or check_dynamic_targets(points, sampling)
    )


def assesses(inputs: Mapping[str, Any]) -> bool:
    """Whether a validation ends with an assessment by the code of its predictions.

    Args:
        inputs: Inputs of the validation.
    """
    given = inputs["settings"].get_dict() if "settings" in inputs else {}
    return "predict" in inputs and bool(given.get("assessment"))


def _sampler(parameters: Any) -> str:
    """The sampler that parameters of sampling name."""
    return str(parameters.get_dict().get("sampling", {}).get("sampler", JAX_MD))
