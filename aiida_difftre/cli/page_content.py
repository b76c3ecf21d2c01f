"""What a report says in words and tables: read from the nodes of a run, as plain text and numbers for the template."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from aiida import orm
from aiida.common.links import LinkType
from ase import Atoms

from aiida_difftre.cli import costs, report, snapshots, words
from aiida_difftre.cli.skeleton import Skeleton
from aiida_difftre.cli.snapshots import Snapshot, inputs_of
from aiida_difftre.data.dataset import DatasetData
from aiida_difftre.data.potential import PotentialData
from aiida_difftre.engine.contract.matching_results import MatchingErrors
from aiida_difftre.engine.contract.observables import observable
from aiida_difftre.engine.contract.records import read
from aiida_difftre.engine.contract.results import StaticElasticity
from aiida_difftre.workchains import records
from aiida_difftre.workchains.verdict import of_report

FEW = 6
"""Values of a target that are listed one by one."""

LISTED_NODES = 12
"""Nodes of a stack that are listed by PK."""

AGREES, ROUGHLY = 1.0, 4.0
"""Reduced chi² up to which a potential agrees, or agrees within two standard errors."""


@dataclass(frozen=True)
class Parts:
    """The nodes that a report speaks of.

    Args:
        before: The potential before refinement.
        after: The refined potential.
        dataset: The labels.
        refinement: The process that refined.
        validation: The process that confirmed.
        points: Inputs of the state points, by label.
    """

    before: PotentialData | None = None
    after: PotentialData | None = None
    dataset: DatasetData | None = None
    refinement: orm.ProcessNode | None = None
    validation: orm.ProcessNode | None = None
    points: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, run: orm.ProcessNode) -> Parts:
        """Find them from a run of any of the three chains."""
        parts = snapshots.parts(run)
        refinement, validation = parts.get(snapshots.REFINE), parts.get(snapshots.VALIDATE)
        before = after = dataset = None
        if refinement is not None:
            given, made = inputs_of(refinement), outputs_of(refinement)
            before, after, dataset = given.get("potential"), made.get("potential"), given.get("dataset")
        if validation is not None:
            given = inputs_of(validation)
            before, after = before or given.get("before"), after or given.get("after")
            dataset = dataset or given.get("dataset")
        dataset = dataset or outputs_of(run).get("dataset")
        return cls(before, after, dataset, refinement, validation, inputs_of(run).get("state_points", {}))

    def cell(self) -> Atoms | None:
        """The structure of the first state point."""
        first = next(iter(self.points.values()), None)
        return None if first is None else first["structure"].get_ase()


def outputs_of(process: orm.ProcessNode) -> dict[str, Any]:
    """Outputs of a chain by name, namespaces as dictionaries."""
    nested: dict[str, Any] = process.base.links.get_outgoing(link_type=LinkType.RETURN).nested()
    return nested


def summary(snapshot: Snapshot) -> list[str]:
    """What came out, in a few sentences."""
    found = []
    chi2 = {} if snapshot.report is None else snapshot.report["chi2"]
    for role, word in (("training", "the measurements it was refined on"), ("test", "measurements it never saw")):
        after = chi2.get("after", {}).get(role)
        if after is None:
            continue
        before = chi2.get("before", {}).get(role)
        change = words.number(after) if before is None else f"from {words.number(before)} to {words.number(after)}"
        found.append(f"Reduced χ² against {word}: {change}; the potential {_verdict(after)}.")
    if not found and snapshot.iterations:
        first, last = (snapshot.iterations[index].chi2["training"] for index in (0, -1))
        change = f"from {words.number(first)} to {words.number(last)}"
        found.append(f"Reduced χ² of the training targets so far: {change}; not validated.")
    return found


def _verdict(chi2: float) -> str:
    if chi2 <= AGREES:
        return "agrees with them within one standard error"
    return "agrees with them within two standard errors" if chi2 <= ROUGHLY else "does not agree with them"


def points(parts: Parts, snapshot: Snapshot) -> list[dict[str, Any]]:
    """What was asked: state points, with their targets and citations."""
    return [
        {
            "label": label,
            "words": str(snapshot.state_points[label]),
            "condition": snapshot.state_points[label],
            "targets": [_target(name, node) for name, node in point["targets"].items()],
        }
        for label, point in parts.points.items()
    ]


def _target(label: str, node: Any) -> dict[str, Any]:
    target = node.target
    unit = words.unit(target.unit)
    if target.grid is None and len(target.values) <= FEW:
        names = [words.symbol(name) for name in target.component_labels()]
        numbers = [
            f"{value:.6g} ± {error:.2g}" for value, error in zip(target.values, target.total_errors(), strict=True)
        ]
        if len(set(numbers)) == 1:
            names, numbers = [", ".join(names)], numbers[:1]
        shown = ", ".join(f"{name} = {number}" for name, number in zip(names, numbers, strict=True))
    else:
        shown = f"{len(target.values)} values of {target.observable}"
        if target.grid is not None:
            across = words.unit(observable(target.observable).grid_unit or "1")
            shown += f" from {target.grid[0]:g} to {target.grid[-1]:g} {across}"
            unit = ""
    return {
        "label": label, "pk": node.pk, "observable": target.observable, "role": target.role, "weight": target.weight,
        "shown": f"{shown} {unit}".strip(), "error_source": target.error_source, "citation": target.citation,
        "doi": target.doi,
    }  # fmt: skip


def model(parts: Parts, snapshot: Snapshot) -> list[tuple[str, str]]:
    """The potential and its labels in a few lines."""
    found = []
    potential = parts.after or parts.before
    if potential is not None:
        found += [
            ("potential", " + ".join(potential.base.attributes.get("architectures"))),
            ("species", ", ".join(potential.species)),
            ("cutoff", f"{potential.cutoff:g} Å"),
            ("parameters", f"{potential.base.attributes.get('number_of_parameters')}"),
        ]
    if snapshot.base:
        found.append(("base", snapshot.base))
    if parts.dataset is not None:
        told = f": {parts.dataset.description}" if parts.dataset.description else ""
        found.append(("labels", f"{len(parts.dataset)} configurations{told}"))
    return found


def comparison(snapshot: Snapshot) -> dict[str, Any] | None:
    """The table of before and after against experiment, with both errors; None without validation."""
    if snapshot.report is None:
        return None
    lines = report.table_rows(snapshot.report, snapshot.reference, snapshot.densities)
    found = [
        {
            "line": line,
            "name": words.symbol(line.name),
            "experiment": line.experiment
            + ("" if line.experiment_error is None else f" ± {line.experiment_error:.2g}"),
        }
        for line in lines
    ]
    return {
        "rows": found,
        "dft": any(line.reference != report.MISSING for line in lines),
        "before": any(line.before != report.MISSING for line in lines),
    }


def verdicts(snapshot: Snapshot) -> list[dict[str, Any]]:
    """A verdict on each target: reduced chi² before and after, by role, tests first."""
    if snapshot.report is None:
        return []
    changes = {(one.state_point, one.target): one for one in of_report(snapshot.report).targets}
    order = {"test": 0, "held_out": 0, "selection": 1, "training": 2}
    found = []
    for point, targets in snapshot.report["state_points"].items():
        for label, potentials in targets.items():
            after = potentials["after"]
            before = potentials.get("before")
            found.append(
                {
                    "point": point, "label": label, "role": records.SHOWN_ROLES.get(after["role"], after["role"]),
                    "before": None if before is None else before["chi2"], "after": after["chi2"],
                    "order": order.get(after["role"], 3),
                    "verdict": "agrees" if after["chi2"] <= AGREES else
                    "within two standard errors" if after["chi2"] <= ROUGHLY else "does not agree",
                    "class": "good" if after["chi2"] <= ROUGHLY else "bad",
                    "change": changes[point, label].change or "", "significance": changes[point, label].significance,
                }
            )  # fmt: skip
    return sorted(found, key=lambda one: one["order"])


def dft_errors(snapshot: Snapshot) -> list[dict[str, Any]]:
    """Errors against the labels, before and after: a row for each kind."""
    found = {} if snapshot.report is None else snapshot.report["dataset"]
    shown = {when: records.shown_errors(read(MatchingErrors, errors)) for when, errors in found.items()}
    names = dict.fromkeys(name for errors in shown.values() for name in errors)
    return [
        {
            "name": name,
            "unit": next(errors[name][1] for errors in shown.values() if name in errors),
            **{when: shown[when][name][0] if name in shown.get(when, {}) else None for when in ("before", "after")},
        }
        for name in names
    ]


def static_values(snapshot: Snapshot) -> dict[str, dict[str, float]]:
    """Pressure and elastic constants at rest of DFT and of each potential, GPa."""
    content = {} if snapshot.report is None else dict(snapshot.report["static"])
    if content and snapshot.reference:
        content = {"DFT": snapshot.reference, **content}
    return {
        when: {words.symbol(name): value for name, value in records.static_values(read(StaticElasticity, one)).items()}
        for when, one in content.items()
    }


def verdict(snapshot: Snapshot) -> dict[str, Any] | None:
    """For what the potential may be used, and what its lattices at rest say; None without validation."""
    if snapshot.report is None:
        return None
    found = of_report(snapshot.report)
    return {
        "line": found.line,
        "is_sound": found.is_sound,
        "lattices": [(label, lattice) for label, lattice in found.lattices.items() if lattice.rigidities],
        "unstable": found.unstable,
        "holes": found.holes,
        "phonons": found.phonons,
        "hot": report.hot_notes(found.hot),
    }


def stability(snapshot: Snapshot) -> dict[str, Any]:
    """Whether the runs were stationary, and what was rolled back on the way."""
    content = {} if snapshot.report is None else snapshot.report
    runs = []
    for when, by_label in content.get("stationarity", {}).items():
        for label, run in by_label.items():
            drift = ", ".join(f"{name} {value:+.1f} σ" for name, value in run["drift"].items())
            r_hat = ", ".join(f"{value:.3f}" for value in run["r_hat"].values() if value is not None)
            runs.append(
                {
                    "when": when, "label": label, "stationary": run["stationary"], "drift": drift, "r_hat": r_hat,
                    "samples": run["independent_samples"], "warning": run["warning"],
                }
            )  # fmt: skip
    discarded = [iteration.number for iteration in snapshot.iterations if iteration.discarded]
    return {"runs": runs, "discarded": discarded, "iterations": len(snapshot.iterations)}


def cost_rows(run: orm.ProcessNode) -> dict[str, Any]:
    """What each stage took, and all together."""
    found = costs.costs(run)
    return {
        "stages": found,
        "most": max((cost.cpu_s for cost in found), default=0.0) or 1.0,
        "wall": sum(cost.wall_s for cost in found),
        "cpu": sum(cost.cpu_s for cost in found),
        "jobs": sum(cost.jobs for cost in found),
        "elapsed": (run.mtime - run.ctime).total_seconds(),
    }


PROGRAMS = {"PwCalculation": "Quantum ESPRESSO pw.x", "FeffCalculation": "FEFF"}
"""Programs of jobs that are not the engine's, by the kind of the job."""


