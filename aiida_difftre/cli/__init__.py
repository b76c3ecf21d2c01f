"""The command ``aiida-difftre``. Everything heavy is imported in the command that needs it.

The functions end in ``_command``: a module of this package that is called like a command keeps its name.
"""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import Any, Literal

import click

from aiida_difftre import __version__, sqlite
from aiida_difftre.cli.export import export, export_options, refuse_without_format
from aiida_difftre.cli.failures import Commands, complaints
from aiida_difftre.cli.nodes import OWN_PROFILE, check_configuration, load, node_called, run_called
from aiida_difftre.cli.parameters import FILE, FOLDER, SEED
from aiida_difftre.cli.questions import query
from aiida_difftre.cli.targets import table_options
from aiida_difftre.cli.trajectories import import_options

PROFILE_HELP = (
    "AiiDA profile; by default our own (difftre) where it exists, else the default one. setup and demo make it."
)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="aiida-difftre")
@click.option("-p", "--profile", help=PROFILE_HELP)
@click.pass_context
def cli(context: click.Context, profile: str | None) -> None:
    """Correct machine-learned interatomic potentials with experimental data."""
    context.obj = profile
    # aiida-core warns when it makes the configuration folder that setup is asked to make.
    warnings.filterwarnings("ignore", message="Creating AiiDA configuration folder")
    # AiiDA's daemon looks for `verdi` on the PATH when its module is imported; a virtual environment that is not
    # activated is not on it.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


@cli.command("setup")
@click.option("--pseudo-family", help="An installed pseudopotential family to use instead of a generated one.")
@click.option(
    "--pw", type=FILE, help="A pw.x to use; else the one on PATH, else that of the qepy wheel, installed apart."
)
@click.option("--feff", is_flag=True, help="Also FEFF, for EXAFS: on PATH, else that of xraylarch, installed apart.")
@click.option(
    "--base",
    "bases",
    multiple=True,
    metavar="NAME",
    help="Also the engine with this base potential (chgnet, sevennet, mace, ...), in an environment of its own.",
)
@click.option("--default", "make_default", is_flag=True, help="Make the profile AiiDA's default one.")
@click.option("--input", "file", type=FILE, help="Pseudopotentials for this input (YAML); without, for carbon in LDA.")
@click.option("--dft/--no-dft", default=True, help="Also pw.x and pseudopotentials; runs without DFT need neither.")
@click.pass_obj
def setup_command(
    profile: str | None,
    pseudo_family: str | None,
    pw: Path | None,
    feff: bool,
    bases: tuple[str, ...],
    make_default: bool,
    file: Path | None,
    dft: bool,
) -> None:
    """Make what a run needs: profile, computer, codes, pseudopotentials; what exists is kept."""
    if not dft and (pw is not None or pseudo_family is not None or file is not None):
        raise click.UsageError("--no-dft goes together with none of --pw, --pseudo-family and --input")
    with complaints():
        if not dft:
            result = _setup(profile, feff=feff, bases=bases, make_default=make_default, dft=False)
            click.echo(f"profile {result.profile}, code {result.engine}: ready for runs without DFT")
            return
        needed = _pseudopotentials(file)
        if pseudo_family is not None:
            needed["pseudo_family"] = pseudo_family
        result = _setup(profile, pw=pw, feff=feff, bases=bases, make_default=make_default, **needed)
        click.echo(
            f"profile {result.profile}, codes {result.engine} and {result.pw} ({result.pw_version}), pseudopotentials "
            f"{result.pseudo_family}: ready"
        )


def _pseudopotentials(file: Path | None) -> dict[str, Any]:
    """The elements, functional and family that an input needs; what ``setup`` has for none."""
    from aiida_difftre.workchains.inputs import elements_to_label, read_input

    if file is None:
        return {}
    run = read_input(file)
    elements = elements_to_label(run, file.parent)
    if not elements or run.dft is None:
        return {}
    return {"elements": elements, "functional": run.dft.functional, "pseudo_family": run.dft.pseudo_family}


