"""Two runs or potentials side by side: what they predict, what they cost, and in which settings they differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from aiida import orm
from aiida.common.links import LinkType

from aiida_difftre import query
from aiida_difftre.cli import words
from aiida_difftre.cli.live import with_error
from aiida_difftre.cli.report import MISSING
from aiida_difftre.data import extras
from aiida_difftre.data.potential import PotentialData
from aiida_difftre.workchains import facts

SHOWN = ("system", "judged_in", "iteration", "outcome", "chi2_training", "chi2_selection", "chi2_test")
"""What comes first, in this order."""

LONGEST_SETTING = 44
"""Characters of a setting that are shown: two of them, and its name, on a line."""

ATTRIBUTES = ("architecture", "species", "cutoff", "number_of_parameters", "digest")


def compare(first: orm.Node, second: orm.Node) -> list[tuple[str, str, str]]:
    """Two nodes in lines of what, the first, the second; settings only where they differ.

    Args:
        first: A run or a potential.
        second: Another one.

    Returns:
        Lines of three columns.

    Raises:
        ValueError: for a node that is neither, or two of different kinds.
    """
    pair = (first, second)
    for node in pair:
        is_run = isinstance(node, orm.WorkChainNode) and (node.process_type or "").startswith(facts.OURS)
        if not is_run and not isinstance(node, PotentialData):
            kind = getattr(node, "process_label", None) or type(node).__name__
            raise ValueError(f"node {node.pk} is a {kind}; give two runs or two potentials")
    if isinstance(first, PotentialData) != isinstance(second, PotentialData):
        raise ValueError(f"{first.pk} and {second.pk} are a run and a potential; give two runs or two potentials")
    names = [f"{node.pk} {node.label}".strip() for node in pair]
    lines = [("node", names[0], names[1])]
    if isinstance(first, PotentialData):
        known = [node.base.attributes.all for node in pair]
        lines += [(name, _shown(known[0].get(name)), _shown(known[1].get(name))) for name in ATTRIBUTES]
    else:
        lines.append(("state", _state(first), _state(second)))
    told = [_facts(node) for node in pair]
    lines += [(name, _shown(told[0].get(name)), _shown(told[1].get(name))) for name in SHOWN if _either(name, told)]
    lines += list(_predictions(told))
    if not isinstance(first, PotentialData):
        spent = [query.summed(query.rows(query.costs(node))) for node in pair]  # type: ignore[arg-type] # runs
        hours = [_shown(sum(row["cpu_hours"] for row in rows)) for rows in spent]
        lines.append(("CPU hours", hours[0], hours[1]))
    settings = [dict(_settings(node)) for node in pair]
    for name in sorted({*settings[0], *settings[1]}):
        one, other = (known.get(name) for known in settings)
        if one != other:
            lines.append((name, _cut(_shown(one)), _cut(_shown(other))))
    return lines


def _facts(node: orm.Node) -> dict[str, Any]:
    return extras.told(node) or (facts.of_run(node) if isinstance(node, orm.WorkChainNode) else {})


def _either(name: str, told: list[dict[str, Any]]) -> bool:
    return any(known.get(name) is not None for known in told)


def _predictions(told: list[dict[str, Any]]) -> Iterator[tuple[str, str, str]]:
    """Each component that one of them predicts, with its error and the experiment."""
    names = dict.fromkeys(
        name.removesuffix("_experiment") for known in told for name in known if name.endswith("_experiment")
    )
    for name in names:
        measured = {_shown(known[f"{name}_experiment"]) for known in told if f"{name}_experiment" in known}
        values = [
            with_error(known[name], known.get(f"{name}_error", float("nan"))) if name in known else MISSING
            for known in told
        ]
        yield f"{name} (experiment {' and '.join(sorted(measured))})", values[0], values[1]


def _state(node: orm.Node) -> str:
    if not isinstance(node, orm.ProcessNode):
        return MISSING
    state = words.state(node.process_state.value) if node.process_state else "created"
    return f"{state} ({node.exit_status})" if node.exit_status else state


def _settings(node: orm.Node) -> Iterator[tuple[str, Any]]:
    """The inputs of a run that are plain values, by their place; and the hyperparameters of a potential."""
    if isinstance(node, PotentialData):
        yield from _flat("spec", node.base.attributes.get("spec"))
        return
    for link in node.base.links.get_incoming(link_type=LinkType.INPUT_WORK).all():
        place = str(link.link_label).replace("__", ".")
        if isinstance(link.node, orm.Dict):
            yield from _flat(place, link.node.get_dict())
        elif isinstance(link.node, orm.Float | orm.Int | orm.Str | orm.Bool):
            yield place, link.node.value
        elif not isinstance(link.node, orm.AbstractCode):
            yield place, f"{link.node.get_description() or type(link.node).__name__} <{link.node.pk}>"


def _flat(place: str, content: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(content, Mapping):
        for name, value in content.items():
            yield from _flat(f"{place}.{name}", value)
    else:
        yield place, content


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_SETTING else f"{text[: LONGEST_SETTING - 1]}…"


def _shown(value: Any) -> str:
    if value is None:
        return MISSING
    return f"{value:.5g}" if isinstance(value, float) else str(value)