def software(run: orm.ProcessNode) -> dict[str, Any]:
    """Versions that ran the jobs and machines on which they ran, each once with the number of jobs."""
    pks = [process.pk for process in costs.processes(run) if process.is_job]
    here = [(name, version(name)) for name in ("aiida-core", "aiida-quantumespresso")]
    programs: Counter[tuple[str, str, str]] = Counter()
    machines: dict[tuple[str, str], Counter[str]] = {}
    if pks:
        query = orm.QueryBuilder().append(orm.CalcJobNode, filters={"id": {"in": pks}}, tag="job", project=KIND)
        query.append(
            orm.Dict,
            with_incoming="job",
            edge_filters={"label": "output_parameters"},
            project=["attributes.engine", "attributes.creator_version"],
        )
        programs.update(_program(*row) for row in query.all())
        query = orm.QueryBuilder().append(orm.CalcJobNode, filters={"id": {"in": pks}}, tag="job", project=KIND)
        query.append(orm.Computer, with_node="job", project=["label", "scheduler_type"])
        for kind, *machine in query.all():
            machines.setdefault((machine[0], machine[1]), Counter())[kind.removesuffix("Calculation")] += 1
    return {
        "programs": _merged(programs),
        "machines": [
            (*key, ", ".join(f"{number} {kind}" for kind, number in sorted(kinds.items())))
            for key, kinds in sorted(machines.items())
        ],
        "here": here,
    }


