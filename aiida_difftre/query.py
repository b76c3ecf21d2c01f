"""Questions to the provenance graph, each one a QueryBuilder query that can be taken further. Free of JAX.

Each function returns a query, whose rows ``rows`` gives as dictionaries; ``query.all()`` gives lists. What makes them
short is described on the page "Ask the graph": flat extras that the chains leave on what they made. Nodes of runs of
earlier versions have none until ``aiida-difftre query index``, and are not found before, but for what links alone say.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from aiida import orm
from aiida.common.links import LinkType

from aiida_difftre.data import extras
from aiida_difftre.data.dataset import DatasetData
from aiida_difftre.data.potential import PotentialData
from aiida_difftre.data.target import TargetData
from aiida_difftre.data.trajectory import TrajectoryEnsembleData

POTENTIAL, TARGET, TRAJECTORY, RUN, JOB, DATASET = "potential", "target", "trajectory", "run", "job", "dataset"

_JUDGED = (extras.SYSTEM, extras.ITERATION, extras.JUDGED_IN)


def rows(query: orm.QueryBuilder) -> list[dict[str, Any]]:
    """The answers of a query as flat dictionaries.

    Args:
        query: A query of this module.

    Returns:
        For each answer the projected values by name, such as ``id``, ``label``, ``chi2_training``; those of other nodes
        than the one that was asked for begin with its kind and a dot.

    Example:
        >>> from aiida_difftre import query
        >>> query.rows(query.refined_against("10.1000/no-such-paper"))
        []
    """
    found = []
    for answer in query.iterdict():
        row: dict[str, Any] = {}
        asked = max(answer, key=lambda tag: len(answer[tag]))
        for tag in sorted(answer, key=lambda tag: tag != asked):
            for name, value in answer[tag].items():
                short = name.removeprefix("attributes.").removeprefix(f"extras.{extras.PREFIX}")
                row[short if tag == asked else f"{tag}.{short}"] = value
        found.append(row)
    return found


def refined_against(doi: str) -> orm.QueryBuilder:
    """Ask for the potentials that a refinement returned which worked towards a measurement.

    Args:
        doi: Digital object identifier of the publication.

    Returns:
        Potentials, with the target; test targets do not count.

    Example:
        >>> from aiida_difftre import query
        >>> query.refined_against("10.1063/1.1661636").count()
        0
    """
    query = orm.QueryBuilder().append(
        TargetData,
        tag=TARGET,
        filters={"attributes.doi": doi.removeprefix("https://doi.org/"), "attributes.role": {"!==": "test"}},
    )
    query.append(
        orm.WorkChainNode,
        tag=RUN,
        with_incoming=TARGET,
        edge_filters={"type": LinkType.INPUT_WORK.value},
        filters={"attributes.process_label": "RefineWorkChain"},
    )
    query.append(
        PotentialData,
        tag=POTENTIAL,
        with_incoming=RUN,
        edge_filters={"type": LinkType.RETURN.value},
        project=["id", "label", *_extras(*_JUDGED, extras.chi2_name("training"))],
    )
    query.add_projection(TARGET, ["label"])
    return query.distinct()


def experiments_behind(potential: PotentialData) -> orm.QueryBuilder:
    """Ask for the measurements that a potential and all its predecessors were refined with.

    Args:
        potential: The potential; see ``behind_known``.

    Returns:
        Targets.

    Raises:
        ValueError: For a potential of an earlier version that is not indexed yet.

    Example:
        >>> from aiida_difftre import query
        >>> query.experiments_behind.__name__
        'experiments_behind'
    """
    return (
        orm.QueryBuilder()
        .append(
            TargetData,
            tag=TARGET,
            filters=_among(_known(potential, extras.TARGETS)),
            project=["id", "label", "attributes.observable", "attributes.conditions.temperature", "attributes.doi"],
        )
        .distinct()
    )


def calculations_behind(potential: PotentialData) -> orm.QueryBuilder:
    """Ask for the first-principles calculations whose labels a potential and all its predecessors were trained with.

    Args:
        potential: The potential.

    Returns:
        Calculations with the dataset that collected them. A dataset that was imported has none.

    Raises:
        ValueError: For a potential of an earlier version that is not indexed yet.

    Example:
        >>> from aiida_difftre import query
        >>> query.calculations_behind.__name__
        'calculations_behind'
    """
    query = orm.QueryBuilder().append(DatasetData, tag=DATASET, filters=_among(_known(potential, extras.DATASETS)))
    query.append(orm.CalcFunctionNode, tag="collected", with_outgoing=DATASET)
    query.append(orm.TrajectoryData, tag="label", with_outgoing="collected")
    query.append(orm.CalcJobNode, tag=JOB, with_outgoing="label", project=["id", "label", "attributes.process_label"])
    query.add_projection(DATASET, ["id"])
    return query.distinct()


def datasets_of(calculation: orm.CalcJobNode) -> orm.QueryBuilder:
    """Ask for the datasets that hold the label of a first-principles calculation.

    Args:
        calculation: The calculation.

    Returns:
        Datasets, with their UUID.

    Example:
        >>> from aiida_difftre import query
        >>> query.datasets_of.__name__
        'datasets_of'
    """
    query = orm.QueryBuilder().append(orm.CalcJobNode, tag=JOB, filters={"id": calculation.pk})
    query.append(orm.TrajectoryData, tag="label", with_incoming=JOB)
    query.append(orm.CalcFunctionNode, tag="collected", with_incoming="label")
    query.append(DatasetData, tag=DATASET, with_incoming="collected", project=["id", "label", "uuid"])
    return query.distinct()


def influenced_by(node: orm.Node) -> orm.QueryBuilder:
    """Ask for every parameter set that a target, a dataset or a first-principles calculation had a part in.

    Args:
        node: A target, a dataset, or a calculation, which is looked up in its datasets first.

    Returns:
        Potentials, the intermediate ones of refinements too.

    Raises:
        ValueError: For another kind of node.

    Example:
        >>> from aiida_difftre import query
        >>> query.influenced_by.__name__
        'influenced_by'
    """
    if isinstance(node, orm.CalcJobNode):
        name, uuids = extras.DATASETS, [uuid for *_, uuid in datasets_of(node).all()]
    elif isinstance(node, DatasetData | TargetData):
        name, uuids = extras.TARGETS if isinstance(node, TargetData) else extras.DATASETS, [node.uuid]
    else:
        raise ValueError(
            f"node {node.pk} is a {type(node).__name__}; give a target, a dataset or a calculation that labelled"
        )
    filters: dict[str, Any] = {"or": [{f"extras.{extras.key(name)}": {"contains": [uuid]}} for uuid in uuids]}
    return _potentials(filters if uuids else {"id": -1})


def trajectories(
    *,
    temperature: tuple[float, float] | None = None,
    system: str | None = None,
    least_n_eff: float | None = None,
    least_n_eff_fraction: float | None = None,
    potential: PotentialData | None = None,
) -> orm.QueryBuilder:
    """Ask for trajectories by state point, independent snapshots and the potential that made them.

    Args:
        temperature: From and to, K; None for any.
        system: Reduced formula, such as ``C``; None for any.
        least_n_eff: Number of independent snapshots, at least; None for any.
        least_n_eff_fraction: Fraction of effective snapshots that its update left, at least; None for any.
        potential: The potential that sampled; None for any.

    Returns:
        Trajectories with the potential.

    Example:
        >>> from aiida_difftre import query
        >>> query.trajectories(temperature=(290.0, 300.0), least_n_eff=100).count()
        0
    """
    filters: dict[str, Any] = {}
    if temperature is not None:
        filters["attributes.temperature"] = {"and": [{">=": temperature[0]}, {"<=": temperature[1]}]}
    if system is not None:
        filters |= _is(extras.SYSTEM, system)
    for name, least in ((extras.N_EFF, least_n_eff), (extras.N_EFF_FRACTION, least_n_eff_fraction)):
        if least is not None:
            filters |= _is(name, {">=": least})
    query = orm.QueryBuilder().append(
        TrajectoryEnsembleData,
        tag=TRAJECTORY,
        filters=filters,
        project=[
            "id",
            "label",
            "attributes.temperature",
            "attributes.number_of_snapshots",
            *_extras(extras.SYSTEM, extras.ITERATION, extras.N_EFF, extras.N_EFF_FRACTION),
        ],
    )
    query.append(
        orm.CalcJobNode,
        tag=JOB,
        with_outgoing=TRAJECTORY,
        filters={"attributes.process_label": "SampleCalculation"},
    )
    query.append(
        PotentialData,
        tag=POTENTIAL,
        with_outgoing=JOB,
        filters={} if potential is None else {"id": potential.pk},
        project=["id"],
    )
    return query.distinct()


def best(system: str, role: str = "training", *, judged_in: str | None = "validation") -> orm.QueryBuilder:
    """Ask for the potentials of a system, by their reduced chi².

    Args:
        system: Reduced formula, such as ``C`` or ``H2O``.
        role: ``training``, ``selection`` or ``test``: the targets that chi² is of.
        judged_in: ``validation`` for long independent runs, ``refinement`` for the shorter ones of an iteration; None
            for either.

    Returns:
        Potentials, the best first.

    Example:
        >>> from aiida_difftre import query
        >>> query.best("C").limit(1).all()
        []
    """
    name = extras.chi2_name(role)
    filters = {**_is(extras.SYSTEM, system), **_is(name, {">=": 0})}
    if judged_in is not None:
        filters |= _is(extras.JUDGED_IN, judged_in)
    # One node, no join: there is nothing that could stand twice.
    return _by(_potentials(filters, name, distinct=False), name)


def near_experiment(component: str, within: float, *, system: str | None = None) -> orm.QueryBuilder:
    """Ask for the potentials whose predictions of a component lie near to experiment at all state points.

    Args:
        component: Name of the component, such as ``C44``, ``C_P`` or ``density``.
        within: Largest relative deviation, such as 0.02.
        system: Reduced formula; None for any.

    Returns:
        Potentials, the nearest first.

    Example:
        >>> from aiida_difftre import query
        >>> query.near_experiment("C44", 0.02).all()
        []
    """
    name = extras.deviation_name(component)
    filters = _is(name, {"<=": within})
    if system is not None:
        filters |= _is(extras.SYSTEM, system)
    shown = (component, f"{component}_error", f"{component}_experiment", name)
    return _by(_potentials(filters, *shown, distinct=False), name)


def costs(run: orm.ProcessNode | None = None) -> orm.QueryBuilder:
    """Ask where the CPU hours went.

    Args:
        run: The work chain of a run; None for all runs.

    Returns:
        The jobs, with part, hours and the UUID of their run; hours are None where neither the program nor the scheduler
        told them.

    Example:
        >>> from aiida_difftre import query
        >>> rows = query.rows(query.costs())  # one for each job of all runs
        >>> all("cpu_hours" in row for row in rows)
        True
    """
    filters: dict[str, Any] = {f"extras.{extras.key(extras.RUN)}": {"of_type": "string"}}
    if run is not None:
        filters = _is(extras.RUN, run.uuid)
    query = orm.QueryBuilder().append(
        orm.CalcJobNode,
        tag=JOB,
        filters=filters,
        project=[
            "id",
            "attributes.process_label",
            *_extras(extras.PART, extras.CPU_HOURS, extras.WALL_HOURS, extras.RUN),
        ],
    )
    return query.distinct()


def summed(jobs: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add up the hours of jobs by part and kind.

    Args:
        jobs: Rows of :func:`costs`.

    Returns:
        For each part and kind: jobs, cpu_hours, wall_hours, and the number of jobs whose hours nobody told; the most
        expensive first.

    Example:
        >>> from aiida_difftre import query
        >>> job = {"part": "refine", "process_label": "SampleCalculation", "cpu_hours": 0.5, "wall_hours": 0.4}
        >>> query.summed([job, {**job, "cpu_hours": None, "wall_hours": None}])[0]["untold"]
        1
    """
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for job in jobs:
        part, kind = job["part"] or "", job["process_label"]
        total = found.setdefault(
            (part, kind), {"part": part, "job": kind, "jobs": 0, "cpu_hours": 0.0, "wall_hours": 0.0, "untold": 0}
        )
        total["jobs"] += 1
        total["cpu_hours"] += job["cpu_hours"] or 0.0
        total["wall_hours"] += job["wall_hours"] or 0.0
        total["untold"] += job["cpu_hours"] is None
    return sorted(found.values(), key=lambda total: -total["cpu_hours"])


