"""Two renderings of the lineage of a potential: SVG for a page, and a figure file by matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiida_difftre.cli.skeleton import Box, Skeleton

if TYPE_CHECKING:
    from markupsafe import Markup

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
