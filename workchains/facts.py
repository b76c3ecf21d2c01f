"""What a process that ended tells its nodes for later questions: labels, a group for each run, facts as flat extras.

Everything follows from what is stored: it is made when a chain ends, and again, or for the first time, by
``aiida-difftre query index``. Nothing here decides anything, and nothing here ends a run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from aiida import orm
from aiida.common.links import LinkType
from aiida.orm.entities import EntityTypes

from aiida_difftre.data import extras
from aiida_difftre.data.dataset import DatasetData
from aiida_difftre.data.potential import PotentialData
from aiida_difftre.data.target import TargetData
from aiida_difftre.engine.contract.records import read
from aiida_difftre.engine.contract.results import SampleResults, UpdateResults
from aiida_difftre.workchains import records

OURS = "aiida.workflows:difftre."
"""How the process types of our chains begin."""

PART_OF = {
    "DftDatasetWorkChain": "dataset",
    "PretrainBaseWorkChain": "pretrain",
    "RefineWorkChain": "refine",
    "ValidateWorkChain": "validate",
}
PARTS = frozenset(PART_OF.values())

OVER = ("finished", "killed", "excepted")
"""States of a process that is over."""

LONGEST_LABEL = 255
"""Characters of a label that every database takes."""

GROUPS = "difftre"
"""How the labels of the groups of runs begin."""

CALLS = (LinkType.CALL_WORK, LinkType.CALL_CALC)


class IndexedMixin:
    """A work chain that tells its nodes what they are when it ends."""

    def on_terminated(self) -> None:
        """Index what the chain made; a failure is logged, since an index can be made again and a run cannot."""
        super().on_terminated()  # type: ignore[misc] # of the chain
        node: orm.ProcessNode = self.node  # type: ignore[attr-defined] # of the chain
        try:
            index(node)
        except Exception as error:
            node.backend.get_session().rollback()  # type: ignore[attr-defined] # of the backends that hold runs
            node.logger.warning(f"not indexed ({type(error).__name__}: {error}); `aiida-difftre query index` does it")


def index(process: orm.ProcessNode) -> None:
    """Label what a chain made, put it into the group of its run, and tell its nodes the facts about them.

    Args:
        process: A chain of this package that is over.
    """
    run = run_of(process)
    common = {extras.RUN: run.uuid, extras.SYSTEM: system_of(run), extras.PART: _part(process, run)}
    jobs = list(_jobs(process))
    _name([process, *jobs], run)
    made = [node for job in jobs for node in _made_by(job)]
    group, _ = orm.Group.collection.get_or_create(label=group_label(run))
    group.add_nodes([run, process, *jobs, *made])
    for job in jobs:
        if isinstance(job, orm.CalcJobNode):
            extras.tell(job, {**common, **cost(job)})
    if process.pk != run.pk or process.process_label in PART_OF or process.process_label == "TrainWorkChain":
        extras.tell(process, common)
    tell = _TELLERS.get(str(process.process_label))
    if tell is not None:
        tell(process, {name: common[name] for name in (extras.RUN, extras.SYSTEM)})


def index_all() -> int:
    """Index every chain of this package that is over, oldest first; returns their number."""
    query = orm.QueryBuilder().append(
        orm.WorkChainNode,
        filters={
            "process_type": {"like": f"{OURS}%"},
            "attributes.process_state": {"in": [*OVER]},
        },
        project="*",
    )
    query.order_by({orm.WorkChainNode: {"id": "asc"}})
    chains = query.all(flat=True)
    for chain in chains:
        index(chain)
    return len(chains)


def run_of(process: orm.ProcessNode) -> orm.ProcessNode:
    """The chain of this package on top of a process: the run that it belongs to."""
    run, caller = process, process.caller
    while caller is not None:
        if (caller.process_type or "").startswith(OURS):
            run = caller
        caller = caller.caller
    return run


def group_label(run: orm.ProcessNode) -> str:
    """The label of the group of a run: unique, and the same in every profile that imports it."""
    return f"{GROUPS}/{run.label or run.process_label}/{run.uuid[:8]}"[:LONGEST_LABEL]


def system_of(process: orm.ProcessNode) -> str | None:
    """The reduced formula of what a process simulates, such as ``C`` or ``H2O``; of several joined by ``+``."""
    links = process.base.links.get_incoming(link_type=(LinkType.INPUT_WORK, LinkType.INPUT_CALC)).all()
    simulated = [
        link.node
        for link in links
        if isinstance(link.node, orm.StructureData)
        and (link.link_label.startswith("state_points__") or link.link_label in ("structure", "calc__structure"))
    ]
    formulas = {node.get_formula(mode="hill_compact", separator="") for node in simulated}
    return "+".join(sorted(formulas)) or None


def cost(job: orm.CalcJobNode) -> dict[str, float | None]:
    """CPU and wall hours of a job: as the program says, else as the scheduler says; nothing where neither does.

    A program that tells its wall time alone is taken to have used all its cores.
    """
    parameters = job.outputs.output_parameters.get_dict() if "output_parameters" in job.outputs else {}
    timings = parameters.get("timings") or {}
    info = job.get_last_job_info()
    said = None if info is None else info.wallclock_time_seconds
    wall = timings.get("total_s") or parameters.get("wall_time_seconds") or said
    resources = job.get_option("resources") or {}
    processes = resources.get("tot_num_mpiprocs") or (
        resources.get("num_machines", 1) * (resources.get("num_mpiprocs_per_machine") or 1)
    )
    cores = processes * (resources.get("num_cores_per_mpiproc") or 1)
    cpu = timings.get("cpu_s") or (None if wall is None else wall * cores)
    return {
        extras.CPU_HOURS: None if cpu is None else cpu / 3600,
        extras.WALL_HOURS: None if wall is None else wall / 3600,
    }


def scalars(compared: Mapping[str, Mapping[str, Any]]) -> dict[str, float | None]:
    """Values, errors and experiment of every component that is a single number, by name.

    Where several state points have a component, its name is followed by ``_at_`` and the label of the state point; the
    largest relative deviation of all of them has the name alone, with ``_deviation``.

    Args:
        compared: Comparisons by state point and target, see :func:`aiida_difftre.workchains.comparison.compare`.
    """
    found: dict[str, dict[str, tuple[float, float, float]]] = {}
    for point, items in compared.items():
        for item in items.values():
            if item.get("grid") is None:
                numbers = zip(item["labels"], item["values"], item["errors"], item["experiment"], strict=True)
                for name, *three in numbers:
                    found.setdefault(name, {})[point] = tuple(three)
    facts: dict[str, float | None] = {}
    for name, by_point in found.items():
        for point, (value, error, measured) in by_point.items():
            place = name if len(by_point) == 1 else f"{name}_at_{point}"
            facts |= {place: value, f"{place}_error": error, f"{place}_experiment": measured}
        if all(measured for _, _, measured in by_point.values()):
            facts[extras.deviation_name(name)] = max(abs(value / m - 1) for value, _, m in by_point.values())
    return facts


def judged(chi2: Mapping[str, Any], compared: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What a potential and the chain that judged it are told: reduced chi² by role, and :func:`scalars`."""
    by_role = {extras.chi2_name(role): value for role, value in chi2.items() if isinstance(value, float | int)}
    return {**by_role, **scalars(compared)}