def _generate_missing(file: Path) -> None:
    """Generate the pseudopotentials that an input needs, where no installed family has them and the package can.

    Raises:
        click.ClickException: naming the element and the remedy.
    """
    from aiida_difftre.cli.setup import SetupError, ensure_pseudopotentials

    needed = _pseudopotentials(file)
    if needed and needed["pseudo_family"] is None:
        try:
            ensure_pseudopotentials(needed["elements"], needed["functional"], report=click.echo)
        except SetupError as error:
            raise click.ClickException(str(error)) from None


def _setup(profile: str | None, **options: Any) -> Any:
    from aiida_difftre.cli.setup import SetupError, setup

    check_configuration()
    try:
        return setup(profile or OWN_PROFILE, report=click.echo, **options)
    except SetupError as error:
        raise click.ClickException(str(error)) from None


@cli.command("demo")
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
        _setup(profile, **_pseudopotentials(file))
        _go(profile or OWN_PROFILE, file, output=output, seed=seed, in_process=not daemon)


DRY_RUN = click.option("--dry-run", is_flag=True, help="Check the input and say what it will take; start nothing.")


def _say_what_it_takes(file: Path, seed: int | None) -> None:
    """Check an input as for submission, and show what its run will take; nothing is stored or started.

    Raises:
        click.ClickException: with every reason why the input would be refused.
    """
    from aiida_difftre.cli.starting import refusals
    from aiida_difftre.engine.errors import one_line
    from aiida_difftre.workchains.estimate import lines
    from aiida_difftre.workchains.from_input import read_builder, read_plan

    if problems := [one_line(problem) for problem in refusals(file, seed)]:
        raise click.ClickException("\n".join(problems))
    for line in lines(read_plan(file)):
        click.echo(line)
    _tell(read_builder(file, seed=seed))
    click.echo("the input is right; nothing was started")


