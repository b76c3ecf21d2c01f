"""Arguments and options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from aiida_difftre.engine.contract.base import SEEDS
from aiida_difftre.engine.contract.documents import check_regular
from aiida_difftre.engine.contract.numbers import read_number


class RegularFile(click.Path):
    """A file that exists: no folder, and no pipe or device, from which a reader might wait for ever."""

    def __init__(self) -> None:
        super().__init__(exists=True, dir_okay=False, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path."""
        path: Any = super().convert(value, param, ctx)
        try:
            check_regular(path)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return path


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
