"""Which measurement would tell most: assess the refined potential of a run for measurements that could be made."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aiida_difftre.engine.contract.assess_job import Candidate
from aiida_difftre.engine.contract.assessment import AssessResults
from aiida_difftre.engine.contract.documents import read_yaml
from aiida_difftre.engine.contract.numbers import read_number
from aiida_difftre.engine.contract.records import read
from aiida_difftre.engine.contract.validation import validate

CANDIDATE = re.compile(r"(?P<observable>\w+)@(?P<state_point>\w+):(?P<error>[^:]+)")


def candidate(text: str) -> Candidate:
    """Read a measurement that could be made, ``OBSERVABLE@STATE_POINT:ERROR``.

    Args:
        text: For example ``stiffness@solid:5``; the error is in the unit of the observable.

    Returns:
        The candidate.

    Raises:
        ValueError: For another form, an unknown observable, or an error that is no positive number.

    Example:
        >>> from aiida_difftre.cli.advice import candidate
        >>> candidate("pressure@liquid:0.01").error
        0.01
    """
    found = CANDIDATE.fullmatch(text)
    if found is None:
        raise ValueError(
            f"{text!r} is no candidate; write OBSERVABLE@STATE_POINT:ERROR, such as pressure@liquid:0.01, or give a "
            "file of candidates for observables with a grid or options"
        )
    content = {"name": f"{found['observable']} at {found['state_point']}", **found.groupdict()}
    try:
        content["error"] = read_number(found["error"])
    except ValueError as error:
        raise ValueError(f"the error of the candidate {text!r}: {error}") from None
    return validate(Candidate, content)


def read_candidates(file: Path) -> list[Candidate]:
    """Read measurements that could be made from a YAML file: a list of the fields of a candidate.

    Args:
        file: The file.

    Returns:
        The candidates.

    Raises:
        ValueError: Naming the file, the number of the candidate, and what is wrong with it.
    """
    content = read_yaml(file)
    if not isinstance(content, list) or not content:
        raise ValueError(f"{file.name} is no list of candidates; start each with `- name: ...`")
    found = []
    for number, one in enumerate(content, 1):
        try:
            found.append(validate(Candidate, one))
        except ValueError as error:
            raise ValueError(f"{file.name}, candidate {number}: {error}") from None
    return found


def validation_of(run: Any) -> Any:
    """Find the validation whose trajectories tell: of a whole run, or itself.

    Args:
        run: Node of a ``difftre.train`` or ``difftre.validate`` work chain.

    Returns:
        The node of the finished validation.

    Raises:
        ValueError: Where there is none that has finished.
    """
    from aiida import orm

    nodes = [run, *getattr(run, "called_descendants", [])]
    found = [
        node
        for node in nodes
        if isinstance(node, orm.WorkChainNode)
        and node.process_type == "aiida.workflows:difftre.validate"
        and "trajectories" in node.outputs
    ]
    if not found:
        raise ValueError(
            f"node {run.pk} has no finished validation, on whose trajectories an assessment is made; give a run of "
            "difftre.train or difftre.validate that finished"
        )
    return found[-1]


def builder(validation: Any, candidates: Sequence[Candidate], prior_width: float | None) -> Any:
    """Make the inputs of an assessment on the trajectories of a validation.

    Args:
        validation: Node of a finished ``difftre.validate`` work chain.
        candidates: Measurements that could be made.
        prior_width: How well energies are known before the experiment, kT for each atom; None for the default.

    Returns:
        The builder.

    Raises:
        ValueError: For candidates that do not fit.
    """
    from aiida_difftre.workchains.assess import AssessBaseWorkChain

    inputs = validation.inputs
    job = inputs.predict.calc if "predict" in inputs else inputs.sample.calc
    parameters: dict[str, Any] = {"machine": job.parameters.get_dict().get("machine", {})}
    if prior_width is not None:
        parameters["prior_width"] = prior_width
    before = inputs.before if "before" in inputs and inputs.before.spec == inputs.after.spec else None
    return AssessBaseWorkChain.get_builder_from_protocol(
        code=job.code,
        potential=inputs.after,
        start=before,
        state_points={
            label: {"trajectory": trajectory, "targets": dict(inputs.state_points[label]["targets"])}
            for label, trajectory in validation.outputs.trajectories["after"].items()
        },
        candidates=[one.model_dump() for one in candidates],
        overrides={"calc": {"parameters": parameters}},
    )


def assess(inputs: Any) -> dict[str, Any]:
    """Run an assessment in this process, and wait for it.

    Args:
        inputs: Its builder.

    Returns:
        Its output parameters.

    Raises:
        ValueError: Where it failed, with its message.
    """
    from aiida.engine import run_get_node

    _, node = run_get_node(inputs)
    if not node.is_finished_ok:
        raise ValueError(f"the assessment <{node.pk}> failed: {node.exit_message}")
    content: dict[str, Any] = node.outputs.output_parameters.get_dict()
    return content


def lines(content: dict[str, Any]) -> list[str]:
    """Say what an assessment found, the advice as a table.

    Args:
        content: Output parameters of an assessment.

    Returns:
        Lines of text.
    """
    found = read(AssessResults, content)
    text = list(found.sentences)
    if found.advice:
        width = max(len("measurement"), *(len(one.name) for one in found.advice))
        text += ["", f"{'measurement':{width}}  tells/nats  leaves open (of what is open now)"]
        for one in found.advice:
            narrowed = ", ".join(
                f"{name} {part:.0%}" for name, part in sorted(one.left.items(), key=lambda item: item[1])
            )
            text.append(f"{one.name:{width}}  {one.information:10.2f}  {one.mean_left:.0%}: {narrowed}")
    return text


def check_names(candidates: Sequence[Candidate], labels: Sequence[str]) -> None:
    """Refuse candidates at state points that were not validated.

    Args:
        candidates: The candidates.
        labels: Labels of the state points of the validation.

    Raises:
        ValueError: Naming the state points that there are.
    """
    for one in candidates:
        if one.state_point not in labels:
            raise ValueError(
                f"candidate {one.name!r}: there is no state point {one.state_point!r}; there are {', '.join(labels)}"
            )
