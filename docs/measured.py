"""Draw what a page of a system says in a table: experiment, before and after refinement, a panel for each observable.

    python docs/measured.py PAGE PATH --before NAME --after NAME [--experiment NAME]

NAME is the heading of a column, or the first cell of a row, of the first table of docs/systems/PAGE.md with all three.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

SYSTEMS = Path(__file__).parent / "systems"
NUMBER = re.compile(r"(-?\d+(?:\.\d+)?)(?:\s*±\s*(\d+(?:\.\d+)?))?")
MOST = 6
BEFORE, AFTER = "#d55e00", "#0072b2"


def tables(text: str) -> Iterator[list[list[str]]]:
    """The tables of a page in Markdown, as rows of cells."""
    for found in re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE):
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in found.splitlines()]
        yield [row for row in rows if not all(re.fullmatch(r":?-+:?", cell) for cell in row)]


def series(text: str, names: list[str]) -> dict[str, list[tuple[float, float] | None]]:
    """Values and errors of the named columns, or rows, by observable.

    Raises:
        ValueError: where no table has them all.
    """
    for table in tables(text):
        for rows in (
            table,
            [list(column) for column in zip(*table, strict=True)] if len({*map(len, table)}) == 1 else [],
        ):
            if rows and all(name in rows[0] for name in names):
                places = [rows[0].index(name) for name in names]
                return {row[0]: [_number(row[place]) for place in places] for row in rows[1:] if row[0]}
    raise ValueError(f"no table has {', '.join(names)}")


def _number(cell: str) -> tuple[float, float] | None:
    match = NUMBER.match(cell.replace("−", "-"))
    return None if match is None else (float(match[1]), float(match[2] or 0))


def draw(page: str, path: Path, experiment: str, before: str, after: str) -> None:
    """One panel for each observable that has all three values."""
    found = series((SYSTEMS / f"{page}.md").read_text(encoding="utf-8"), [experiment, before, after])
    shown = {name: values for name, values in found.items() if None not in values and "χ²" not in name}
    names = list(shown)[:MOST]
    figure, panels = plt.subplots(
        1, len(names), figsize=(1.35 * len(names) + 0.3, 2.4), layout="constrained", squeeze=False
    )
    for axes, name in zip(panels[0], names, strict=True):
        measured, *computed = (value for value in shown[name] if value is not None)
        axes.axhline(measured[0], color="black", linestyle="--", linewidth=1)
        for place, (value, error), color in zip((0, 1), computed, (BEFORE, AFTER), strict=True):
            axes.errorbar([place], [value], [error], fmt="o", color=color, capsize=3, markersize=6)
        axes.set_xlim(-0.6, 1.6)
        axes.set_xticks([0, 1], ["before", "after"], fontsize=7)
        axes.margins(y=0.25)
        axes.tick_params(axis="y", labelsize=7)
        title, _, unit = re.sub(r"\s*\((?:test|held out)\)|, test", "", name).partition(" / ")
        axes.set_title(f"{title.split(' at ')[0].removeprefix('volumetric ')}\n{unit}", fontsize=8)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page")
    parser.add_argument("path", type=Path)
    parser.add_argument("--before", required=True)
    parser.add_argument("--after", required=True)
    parser.add_argument("--experiment", default="experiment")
    given = parser.parse_args()
    draw(given.page, given.path, given.experiment, given.before, given.after)


if __name__ == "__main__":
    main()