def behind(potential: PotentialData) -> dict[str, list[str]]:
    """UUIDs of the training targets and the labelled datasets behind a potential, back to where it was imported."""
    targets: dict[str, None] = {}
    datasets: dict[str, None] = {}
    current: PotentialData | None = potential
    while current is not None and (made_by := current.creator) is not None:
        if current is not potential and extras.key(extras.TARGETS) in current.base.extras:
            known = extras.told(current)
            targets |= dict.fromkeys(known[extras.TARGETS])
            datasets |= dict.fromkeys(known[extras.DATASETS])
            break
        current = None
        for link in made_by.base.links.get_incoming(link_type=LinkType.INPUT_CALC).all():
            node = link.node
            if isinstance(node, TargetData) and node.target.is_in_loss:
                targets[node.uuid] = None
            elif isinstance(node, DatasetData) and node.labelled:
                datasets[node.uuid] = None
            elif isinstance(node, PotentialData) and "__" not in link.link_label:  # not of a trajectory in a pool
                current = node
    return {extras.TARGETS: sorted(targets), extras.DATASETS: sorted(datasets)}


def _part(process: orm.ProcessNode, run: orm.ProcessNode) -> str | None:
    names = [*_called_as(process, run)]
    return next((name for name in names if name in PARTS), None) or PART_OF.get(str(run.process_label))