@cli.command("init")
@click.argument("structure", type=FILE, required=False)
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="input.yaml by default.")
@click.option("-t", "--target", "targets", multiple=True, help="catalogue:SYSTEM/NAME, or a target file; several.")
@click.option("--labels", help="File or node of labels that exist; no DFT is done then.")
@click.option("--potential", help="File or node of a potential that exists; nothing is pretrained then.")
@click.option("--prior", is_flag=True, help="Start from a pair potential, without labels.")
@click.option("--protocol", type=click.Choice(["quick", "cpu", "paper"]), default="quick", help="Preset.")
@click.option("-f", "--force", is_flag=True, help="Replace a file that exists.")
def init_command(
    structure: Path | None,
    output: Path | None,
    targets: tuple[str, ...],
    labels: str | None,
    potential: str | None,
    prior: bool,
    protocol: str,
    force: bool,
) -> None:
    """Write a commented input for STRUCTURE (a CIF or any file that ase reads) and measurements of it.

    What is not given is asked for. Without --labels, --potential and --prior the labels are made by DFT.
    """
    chosen = {"labels": labels, "potential": potential, "prior": prior or None}
    if len(starts := [name for name, value in chosen.items() if value is not None]) > 1:
        raise click.UsageError(f"--{starts[0]} and --{starts[1]} do not go together")
    path = output or Path("input.yaml")
    if path.exists() and not force:
        raise click.ClickException(f"{path} exists; give another name with --output, or replace it with --force")
    with complaints():
        from aiida_difftre.cli.starting import document, known_of, measurement
        from aiida_difftre.workchains.inputs import read_input
        from aiida_difftre.workchains.systems import read_structure

        structure = structure or click.prompt("File of the structure", type=FILE)
        if not targets:
            for name in known_of(read_structure(structure)):
                click.echo(f"  the catalogue has catalogue:{name}")
            targets = tuple(click.prompt("Measurements (catalogue names or files, separated by spaces)").split())
        start = starts[0] if starts else "dft"
        text = document(
            structure,
            [measurement(reference, path.parent) for reference in targets],
            folder=path.parent,
            start=start,
            given=labels or potential,
            protocol=protocol,
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        read_input(path)
    click.echo(f"wrote {path}; read it, then: aiida-difftre check {path}")


@cli.command("check")
@click.argument("file", type=FILE)
@SEED
@click.pass_obj
def check_command(profile: str | None, file: Path, seed: int | None) -> None:
    """Say everything for which FILE would be refused, or what its run will take; nothing is submitted or stored."""
    with complaints():
        load(profile)
        _say_what_it_takes(file, seed)


@cli.command("run")
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


@cli.command("submit")
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
        _generate_missing(file)
        builder = read_builder(file, seed=seed)
        _tell(builder)
        pk = launch(builder)
        click.echo(f"submitted {pk}; watch it with: aiida-difftre -p {name} status {pk}")


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
    _generate_missing(file)
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
            click.echo(f"run {pk} was interrupted: it, what it called and its jobs are killed", err=True)
            raise click.exceptions.Exit(130)
        try:
            snapshot = watch(pk, out)
        except KeyboardInterrupt:
            click.echo(f"\nthe daemon goes on with run {pk}; watch it with: aiida-difftre -p {profile} status {pk}")
            raise click.exceptions.Exit(130) from None
    conclude(snapshot, out, output, profile)
    if snapshot.message:
        raise click.ClickException(f"run {pk} did not succeed: {snapshot.message}")


@cli.command("status")
@click.argument("run", metavar="RUN")
@click.option("--once", is_flag=True, help="Show the present state and return.")
@click.pass_obj
def status_command(profile: str | None, run: str, once: bool) -> None:
    """Show the live picture of RUN: a PK, a UUID or a label."""
    with complaints():
        from aiida_difftre.cli.demo import conclude, console, waiting, watch

        name = load(profile)
        out = console()
        snapshot = watch(run_called(run), out, until_over=not once)
        if snapshot.is_over:
            conclude(snapshot, out, None, name)
        else:
            for line in waiting(snapshot, name):
                click.echo(line)


@cli.command("report")
@click.argument("run", metavar="RUN")
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


@cli.command("advise")
@click.argument("run", metavar="RUN")
@click.option(
    "-c",
    "--candidate",
    "texts",
    multiple=True,
    help="A measurement that could be made, OBSERVABLE@STATE_POINT:ERROR, such as stiffness@solid:5; again for more.",
)
@click.option("--candidates", "file", type=FILE, help="A YAML file with a list of them: name, observable, grid, ...")
@click.option("--prior-width", type=float, help="How well energies are known beforehand, kT per atom; 1 by default.")
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


@cli.command("plot")
@click.argument("run", metavar="RUN")
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


@cli.command("lineage")
@click.argument("node")
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


@cli.command("compare")
@click.argument("first")
@click.argument("second")
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


@cli.command("resume")
@click.argument("run", metavar="RUN")
@click.option("-o", "--output", type=FOLDER, help="Folder of plots; none without.")
@click.pass_obj
def resume_command(profile: str | None, run: str, output: Path | None) -> None:
    """Go on with RUN, which failed or was killed, in this process.

    It is a new run with the same inputs, which takes every job that ended well from what is stored, and does the
    others; RUN itself stays as it is.
    """
    with complaints():
        from aiida.manage.caching import enable_caching
        from aiida.orm import load_node

        from aiida_difftre.cli.resuming import builder_of, stored

        name = load(profile)
        node = load_node(run_called(run))
        builder = builder_of(node)
        done, missing = stored(node)  # type: ignore[arg-type] # a run, or there is no builder
        click.echo(f"run {node.pk}: {done} calculations are taken as they are, {missing} that did not end well are not")
        with enable_caching():
            _watch(name, builder, output=output, in_process=True)


cli.add_command(query)


@cli.group()
def target() -> None:
    """Experimental targets."""


@target.command("list")
@click.option("--system", help="Formula, such as Si; all without.")
@click.option("--observable", help="Name of an observable, such as stiffness; all without.")
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
        for line in summary(found):
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


@cli.group()
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


@cli.group()
def potential() -> None:
    """Potentials."""


@potential.command("export")
@click.argument("node")
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
        found = potential_of(node_called(node))
        written = write(found, output, force) if to is None else export(found, to, output, force, options)
        click.echo(f"wrote {written}")
