"""Questions to a provenance graph of a given size: seconds of each, on a graph that is like that of many runs.

    python tests/benchmarks/query.py [--nodes 100000] [--runs 3] [--output FILE]

The graph is made in a profile of its own, in SQLite, which is removed afterwards: runs of a dataset with 40 DFT labels,
pretraining, twenty iterations at one state point, a validation; each node with the attributes, extras and links that
questions look at. The repository is left out, of which no question reads anything.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC
from typing import Any

import measure

LABELS, ITERATIONS = 40, 20
DOIS = [f"10.1000/{number}" for number in range(10)]
SYSTEMS = ["C", "Si", "Ti", "Ar", "H2O"]


class Graph:
    """Rows of nodes and links, to be inserted at once.

    Args:
        user: PK of the user.
    """

    def __init__(self, user: int) -> None:
        self.user = user
        self.nodes: list[dict[str, Any]] = []
        self.links: list[dict[str, Any]] = []

    def add(self, node_type: str, process: str | None = None, **content: Any) -> int:
        """Add a node; returns its PK."""
        from datetime import datetime

        now = datetime.now(UTC)
        attributes = dict(content.get("attributes", {}))
        if process is not None:
            attributes |= {"process_label": process, "process_state": "finished", "sealed": True}
        self.nodes.append(
            {
                "uuid": content.get("uuid", str(uuid.uuid4())),
                "node_type": node_type,
                "process_type": None if process is None else f"aiida.calculations:{process}",
                "label": content.get("label", ""),
                "description": "",
                "ctime": now,
                "mtime": now,
                "attributes": attributes,
                "extras": {f"difftre_{name}": value for name, value in content.get("facts", {}).items()},
                "repository_metadata": {},
                "user_id": self.user,
            }
        )
        return len(self.nodes)

    def link(self, kind: str, source: int, target: int, label: str) -> None:
        """Add a link."""
        self.links.append({"input_id": source, "output_id": target, "label": label, "type": kind})

    def insert(self, backend: Any) -> None:
        """Store all of it in an empty profile, whose nodes count from one."""
        from aiida.orm.entities import EntityTypes

        with backend.transaction():
            # In parts: what SQLAlchemy does with all rows of one call grows with their square.
            for rows in _parts(self.nodes):
                pks = backend.bulk_insert(EntityTypes.NODE, rows, allow_defaults=True)
            if pks[-1] != len(self.nodes):
                raise ValueError("the profile is not empty")
            for rows in _parts(self.links):
                backend.bulk_insert(EntityTypes.LINK, rows, allow_defaults=True)

    def uuid(self, pk: int) -> str:
        """The UUID of a node."""
        return str(self.nodes[pk - 1]["uuid"])


def _parts(rows: list[dict[str, Any]], size: int = 1000) -> Iterator[list[dict[str, Any]]]:
    return (rows[start : start + size] for start in range(0, len(rows), size))


JOB, CHAIN = "process.calculation.calcjob.CalcJobNode.", "process.workflow.workchain.WorkChainNode."
FUNCTION = "process.calculation.calcfunction.CalcFunctionNode."
DICT, FOLDER, REMOTE = "data.core.dict.Dict.", "data.core.folder.FolderData.", "data.core.remote.RemoteData."
LABEL = "data.core.array.trajectory.TrajectoryData."
POTENTIAL, DATASET = "data.difftre.potential.PotentialData.", "data.difftre.dataset.DatasetData."
TRAJECTORY, TARGET = "data.difftre.trajectory.TrajectoryEnsembleData.", "data.difftre.target.TargetData."


def add_run(graph: Graph, number: int) -> dict[str, int]:
    """Add the nodes of one run; returns the PKs of those that questions start from."""
    system, name = SYSTEMS[number % len(SYSTEMS)], str(uuid.uuid4())
    common = {"run": name, "system": system}
    run = graph.add(CHAIN, "TrainWorkChain", uuid=name, facts=common)
    refine = graph.add(CHAIN, "RefineWorkChain", facts=common)
    graph.link("call_work", run, refine, "refine")
    doi = DOIS[number % len(DOIS)]
    target = graph.add(TARGET, attributes={"doi": doi, "role": "training", "observable": "stiffness"})
    graph.link("input_work", target, refine, "state_points__solid__targets__stiffness")
    collected = graph.add(FUNCTION, "collect_labels")
    for index in range(LABELS):
        job = graph.add(
            JOB, "PwCalculation", facts={**common, "part": "dataset", "cpu_hours": 0.02, "wall_hours": 0.02}
        )
        graph.link("call_calc", run, job, f"pw_{index}")
        for kind, label in ((DICT, "output_parameters"), (FOLDER, "retrieved"), (REMOTE, "remote_folder")):
            graph.link("create", job, graph.add(kind), label)
        label_node = graph.add(LABEL)
        graph.link("create", job, label_node, "output_trajectory")
        graph.link("input_calc", label_node, collected, f"label_{index}")
    dataset = graph.add(DATASET, attributes={"labelled": True})
    graph.link("create", collected, dataset, "result")
    behind = {"targets": [], "datasets": [graph.uuid(dataset)]}
    pretrained = graph.add(JOB, "PretrainCalculation", facts={**common, "part": "pretrain", "cpu_hours": 0.1})
    graph.link("input_calc", dataset, pretrained, "dataset")
    potential = graph.add(POTENTIAL, facts={**common, **behind})
    graph.link("create", pretrained, potential, "potential")
    behind = {**behind, "targets": [graph.uuid(target)]}
    previous = None
    for iteration in range(ITERATIONS):
        facts = {**common, "part": "refine", "cpu_hours": 0.5, "wall_hours": 0.3}
        sampled = graph.add(JOB, "SampleCalculation", facts=facts)
        graph.link("input_calc", potential, sampled, "potential")
        if previous is not None:
            graph.link("input_calc", previous, sampled, "start_trajectory")
        previous = graph.add(
            TRAJECTORY,
            attributes={"temperature": 100.0 + 10 * (number % 40), "number_of_snapshots": 4000},
            facts={
                **common,
                "iteration": iteration,
                "n_eff": 50.0 * iteration,
                "n_eff_fraction": iteration / ITERATIONS,
            },
        )
        graph.link("create", sampled, previous, "trajectory")
        updated = graph.add(JOB, "UpdateCalculation", facts={**facts, "cpu_hours": 0.05})
        for node, label in ((potential, "potential"), (previous, "trajectory"), (target, "target")):
            graph.link("input_calc", node, updated, label)
        for job in (sampled, updated):
            for kind, label in ((DICT, "output_parameters"), (FOLDER, "retrieved"), (REMOTE, "remote_folder")):
                graph.link("create", job, graph.add(kind), label)
        off = 0.5 / (1 + iteration + number % 50)
        judged = {
            "iteration": iteration, "chi2_training": 100 * off, "C44": 578 * (1 + off), "C44_error": 2.0,
            "C44_experiment": 578.0, "C44_deviation": off,
            "judged_in": "validation" if iteration == ITERATIONS - 1 else "refinement",
        }  # fmt: skip
        potential = graph.add(POTENTIAL, facts={**common, **behind, **judged})
        graph.link("create", updated, potential, "potential")
    graph.link("return", refine, potential, "potential")
    return {"run": run, "potential": potential, "calculation": collected + 1, "target": target}


def questions(start: dict[str, int]) -> Iterator[tuple[str, Callable[[], list[Any]]]]:
    """Each question with its answer, as the module gives it."""
    from aiida.orm import load_node

    from aiida_difftre import query

    potential, job, run = (load_node(start[name]) for name in ("potential", "calculation", "run"))
    built: dict[str, Callable[[], Any]] = {
        "refined_against": lambda: query.refined_against(DOIS[0]),
        "experiments_behind": lambda: query.experiments_behind(potential),
        "calculations_behind": lambda: query.calculations_behind(potential),
        "trajectories": lambda: query.trajectories(temperature=(290.0, 310.0), least_n_eff=500.0),
        "trajectories_of_a_potential": lambda: query.trajectories(potential=potential.creator.inputs.potential),
        "best": lambda: query.best("C"),
        "near_experiment": lambda: query.near_experiment("C44", 0.02),
        "influenced_by": lambda: query.influenced_by(job),
        "costs_of_a_run": lambda: query.costs(run),
        "costs_of_all_runs": lambda: query.costs(),
    }
    for name, make in built.items():
        yield name, lambda make=make: query.rows(make())


def main() -> None:
    """Command line."""
    parser = measure.parser(__doc__)
    parser.add_argument("--nodes", type=int, default=100_000, help="of the graph, at least")
    options = parser.parse_args()
    wanted = 2000 if options.tiny else options.nodes
    with tempfile.TemporaryDirectory() as folder:
        os.environ["AIIDA_PATH"] = folder
        from aiida.manage.configuration import create_profile, get_config, load_profile
        from aiida.orm import User

        configuration = get_config(create=True)
        create_profile(configuration, storage_backend="core.sqlite_dos", storage_config={}, name="query", email="a@b.c")
        storage = load_profile("query", allow_switch=True)
        graph = Graph(int(User.collection.get_default().pk))
        start: dict[str, int] = {}
        number = 0
        while len(graph.nodes) < wanted:
            start = add_run(graph, number)
            number += 1
        from aiida.manage import get_manager

        backend = get_manager().get_profile_storage()
        graph.insert(backend)
        found = {}
        for name, ask in questions(start):
            seconds = []
            for _ in range(options.runs):
                before = time.perf_counter()
                rows = ask()
                seconds.append(time.perf_counter() - before)
            found[name] = {"seconds": statistics.median(seconds), "rows": len(rows)}
        size = {
            "nodes": len(graph.nodes),
            "links": len(graph.links),
            "runs": number,
            "storage": storage.storage_backend,
        }
        measure.write({"versions": measure.versions(), **size, "questions": found}, options.output)


if __name__ == "__main__":
    main()
