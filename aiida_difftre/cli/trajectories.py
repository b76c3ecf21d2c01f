"""Trajectories of other programs from the command line: options, and where they go."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from aiida_difftre.cli.parameters import NUMBER

_FORMATS = ("extxyz", "traj", "lammps", "cp2k", "vasp-xml", "vasp-xdatcar")

_OPTIONS = (
    click.option("--temperature", required=True, help="At which it was sampled: 300 (K), 300K or 22degC."),
    click.option("--pressure", help="That a barostat held, in GPa or with a unit: 1bar; none at constant volume."),
    click.option(
        "--log",
        "logs",
        multiple=True,
        type=click.Path(path_type=Path),
        help="With energies, or cells: the log of LAMMPS, .ener and .cell of CP2K, OSZICAR.",
    ),
    click.option("--format", type=click.Choice(_FORMATS), help="Where name and content do not tell."),
    click.option("--units", help="Style of units of LAMMPS, such as metal or real, where no file says it."),
    click.option("--species", help="Elements of the types of LAMMPS, such as 1=Cu,2=O, for a dump without element."),
    click.option("--cell", help="Three lengths or nine numbers in Å, for CP2K without a .cell file."),
    click.option("--interval-fs", type=NUMBER, help="Time between two frames, where the files do not say it."),
    click.option("--equilibration-fs", type=NUMBER, help="Time to leave out at the beginning; found by default."),
    click.option(
        "--energies",
        type=click.Choice(["file", "start"]),
        default="file",
        help="Of the files; or start: they have none, and the potential that a refinement starts from has sampled them "
        "and gives them.",
    ),
    click.option(
        "--key", "keys", multiple=True, help="energy=NAME or stress=NAME in extended XYZ, where it is an unusual one."
    ),
)
"""Of ``trajectory import``."""


def import_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say what files of trajectories do not."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def read(files: tuple[Path, ...], options: dict[str, Any]) -> Any:
    """The trajectory in files.

    Args:
        files: Files of one system, each of them a run of its own.
        options: Options of :func:`import_options`.

    Returns:
        What was imported.

    Raises:
        ValueError: naming what is missing or wrong.
    """
    from aiida_difftre.cli.targets import pairs
    from aiida_difftre.engine.contract.validation import validate
    from aiida_difftre.engine.tables.units import quantity
    from aiida_difftre.engine.trajectories.importing import ImportSettings, import_trajectory

    given = {name: value for name, value in options.items() if value not in (None, ()) and name != "logs"}
    for name, unit in (("temperature", "K"), ("pressure", "GPa")):
        if name in given:
            try:
                given[name] = quantity(given[name], unit)
            except ValueError as error:
                raise ValueError(f"--{name}: {error}") from None
    if "species" in given:
        given["species"] = pairs("--species", given["species"].split(","))
    if "keys" in given:
        given["keys"] = pairs("--key", given["keys"])
    if "cell" in given:
        try:
            given["cell"] = [float(word) for word in given["cell"].replace(",", " ").split()]
        except ValueError:
            raise ValueError(f"--cell is {given['cell']!r}; give three lengths or nine numbers in Å") from None
    return import_trajectory(files, options["logs"], validate(ImportSettings, given))


def write(imported: Any, path: Path, force: bool) -> Path:
    """Write a trajectory as the engine reads it.

    Raises:
        ValueError: for a file that exists, unless forced.
    """
    from aiida_difftre.engine.contract.trajectories import write_trajectory

    if path.exists() and not force:
        raise ValueError(f"{path} exists; give another name, or --force")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_trajectory(path, imported.trajectory)
    return path
