"""Groups of commands that store what a file holds, or write what is stored to one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from aiida_difftre.cli import completion
from aiida_difftre.cli.export import export, export_options, first_cell, refuse_without_format
from aiida_difftre.cli.failures import complaints
from aiida_difftre.cli.nodes import load, node_called
from aiida_difftre.cli.parameters import FILE
from aiida_difftre.cli.targets import table_options
from aiida_difftre.cli.trajectories import import_options


@click.group()
def target() -> None:
    """Experimental targets."""


@target.command("list")
@click.option(
    "--system", shell_complete=completion.systems, help="Formula or name, such as Si or silicon; all without."
)
@click.option(
    "--observable", shell_complete=completion.observables, help="Name of an observable, such as stiffness; all without."
)
@click.option("--paths", is_flag=True, help="Also the files, for copies that are changed.")
def target_list(system: str | None, observable: str | None, paths: bool) -> None:
    """Show the catalogue of measurements; `catalogue:SYSTEM/NAME` in an input takes one."""
    with complaints():
        from aiida_difftre.cli.targets import catalogued

        for line in catalogued(system, observable, paths):
            click.echo(line)


@target.command("import")
@click.argument("file", type=FILE)
@click.option("-l", "--label", default="", help="Label of the node, and name of the target in results.")
@table_options
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write YAML instead of a node.")
@click.option("-f", "--force", is_flag=True, help="Replace a file that exists.")
@click.pass_obj
def target_import(
    profile: str | None, /, file: Path, label: str, output: Path | None, force: bool, **options: Any
) -> None:
    """Check the target in FILE, YAML or a table of numbers, and store it.

    A table (comma, semicolon, tab or white space) needs at least --observable, --temperature, --citation, and errors.
    """
    with complaints():
        from aiida_difftre.cli.targets import read, summary, write_target

        found = read(file, label, options)
        for line in summary(found, options["correlated"]):
            click.echo(line)
        if output is not None:
            click.echo(f"wrote {write_target(found, output, force)}")
            return
        load(profile)
        from aiida_difftre.data.stored import the_same
        from aiida_difftre.data.target import TargetData

        node = the_same(TargetData(found, label=label))
        told = "is stored already, as" if node.is_stored else "stored as"
        click.echo(f"target {node.target.name!r}: {told} {node.store().pk}")


@click.group()
def trajectory() -> None:
    """Trajectories of other programs."""


@trajectory.command("import")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
@import_options
@click.option("-l", "--label", help="Label of the node; the name of the first file by default.")
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write a trajectory.npz instead of a node."
)
@click.option("-f", "--force", is_flag=True, help="Replace a file that exists.")
@click.pass_obj
def trajectory_import(
    profile: str | None,
    /,
    files: tuple[Path, ...],
    label: str | None,
    output: Path | None,
    force: bool,
    **options: Any,
) -> None:
    """Check the trajectory in FILE (several are walkers), and store it: the first reference of a refinement.

    Extended XYZ, LAMMPS dumps, XDATCAR or vasprun.xml, CP2K, ASE .traj; FILE@::10 is every tenth frame.
    """
    with complaints():
        from aiida_difftre.cli.trajectories import read, write

        found = read(files, options)
        for line in found.lines():
            click.echo(line)
        if output is not None:
            click.echo(f"wrote {write(found, output, force)}")
            return
        load(profile)
        from aiida_difftre.data.trajectory import TrajectoryEnsembleData

        node = TrajectoryEnsembleData.from_imported(found, label=label or files[0].name).store()
        click.echo(f"stored trajectory {node.label!r} as {node.pk}")


@trajectory.command("fetch")
@click.argument("node")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A file; trajectory-PK.npz by default.",
)
@click.option("-f", "--force", is_flag=True, help="Replace a file that exists.")
@click.pass_obj
def trajectory_fetch(profile: str | None, /, node: str, output: Path | None, force: bool) -> None:
    """Write the whole of a trajectory to a file that `difftre` reads, from its computer where `keep_every` left it."""
    with complaints():
        load(profile)
        from aiida_difftre.data.trajectory import TrajectoryEnsembleData

        named = node_called(node)
        if not isinstance(named, TrajectoryEnsembleData):
            raise ValueError(f"node {named.pk} is a {type(named).__name__}; give a trajectory")
        path = output or Path(f"trajectory-{named.pk}.npz")
        if path.exists() and not force:
            raise ValueError(f"{path} exists; give another name, or --force")
        named.fetch(path)
        click.echo(f"wrote {path}")


@click.group()
def potential() -> None:
    """Potentials."""


@potential.command("export")
@click.argument("node", shell_complete=completion.runs)
@export_options
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="potential-PK.safetensors, or the folder potential-PK-TO."
)
@click.option("-f", "--force", is_flag=True, help="Replace a file that exists, or files of a folder.")
@click.pass_obj
def potential_export(
    profile: str | None, /, node: str, to: str | None, output: Path | None, force: bool, **options: Any
) -> None:
    """Write a potential, or that of a run, to a file that `difftre` and ASE read, or to a folder for another program.

    The folder is ready for LAMMPS, ASE or i-PI; `difftre export --help` says what is in it.
    """
    with complaints():
        from aiida_difftre.cli.data import write
        from aiida_difftre.cli.lineage import potential_of

        if to is None:
            refuse_without_format(options)
        load(profile)
        named = node_called(node)
        found = potential_of(named)
        if to is None:
            written = write(found, output, force)
        else:
            written = export(found, to, output, force, options, first_cell(named))
        click.echo(f"wrote {written}")
