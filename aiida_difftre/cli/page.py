"""The report of a run as one HTML file that needs no network: everything that was asked, found, and spent."""

from __future__ import annotations

import base64
import gzip
import json
from datetime import datetime
from pathlib import Path
from typing import Any, cast

from aiida import orm

from aiida_difftre import __version__
from aiida_difftre.cli import costs, energies, page_content, page_plots, snapshots, words
from aiida_difftre.cli.drawing import svg
from aiida_difftre.cli.skeleton import Skeleton, skeleton
from aiida_difftre.cli.snapshots import Snapshot
from aiida_difftre.engine.contract.writing import write_atomically

TEMPLATE = "report.html.j2"


def write_page(pk: int, path: Path, *, force: bool = False) -> int:
    """Write the report of a run.

    Args:
        pk: PK of the run.
        path: The file.
        force: Replace a file that exists.

    Returns:
        Size of the file, bytes.

    Raises:
        ValueError: for a file that exists, or a run of which there is nothing to tell yet.
    """
    if path.exists() and not force:
        raise ValueError(f"{path} exists; give --force to replace it, or another name")
    snapshot = snapshots.take(pk)
    if snapshot.report is None and not snapshot.iterations:
        raise ValueError(f"run {pk} has neither an iteration nor a validation to report on: {snapshot.why_unfinished}")
    text = render(content(snapshot))
    write_atomically(path, text)
    return len(text.encode())


def render(found: dict[str, Any]) -> str:
    """Fill the template; what comes from nodes is escaped.

    Args:
        found: What :func:`content` gives.

    Returns:
        The page.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("aiida_difftre.cli"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template(TEMPLATE).render(**found, plotly=_plotly())


def _plotly() -> str:
    """The library that draws, compressed: a browser unpacks it, and the file is a third of what it would be."""
    from plotly.offline import get_plotlyjs

    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), 9, mtime=0)).decode()


def content(snapshot: Snapshot) -> dict[str, Any]:
    """Everything that the page says of a run.

    Args:
        snapshot: Its snapshot.

    Returns:
        Plain data, text and figures by name, as the template asks for them.
    """
    run = cast("orm.WorkChainNode", orm.load_node(snapshot.pk))
    parts = page_content.Parts.of(run)
    titles = {label: str(point) for label, point in snapshot.state_points.items()}
    plots: dict[str, Any] = {"curves": [], "pulls": None, "course": page_plots.course(snapshot), "learned": []}
    if snapshot.report is not None:
        plots["curves"] = page_plots.curves(snapshot.report, titles)
        plots["pulls"] = page_plots.pulls(snapshot.report, titles)
    plots["learned"], why_not = _learned(parts)
    graph = _graph(parts)
    return {
        "title": snapshot.title,
        "run": run,
        "outcome": snapshot.outcome,
        "message": snapshot.message,
        "is_over": snapshot.is_over,
        "version": __version__,
        "made": f"{datetime.now().astimezone():%Y-%m-%d %H:%M %Z}",
        "summary": page_content.summary(snapshot),
        "points": page_content.points(parts, snapshot),
        "model": page_content.model(parts, snapshot),
        "comparison": page_content.comparison(snapshot),
        "verdicts": page_content.verdicts(snapshot),
        "verdict": page_content.verdict(snapshot),
        "selection": snapshot.selection,
        "plots": plots,
        "figures": json.dumps(_figures(plots)).replace("<", "\\u003c").replace("&", "\\u0026"),
        "why_nothing_learned": why_not,
        "errors": page_content.dft_errors(snapshot),
        "static": page_content.static_values(snapshot),
        "stability": page_content.stability(snapshot),
        "costs": page_content.cost_rows(run),
        "duration": costs.duration,
        "number": words.number,
        "software": page_content.software(run),
        "graph": svg(graph) if graph is not None else "",
        "nodes": page_content.graph_nodes(graph) if graph is not None else [],
        "reproduction": page_content.reproduction(run, parts),
    }


def _figures(plots: dict[str, Any]) -> dict[str, Any]:
    several = [*plots["curves"], *plots["course"], *plots["learned"], *([plots["pulls"]] if plots["pulls"] else [])]
    return {plot.name: plot.figure for plot in several}


def _learned(parts: page_content.Parts) -> tuple[list[page_plots.Plot], str]:
    """Figures of what the potential has learned, or why there are none."""
    if parts.before is None or parts.after is None:
        return [], ""
    try:
        found = energies.curves({"before": parts.before, "after": parts.after}, parts.cell())
    except ValueError as error:
        return [], f"the engine could not compute the energies: {error}"
    return page_plots.learned(found), "" if found else "there is no curve that tells it for this kind of potential"


def _graph(parts: page_content.Parts) -> Skeleton | None:
    return None if parts.after is None else skeleton(parts.after, parts.validation)
