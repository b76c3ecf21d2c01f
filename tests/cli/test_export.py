"""``aiida-difftre potential export --to``: the engine's command on the file of a node."""

from pathlib import Path
from typing import Any

from click.testing import CliRunner

from aiida_difftre.cli import cli
from aiida_difftre.data.potential import PotentialData


def test_a_node_to_tables_and_what_the_engine_refuses(
    aiida_profile: Any, potential: PotentialData, tmp_path: Path
) -> None:
    potential.store()
    words = ["-p", aiida_profile.name, "potential", "export", str(potential.pk)]
    folder = tmp_path / "tables"
    answer = CliRunner().invoke(cli, [*words, "--to", "tables", "--points", "50", "-o", str(folder)])
    assert answer.output == f"wrote {folder}\n"
    assert {"pair_Ar-Ar.txt", "terms.json", "potential.safetensors"} <= {path.name for path in folder.iterdir()}
    again = CliRunner().invoke(cli, [*words, "--to", "tables", "-o", str(folder)])
    assert again.exit_code == 1
    assert again.output == f"Error: {folder} is not empty; give another folder, or --force to replace its files\n"
    alone = CliRunner().invoke(cli, [*words, "--points", "50"])
    assert alone.exit_code == 2
    assert "--points goes together with --to" in alone.output
