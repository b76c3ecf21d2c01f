"""The commands ``aiida-difftre query``: questions to the provenance graph, answered by ``aiida_difftre.query``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import click

from aiida_difftre.cli.parameters import NUMBER
from aiida_difftre.engine.contract.numbers import point_remedy, read_number

NOTHING = (
    "nothing was found; a run is found once it is over, one of an earlier version after `aiida-difftre query index`"
)


@click.group()
def query() -> None:
    """Ask the provenance graph; each answer is one query of `aiida_difftre.query`."""


def _answering(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options of every question, its profile, and its answer as a table or as JSON."""

    @click.option("--json", "as_json", is_flag=True, help="As JSON, not as a table.")
    @click.option("--limit", type=click.IntRange(min=1), help="Number of rows, at most.")
    @click.pass_obj
    def answered(profile: str | None, /, as_json: bool, limit: int | None, **options: Any) -> None:
        from aiida_difftre.cli.failures import complaints
        from aiida_difftre.cli.nodes import load

        with complaints():
            load(profile)
            rows = list(command(**options))[:limit]
            if as_json:
                click.echo(json.dumps(rows, ensure_ascii=False, indent=1))
            else:
                for line in table(rows) if rows else [NOTHING]:
                    click.echo(line)

    answered.__doc__ = command.__doc__
    answered.__name__ = command.__name__
    answered.__click_params__ = [  # type: ignore[attr-defined] # where click keeps those of decorators
        *getattr(command, "__click_params__", []),
        *answered.__click_params__,  # type: ignore[attr-defined]
    ]
    return answered


def table(rows: Iterable[dict[str, Any]]) -> list[str]:
    """Rows as aligned lines under the names of their columns."""
    found = list(rows)
    names = list(dict.fromkeys(name for row in found for name in row))
    cells = [names, *([_shown(row.get(name)) for name in names] for row in found)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(names))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _node(identifier: str, kind: str) -> Any:
    """A node of a kind, such as ``PotentialData``; a run stands for the potential that it returned.

    Raises:
        click.ClickException: For another kind of node.
    """
    from aiida import orm

    from aiida_difftre.cli.lineage import potential_of
    from aiida_difftre.cli.nodes import node_called

    node = node_called(identifier)
    if kind == "PotentialData":
        return potential_of(node)
    if not isinstance(node, orm.ProcessNode):
        raise click.ClickException(f"node {node.pk} is a {type(node).__name__}; give a run")
    return node


def _temperatures(text: str | None) -> tuple[float, float] | None:
    """A temperature, or a range ``low:high``, in K.

    Raises:
        ValueError: naming what was given.
    """
    if text is None:
        return None
    low, _, high = text.partition(":")
    try:
        first = read_number(low)
        return first, read_number(high) if high else first
    except ValueError:
        remedy = point_remedy(low) or point_remedy(high)
        raise ValueError(f"--temperature is {text!r}; give a number, or low:high, in K{remedy}") from None


@query.command("refined-against")
@click.argument("doi")
@_answering
def refined_against_command(doi: str) -> Any:
    """Potentials that were refined against the measurement with this DOI."""
    from aiida_difftre.query import refined_against, rows

    return rows(refined_against(doi))


@query.command("behind")
@click.argument("potential")
@click.option("--dft", is_flag=True, help="The first-principles calculations, not the measurements.")
@_answering
def behind_command(potential: str, dft: bool) -> Any:
    """Measurements behind POTENTIAL (or behind that of a run), all its predecessors included."""
    from aiida_difftre.query import calculations_behind, experiments_behind, rows

    node = _node(potential, "PotentialData")
    return rows(calculations_behind(node) if dft else experiments_behind(node))


@query.command("trajectories")
@click.option("--temperature", help="K, or low:high.")
@click.option("--system", help="Reduced formula, such as C or H2O.")
@click.option("--n-eff", type=NUMBER, help="Independent snapshots, at least.")
@click.option("--n-eff-fraction", type=NUMBER, help="Fraction of effective snapshots that the update left, at least.")
@click.option("--potential", help="The potential that sampled, or a run that returned it.")
@_answering
def trajectories_command(
    temperature: str | None,
    system: str | None,
    n_eff: float | None,
    n_eff_fraction: float | None,
    potential: str | None,
) -> Any:
    """Trajectories by temperature, system, effective snapshots and potential."""
    from aiida_difftre.query import rows, trajectories

    return rows(
        trajectories(
            temperature=_temperatures(temperature),
            system=system,
            least_n_eff=n_eff,
            least_n_eff_fraction=n_eff_fraction,
            potential=None if potential is None else _node(potential, "PotentialData"),
        )
    )


@query.command("best")
@click.argument("system")
@click.option(
    "--role", type=click.Choice(["training", "selection", "test"]), default="training", help="Targets of chi²."
)
@click.option("--any", "anywhere", is_flag=True, help="Also those that only a refinement judged, on its own runs.")
@_answering
def best_command(system: str, role: str, anywhere: bool) -> Any:
    """Potentials of SYSTEM (a reduced formula), the lowest chi² of a validation first."""
    from aiida_difftre.query import best, rows

    return rows(best(system, role, judged_in=None if anywhere else "validation"))


@query.command("near-experiment")
@click.argument("component")
@click.option("--within", default="2%", help="Largest relative deviation at any state point; 2% by default.")
@click.option("--system", help="Reduced formula, such as C or H2O.")
@_answering
def near_experiment_command(component: str, within: str, system: str | None) -> Any:
    """Potentials whose COMPONENT, such as C44, lies near to experiment."""
    from aiida_difftre.query import near_experiment, rows

    try:
        largest = read_number(within.removesuffix("%")) / (100 if within.endswith("%") else 1)
    except ValueError:
        remedy = point_remedy(within)
        raise click.ClickException(f"--within is {within!r}; give a fraction such as 0.02, or 2%{remedy}") from None
    if not within.endswith("%") and largest >= 1:
        raise click.ClickException(
            f"--within {within} would be {largest:.0%}; give a fraction such as 0.02, or {within}%"
        )
    return rows(near_experiment(component, largest, system=system))


@query.command("influenced-by")
@click.argument("node")
@_answering
def influenced_by_command(node: str) -> Any:
    """Potentials that NODE (a DFT calculation, a dataset, a target) had a part in."""
    from aiida_difftre.cli.nodes import node_called
    from aiida_difftre.query import influenced_by, rows

    return rows(influenced_by(node_called(node)))


@query.command("costs")
@click.argument("run", required=False)
@click.option("--jobs", is_flag=True, help="Each job, not the sum of those of a kind.")
@_answering
def costs_command(run: str | None, jobs: bool) -> Any:
    """Where the CPU hours of RUN went, or those of all runs."""
    from aiida_difftre.query import costs, rows, summed

    found = rows(costs(None if run is None else _node(run, "run")))
    return found if jobs else summed(found)


@query.command("index")
@click.pass_obj
def index_command(profile: str | None) -> None:
    """Tell the nodes of all runs that are over, also of earlier versions, what questions look for."""
    from aiida_difftre.cli.failures import complaints
    from aiida_difftre.cli.nodes import load

    with complaints():
        load(profile)
        from aiida_difftre.workchains.facts import index_all

        click.echo(f"indexed {index_all()} work chains")
