"""``aiida-difftre target import`` with tables and YAML, as a person types it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from aiida import orm
from aiida.manage import get_manager
from click.testing import CliRunner, Result

from aiida_difftre.cli import cli
from aiida_difftre.data.target import TargetData
from tests.fixtures.nodes import target_content

TABLE = "# measured\nr g e\n" + "".join(f"{0.1 * n:.1f} {n % 3 if n > 9 else 0} 0.5\n" for n in range(1, 100))


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "gr.dat"
    path.write_text(TABLE)
    return path


def typed(*arguments: object, profile: str | None = None) -> Result:
    first = ["-p", profile] if profile else []
    return CliRunner().invoke(cli, [*first, "target", "import", *map(str, arguments)])


CURVE = ("--observable", "rdf", "--temperature", "22degC", "--density", "0.998g/cm3", "--citation", "nobody")


def test_errors_are_those_of_a_column_that_is_called_so(table: Path, tmp_path: Path) -> None:
    assert "errors from the column e" in typed(table, *CURVE, "-o", tmp_path / "taken.yaml").output
    table.write_text(TABLE.replace("r g e", "r g width"))
    refused = typed(table, *CURVE, "-o", tmp_path / "refused.yaml")
    assert (refused.exit_code, "no errors; name their column" in refused.output) == (1, True)


def test_table_to_yaml(table: Path, tmp_path: Path) -> None:
    output = tmp_path / "targets" / "rdf.yaml"
    arguments = (
        table, *CURVE, "--columns", "r=1,g=2,error=3", "--grid", "0.5:9.5:9", "--option", "pair=[O,O]",
        "--role", "test", "-l", "oxygen", "-o", output,
    )  # fmt: skip
    result = typed(*arguments)
    assert result.exit_code == 0, result.output
    assert "oxygen: 9 values from 1 to 9 at 295.15 K, errors measured" in result.output
    assert "averaged over 9 bins of 1 angstrom with 10 points in each" in result.output
    target = TargetData.from_yaml(output).target
    assert target.options["pair"] == ["O", "O"]
    assert target.conditions.density == 998.0
    assert target.role == "test"
    assert target.source is not None
    assert target.source.file == "gr.dat"
    again = typed(*arguments)
    assert again.exit_code == 1
    assert "exists; give another name, or --force" in again.output
    assert typed(*arguments, "--force").exit_code == 0


def test_errors_that_points_share(table: Path, tmp_path: Path) -> None:
    """A length with a unit goes into averages and into the target; without one, what is said is what counts."""
    asked = (table, *CURVE, "--columns", "r=1,g=2,error=3", "--grid", "0.5:9.5:9")
    lines = {}
    for name, options in {
        "independent": (), "kept": ("--correlated",), "length": ("--correlation-length", "200pm"),
        "both": ("--correlated", "--correlation-length", "2"),
    }.items():  # fmt: skip
        result = typed(*asked, *options, "-o", tmp_path / f"{name}.yaml")
        assert result.exit_code == 0, result.output
        lines[name] = result.output
    targets = {name: TargetData.from_yaml(tmp_path / f"{name}.yaml").target for name in lines}
    assert [target.correlation_length for target in targets.values()] == [None, None, 2.0, 2.0]
    first = {name: target.errors[3] for name, target in targets.items()}
    assert 0 < first["independent"] < first["length"] < first["kept"] == first["both"]
    assert "in chi² the bins are independent, unless --correlation-length says" in lines["kept"]
    assert "in chi² the bins are independent" not in lines["both"]
    assert "errors correlated over 2 angstrom" in lines["length"]
    assert targets["length"].shared_in_words() == ["correlated over 2"]


@pytest.mark.usefixtures("aiida_profile_clean")
def test_table_and_yaml_to_nodes(table: Path, tmp_path: Path) -> None:
    profile = get_manager().get_profile()
    assert profile is not None
    result = typed(table, *CURVE, "--error", "5%+0.1", profile=profile.name)
    assert result.exit_code == 0, result.output
    node = orm.load_node(int(result.output.split()[-1]))
    assert node.target.error_source == "assumed"
    assert node.target.errors[10] == pytest.approx((0.1**2 + 0.1**2) ** 0.5, rel=1e-3)
    path = tmp_path / "target.yaml"
    path.write_text(yaml.safe_dump(target_content()))
    result = typed(path, "-l", "p0", profile=profile.name)
    assert result.exit_code == 0, result.output
    assert orm.load_node(int(result.output.split()[-1])).label == "p0"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "gr.dat is a table: give --observable, --temperature, --citation"),
        ((*CURVE, "--error", "1", "--columns", "r"), "--columns has 'r'; give NAME=VALUE"),
        ((*CURVE, "--error", "1", "--columns", "r=1,r=2"), "--columns gives 'r' twice"),
        ((*CURVE, "--error", "1", "--grid", "0:10"), "--grid is '0:10'; give start:stop:n, such as 0:10:300"),
        ((*CURVE, "--error", "1", "--grid", "0,5:10:30"), "--grid: '0,5' is no number; write it with a decimal point"),
        ((*CURVE, "--error", "1", "--range", "0,5:10"), "--range: '0,5' is no number; write it with a decimal point"),
        ((*CURVE, "--error", "0,2"), "'0,2' is no quantity; write it with a decimal point: 0.2"),
        ((*CURVE, "--error", "1", "--temperature", "12,5degC"), "write it with a decimal point: 12.5"),
        ((*CURVE, "--error", "1", "--grid", "0:10:3.5"), "--grid is '0:10:3.5'"),
        ((*CURVE, "--error", "1", "--grid", "0.5:12:20"), "bins from 0.5 to 12 reach beyond the data"),
        ((*CURVE, "--error", "1", "--temperature", "warm"), "--temperature: 'warm' is no quantity"),
        ((*CURVE, "--error", "1", "--density", "1GPa"), "--density: unit 'GPa' does not convert to 'kg/m3'"),
        ((*CURVE, "--error", "1", "--option", "pairs=[O,O]"), "observable 'rdf' has no option 'pairs'"),
        ((*CURVE, "--error", "1", "--option", "pair=[O"), "--option has the value '[O'"),
        ((*CURVE, "--error", "1", "--weight", "-1"), "gr.dat: weight"),
        ((*CURVE, "--error", "1", "--correlated"), "there is none; give --correlation-length, which the target keeps"),
        ((*CURVE, "--error", "1", "--correlation-length", "0"), "a correlation length of 0 is none"),
        ((*CURVE, "--error", "1", "--correlation-length", "-0.2"), "a correlation length of -0.2 is none"),
        ((*CURVE, "--error", "1", "--correlation-length", "nan"), "'nan' is no quantity"),
        ((*CURVE, "--error", "1", "--correlation-length", "1e200"), "a slip of the exponent"),
        ((*CURVE, "--error", "1", "--correlation-length", "0.2/nm"), "unit '/nm'"),
        ((*CURVE, "--error", "1", "--correlation-length", "50"), "correlation_length 50 is longer than the grid"),
        (
            (*CURVE, "--error", "1", "--grid", "0.5:9.5:9", "--correlation-length", "0.3"),
            "bins of 1 angstrom are wider than the correlation length of 0.3, so that their averages are not "
            "correlated in this way; give at least 30 bins",
        ),
    ],
)
def test_refused(table: Path, arguments: tuple[str, ...], message: str) -> None:
    result = typed(table, *arguments, "-o", table.with_suffix(".yaml"))
    assert result.exit_code == 1
    assert message in result.output
    assert not table.with_suffix(".yaml").exists()


def test_options_of_tables_do_not_go_with_yaml(tmp_path: Path) -> None:
    path = tmp_path / "target.yaml"
    path.write_text(yaml.safe_dump(target_content()))
    result = typed(path, "--row", "a=b")
    assert result.exit_code == 1
    assert "--row is for tables; target.yaml is a target as YAML" in result.output


def test_yaml_is_read_where_no_profile_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "target.yaml"
    path.write_text(yaml.safe_dump(target_content()))
    program = "from aiida_difftre.cli import cli; cli()"
    command = [sys.executable, "-c", program, "target", "import", str(path), "-o", str(tmp_path / "again.yaml")]
    done = subprocess.run(command, env={**os.environ, "AIIDA_PATH": str(tmp_path)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert TargetData.from_yaml(tmp_path / "again.yaml").target == TargetData.from_yaml(path).target
