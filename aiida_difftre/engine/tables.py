"""Tables of numbers as experimenters publish them: comma, semicolon, tab or white space, with comments. Free of JAX."""

from __future__ import annotations

import csv
import hashlib
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aiida_difftre.engine.documents import read_bytes

COMMENTS = ("#", "!", "%", ";", "//")
"""What a line that is left out begins with."""

LONGEST_LINE = 100_000
"""Characters, of a line that is taken for the row of a table."""


@dataclass(frozen=True)
class Table:
    """The cells of a table, as text.

    Args:
        name: of the file.
        digest: SHA-256 of its bytes, hexadecimal.
        header: names of the columns; empty where there are none.
        rows: of cells.
        lines: number of each row's line in the file, from 1.
    """

    name: str
    digest: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[int, ...]

    def index(self, column: str) -> int:
        """Where a column is, by its name or by its number from 1; a name that is a number is a name.

        Raises:
            ValueError: naming the columns that there are.
        """
        if column in self.header:
            if self.header.count(column) > 1:
                raise ValueError(f"{self.name}: the name {column!r} stands over several columns; give its number")
            return self.header.index(column)
        width = max(len(row) for row in self.rows)
        if column.isdecimal() and 1 <= int(column) <= width:
            return int(column) - 1
        named = f", called {', '.join(self.header)}" if self.header else " without names"
        raise ValueError(f"{self.name}: no column {column!r}; there are {width} columns{named}")

    def where(self, conditions: Mapping[str, str]) -> Table:
        """The rows whose cells agree with all conditions, as numbers or as text.

        Args:
            conditions: wanted cell by column.

        Raises:
            ValueError: where no row is left.
        """
        chosen = range(len(self.rows))
        for column, wanted in conditions.items():
            index = self.index(column)
            chosen = [row for row in chosen if _agree(self._cell(row, index), wanted)]  # type: ignore[assignment]
            if not chosen:
                held = ", ".join(dict.fromkeys(self._cell(row, index) for row in range(len(self.rows))))
                raise ValueError(f"{self.name}: no row has {wanted!r} in column {column!r}; there are {held:.200}")
        return replace(
            self, rows=tuple(self.rows[row] for row in chosen), lines=tuple(self.lines[row] for row in chosen)
        )

    def numbers(self, columns: Mapping[str, str]) -> dict[str, NDArray[np.float64]]:
        """The numbers in columns; rows at the end in which all of these are empty are left out.

        Args:
            columns: name or number of a column, by what it is to be called.

        Raises:
            ValueError: naming the line of a cell that is missing, not a number or not finite.
        """
        indices = {name: self.index(column) for name, column in columns.items()}
        count = len(self.rows)
        while count and not any(self._cell(count - 1, index) for index in indices.values()):
            count -= 1
        return {name: np.array(list(self._column(index, name, count))) for name, index in indices.items()}

    def _cell(self, row: int, index: int) -> str:
        cells = self.rows[row]
        return cells[index] if index < len(cells) else ""

    def _column(self, index: int, name: str, count: int) -> Iterator[float]:
        for row in range(count):
            cell = self._cell(row, index)
            where = f"{self.name}, line {self.lines[row]}, column {index + 1} ({name})"
            number = _number(cell)
            if number is None:
                problem = f"{cell!r} is no number; text belongs behind a #" if cell else "the cell is empty"
                raise ValueError(f"{where}: {problem}")
            if not math.isfinite(number):
                raise ValueError(f"{where} is {cell}; remove the row or give a number")
            yield number


def read_table(path: str | Path) -> Table:
    """Read a table.

    Cells are separated by tabs, semicolons or commas where the first row of numbers has one, else by white space. Lines
    that begin with a comment sign are left out. Names of columns are the first line of cells above the numbers that has
    a name for each column.

    Raises:
        ValueError: for a file that is not text or holds no numbers.
    """
    source = Path(path)
    content = read_bytes(source)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{source.name} is no text in UTF-8: {error.reason} at byte {error.start}") from None
    lines = [
        (number, line)
        for number, line in enumerate(text.splitlines(), 1)
        if line.strip() and not line.lstrip().startswith(COMMENTS)
    ]
    for number, line in lines:
        if len(line) > LONGEST_LINE:
            raise ValueError(f"{source.name}, line {number} has {len(line)} characters: this is no table")
    separator = next((found for _, line in lines if (found := _separator(line)) is not None), None)
    if separator is None:
        raise ValueError(f"{source.name} holds no table: no line has a number in it")
    cells = [(number, _split(line, separator)) for number, line in lines]
    first = next(row for row, (_, found) in enumerate(cells) if any(_number(cell) is not None for cell in found))
    data = cells[first:]
    width = max(len(found) for _, found in data)
    names: tuple[str, ...] = ()
    for _, above in cells[:first]:
        if not names and all(above) and len(above) == width:
            names = above
    return Table(
        name=source.name,
        digest=hashlib.sha256(content).hexdigest(),
        header=names,
        rows=tuple(found for _, found in data),
        lines=tuple(number for number, _ in data),
    )


def _separator(line: str) -> str | None:
    """What separates the cells of a line that has a number in it; None for another line."""
    for separator in ("\t", ";", ",", " "):
        found = _split(line, separator)
        if (separator == " " or len(found) > 1) and any(_number(cell) is not None for cell in found):
            return separator
    return None


def _split(line: str, separator: str) -> tuple[str, ...]:
    if separator == " ":
        return tuple(line.split())
    (cells,) = csv.reader([line], delimiter=separator, skipinitialspace=True)
    stripped = [cell.strip() for cell in cells]
    while len(stripped) > 1 and not stripped[-1]:
        stripped.pop()
    return tuple(stripped)


def _number(cell: str) -> float | None:
    """The number in a cell, with an exponent as Fortran writes it too; None where there is none."""
    try:
        return float(re.sub(r"(?<=[\d.])[dD](?=[+-]?\d)", "e", cell.replace("_", "?")))
    except ValueError:
        return None


def _agree(cell: str, wanted: str) -> bool:
    numbers = (_number(cell), _number(wanted))
    return cell == wanted or (numbers[0] is not None and numbers[0] == numbers[1])