def _called_as(process: orm.ProcessNode, run: orm.ProcessNode) -> Iterator[str]:
    """The labels of the calls from a run down to a process."""
    if process.pk == run.pk:
        return
    for link in process.base.links.get_incoming(link_type=CALLS).all():
        yield from _called_as(link.node, run)  # type: ignore[arg-type] # a call comes from a process
        yield str(link.link_label)


def _jobs(process: orm.ProcessNode) -> Iterator[orm.ProcessNode]:
    """What a chain called, all the way down, but for the chains of this package: these tell theirs themselves."""
    for child in process.called:
        if (child.process_type or "").startswith(OURS):
            continue
        yield child
        yield from _jobs(child)


def _made_by(job: orm.ProcessNode) -> list[orm.Data]:
    links = job.base.links.get_outgoing(link_type=LinkType.CREATE).all()
    return [link.node for link in links if isinstance(link.node, orm.Data)]


def _name(processes: Iterable[orm.ProcessNode], run: orm.ProcessNode) -> None:
    """Give a label and a description to what has none, or has those of the job in the cache that it was copied from."""
    rows: dict[int, dict[str, Any]] = {}

    def name(node: orm.Node, label: str, description: str, *, copied: bool = False) -> None:
        row: dict[str, Any] = {"id": node.pk}
        if copied or not node.label:
            row["label"] = label[:LONGEST_LABEL]
        if description and (copied or not node.description):
            row["description"] = description
        if len(row) > 1:
            rows[int(node.pk or 0)] = row

    for process in processes:
        words = " ".join(label.replace("_", " ") for label in _called_as(process, run))
        title = f"{run.label or run.process_label}: {words}" if words else str(run.process_label)
        copied = process.base.caching.is_created_from_cache
        if process.pk != run.pk:
            name(process, title, f"{process.process_label} of {run.label or run.process_label}", copied=copied)
        for link in process.base.links.get_outgoing(link_type=LinkType.CREATE).all():
            words = str(link.link_label).replace("__", " ").replace("_", " ")
            name(link.node, f"{title}, {words}", link.node.get_description(), copied=copied)
        parameters = process.base.links.get_incoming(
            link_type=LinkType.INPUT_CALC, link_label_filter="parameters"
        ).all_nodes()
        for node in parameters:
            name(node, f"{title}, parameters", "")
    for keys in ({"id", "label"}, {"id", "description"}, {"id", "label", "description"}):
        chosen = [row for row in rows.values() if set(row) == keys]
        if chosen:
            run.backend.bulk_update(EntityTypes.NODE, chosen)


def _tell_pretrained(process: orm.ProcessNode, common: Mapping[str, Any]) -> None:
    if "potential" in process.outputs:
        _tell_made(process.outputs.potential, common)


def _tell_made(potential: PotentialData, common: Mapping[str, Any]) -> None:
    extras.tell(potential, {**common, **behind(potential)})


def _tell_sampled(process: orm.ProcessNode, common: Mapping[str, Any]) -> None:
    if "trajectory" not in process.outputs or not process.is_finished_ok:
        return
    results = read(SampleResults, process.outputs.output_parameters.get_dict())
    stationarity = results.stationarity
    called = next(iter(process.base.links.get_incoming(link_type=CALLS).all()), None)
    facts = {
        **common,
        # sample_003_POINT, sample_before_POINT
        extras.STATE_POINT: None if called is None else str(called.link_label).split("_", 2)[-1],
        extras.N_EFF: (
            results.snapshots / max(results.statistical_inefficiency, 1.0)
            if stationarity is None
            else stationarity.independent_samples
        ),
        extras.STATIONARY: None if stationarity is None else stationarity.stationary,
    }
    extras.tell(process.outputs.trajectory, facts)


def _tell_updated(process: orm.ProcessNode, common: Mapping[str, Any]) -> None:
    if not process.is_finished_ok:
        return
    job = process.outputs.potential.creator
    inputs = job.base.links.get_incoming(link_type=LinkType.INPUT_CALC).nested()
    results = records.update_results(process.outputs.output_parameters)
    iteration = _iteration(process)
    numbered = {**common, extras.ITERATION: iteration}
    targets = {
        label: {node.target.name: node.target for node in point["targets"].values()}
        for label, point in inputs["state_points"].items()
    }
    compared = records.compare_points(targets, records.predictions_before(results))
    held = {label for label, point in inputs["state_points"].items() if "potential" in point}
    # What it did not sample everywhere does not judge a potential.
    facts = {} if held else {**judged(records.judge(compared), compared), extras.JUDGED_IN: "refinement"}
    extras.tell(inputs["potential"], {**numbered, **facts}, forget=True)
    fractions = _fractions(results)
    for label, point in inputs["state_points"].items():
        fraction = fractions.get(label)
        of = common if label in held else numbered
        extras.tell(point["trajectory"], {**of, extras.STATE_POINT: label, extras.N_EFF_FRACTION: fraction})
    left = {extras.N_EFF_FRACTION: min(fractions.values(), default=None)}
    for node in (process, job):
        extras.tell(node, {**numbered, **facts, **left})
    _tell_made(process.outputs.potential, {**common, extras.ITERATION: None if iteration is None else iteration + 1})


