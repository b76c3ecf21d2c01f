"""``verdi data difftre.potential``: list, show and export potentials."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from aiida.cmdline.params.types import DataParamType
from aiida.cmdline.utils import decorators, echo

if TYPE_CHECKING:
    from aiida_difftre.data.potential import PotentialData

POTENTIAL = DataParamType(sub_classes=("aiida.data:difftre.potential",))


@click.group("difftre.potential")
def potential() -> None:
    """Interatomic potentials: their parameters, and what they are."""


@potential.command("list")
@decorators.with_dbenv()
def list_potentials() -> None:
    """List all potentials, the newest last."""
    from aiida import orm
    from rich.table import Table

    from aiida_difftre.cli.demo import console
    from aiida_difftre.data.potential import PotentialData

    query = orm.QueryBuilder().append(PotentialData, project="*").order_by({PotentialData: "id"})
    table = Table(*("PK", "label", "species", "architecture", "cutoff / Å", "parameters", "made by"))
    for (node,) in query.iterall():
        maker = node.creator
        table.add_row(
            str(node.pk),
            node.label,
            ", ".join(node.species),
            node.base.attributes.get("architecture"),
            f"{node.cutoff:g}",
            str(node.base.attributes.get("number_of_parameters")),
            f"{maker.process_label}<{maker.pk}>" if maker is not None else "imported",
        )
    console().print(table)


@potential.command("show")
@click.argument("node", type=POTENTIAL)
@decorators.with_dbenv()
def show(node: PotentialData) -> None:
    """Show what a potential is: species, terms with hyperparameters, digest."""
    echo.echo_dictionary(dict(node.base.attributes.all), fmt="yaml")


@potential.command("export")
@click.argument("node", type=POTENTIAL)
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="File; potential-PK.safetensors by default."
)
@click.option("-f", "--force", is_flag=True, help="Replace a file that exists.")
@decorators.with_dbenv()
def export(node: PotentialData, output: Path | None, force: bool) -> None:
    """Write a potential to a file that `difftre` and its ASE calculator read."""
    echo.echo_success(f"wrote {write(node, output, force)}")


def write(node: PotentialData, output: Path | None, force: bool) -> Path:
    """Write the file of a potential; returns its path.

    Raises:
        click.ClickException: for a file that exists, unless ``force``.
    """
    path = output or Path(f"potential-{node.pk}.safetensors")
    if path.exists() and not force:
        raise click.ClickException(f"{path} exists; give another name with --output, or replace it with --force")
    node.to_file(path)
    return path
