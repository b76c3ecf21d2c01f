"""The look of figures: format, width in columns of a paper, and a style file that users can replace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Format = Literal["png", "pdf", "svg"]
FORMATS: tuple[Format, ...] = ("png", "pdf", "svg")

WIDTHS = {1: 3.39, 2: 7.01}
"""Inches, of one and two columns (8.6 and 17.8 cm)."""


@dataclass(frozen=True)
class Look:
    """How figures are to look.

    Args:
        format: Of the files.
        columns: Width in columns of a paper, 1 or 2; with two, panels stand side by side.
        style: A file of matplotlib's settings that are put over those of the package; None for these alone.
    """

    format: Format = "png"
    columns: int = 2
    style: Path | None = None

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within, figures are made and written with this look.

        Raises:
            ValueError: for a style file with keys or values that matplotlib does not know.
        """
        import matplotlib as mpl

        with as_file(files("aiida_difftre.cli") / "styles" / "paper.mplstyle") as own:
            settings: dict[Any, Any] = dict(mpl.rc_params_from_file(own, use_default_template=False))
        if self.style is not None:
            settings |= read_style(self.style)
        with mpl.rc_context(settings):
            yield

    def panels(self, number: int, height: float) -> tuple[Figure, list[Any]]:
        """A figure of panels, in as many rows as they need.

        Args:
            number: Number of panels.
            height: Height of one, inches.

        Returns:
            The figure and its axes; those that are left over are not drawn.
        """
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        across = min(number, self.columns)
        down = -(-number // across)
        width = WIDTHS[self.columns] * (1 if number >= self.columns else 0.5)
        figure = Figure(figsize=(width, height * down), layout="constrained")
        FigureCanvasAgg(figure)
        axes = list(figure.subplots(down, across, squeeze=False).flat)
        for axis in axes[number:]:
            axis.set_visible(False)
        return figure, axes[:number]

    def save(self, figure: Figure, folder: Path, name: str) -> Path:
        """Write a figure; returns the path."""
        path = folder / f"{name}.{self.format}"
        figure.savefig(path)
        return path


def read_style(path: Path) -> dict[str, Any]:
    """Read a style file of matplotlib.

    Args:
        path: The file.

    Returns:
        Settings by key.

    Raises:
        ValueError: with the line that matplotlib does not understand.
    """
    import matplotlib as mpl

    asked: dict[str, int] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        text = line.partition("#")[0].strip() if line.lstrip().startswith("#") else line.strip()
        if not text:
            continue
        key = text.partition(":")[0].strip()
        if key not in mpl.rcParams:
            raise ValueError(f"line {number} of {path}: {key!r} is no setting of matplotlib; see its mplstyle files")
        asked[key] = number
    found: dict[Any, Any] = dict(mpl.rc_params_from_file(path, use_default_template=False))
    for key, number in asked.items():
        if key not in found:
            raise ValueError(f"line {number} of {path}: matplotlib does not take this value of {key!r}")
    return found
