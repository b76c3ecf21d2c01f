"""How nodes show themselves in a notebook: a small table in plain HTML, light or dark as the notebook is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from aiida import orm

WIDTH, HEIGHT = 220, 56
"""Of the picture of a curve, pixels."""

MOST_VALUES = 6
"""Values that are written one by one."""


class Markup(str):
    """HTML that was made here, and is not escaped again."""


def table(node: orm.Data, title: str, rows: Iterable[tuple[str, Any]]) -> str:
    """A node as a table.

    Args:
        node: The node.
        title: What it is.
        rows: Names and values; values that are None are left out, and text is escaped.

    Returns:
        HTML.
    """
    name = f"{node.pk}" if node.is_stored else "not stored"
    label = f" {node.label}" if node.label else ""
    lines = [
        f"<tr><th style='text-align:left;vertical-align:top;padding:1px 12px 1px 0'>{escape(key)}</th>"
        f"<td style='text-align:left'>{value if isinstance(value, Markup) else escape(str(value))}</td></tr>"
        for key, value in rows
        if value is not None
    ]
    head = f"<caption style='text-align:left;font-weight:bold'>{escape(title)} &lt;{name}&gt;{escape(label)}</caption>"
    return f"<table style='font-size:90%'>{head}{''.join(lines)}</table>"


def link(doi: str | None) -> Markup | None:
    """A DOI as a link; None for none."""
    return None if doi is None else Markup(f"<a href='https://doi.org/{escape(doi, quote=True)}'>{escape(doi)}</a>")


def curve(grid: Sequence[float], values: Sequence[float]) -> Markup:
    """A curve as a small picture, in the colour of the text.

    Args:
        grid: Abscissa, increasing.
        values: Ordinate.

    Returns:
        SVG.
    """
    low, high = min(values), max(values)
    across, up = (grid[-1] - grid[0]) or 1.0, (high - low) or 1.0
    points = " ".join(
        f"{WIDTH * (x - grid[0]) / across:.1f},{HEIGHT - 2 - (HEIGHT - 4) * (y - low) / up:.1f}"
        for x, y in zip(grid, values, strict=True)
    )
    return Markup(
        f"<svg width='{WIDTH}' height='{HEIGHT}' viewBox='0 0 {WIDTH} {HEIGHT}'>"
        f"<polyline points='{points}' fill='none' stroke='currentColor' stroke-width='1.5'/></svg>"
    )
