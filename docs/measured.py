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

from aiida_difftre.cli import words
from aiida_difftre.cli.look import Look

SYSTEMS = Path(__file__).parent / "systems"
NUMBER = re.compile(r"(-?\d+(?:\.\d+)?)(?:\s*±\s*(\d+(?:\.\d+)?))?")
CONDITION = re.compile(r"\d+ (?:K|bar)\b")
POWER = re.compile(r"1e(-?\d+) ")
SYMBOLS = {"expansion": "α"}
MOST_PANELS = 12
PANELS_IN_ROW = 6


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
    names = list(shown)[:MOST_PANELS]
    down = -(-len(names) // PANELS_IN_ROW)
    across = -(-len(names) // down)
    with Look().applied():
        before_color, after_color = plt.rcParams["axes.prop_cycle"].by_key()["color"][:2]
        figure, panels = plt.subplots(
            down, across, figsize=(1.35 * across + 0.3, 2.3 * down), layout="constrained", squeeze=False
        )
        for axes in panels.flat[len(names) :]:
            axes.set_visible(False)
        for axes, name in zip(panels.flat, names, strict=False):
            (measured, error), *computed = (value for value in shown[name] if value is not None)
            if error:
                axes.axhspan(measured - error, measured + error, color="0.88", linewidth=0)
            axes.axhline(measured, color="0.25", linestyle="--", linewidth=1)
            for place, (value, error), color in zip((0, 1), computed, (before_color, after_color), strict=True):
                axes.errorbar([place], [value], [error], fmt="o", color=color)
            axes.set_xlim(-0.6, 1.6)
            axes.set_xticks([0, 1], ["before", "after"])
            axes.margins(y=0.25)
            axes.set_title(_title(name), fontsize="medium")
        figure.savefig(path, dpi=200)
    plt.close(figure)


def _title(name: str) -> str:
    """The first cell of a row as a title: symbol and unit, and the temperature or pressure in a second line."""
    title, _, unit = re.sub(r"\s*\((?:test|held out)\)|, test", "", name).partition(" / ")
    where = CONDITION.search(title)
    quantity = re.split(r" at |, ", title)[0].removeprefix("volumetric ")
    power = POWER.match(unit)
    scale = f"10{power[1].translate(words.SUPERSCRIPTS)} " if power else ""
    label = f"{words.symbol(SYMBOLS.get(quantity, quantity))} / {scale}{words.unit(POWER.sub('', unit))}"
    return label + (f"\n{where[0]}" if where else "")


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
