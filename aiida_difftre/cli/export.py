"""Potentials for other programs: the engine's own command, on the file of a node."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ase.io
import click

from aiida_difftre.cli.parameters import FILE, NUMBER
from aiida_difftre.engine.contract.exports import FORMATS, PLATFORMS

if TYPE_CHECKING:
    from aiida.orm import Node
    from ase import Atoms

    from aiida_difftre.data.potential import PotentialData

WITH_STRUCTURE = ("lammps", "ipi")

OPTIONS = (
    click.option(
        "--structure", type=FILE, help="Structure to simulate, for lammps and ipi; of a run its own first cell."
    ),
    click.option("--inner", type=NUMBER, help="Shortest distance of tables, Å; where pairs have 1000 eV by default."),
    click.option("--points", type=int, help="Points of a table; as many as make forces right to 2e-10 by default."),
    click.option("--atoms", type=int, help="Atoms, ghosts included, that lammps-jax has room for; 4096 by default."),
    click.option("--neighbors", type=int, help="Neighbours of an atom that it has room for; 128 by default."),
    click.option("--platform", type=click.Choice(PLATFORMS), help="Processor for lammps-jax; cuda by default."),
    click.option("--without-base", is_flag=True, help="The correction alone, to add to its base somewhere else."),
)


def export_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of an export, and for which program it is."""
    for option in reversed(OPTIONS):
        command = option(command)
    return click.option(
        "--to", type=click.Choice(FORMATS), help="Write a folder for a program, or tables, and not the file."
    )(command)


def export(
    node: PotentialData,
    to: str,
    output: Path | None,
    force: bool,
    options: Mapping[str, Any],
    cell: Atoms | None = None,
) -> Path:
    """Write a folder with which another program uses a potential; returns its path.

    It is a command of the engine, in a process of its own: this side imports no JAX.

    Args:
        node: The potential.
        to: The program, of :data:`FORMATS`.
        output: The folder; None for one that is named after the node.
        force: Replace files of a folder.
        options: Of the engine's command.
        cell: What to simulate where ``options`` names no structure; for the programs that take one.

    Raises:
        ValueError: with what the engine says.
    """
    folder = output or Path(f"potential-{node.pk}-{to}")
    with tempfile.TemporaryDirectory() as place:
        file = Path(place, "potential.safetensors")
        node.to_file(file)
        words = [sys.executable, "-m", "aiida_difftre.engine.cli", "export", file, "--to", to, "--output", folder]
        if cell is not None and to in WITH_STRUCTURE and options.get("structure") is None:
            ase.io.write(Path(place, "cell.extxyz"), cell)
            options = {**options, "structure": Path(place, "cell.extxyz")}
        for name, value in {"force": force, **options}.items():
            if value is not None and value is not False:
                words += [f"--{name.replace('_', '-')}", *([] if value is True else [value])]
        result = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    if result.returncode:
        message = (result.stderr.strip().splitlines() or ["the engine ended without a message"])[-1]
        raise ValueError(message.removeprefix("difftre export: "))
    return folder


def first_cell(node: Node) -> Atoms | None:
    """The simulation cell of the first state point of a run; None for another node."""
    from aiida.orm import ProcessNode

    from aiida_difftre.cli.snapshots import inputs_of

    points = inputs_of(node).get("state_points", {}) if isinstance(node, ProcessNode) else {}
    return next((point["structure"].get_ase() for point in points.values()), None)


def refuse_without_format(options: Mapping[str, Any]) -> None:
    """Refuse options of exports where only the file is written.

    Raises:
        click.UsageError: naming the option.
    """
    for name, value in options.items():
        if value is not None and value is not False:
            raise click.UsageError(f"--{name.replace('_', '-')} goes together with --to")