def _extras(*names: str) -> list[str]:
    return [f"extras.{extras.key(name)}" for name in names]


def _is(name: str, condition: Any) -> dict[str, Any]:
    return {f"extras.{extras.key(name)}": condition}


def _among(uuids: list[str]) -> dict[str, Any]:
    return {"uuid": {"in": uuids}} if uuids else {"id": -1}


def _known(potential: PotentialData, name: str) -> list[str]:
    known = extras.told(potential)
    if name in known:
        return list(known[name])
    if potential.creator is None:
        return []
    raise ValueError(
        f"potential {potential.pk} is of a run that is not indexed, or not over; `aiida-difftre query index` indexes "
        f"runs of earlier versions, and `aiida-difftre lineage {potential.pk}` follows the links"
    )


def _potentials(filters: dict[str, Any], *names: str, distinct: bool = True) -> orm.QueryBuilder:
    query = orm.QueryBuilder().append(
        PotentialData, tag=POTENTIAL, filters=filters, project=["id", "label", *_extras(*_JUDGED, *names)]
    )
    return query.distinct() if distinct else query


def _by(query: orm.QueryBuilder, name: str) -> orm.QueryBuilder:
    return query.order_by({POTENTIAL: [{f"extras.{extras.key(name)}": {"order": "asc", "cast": "f"}}]})
