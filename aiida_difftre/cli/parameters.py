"""Arguments and options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from aiida_difftre.engine.contract.base import SEEDS
from aiida_difftre.engine.contract.documents import check_regular
from aiida_difftre.engine.contract.numbers import read_number
from aiida_difftre.engine.errors import did_you_mean, shown


class RegularFile(click.Path):
    """A file that exists: no folder, and no pipe or device, from which a reader might wait for ever."""

    def __init__(self) -> None:
        super().__init__(exists=True, dir_okay=False, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path."""
        if not Path(value).exists():
            self.fail(_missing(Path(value)), param, ctx)
        path: Any = super().convert(value, param, ctx)
        try:
            check_regular(path)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return path


def _missing(path: Path) -> str:
    """That a file is not there, where it was looked for, and the nearest name there."""
    folder = path.parent
    if not folder.is_dir():
        return f"there is no folder {shown(str(folder))}" + ("" if folder.is_absolute() else f" in {Path.cwd()}")
    near = did_you_mean(path.name, [one.name for one in folder.iterdir() if one.is_file()])
    return f"there is no file {shown(path.name)} in {folder.resolve()}{near}"


class Number(click.ParamType):
    """A number, with a decimal point."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number."""
        try:
            return read_number(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


NUMBER = Number()
FILE = RegularFile()
FOLDER = click.Path(file_okay=False, path_type=Path)
SEED = click.option(
    "--seed",
    type=click.IntRange(min=0, max=SEEDS, max_open=True),
    help="Of everything random, in place of that of the input.",
)
