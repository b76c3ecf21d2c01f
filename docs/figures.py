"""Every picture of the documentation, and the command that makes it.

    python docs/figures.py                           # what there is, and from what
    python docs/figures.py demo.png course.png --run PK [--profile NAME] [--output FOLDER]
    python docs/figures.py scaling.png

Pictures of a run need that run in a profile; those of a page or a notebook need chromium besides.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from html import escape
from pathlib import Path

IMAGES = Path(__file__).parent / "images"
ROOT = Path(__file__).parents[1]
Maker = Callable[[int, Path], None]

ATTEMPTS = 3
"""Headless browsers hang at times on a busy machine."""

PHONE = 390
"""Pixels, of a phone in portrait."""


@dataclass(frozen=True)
class Picture:
    """A picture of the documentation.

    Args:
        source: The run that it shows, or what else it is made from.
        make: Function of a run's PK and the path of the picture; None where a command makes it.
        command: That command, with ``{path}`` and ``{folder}`` for where to; empty for none.
    """

    source: str
    make: Maker | None = None
    command: str = ""


def plotted(kind: str) -> Maker:
    """A figure of ``aiida-difftre plot``."""

    def make(pk: int, path: Path) -> None:
        from aiida_difftre.cli.look import Look
        from aiida_difftre.cli.plots import plot
        from aiida_difftre.cli.snapshots import take

        with tempfile.TemporaryDirectory() as folder:
            drawn = {drawn.stem.split("-")[-1]: drawn for drawn in plot(take(pk), Path(folder), Look())}
            shutil.copy(drawn[kind], path)

    return make


def lineage(pk: int, path: Path) -> None:
    """The figure of ``aiida-difftre lineage --graph``."""
    from aiida.orm import load_node

    from aiida_difftre.cli.drawing import draw
    from aiida_difftre.cli.lineage import potential_of
    from aiida_difftre.cli.snapshots import validation_of

    node = load_node(pk)
    draw(potential_of(node), validation_of(node), path, force=True)


def status(pk: int, path: Path) -> None:
    """What ``aiida-difftre status`` shows on a terminal, as SVG."""
    from rich.console import Console

    from aiida_difftre.cli.live import picture
    from aiida_difftre.cli.snapshots import take

    with Path("/dev/null").open("w") as nowhere:
        console = Console(record=True, width=136, file=nowhere)
        console.print(picture(take(pk)))
    console.save_svg(str(path), title="aiida-difftre status")


@cache
def written(pk: int) -> tuple[tempfile.TemporaryDirectory[str], Path]:
    """The page of a run, and the folder that goes with this process; written once, since it takes a while."""
    from aiida_difftre.cli.page import write_page

    folder = tempfile.TemporaryDirectory()
    report = Path(folder.name, "report.html")
    write_page(pk, report)
    return folder, report


def page(width: int, height: int, *, dark: bool = False, part: str = "") -> Maker:
    """A screenshot of ``aiida-difftre report --html``."""

    def make(pk: int, path: Path) -> None:
        shoot(written(pk)[1].as_uri() + part, path, width, height, dark=dark)

    return make


def notebook(pk: int, path: Path) -> None:
    """What a notebook shows of a run, of its potential and of a target."""
    from aiida.common.links import LinkType
    from aiida.orm import load_node

    from aiida_difftre.cli.notebook import RunView

    run = load_node(pk)
    inputs = run.base.links.get_incoming(link_type=LinkType.INPUT_WORK).nested()
    point = next(iter(inputs["state_points"].values()))
    shown = {
        f"RunView({pk})": RunView(pk),
        "load_node(...).outputs.potential": run.outputs.potential,
        "target": point["targets"].get("rdf") or next(iter(point["targets"].values())),
    }
    cells = "".join(f"<pre>&gt;&gt;&gt; {escape(said)}</pre>{node._repr_html_()}" for said, node in shown.items())
    with tempfile.TemporaryDirectory() as folder:
        html = Path(folder, "notebook.html")
        style = "<meta charset='utf-8'><style>body{font:15px system-ui,sans-serif} th,td{padding:1px 9px 1px 0}</style>"
        html.write_text(style + cells, encoding="utf-8")
        shoot(html.as_uri(), path, 820, 1090)


def shoot(address: str, path: Path, width: int, height: int, *, dark: bool = False) -> None:
    """A screenshot by a headless browser, through a frame: windows have a least width, and a frame can be scrolled.

    Raises:
        SystemExit: where there is no chromium.
    """
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        raise SystemExit("no chromium is on the PATH; install it for screenshots")
    with tempfile.TemporaryDirectory() as folder:
        frame = Path(folder, "frame.html")
        style = f"border:0;width:{width}px;height:{height}px"
        frame.write_text(f"<body style='margin:0'><iframe src='{address}' style='{style}'></iframe>", encoding="utf-8")
        look = ["--blink-settings=preferredColorScheme=0", "--force-dark-mode"] if dark else []
        command = [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
            "--hide-scrollbars", "--virtual-time-budget=15000", f"--user-data-dir={folder}/profile", *look,
            f"--window-size={width},{height}", f"--screenshot={path}", frame.as_uri(),
        ]  # fmt: skip
        for attempt in range(ATTEMPTS):
            try:
                subprocess.run(command, check=True, capture_output=True, timeout=60)
            except subprocess.TimeoutExpired:
                if attempt == ATTEMPTS - 1:
                    raise
            else:
                return


def measured(page: str, before: str, after: str) -> Picture:
    """What the table of a system's page says, drawn."""
    words = f"--before {shlex.quote(before)} --after {shlex.quote(after)}"
    return Picture(f"the table of docs/systems/{page}.md", command=f"python docs/measured.py {page} {{path}} {words}")


