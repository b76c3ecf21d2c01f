"""``aiida-difftre potential export --to``: the engine's command on the file of a node."""

from pathlib import Path
from typing import Any

import pytest
from aiida import orm
from aiida.common.links import LinkType
from ase.build import bulk
from click.testing import CliRunner

from aiida_difftre.cli import cli
from aiida_difftre.cli.export import export, first_cell
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


def test_the_cell_of_a_run_is_its_first_state_point() -> None:
    run = orm.WorkChainNode()
    run.set_process_label("RefineWorkChain")
    atoms = bulk("Ar", "fcc", a=5.3, cubic=True)
    run.base.links.add_incoming(orm.StructureData(ase=atoms).store(), LinkType.INPUT_WORK, "state_points__a__structure")
    run.store()
    cell = first_cell(run)
    assert cell is not None
    assert cell.cell.lengths() == pytest.approx(3 * [5.3])
    assert first_cell(orm.Int(1)) is None


def test_a_cell_goes_along_where_a_program_takes_one(potential: PotentialData, tmp_path: Path) -> None:
    potential.store()
    folder = tmp_path / "lammps"
    export(
        potential, "lammps", folder, False, {"structure": None, "points": 500}, bulk("Ar", "fcc", a=12.0, cubic=True)
    )
    assert "4 atoms" in (folder / "structure.data").read_text()
