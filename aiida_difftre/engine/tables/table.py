"""Tables of numbers as experimenters publish them: comma, semicolon, tab or white space, with comments. Free of JAX."""

from __future__ import annotations

import codecs
import csv
import hashlib
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aiida_difftre.engine.contract.documents import read_bytes
from aiida_difftre.engine.contract.numbers import DECIMAL_COMMA

COMMENTS = ("#", "!", "%", ";", "//")
"""What a line that is left out begins with."""

LONGEST_LINE = 100_000
"""Characters, of a line that is taken for the row of a table."""

_PROJECT = "a compressed file, such as a project of Athena: open it there and save χ(k) as a text file"

NO_TEXT = {
    b"\x1f\x8b": _PROJECT,
    b"BZh": "a compressed file; unpack it",
    b"# Athena project file": "a project of Athena, no table: open it there and save χ(k) as a text file",
    b"PK\x03\x04": "a spreadsheet or an archive; save the table as CSV",
    b"\xd0\xcf\x11\xe0": "a spreadsheet; save the table as CSV",
    b"\x89HDF": "an HDF5 file; write its curve as columns of text",
    b"\x89PNG": "a picture; a target needs the numbers",
    b"%PDF": "a PDF; a target needs the numbers",
}
"""What a file is that begins with these bytes, and what to do with it."""

CONTROL = re.compile(r"[\x00-\x08\x0e-\x19\x1b-\x1f\x7f]")
"""Characters that no text holds."""

PATH_OF_FEFF = "real[p]@#"
"""In the header of a file ``feffNNNN.dat``."""

START_OF_DATA = re.compile(r"\s*#+\s*start data\b", re.IGNORECASE)
"""The line after which PDFgetX and PDFgetN write the numbers."""

ASSIGNMENT = re.compile(r"\s*(\[.*\]\s*$|[A-Za-z][^=:,;]*[=:])")
"""A section of a header, or a line of it that gives a name a value."""

COMMENT_SIGNS = re.compile(r"^\s*(#L\s|[#!%;/]+)")

LABEL_UNIT = re.compile(r"[(\[]([^()\[\]]+)[)\]]\s*$")
"""The unit at the end of a column's name, as in ``r (nm)``."""


@dataclass(frozen=True)
class Table:
    """The cells of a table, as text, with the names of its columns.

    Args:
        name: Name of the file.
        digest: SHA-256 of its bytes, hexadecimal.
        header: Names of the columns; empty where there are none.
        rows: Cells of each row.
        lines: Number of each row's line in the file, from 1.
        notes: What was peculiar in reading the file, in words.

    Example:
        >>> from aiida_difftre.engine.tables.table import Table
        >>> table = Table("rdf.csv", "0" * 64, ("r (nm)", "g"), (("0.25", "1.5"), ("0.30", "0.9")), (2, 3))
        >>> table.numbers({"distance": "r", "rdf": "2"})["distance"].tolist(), table.label_unit("r")
        ([0.25, 0.3], 'nm')
    """

    name: str
    digest: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[int, ...]
    notes: tuple[str, ...] = ()

    def index(self, column: str) -> int:
        """Find a column by its name, or by its number from 1; a name that is a number is a name.

        Args:
            column: Name or number.

        Returns:
            Index of the column, from 0.

        Raises:
            ValueError: Where there is no such column; the message lists those that there are.
        """
        if column in self.header:
            if self.header.count(column) > 1:
                raise ValueError(f"{self.name}: the name {column!r} stands over several columns; give its number")
            return self.header.index(column)
        plain = [LABEL_UNIT.sub("", name).strip() for name in self.header]
        if plain.count(column) == 1:
            return plain.index(column)
        width = max(len(row) for row in self.rows)
        if column.isdecimal() and 1 <= int(column) <= width:
            return int(column) - 1
        named = f", called {', '.join(self.header)}" if self.header else " without names"
        raise ValueError(f"{self.name}: no column {column!r}; there are {width} columns{named}")

    def label_unit(self, column: str) -> str | None:
        """Read the unit at the end of a column's name, as in ``r (nm)`` or ``Q($nm^{-1}$)``.

        Args:
            column: Name or number.

        Returns:
            The unit; None where there is none.
        """
        index = self.index(column)
        found = LABEL_UNIT.search(self.header[index]) if index < len(self.header) else None
        return None if found is None else re.sub(r"[${}\\]", "", found[1].replace(r"\AA", "A")).strip()

    def where(self, conditions: Mapping[str, str]) -> Table:
        """Choose the rows whose cells agree with all conditions, as numbers or as text.

        Args:
            conditions: Wanted cell by column.

        Returns:
            A table of these rows.

        Raises:
            ValueError: Where no row is left.
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
        """Read the numbers in columns; rows at the end in which all of these are empty are left out.

        Args:
            columns: Name or number of a column, by what it is to be called.

        Returns:
            The numbers by name, (rows,).

        Raises:
            ValueError: For a cell that is missing, not a number or not finite; the message names its line.
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
                if DECIMAL_COMMA.fullmatch(cell):
                    problem = f"{cell!r} is no number; give decimal points throughout, or decimal commas throughout"
                raise ValueError(f"{where}: {problem}")
            if not math.isfinite(number):
                raise ValueError(f"{where} is {cell}; remove the row or give a number")
            yield number


