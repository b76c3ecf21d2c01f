"""The command ``aiida-difftre``: its group; the commands are in ``aiida_difftre.cli.commands``."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

import click

from aiida_difftre import __version__
from aiida_difftre.cli.commands import files, preparing, running, showing
from aiida_difftre.cli.failures import Commands
from aiida_difftre.cli.questions import query

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


for _command in (
    preparing.setup_command,
    preparing.init_command,
    running.demo_command,
    running.check_command,
    running.run_command,
    running.submit_command,
    running.resume_command,
    showing.status_command,
    showing.report_command,
    showing.advise_command,
    showing.plot_command,
    showing.lineage_command,
    showing.compare_command,
    query,
    files.target,
    files.trajectory,
    files.potential,
):
    cli.add_command(_command)
