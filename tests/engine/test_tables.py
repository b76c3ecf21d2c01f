import hashlib
from pathlib import Path

import pytest

from aiida_difftre.engine.tables import Table, read_table


def made(tmp_path: Path, text: str, name: str = "table.csv") -> Table:
    path = tmp_path / name
    path.write_bytes(text.encode())
    return read_table(path)


@pytest.mark.parametrize(
    "text",
    [
        "r,g\n0.1,1\n0.2,2e0\n",
        "# a comment, with 1 number\nr;g\n\n0.1;1\n0.2;2\n",
        "r\tg\t\t\n(nm)\t(none)\n0.1\t1\t\n0.2\t2\n",
        "  r   g \n  0.1 1\n  0.2 2\n",
        "\ufeffr,g\r\n0.1,1\r\n! a comment\r\n0.2,0.2D+01\r\n",
        'r,g,source\n0.1,1,"a, b"\n0.2,2,"c"\n',
    ],
)
def test_separators_comments_and_names(tmp_path: Path, text: str) -> None:
    table = made(tmp_path, text)
    found = table.numbers({"x": "r", "y": "2"})
    assert found["x"].tolist() == [0.1, 0.2]
    assert found["y"].tolist() == [1.0, 2.0]
    assert table.digest == hashlib.sha256((tmp_path / "table.csv").read_bytes()).hexdigest()


def test_what_is_no_table(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="line 1 has 200002 characters: this is no table"):
        made(tmp_path, "1," + "2" * 200_000 + "\n3,4\n")
    with pytest.raises(ValueError, match="no column '²'"):
        made(tmp_path, "0.1 1\n0.2 2\n").numbers({"g": "²"})


def test_no_names(tmp_path: Path) -> None:
    assert made(tmp_path, "0.1 1\n0.2 2\n").numbers({"g": "2"})["g"].tolist() == [1.0, 2.0]


def test_columns_of_different_length(tmp_path: Path) -> None:
    table = made(tmp_path, "q,S,r,g\n1,2,3,4\n5,6,7,8\n9,10\n")
    assert table.numbers({"r": "r", "g": "g"})["g"].tolist() == [4.0, 8.0]
    assert len(table.numbers({"q": "q"})["q"]) == 3


def test_rows_by_what_stands_in_them(tmp_path: Path) -> None:
    table = made(tmp_path, "element,T,Cp\nAl,298.15,24.2\nAl,300.0,24.3\nCu,300,24.5\n")
    assert table.where({"element": "Al", "T": "300"}).numbers({"Cp": "Cp"})["Cp"].tolist() == [24.3]
    with pytest.raises(ValueError, match=r"no row has 'Ti' in column 'element'; there are Al, Cu"):
        table.where({"element": "Ti"})


@pytest.mark.parametrize(
    ("text", "columns", "message"),
    [
        ("r,g\n0.1,1\n0.2,nan\n", {"y": "g"}, r"table.csv, line 3, column 2 \(y\) is nan; remove the row"),
        ("r,g\n0.1,1\n0.2,inf\n", {"y": "g"}, r"line 3, column 2 \(y\) is inf"),
        ("r,g\n0.1,1\n0.2,one\n", {"y": "g"}, r"line 3, column 2 \(y\): 'one' is no number"),
        ("r,g\n0.1,1\n0.2,1_0\n", {"y": "g"}, r"line 3, column 2 \(y\): '1_0' is no number"),
        ("r;g\n0,1;1\n", {"x": "r"}, r"line 2, column 1 \(x\): '0,1' is no number"),
        ("r,g\n0.1,\n0.2,1\n", {"y": "g"}, r"line 2, column 2 \(y\): the cell is empty"),
        ("r,g\n0.1,1\n", {"y": "h"}, r"no column 'h'; there are 2 columns, called r, g"),
        ("0.1,1\n", {"y": "3"}, r"no column '3'; there are 2 columns without names"),
        ("g,g\n0.1,1\n", {"y": "g"}, r"the name 'g' stands over several columns; give its number"),
    ],
)
def test_refused(tmp_path: Path, text: str, columns: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        made(tmp_path, text).numbers(columns)


def test_files_that_hold_no_table(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no table: no line has a number in it"):
        made(tmp_path, "# nothing\n")
    (tmp_path / "picture").write_bytes(b"\x89PNG\xff")
    with pytest.raises(ValueError, match="picture is no text in UTF-8"):
        read_table(tmp_path / "picture")
