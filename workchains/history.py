"""The course of a refinement in one node: what the chain decided, what its potentials predicted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aiida import orm
from aiida.common.links import LinkType
from aiida.engine import calcfunction

from aiida_difftre.engine.contract.choice import Selected
from aiida_difftre.engine.contract.loop_state import State
from aiida_difftre.workchains import records
from aiida_difftre.workchains.state_points import targets_of

UPDATE = "update"


def update_label(iteration: int, roll_backs: int) -> str:
    """The label of the link from a refinement to an update that it calls."""
    return f"{UPDATE}_{iteration:03d}_{roll_backs}"


def iteration_name(iteration: int) -> str:
    """The name of an iteration among the inputs of :func:`collect_history`."""
    return f"i{iteration:03d}"


def updates_of(refinement: orm.WorkChainNode) -> dict[int, orm.WorkChainNode]:
    """The updates of a refinement that ended well, by iteration; of those that were tried before, none did."""
    links = refinement.base.links.get_outgoing(link_type=LinkType.CALL_WORK, link_label_filter=f"{UPDATE}%").all()
    return {
        int(link.link_label.split("_")[1]): link.node
        for link in sorted(links, key=lambda link: str(link.link_label))
        if isinstance(link.node, orm.WorkChainNode) and link.node.is_finished_ok
    }


def _reweighted(update: orm.WorkChainNode) -> list[str]:
    """Labels of the state points that the potential of an update did not sample."""
    points = update.inputs.calc.get("state_points", {})
    return sorted(label for label, point in points.items() if "potential" in point)


def decisions(
    judged: int,
    updates: Mapping[int, orm.WorkChainNode],
    *,
    sampled: str,
    settings_from: Sequence[tuple[int, float, float]],
    discarded: Sequence[int],
) -> list[dict[str, Any]]:
    """What a refinement decided in each iteration.

    Args:
        judged: number of iterations.
        updates: see :func:`updates_of`; the last iteration may have none.
        sampled: UUID of the potential of an iteration that only sampled.
        settings_from: first iteration, sampled time (fs) and factor on the learning rate, where one of these changed.
        discarded: iterations whose update was done again.
    """
    made = []
    for number in range(judged):
        _, production, scale = next(item for item in reversed(settings_from) if item[0] <= number)
        update = updates.get(number)
        made.append(
            {
                "iteration": number,
                "potential": sampled if update is None else update.inputs.calc.potential.uuid,
                "production_fs": production,
                "learning_rate_scale": scale,
                "discarded": number in discarded,
                "held": [] if update is None else _reweighted(update),
            }
        )
    return made


def plan_of(
    state: State, selected: Selected, updates: Mapping[int, orm.WorkChainNode], *, sampled: str
) -> dict[str, Any]:
    """What a refinement decided, as :func:`collect_history` takes it.

    Args:
        state: state of the loop.
        selected: the iteration that is kept.
        updates: see :func:`updates_of`.
        sampled: UUID of the potential that sampled last.
    """
    return {
        "iterations": decisions(
            state.iteration, updates, sampled=sampled, settings_from=state.settings_from, discarded=state.discarded
        ),
        "best": selected.iteration,
        "selected": selected.model_dump(mode="json"),
        "outcome": str(state.reason),
        "roll_backs": state.roll_backs,
    }


@calcfunction
def collect_history(plan: orm.Dict, **nodes: Any) -> orm.Dict:
    """The course of a refinement in one node.

    Args:
        plan: list ``iterations`` of what the chain decided, outcome, best iteration and by what it was selected.
        **nodes: ``targets`` by state point; ``updates``, output parameters by iteration; ``sampled``, predictions of
            the last trajectories by state point.

    Returns:
        ``iterations`` (see :func:`records.iteration_record`), ``best`` (index of the kept potential's),
        ``selected`` (:class:`~aiida_difftre.engine.contract.choice.Selected`), ``outcome``.
    """
    content = plan.get_dict()
    targets = {label: targets_of(group) for label, group in nodes["targets"].items()}
    iterations = []
    for decision in content["iterations"]:
        update = nodes.get("updates", {}).get(iteration_name(decision["iteration"]))
        results = None
        if update is not None:
            results = records.update_results(update)
            predictions = records.predictions_before(results)
        else:
            predictions = {label: records.predictions_of(node) for label, node in nodes["sampled"].items()}
        compared = records.compare_points(targets, predictions)
        iterations.append({**decision, **records.iteration_record(compared, results)})
    return orm.Dict({**content, "iterations": iterations})
