import hashlib
from pathlib import Path

import pytest

from aiida_difftre.engine.tables.table import Table, read_table


def made(tmp_path: Path, text: str, name: str = "table.csv") -> Table:
    path = tmp_path / name
    path.write_bytes(text.encode())
    return read_table(path)


@pytest.mark.parametrize(
    "text",
    [
        "r,g\n0.1,1\n0.2,2e0\n",
        "# a comment, with 1 number\nr;g\n\n0.1;1\n0.2;2\n",
        "r;g\n0,1;1\n0,2;2,0\n",
        "r g\n0,1 1\n0,2 2,0e0\n",
        "r\tg\n0,1\t1\n0,2\t2,00\n",
        "#  r   g   error\n  0.1 1 1\n  0.2 2 1\n",
        "# Athena data file -- version 0.9\n#  -------\n#  r g\n 0.1 1\n 0.2 2\n",
        "# Cu crystal  Feff 6L.02\n# Abs   Z=29 Rmt= 1.279\n# ---\n#   r   g   mag   phase @#\n0.1 1 0 0\n0.2 2 0 0\n",
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
        ("r;g\n0,1;1.5\n", {"x": "r"}, r"line 2, column 1 \(x\): '0,1' is no number; give decimal points throughout"),
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
    with pytest.raises(ValueError, match="picture is a picture; a target needs the numbers"):
        read_table(tmp_path / "picture")


PDFGETX3 = """[DEFAULT]

version = pdfgetx3 2.0.0

# input and output specifications
dataformat = QA
inputfile = Ni 300K.chi
backgroundfile =
# run information
composition = Ni
qmax = 24
rgrid = 0 30 0.01

#### start data

#S 1
#L r($\\AA$)  G($\\AA^{-2}$)
0 0
0.01 -0.0023
0.02 -0.0041
"""
PDFGETN = """History written: Fri Jan 22 17:14:53 2010
Initial: 1
prompt_file 7
DOI 10.1000/xyz 3
##### start data
#O rg_int sig=0.01
#L r G(r) dr dG(r)
0.01 0.1 0.0 0.2
0.02 0.2 0.0 0.2
"""


@pytest.mark.parametrize(
    ("text", "names", "first"),
    [
        (PDFGETX3, ("r($\\AA$)", "G($\\AA^{-2}$)"), [0, 0]),
        # Sections of a header are left out without the line that ends it, too.
        (PDFGETX3.replace("#### start data\n", ""), ("r($\\AA$)", "G($\\AA^{-2}$)"), [0, 0]),
        (PDFGETN, ("r", "G(r)", "dr", "dG(r)"), [0.01, 0.1, 0.0, 0.2]),
        (
            "# Athena data file\n# e0 = 8979.0, rbkg = 1.0\n#  k chi chik chik2 chik3 win energy\n0 1 2 3 4 5 6\n",
            ("k", "chi", "chik", "chik2", "chik3", "win", "energy"),
            [0, 1, 2, 3, 4, 5, 6],
        ),
        ("# k_invA,chi  (larch autobk kw=2, e0=8977.58 eV)\n0,0.68\n", (), [0, 0.68]),
        ("q (1/nm)  S(q)\n1 2\n", ("q (1/nm)", "S(q)"), [1, 2]),
    ],
)
def test_headers_of_programs(tmp_path: Path, text: str, names: tuple[str, ...], first: list[float]) -> None:
    table = made(tmp_path, text)
    assert table.header == names
    columns = {str(number): str(number + 1) for number in range(len(first))}
    assert [column[0] for column in table.numbers(columns).values()] == first


def test_a_name_with_a_unit_is_known_without_it(tmp_path: Path) -> None:
    table = made(tmp_path, PDFGETX3)
    assert table.numbers({"r": "r", "G": "G"})["G"].tolist() == [0, -0.0023, -0.0041]
    assert (table.label_unit("r"), table.label_unit("G"), table.label_unit("1")) == ("A", "A^-2", "A")
    assert made(tmp_path, "r,g\n1,2\n").label_unit("r") is None


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "cp1252"])
def test_text_of_other_encodings(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "table.dat"
    path.write_bytes("# Probe gemessen in Jülich bei 20 °C\n# r (Å)  g\n0.1 1\n".encode(encoding))
    table = read_table(path)
    assert table.numbers({"r": "1"})["r"].tolist() == [0.1]
    assert table.notes == (("read as UTF-16",) if encoding == "utf-16" else ("read as Latin-1",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x1f\x8b\x08\x00", "is a compressed file, such as a project of Athena: open it there and save"),
        (b"# Athena project file -- Demeter version 0.9.26\n$old_group = 'a';\n", "is a project of Athena, no table"),
        (b"PK\x03\x04...", "is a spreadsheet or an archive; save the table as CSV"),
        (b"\x89HDF\r\n", "is an HDF5 file; write its curve as columns"),
        (b"0.1 1\n0.2 \x00\n", r"is no text: line 2 has the character '\\x00'"),
        (b"header\n k real[2*phc] mag[feff] phase[feff] red factor lambda real[p]@#\n0 1 2 3\n", "scattering path"),
    ],
)
def test_files_of_other_programs_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "data").write_bytes(content)
    with pytest.raises(ValueError, match=f"^data .*{message.removeprefix('is ')}"):
        read_table(tmp_path / "data")