def _iteration(process: orm.ProcessNode) -> int | None:
    """The iteration of an update, from the label of the link by which a refinement called it."""
    links = process.base.links.get_incoming(link_type=LinkType.CALL_WORK, link_label_filter="update%").all()
    numbers = [str(link.link_label).split("_")[1] for link in links if "_" in str(link.link_label)]
    return int(numbers[0]) if numbers and numbers[0].isdecimal() else None


def _fractions(results: UpdateResults) -> dict[str, float]:
    """By state point, the effective over all snapshots that the last step left."""
    if not results.history:
        return {}
    return {
        label: min(step.n_eff_entropy, step.n_eff_kish) / results.state_points[label].snapshots
        for label, step in results.history[-1].state_points.items()
        if label in results.state_points
    }


def _refinement(process: orm.ProcessNode) -> dict[str, Any]:
    """The facts about a refinement: those of its best iteration."""
    if "history" not in process.outputs:
        return {}
    history = process.outputs.history.get_dict()
    best = next((item for item in history["iterations"] if item["iteration"] == history.get("best")), None)
    if best is None:
        return {}
    return {
        **judged(best["chi2"], best["state_points"]),
        extras.ITERATION: best["iteration"],
        extras.OUTCOME: history.get("outcome"),
        extras.JUDGED_IN: "refinement",
    }


def _tell_refined(process: orm.ProcessNode, common: Mapping[str, Any]) -> None:
    extras.tell(process, {**common, **_refinement(process)})
    if "history" not in process.outputs:
        return
    for item in process.outputs.history.get_dict()["iterations"]:
        potential = orm.load_node(item["potential"])
        facts = {**judged(item["chi2"], item["state_points"]), extras.JUDGED_IN: "refinement"}
        extras.tell(potential, {**common, extras.ITERATION: item["iteration"], **facts}, forget=True)


def _validation(process: orm.ProcessNode, when: str) -> dict[str, Any]:
    """The facts that a validation found about a potential: before, or after."""
    report = process.outputs.report.get_dict() if "report" in process.outputs else {}
    if when not in report.get("chi2", {}):
        return {}
    compared = {
        point: {name: item[when] for name, item in items.items() if when in item}
        for point, items in report["state_points"].items()
    }
    return {**judged(report["chi2"][when], compared), extras.JUDGED_IN: "validation"}


def _tell_validated(process: orm.ProcessNode, common: Mapping[str, Any]) -> None:
    extras.tell(process, {**common, **_validation(process, "after")})
    for when in ("before", "after"):
        facts = _validation(process, when)
        if not facts or when not in process.inputs:
            continue
        potential = process.inputs[when]
        known = extras.told(potential)
        same = {extras.ITERATION: known.get(extras.ITERATION)} if known.get(extras.RUN) == common[extras.RUN] else {}
        extras.tell(potential, {**common, **same, **facts}, forget=True)


def of_run(process: orm.ProcessNode) -> dict[str, Any]:
    """The facts about a run: those of its validation, or else of its refinement."""
    found: dict[str, Any] = {}
    for part in (process, *process.called):
        if part.process_label == "RefineWorkChain":
            found = {**_refinement(part), **found}
        elif part.process_label == "ValidateWorkChain":
            found = {**found, **_validation(part, "after")}
    return found


def _tell_trained(process: orm.ProcessNode, common: Mapping[str, Any]) -> None:
    extras.tell(process, {**common, **of_run(process)})


_TELLERS = {
    "PretrainBaseWorkChain": _tell_pretrained,
    "SampleBaseWorkChain": _tell_sampled,
    "UpdateBaseWorkChain": _tell_updated,
    "RefineWorkChain": _tell_refined,
    "ValidateWorkChain": _tell_validated,
    "TrainWorkChain": _tell_trained,
}
"""By the process label of a chain that is over."""