DEMO, ARGON = "aiida-difftre demo", "aiida-difftre run examples/argon/quick.yaml"

PICTURES = {
    "demo.png": Picture(DEMO, plotted("observables")),
    "course.png": Picture(DEMO, plotted("course")),
    "argon_curves.png": Picture(ARGON, plotted("curves")),
    "lineage.svg": Picture(ARGON, lineage),
    "status.svg": Picture(ARGON, status),
    "notebook.png": Picture(ARGON, notebook),
    "report.png": Picture(ARGON, page(1150, 1500, part="#result")),
    "report-dark.png": Picture(ARGON, page(1150, 1100, dark=True, part="#course")),
    "report-phone.png": Picture(ARGON, page(PHONE, 844, part="#result")),
    "copper_curves.png": Picture("aiida-difftre run examples/copper/quick.yaml", plotted("curves")),
    "water_curves.png": Picture("aiida-difftre run examples/water/paper.yaml", plotted("curves")),
    "argon_pair_energy.png": Picture(
        f"{ARGON}, both potentials exported",
        command="python examples/argon/pair_energy.py PBE.safetensors refined.safetensors "
        "-o {folder}/argon_pair_energy",
    ),
    "gradient_explosion.png": Picture(
        "a benchmark", command="python tests/benchmarks/gradient_explosion.py --output {folder}"
    ),
    "diamond_values.png": measured("diamond", "prior", "seed 1"),
    "titanium_values.png": measured("titanium", "LDA (seed 1)", "mean"),
    "aluminium_values.png": measured("aluminium", "pretrained on LDA", "refined, seed 1"),
    "copper_values.png": measured("copper", "LDA (seed 1)", "mean"),
    "nacl_values.png": measured("nacl", "published start", "refined"),
    "sic_values.png": measured("sic", "pretrained on LDA", "refined, seed 1"),
    "own_model_values.png": measured("own_model", "validation, before", "validation, after"),
    "own_trajectory_values.png": measured("own_trajectory", "validation, before", "validation, after"),
    "scaling.png": Picture("a benchmark", command="python tests/benchmarks/scaling.py --figure {path}"),
    "long-run.svg": Picture(
        "a benchmark of three hours",
        command="python tests/benchmarks/long_run.py --iterations 200 --state-points 4 --poll-interval 5 --minutes 180 "
        "--figure {path}",
    ),
}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", nargs="*", metavar="PICTURE", choices=[*PICTURES, []])
    parser.add_argument("--run", help="PK or UUID of the run that the pictures show")
    parser.add_argument("--profile", default="difftre")
    parser.add_argument("--output", type=Path, default=IMAGES)
    given = parser.parse_args()
    if not given.pictures:
        for name, picture in PICTURES.items():
            print(f"{name:24} {picture.source:48} {picture.command}".rstrip())
        return
    for name in given.pictures:
        picture, path = PICTURES[name], (given.output / name).resolve()
        if picture.make is None:
            words = shlex.split(picture.command.format(path=path, folder=path.parent))
            subprocess.run([sys.executable, *words[1:]], check=True, cwd=ROOT)
        elif given.run is None:
            parser.error(f"{name} shows a run; give the PK of one of `{picture.source}` with --run")
        else:
            from aiida import load_profile
            from aiida.orm import load_node

            load_profile(given.profile)
            picture.make(load_node(given.run).pk, path)
        print(path)


if __name__ == "__main__":
    main()