MOST_ROWS = 20_000
"""Of a table: a curve has hundreds to thousands of points."""


def read_table(path: str | Path) -> Table:
    r"""Read a table of numbers as experimenters publish them.

    Cells are separated by tabs, semicolons or commas where the first row of numbers has one, else by white space.
    Numbers may have decimal commas where commas separate no cells. Lines that begin with a comment sign are left out,
    and so is all above a line ``start data`` and, above the numbers, what assigns a value to a name. Names of columns
    are the first line of cells above the numbers that has a name for each column, or else the last comment above them.

    Args:
        path: The file.

    Returns:
        The table.

    Raises:
        ValueError: For a file that is not text or holds no numbers.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from aiida_difftre.engine.tables.table import read_table
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "rdf.txt")
        ...     _ = path.write_text("# neutrons, 90 K\n# r g\n2.5 0.1\n3.0 0.4\n", encoding="utf-8")
        ...     table = read_table(path)
        >>> table.header, table.numbers({"g": "g"})["g"].tolist()
        (('r', 'g'), [0.1, 0.4])
    """
    source = Path(path)
    content = read_bytes(source)
    text, notes = _decoded(content, source.name)
    everything = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    for number, line in everything:
        if len(line) > LONGEST_LINE:
            raise ValueError(f"{source.name}, line {number} has {len(line)} characters: this is no table")
    lines = _without_header(everything)
    separator = next((found for _, line in lines if (found := _separator(line)) is not None), None)
    if separator is None:
        raise ValueError(f"{source.name} holds no table: no line has a number in it")
    cells = [(number, _split(line, separator)) for number, line in lines]
    if _has_decimal_commas(cells, separator):
        cells = [(number, tuple(_with_point(cell) for cell in row)) for number, row in cells]
        notes.append("decimal commas")
    first = next(row for row, (_, found) in enumerate(cells) if any(_number(cell) is not None for cell in found))
    data = cells[first:]
    if len(data) > MOST_ROWS:
        raise ValueError(f"{source.name} has {len(data)} rows; at most {MOST_ROWS} are read: thin it out")
    width = max(len(found) for _, found in data)
    headings = [line for _, line in lines[:first]] + _last_comment(everything, data[0][0])
    names = next((words for line in headings if (words := _names(line, separator, width))), ())
    return Table(
        name=source.name,
        digest=hashlib.sha256(content).hexdigest(),
        header=names,
        rows=tuple(found for _, found in data),
        lines=tuple(number for number, _ in data),
        notes=tuple(notes),
    )


