"""Commands that prepare a run: what it needs on this computer, and a first input."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from aiida_difftre.cli import completion
from aiida_difftre.cli.failures import complaints
from aiida_difftre.cli.nodes import OWN_PROFILE, check_configuration, load
from aiida_difftre.cli.parameters import FILE


@click.command("setup")
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
    shell_complete=completion.bases,
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
            result = set_up(profile, feff=feff, bases=bases, make_default=make_default, dft=False)
            click.echo(f"profile {result.profile}, code {result.engine}: ready for runs without DFT")
            return
        needed = pseudopotentials(file)
        if file is not None and not needed and pw is None and pseudo_family is None:
            result = set_up(profile, feff=feff, bases=bases, make_default=make_default, dft=False)
            missing = base_to_set_up(file, bases)
            needs = "" if missing is None else f", but for its base: aiida-difftre setup --no-dft --base {missing}"
            click.echo(f"profile {result.profile}, code {result.engine}: ready for {file}, which needs no DFT{needs}")
            return
        if pseudo_family is not None:
            needed["pseudo_family"] = pseudo_family
        result = set_up(profile, pw=pw, feff=feff, bases=bases, make_default=make_default, **needed)
        click.echo(
            f"profile {result.profile}, codes {result.engine} and {result.pw} ({result.pw_version}), pseudopotentials "
            f"{result.pseudo_family}: ready"
        )


def set_up(profile: str | None, **options: Any) -> Any:
    """Make what a run needs, as ``aiida_difftre.cli.setup.setup`` does, in the given profile or our own.

    Raises:
        click.ClickException: saying what is missing, and the remedy.
    """
    from aiida_difftre.cli.setup import SetupError, setup

    check_configuration()
    try:
        return setup(profile or OWN_PROFILE, report=click.echo, **options)
    except SetupError as error:
        raise click.ClickException(str(error)) from None


def pseudopotentials(file: Path | None) -> dict[str, Any]:
    """The elements, functional and family that an input needs; what ``setup`` has for none."""
    from aiida_difftre.workchains.cells import elements_to_label
    from aiida_difftre.workchains.inputs import read_input

    if file is None:
        return {}
    run = read_input(file)
    elements = elements_to_label(run, file.parent)
    if not elements or run.dft is None:
        return {}
    return {"elements": elements, "functional": run.dft.functional, "pseudo_family": run.dft.pseudo_family}


def base_to_set_up(file: Path, bases: Sequence[str]) -> str | None:
    """The base of an input that needs an environment which is not asked for; None for none.

    Args:
        file: The input.
        bases: Those that are asked for.
    """
    from aiida_difftre.workchains.codes import code_of
    from aiida_difftre.workchains.inputs import read_input

    run = read_input(file)
    base = run.model.base
    return None if base is None or code_of(run) is None or base.name in bases else base.name


def generate_missing(file: Path) -> None:
    """Generate the pseudopotentials that an input needs, where no installed family has them and the package can.

    Raises:
        click.ClickException: naming the element and the remedy.
    """
    from aiida_difftre.cli.setup import SetupError, ensure_pseudopotentials

    needed = pseudopotentials(file)
    if needed and needed["pseudo_family"] is None:
        try:
            ensure_pseudopotentials(needed["elements"], needed["functional"], report=click.echo)
        except SetupError as error:
            raise click.ClickException(str(error)) from None


def _has_label(profile: str | None, label: str) -> bool:
    """Whether a node has a label; none has where there is no profile yet."""
    from aiida.orm import Node, QueryBuilder

    try:
        load(profile)
    except click.ClickException:
        return False
    return QueryBuilder().append(Node, filters={"label": label}).count() > 0


@click.command("init")
@click.argument("structure", type=FILE, required=False)
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="input.yaml by default.")
@click.option(
    "-t",
    "--target",
    "targets",
    multiple=True,
    shell_complete=completion.targets,
    help="catalogue:SYSTEM/NAME, or a target file; several.",
)
@click.option("--liquid", metavar="FORMULA", help="Of a liquid, in place of STRUCTURE: atoms packed at random.")
@click.option("--labels", help="File or node of labels that exist; no DFT is done then.")
@click.option("--potential", help="File or node of a potential that exists; nothing is pretrained then.")
@click.option(
    "--base",
    metavar="NAME[=FILE]",
    shell_complete=completion.bases,
    help="Start from a model of another program (emt, chgnet, mace=FILE, ...), to which a correction is refined.",
)
@click.option("--prior", is_flag=True, help="Start from a pair potential, without labels.")
@click.option("--protocol", type=click.Choice(["quick", "cpu", "paper"]), default="quick", help="Preset.")
@click.option("-f", "--force", is_flag=True, help="Replace a file that exists.")
@click.pass_obj
def init_command(
    profile: str | None,
    structure: Path | None,
    output: Path | None,
    targets: tuple[str, ...],
    liquid: str | None,
    labels: str | None,
    potential: str | None,
    base: str | None,
    prior: bool,
    protocol: str,
    force: bool,
) -> None:
    """Write a commented input for STRUCTURE (a CIF or any file that ase reads) and measurements of it.

    What is not given is asked for; the density of a liquid comes from its targets. Without --labels, --potential,
    --base and --prior the labels are made by DFT.
    """
    chosen = {"labels": labels, "potential": potential, "base": base, "prior": prior or None}
    if len(starts := [name for name, value in chosen.items() if value is not None]) > 1:
        raise click.UsageError(f"--{starts[0]} and --{starts[1]} do not go together")
    if liquid is not None and structure is not None:
        raise click.UsageError("STRUCTURE and --liquid do not go together")
    if liquid is not None and not targets:
        raise click.UsageError("--liquid needs at least one --target")
    path = output or Path("input.yaml")
    if path.exists() and not force:
        raise click.ClickException(f"{path} exists; give another name with --output, or replace it with --force")
    with complaints():
        from aiida_difftre.cli.liquids import formula_unit, liquid_document
        from aiida_difftre.cli.starting import check_elements, document, known_of, measurement, named
        from aiida_difftre.cli.starting_models import named_base
        from aiida_difftre.workchains.inputs import read_input
        from aiida_difftre.workchains.systems import read_structure

        if liquid is None:
            structure = structure or click.prompt("File of the structure", type=FILE)
        if structure is not None and not targets:
            for name in known_of(read_structure(structure)):
                click.echo(f"  the catalogue has catalogue:{name}")
            targets = tuple(click.prompt("Measurements (catalogue names or files, separated by spaces)").split())
        start = starts[0] if starts else "dft"
        measured = [measurement(reference, path.parent) for reference in targets]
        if given := labels or potential:
            given = named(given, path.parent, lambda label: _has_label(profile, label))
        atoms = formula_unit(str(liquid)) if structure is None else read_structure(structure)
        if base is not None:
            given = named_base(base, path.parent, sorted(set(atoms.get_chemical_symbols())))
        origin: Any = {"start": start, "given": given, "protocol": protocol}
        if structure is None:
            text = liquid_document(str(liquid), measured, **origin)
        else:
            text = document(structure, measured, folder=path.parent, **origin)
        check_elements(measured, atoms)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        read_input(path)
    click.echo(f"wrote {path}; read it, then: aiida-difftre setup --input {path} (once), aiida-difftre check {path}")
