"""Two renderings of the lineage of a potential: SVG for a page, and a figure file by matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiida_difftre.cli.look import FORMATS, Look
from aiida_difftre.cli.skeleton import Box, Skeleton, skeleton

if TYPE_CHECKING:
    from aiida.orm import ProcessNode
    from markupsafe import Markup

    from aiida_difftre.data.potential import PotentialData

WIDTH, HEIGHT = 132, 58
"""Of a box, in pixels."""
COLUMN, ROW = 168, 104
"""From box to box."""
MARGIN = 14
STACKED = 5
"""Offset of the sheet behind a stack."""
SHEETS = 3


def _corner(box: Box) -> tuple[float, float]:
    return MARGIN + COLUMN * box.column, MARGIN + ROW * box.row


def _ends(start: Box, end: Box) -> tuple[tuple[float, float], tuple[float, float]]:
    """Where an arrow leaves one box and meets the other: side to side in a row, else from above or below."""
    (x0, y0), (x1, y1) = _corner(start), _corner(end)
    if start.row == end.row:
        return (x0 + WIDTH, y0 + HEIGHT / 2), (x1, y1 + HEIGHT / 2)
    if start.row < end.row:
        return (x0 + WIDTH / 2, y0 + HEIGHT), (x1 + WIDTH / 2, y1)
    return (x0 + WIDTH / 2, y0), (x1 + WIDTH / 2, y1 + HEIGHT)


def size(graph: Skeleton) -> tuple[float, float]:
    """Width and height of the drawing, in pixels."""
    rows = max((box.row for box in graph.boxes), default=0)
    return 2 * MARGIN + COLUMN * (graph.columns - 1) + WIDTH + STACKED * SHEETS, 2 * MARGIN + ROW * rows + HEIGHT + 8


def svg(graph: Skeleton) -> Markup:
    """The graph as SVG whose boxes are links to ``#box-N``; colours are left to the style sheet of the page."""
    from markupsafe import Markup, escape

    width, height = size(graph)
    parts = [
        Markup('<svg class="graph" viewBox="0 0 {0:g} {1:g}" width="{0:g}" height="{1:g}" role="img" '
               'aria-label="lineage of the potential">').format(width, height),
        Markup('<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
               'orient="auto"><path d="M0,0 L8,4 L0,8 z"/></marker></defs>'),
    ]  # fmt: skip
    for start, end in graph.arrows:
        (x0, y0), (x1, y1) = _ends(graph.boxes[start], graph.boxes[end])
        bend = (y0 + y1) / 2
        curve = "L" if y0 == y1 else f"C{x0:g},{bend:g} {x1:g},{bend:g} "
        path = f"M{x0:g},{y0:g} {curve}{x1:g},{y1:g}"
        parts.append(Markup('<path class="arrow" d="{}" marker-end="url(#head)"/>').format(path))
    for index, box in enumerate(graph.boxes):
        x, y = _corner(box)
        parts.append(Markup('<a href="#box-{}"><g class="box {}">').format(index, box.kind))
        sheets = range(SHEETS - 1, -1, -1) if box.is_stack else (0,)
        parts += [
            Markup('<rect x="{:g}" y="{:g}" width="{}" height="{}" rx="7"/>').format(
                x + STACKED * sheet, y + STACKED * sheet, WIDTH, HEIGHT
            )
            for sheet in sheets
        ]
        lines = [box.title, *(detail for detail in box.details if detail)]
        first = y + HEIGHT / 2 - 8 * (len(lines) - 1) + 4
        for number, line in enumerate(lines):
            parts.append(
                Markup('<text class="{}" x="{:g}" y="{:g}">{}</text>').format(
                    "first" if number == 0 else "", x + WIDTH / 2, first + 16 * number, escape(_cut(line))
                )
            )
        parts.append(Markup("</g></a>"))
    return Markup("\n").join([*parts, Markup("</svg>")])


LONGEST = 21
"""Characters of a line that fit into a box."""


def _cut(line: str) -> str:
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"


FILLS = {
    "experiment": "#eceff3", "dft": "#f6ecd8", "dataset": "#f6ecd8", "trajectory": "#e6f0e8", "potential": "#dfeefa",
    "updates": "#dfeefa", "report": "#efe6f7",
}  # fmt: skip
OUTLINE = "#566170"
PIXELS_PER_INCH = 96


def draw(
    potential: PotentialData,
    validation: ProcessNode | None,
    path: Path,
    *,
    force: bool = False,
    style: Path | None = None,
) -> Path:
    """Draw the lineage of a potential into a file.

    Args:
        potential: The potential.
        validation: The run that confirmed it; None for none.
        path: The file; its suffix is the format.
        force: Replace a file that exists.
        style: Settings of matplotlib over those of the package.

    Returns:
        The path.

    Raises:
        ValueError: for a file that exists, or another suffix.
    """
    suffix = path.suffix.removeprefix(".").lower()
    if suffix not in FORMATS:
        raise ValueError(f"{path} ends with {path.suffix!r}; give a file that ends with .svg, .pdf or .png")
    if path.exists() and not force:
        raise ValueError(f"{path} exists; give --force to replace it, or another name")
    graph = skeleton(potential, validation)
    with Look(style=style).applied():
        figure = _figure(graph)
        figure.savefig(path, format=suffix)
    return path


def _figure(graph: Skeleton) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

    width, height = size(graph)
    figure = Figure(figsize=(width / PIXELS_PER_INCH, height / PIXELS_PER_INCH))
    figure.set_layout_engine("none")
    FigureCanvasAgg(figure)
    axis = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axis.set(xlim=(0, width), ylim=(height, 0))
    axis.set_axis_off()
    for start, end in graph.arrows:
        tail, head = _ends(graph.boxes[start], graph.boxes[end])
        arrow = FancyArrowPatch(
            tail, head, arrowstyle="-|>", mutation_scale=8, color=OUTLINE, lw=0.9, shrinkA=0, shrinkB=0
        )
        axis.add_patch(arrow)
    for box in graph.boxes:
        x, y = _corner(box)
        for sheet in range(SHEETS - 1, -1, -1) if box.is_stack else (0,):
            corner = (x + STACKED * sheet + 4, y + STACKED * sheet + 4)
            axis.add_patch(
                FancyBboxPatch(
                    corner, WIDTH - 8, HEIGHT - 8, boxstyle="round,pad=4,rounding_size=6", facecolor=FILLS[box.kind],
                    edgecolor=OUTLINE, lw=0.8,
                )
            )  # fmt: skip
        lines = [box.title, *(detail for detail in box.details if detail)]
        first = y + HEIGHT / 2 - 8 * (len(lines) - 1)
        for number, line in enumerate(lines):
            axis.text(
                x + WIDTH / 2, first + 16 * number, _cut(line), ha="center", va="center", parse_math=False,
                fontweight="bold" if number == 0 else "normal",
            )  # fmt: skip
    return figure
