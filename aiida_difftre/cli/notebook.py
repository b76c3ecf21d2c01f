"""A run in a notebook: its state as plain HTML, once or kept up to date; no widgets have to be installed."""

from __future__ import annotations

import time
from typing import Any

from aiida_difftre.cli import live, report, snapshots, words
from aiida_difftre.cli.snapshots import Snapshot

POLL_S = 5.0


class RunView:
    """What is known of a run, as a notebook shows it; each time it is shown, it is looked up anew.

    Args:
        run: PK of a TrainWorkChain, RefineWorkChain or ValidateWorkChain.

    Example:
        >>> from aiida import orm
        >>> from aiida_difftre.cli.notebook import RunView
        >>> run = orm.WorkChainNode(label="argon")
        >>> run.set_process_label("RefineWorkChain")
        >>> view = RunView(run.store().pk)
        >>> print(str(view).partition(" <")[0])
        argon
    """

    def __init__(self, run: int) -> None:
        self.pk = run

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return html(snapshots.take(self.pk))

    def __repr__(self) -> str:
        return "\n".join(live.lines(snapshots.take(self.pk)))

    def watch(self, every_s: float = POLL_S) -> Snapshot:
        """Show the run until it is over, in one place that changes.

        Args:
            every_s: Time between looks, s.

        Returns:
            The last snapshot.

        Raises:
            ValueError: Outside of a notebook.
        """
        try:
            from IPython.display import HTML, display
        except ImportError:
            raise ValueError("there is no notebook here; `aiida-difftre status` shows a run in a terminal") from None
        snapshot = snapshots.take(self.pk)
        place: Any = display(HTML(html(snapshot)), display_id=True)
        while not snapshot.is_over:
            time.sleep(every_s)
            snapshot = snapshots.take(self.pk)
            if place is not None:
                place.update(HTML(html(snapshot)))
        return snapshot


def html(snapshot: Snapshot) -> str:
    """A snapshot as HTML with a style of its own, light or dark as the page around it.

    Args:
        snapshot: The snapshot.

    Returns:
        HTML in which everything from nodes is escaped.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("aiida_difftre.cli"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    bars = [] if snapshot.labels is None else [(live.labels_line(snapshot.labels), _share(snapshot.labels))]
    bars += [(str(job), job.step / max(job.total, 1)) for job in snapshot.running]
    first = snapshot.iterations[0] if snapshot.iterations else None
    headers, rows = [], []
    if first is not None:
        headers = [
            (words.axis(words.symbol(name), words.unit(row[3] or "1")), f"{row[2]:.4g}")
            for name, row in live.quantities(first).items()
        ]
        rows = [
            (
                iteration.number, live.iteration_chi2(iteration), iteration.discarded,
                [live.with_error(*row[:2]) for row in live.quantities(iteration).values()],
            )
            for iteration in snapshot.iterations
        ]  # fmt: skip
    final = None
    if snapshot.report is not None:
        final = report.columns(report.table_rows(snapshot.report, snapshot.reference, snapshot.densities))
    return environment.get_template("status.html.j2").render(
        snapshot=snapshot, bars=bars, headers=headers, rows=rows, outlook=live.outlook(snapshot), final=final
    )


def _share(labels: tuple[int, int, int | None]) -> float:
    done, failed, total = labels
    return (done + failed) / total if total else 0.0
