"""Commands that show what a run did, or is doing, and what came out of it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from aiida_difftre.cli import completion
from aiida_difftre.cli.failures import complaints
from aiida_difftre.cli.nodes import load, node_called, run_called
from aiida_difftre.cli.parameters import FILE, FOLDER, NUMBER


@click.command("status")
@click.argument("run", metavar="[RUN]", required=False, shell_complete=completion.runs)
@click.option("--once", is_flag=True, help="Show the present state and return.")
@click.pass_obj
def status_command(profile: str | None, run: str | None, once: bool) -> None:
    """Show the live picture of RUN: a PK, a UUID or a label; without it, the newest runs."""
    with complaints():
        from aiida_difftre.cli.demo import conclude, console, waiting, watch

        name = load(profile)
        if run is None:
            from aiida_difftre.cli.questions import table
            from aiida_difftre.cli.runs import newest

            found = newest()
            for line in table(found) if found else ["no run yet; `aiida-difftre run FILE` begins one"]:
                click.echo(line)
            return
        out = console()
        snapshot = watch(run_called(run), out, until_over=not once)
        if snapshot.is_over:
            conclude(snapshot, out, None, name)
        else:
            for line in waiting(snapshot, name):
                click.echo(line)


@click.command("report")
@click.argument("run", metavar="RUN", shell_complete=completion.runs)
@click.option(
    "--html", "page", type=click.Path(dir_okay=False, path_type=Path), help="Write everything to this file, as a page."
)
@click.option("-f", "--force", is_flag=True, help="Replace a file that exists.")
@click.pass_obj
def report_command(profile: str | None, run: str, page: Path | None, force: bool) -> None:
    """Show the validation of RUN (a PK, a UUID or a label): experiment, DFT, before, after."""
    if force and page is None:
        raise click.UsageError("--force goes together with --html")
    with complaints():
        from aiida_difftre.cli.demo import console, show_report
        from aiida_difftre.cli.snapshots import take

        load(profile)
        if page is not None:
            from aiida_difftre.cli.page import write_page

            size = write_page(run_called(run), page, force=force)
            click.echo(f"wrote {page}, {size / 1e6:.1f} MB; any browser shows it")
            return
        show_report(take(run_called(run)), console())


@click.command("advise")
@click.argument("run", metavar="RUN", shell_complete=completion.runs)
@click.option(
    "-c",
    "--candidate",
    "texts",
    multiple=True,
    help="A measurement that could be made, OBSERVABLE@STATE_POINT:ERROR, such as stiffness@solid:5; again for more.",
)
@click.option("--candidates", "file", type=FILE, help="A YAML file with a list of them: name, observable, grid, ...")
@click.option("--prior-width", type=NUMBER, help="How well energies are known beforehand, kT per atom; 1 by default.")
@click.pass_obj
def advise_command(
    profile: str | None, run: str, texts: tuple[str, ...], file: Path | None, prior_width: float | None
) -> None:
    """Tell what the targets of RUN determine of its potential, what they leave open, and what would tell most."""
    with complaints():
        from aiida_difftre.cli import advice

        load(profile)
        validation = advice.validation_of(node_called(run))
        candidates = [*map(advice.candidate, texts), *(advice.read_candidates(file) if file else [])]
        advice.check_names(candidates, list(validation.inputs.state_points))
        for line in advice.lines(advice.assess(advice.builder(validation, candidates, prior_width))):
            click.echo(line)


@click.command("plot")
@click.argument("run", metavar="RUN", shell_complete=completion.runs)
@click.option("-o", "--output", type=FOLDER, default=Path(), help="Folder; the current one by default.")
@click.option(
    "--format", "form", type=click.Choice(["png", "pdf", "svg"]), default="png", show_default=True, help="Of the files."
)
@click.option(
    "--columns",
    type=click.IntRange(1, 2),
    default=2,
    show_default=True,
    help="Width in columns of a paper: 8.6, 17.8 cm.",
)
@click.option("--style", type=FILE, help="A style file of matplotlib (.mplstyle) over that of the package.")
@click.pass_obj
def plot_command(
    profile: str | None, run: str, output: Path, form: Literal["png", "pdf", "svg"], columns: int, style: Path | None
) -> None:
    """Draw RUN (a PK, a UUID or a label) for a paper: loss, effective samples, observables, measured curves."""
    with complaints():
        from aiida_difftre.cli.look import Look
        from aiida_difftre.cli.plots import plot as draw
        from aiida_difftre.cli.snapshots import take

        load(profile)
        for path in draw(take(run_called(run)), output, Look(form, columns, style)):
            click.echo(path)


@click.command("lineage")
@click.argument("node", shell_complete=completion.runs)
@click.option(
    "--graph",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Draw it as a small graph instead, into this file: .svg, .pdf or .png.",
)
@click.option("-f", "--force", is_flag=True, help="Replace a file that exists.")
@click.option("--style", type=FILE, help="A style file of matplotlib (.mplstyle) over that of the package.")
@click.pass_obj
def lineage_command(profile: str | None, node: str, graph: Path | None, force: bool, style: Path | None) -> None:
    """Show from what a potential, or that of a run, was made: parameter sets, trajectories, targets, labels."""
    if graph is None and (force or style is not None):
        raise click.UsageError("--force and --style go together with --graph")
    with complaints():
        from aiida_difftre.cli.drawing import draw
        from aiida_difftre.cli.lineage import lines, potential_of
        from aiida_difftre.cli.snapshots import validation_of

        load(profile)
        found = node_called(node)
        if graph is not None:
            click.echo(f"wrote {draw(potential_of(found), validation_of(found), graph, force=force, style=style)}")
            return
        for line in lines(potential_of(found)):
            click.echo(line)


@click.command("compare")
@click.argument("first", shell_complete=completion.runs)
@click.argument("second", shell_complete=completion.runs)
@click.pass_obj
def compare_command(profile: str | None, first: str, second: str) -> None:
    """Show two runs, or two potentials, side by side, and the settings in which they differ."""
    with complaints():
        from aiida_difftre.cli.comparing import compare
        from aiida_difftre.cli.questions import table

        load(profile)
        names = ("", "first", "second")
        lines = [dict(zip(names, line, strict=True)) for line in compare(node_called(first), node_called(second))]
        for text in table(lines):
            click.echo(text)
