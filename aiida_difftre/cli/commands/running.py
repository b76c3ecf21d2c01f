"""Commands that check an input, start the run that it describes, and go on with one that failed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from aiida_difftre import sqlite
from aiida_difftre.cli import completion
from aiida_difftre.cli.commands.preparing import generate_missing, pseudopotentials, set_up
from aiida_difftre.cli.failures import complaints
from aiida_difftre.cli.nodes import OWN_PROFILE, load, run_called
from aiida_difftre.cli.parameters import FILE, FOLDER, SEED

DRY_RUN = click.option("--dry-run", is_flag=True, help="Check the input and say what it will take; start nothing.")


@click.command("demo")
@click.option("-o", "--output", type=FOLDER, default=Path(), help="Folder of the plots; the current one by default.")
@click.option("--daemon/--no-daemon", default=True, help="Submit to AiiDA's daemon, or run in this process.")
@click.option("--input", "file", type=FILE, help="Another input than that of diamond, quick preset.")
@SEED
@click.pass_obj
def demo_command(profile: str | None, output: Path, daemon: bool, file: Path | None, seed: int | None) -> None:
    """Diamond, from DFT to agreement with experiment, in minutes, with a live display."""
    with complaints():
        from aiida_difftre.workchains.inputs import example

        file = file or example("diamond/quick.yaml")
        set_up(profile, **pseudopotentials(file))
        _go(profile or OWN_PROFILE, file, output=output, seed=seed, in_process=not daemon)


@click.command("check")
@click.argument("file", type=FILE)
@SEED
@click.pass_obj
def check_command(profile: str | None, file: Path, seed: int | None) -> None:
    """Say everything for which FILE would be refused, or what its run will take; nothing is submitted or stored."""
    with complaints():
        load(profile)
        _say_what_it_takes(file, seed)


@click.command("run")
@click.argument("file", type=FILE)
@click.option("-o", "--output", type=FOLDER, help="Folder of plots; none without.")
@SEED
@DRY_RUN
@click.pass_obj
def run_command(profile: str | None, file: Path, output: Path | None, seed: int | None, dry_run: bool) -> None:
    """Do the run that FILE (YAML) describes, in this process, with a live display."""
    with complaints():
        if dry_run:
            load(profile)
            _say_what_it_takes(file, seed)
            return
        _go(load(profile), file, output=output, seed=seed, in_process=True)


@click.command("submit")
@click.argument("file", type=FILE)
@SEED
@DRY_RUN
@click.pass_obj
def submit_command(profile: str | None, file: Path, seed: int | None, dry_run: bool) -> None:
    """Hand the run that FILE (YAML) describes to AiiDA's daemon."""
    with complaints():
        from aiida_difftre.cli.demo import launch
        from aiida_difftre.workchains.from_input import read_builder

        name = load(profile)
        if dry_run:
            _say_what_it_takes(file, seed)
            return
        generate_missing(file)
        builder = read_builder(file, seed=seed)
        _tell(builder)
        pk = launch(builder)
        click.echo(f"submitted {pk}; watch it with: aiida-difftre -p {name} status {pk}")


@click.command("resume")
@click.argument("run", metavar="RUN", shell_complete=completion.runs)
@click.option("-o", "--output", type=FOLDER, help="Folder of plots; none without.")
@click.option("--gone", is_flag=True, help="Say that what did RUN is no more, where this computer cannot see it.")
@click.pass_obj
def resume_command(profile: str | None, run: str, output: Path | None, gone: bool) -> None:
    """Go on with RUN, which failed or was killed, in this process.

    It is a new run with the same inputs, which takes every job that ended well from what is stored, and does the
    others. RUN stays as it is; where the process that did it was ended before it could say so (kill -9, a power
    failure), it counts as killed from then on.
    """
    with complaints():
        from aiida.manage.caching import enable_caching
        from aiida.orm import ProcessNode, load_node

        from aiida_difftre.cli.doer import bury
        from aiida_difftre.cli.resuming import builder_of, stored

        name = load(profile)
        node = load_node(run_called(run))
        builder = builder_of(node, gone=gone)
        assert isinstance(node, ProcessNode)  # or there is no builder
        bury(node)
        done, missing = stored(node)
        click.echo(f"run {node.pk}: {done} calculations are taken as they are, {missing} that did not end well are not")
        with enable_caching():
            _watch(name, builder, output=output, in_process=True)


def _say_what_it_takes(file: Path, seed: int | None) -> None:
    """Check an input as for submission, and show what its run will take; nothing is stored or started.

    Raises:
        click.ClickException: with every reason why the input would be refused.
    """
    from aiida_difftre.cli.checking import examine
    from aiida_difftre.engine.errors import one_line
    from aiida_difftre.workchains import label_counts
    from aiida_difftre.workchains.estimate import lines, thermostat_advice
    from aiida_difftre.workchains.from_input import samplings
    from aiida_difftre.workchains.label_estimate import labels

    found = examine(file, seed)
    builder, plan = found.builder, found.plan
    if found.refusals or builder is None or plan is None:
        raise click.ClickException("\n".join(map(one_line, found.refusals)))
    if (to_label := labels(builder.get("dataset_inputs") or {})) is not None:
        click.echo(to_label)
    for line in [*label_counts.lines(builder._inputs(prune=True)), *lines(plan)]:
        click.echo(line)
    for line in thermostat_advice(found.run, samplings(found.run)):
        click.echo(line)
    _tell(builder)
    click.echo(f"the input is right; nothing was started; next: aiida-difftre run {file}")


def _tell(builder: Any) -> None:
    """Say under which names the labels of a file were found, and what was put around atoms."""
    dataset = builder.get("dataset")
    if dataset is not None and not dataset.is_stored and dataset.description:
        click.echo(f"{dataset.label}: {dataset.description}")
    for label, point in (builder.get("state_points") or {}).items():
        if point["structure"].description and not point["structure"].is_stored:
            click.echo(f"state point {label}: {point['structure'].description}")


def _go(profile: str, file: Path, *, output: Path | None, in_process: bool, seed: int | None = None) -> None:
    """Do the run of an input file."""
    from aiida_difftre.workchains.from_input import read_builder

    load(profile)
    generate_missing(file)
    builder = read_builder(file, seed=seed)
    _tell(builder)
    _watch(profile, builder, output=output, in_process=in_process)


def _watch(profile: str, builder: Any, *, output: Path | None, in_process: bool) -> None:
    """Launch what is built, watch it, and show the result; the exit status tells whether the run succeeded."""
    from contextlib import nullcontext

    from aiida_difftre.cli.demo import conclude, console, daemon, killed, launch, run, watch

    if in_process:
        sqlite.be_patient(sqlite.CHAINS_S)
    out = console()
    with nullcontext() if in_process else daemon():
        pk = run(builder, out) if in_process else launch(builder)
        if in_process and killed(pk):
            what = f"run {pk} was interrupted: it, what it called and its jobs are killed"
            click.echo(f"{what}; go on with: aiida-difftre -p {profile} resume {pk}", err=True)
            raise click.exceptions.Exit(130)
        try:
            snapshot = watch(pk, out)
        except KeyboardInterrupt:
            click.echo(f"\nthe daemon goes on with run {pk}; watch it with: aiida-difftre -p {profile} status {pk}")
            raise click.exceptions.Exit(130) from None
    conclude(snapshot, out, output, profile)
    if snapshot.message:
        raise click.ClickException(f"run {pk} did not succeed: {snapshot.message}")