def _decoded(content: bytes, name: str) -> tuple[str, list[str]]:
    """The text of a file, and how it was encoded where that is not UTF-8."""
    for signature, problem in NO_TEXT.items():
        if content.startswith(signature):
            raise ValueError(f"{name} is {problem}")
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding, notes = "utf-16", ["read as UTF-16"]
    else:
        encoding, notes = "utf-8-sig", []
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        # Every byte is a character of Latin-1; the control characters below tell pictures from text.
        text, notes = content.decode("latin-1"), ["read as Latin-1"]
    found = CONTROL.search(text)
    if found is not None:
        line = text.count("\n", 0, found.start()) + 1
        raise ValueError(f"{name} is no text: line {line} has the character {found[0]!r}; save it as plain text")
    if PATH_OF_FEFF in text:
        raise ValueError(
            f"{name} is a scattering path that FEFF computed, no measurement; `aiida-difftre feff` makes the table of "
            "paths, and a target takes a measured χ(k)"
        )
    return text, notes


def _without_header(lines: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """The lines that may belong to the table."""
    starts = [index for index, (_, line) in enumerate(lines) if START_OF_DATA.match(line)]
    kept = [(number, line) for number, line in lines[starts[-1] + 1 if starts else 0 :] if not _is_comment(line)]
    pure = next((index for index, (_, line) in enumerate(kept) if _is_row(line)), 0)
    return [one for index, one in enumerate(kept) if index >= pure or not ASSIGNMENT.match(one[1])]


def _is_comment(line: str) -> bool:
    return line.lstrip().startswith(COMMENTS)


def _is_row(line: str) -> bool:
    """Whether a line holds nothing but numbers, two at least."""
    separator = _separator(line)
    cells = () if separator is None else _split(line, separator)
    return len(cells) > 1 and all(_number(_with_point(cell)) is not None for cell in cells)


def _last_comment(lines: list[tuple[int, str]], first: int) -> list[str]:
    """The last comment above the first row that has a word in it, without signs by which programs find it."""
    comments = [COMMENT_SIGNS.sub("", line).strip() for number, line in lines if number < first and _is_comment(line)]
    words = [line.removesuffix("@#") for line in comments if any(character.isalpha() for character in line)]
    return words[-1:]


def _names(line: str, separator: str, width: int) -> tuple[str, ...]:
    """The cells of a line where it names each column; between white space a name may hold single spaces."""
    candidates = [_split(line, separator)]
    if separator == " ":
        candidates.append(tuple(re.split(r"\s{2,}", line.strip())))
    for cells in candidates:
        if len(cells) == width and all(cells) and all(_number(cell) is None for cell in cells):
            return cells
    return ()


def _separator(line: str) -> str | None:
    """What separates the cells of a line that has a number in it; None for another line."""
    for separator in ("\t", ";"):
        found = _split(line, separator)
        if len(found) > 1 and any(_number(_with_point(cell)) is not None for cell in found):
            return separator
    words = line.split()
    if len(words) > 1 and "," in line and all(_number(_with_point(word)) is not None for word in words):
        return " "
    for separator in (",", " "):
        found = _split(line, separator)
        if (separator == " " or len(found) > 1) and any(_number(cell) is not None for cell in found):
            return separator
    return None


def _has_decimal_commas(rows: list[tuple[int, tuple[str, ...]]], separator: str) -> bool:
    """Whether commas separate no cells, and no number has a decimal point."""
    cells = [cell for _, row in rows for cell in row]
    return (
        separator != ","
        and any(DECIMAL_COMMA.fullmatch(cell) for cell in cells)
        and not any("." in cell and _number(cell) is not None for cell in cells)
    )


def _with_point(cell: str) -> str:
    return cell.replace(",", ".") if DECIMAL_COMMA.fullmatch(cell) else cell


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