KIND = "attributes.process_label"
NOT_RECORDED = "not recorded"


def _merged(programs: Counter[tuple[str, str, str]]) -> list[tuple[str, str, str, int]]:
    """The programs; jobs that do not tell their version stand with the others where these have one in common."""
    found = dict(programs)
    for key in [key for key in found if key[1] == NOT_RECORDED]:
        others = [other for other in found if other[0] == key[0] and other != key]
        if len(others) == 1:
            silent, number = found.pop(key), found.pop(others[0])
            found[others[0][0], others[0][1], f"{silent} of the jobs do not tell the version"] = silent + number
    return [(*key, number) for key, number in sorted(found.items())]


def _program(kind: str, engine: dict[str, Any] | None, creator_version: str | None) -> tuple[str, str, str]:
    if engine is None:
        return PROGRAMS.get(kind, kind.removesuffix("Calculation")), creator_version or NOT_RECORDED, ""
    device = f"{engine.get('devices') or 1} × {engine.get('device') or engine.get('platform')}"
    details = [f"jax {engine.get('jax')}", f"Python {engine.get('python')}", device, engine.get("precision")]
    return "difftre", str(engine.get("version")), ", ".join(str(one) for one in details if one)


def graph_nodes(graph: Skeleton) -> list[dict[str, Any]]:
    """What stands behind each box of the graph."""
    return [
        {
            "name": f"box-{index}",
            "title": box.title,
            "kind": box.kind,
            "details": [detail for detail in box.details if detail],
            "nodes": [
                {"pk": node.pk, "uuid": node.uuid, "label": node.label, "kind": type(node).__name__, "made": node.ctime}
                for node in box.nodes[:LISTED_NODES]
            ],
            "more": max(0, len(box.nodes) - LISTED_NODES),
        }
        for index, box in enumerate(graph.boxes)
    ]


def reproduction(run: orm.ProcessNode, parts: Parts) -> dict[str, Any]:
    """What to type to have, check and repeat the run."""
    seeds = {}
    for name, process in (("refinement", parts.refinement), ("validation", parts.validation)):
        if process is not None and "settings" in process.inputs:
            seeds[name] = process.inputs.settings.get_dict().get("seed", 0)
    return {
        "uuid": run.uuid,
        "pk": run.pk,
        "seeds": ", ".join(f"{name} {seed}" for name, seed in seeds.items()),
        "potential": None if parts.after is None else {"uuid": parts.after.uuid, "digest": parts.after.digest},
    }
