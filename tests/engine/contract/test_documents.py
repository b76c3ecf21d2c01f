"""Documents: what YAML 1.2 and JSON say, and what is refused: keys twice, aliases, tags, sizes, what is no file."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from aiida_difftre.engine.contract import documents
from aiida_difftre.engine.contract.documents import parse_json, parse_yaml, read_bytes, read_json, read_yaml
from aiida_difftre.engine.errors import LONGEST_MESSAGE, one_line, shown


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "input.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("2.", 2.0),
        ("-.5", -0.5),
        ("1_000", "1_000"),
        ("010", 10),
        ("12:30", "12:30"),
        ("2024-01-01", "2024-01-01"),
        ("yes", "yes"),
        ("No", "No"),
        ("true", True),
        ("'true'", "true"),
        ("~", None),
        ("", None),
        ("! 5", "5"),
        ("!!str 5", "5"),
        ("9" * 400, float("inf")),
        ("[a, {b: -.inf}]", ["a", {"b": float("-inf")}]),
        ("|\n  a\n  b\n", "a\nb\n"),
        ('"\\x1b[31m"', "\x1b[31m"),
        ('{"a": [1, 2.5, null]}', {"a": [1, 2.5, None]}),
    ],
)
def test_yaml_means_what_version_1_2_says(text: str, value: Any) -> None:
    found = parse_yaml(text)
    assert found == value
    assert type(found) is type(value)


def test_a_key_that_stands_twice(tmp_path: Path) -> None:
    path = written(tmp_path, "targets:\n  rdf: one.yaml\n  adf: two.yaml\n  rdf: three.yaml\n")
    with pytest.raises(ValueError, match="the key 'rdf' stands twice, in lines 2 and 4; remove or rename one"):
        read_yaml(path)
    with pytest.raises(ValueError, match="the key 'a' stands twice"):
        parse_json('{"a": 1, "b": {"c": 1}, "a": 2}')


def test_merged_keys_may_be_replaced(tmp_path: Path) -> None:
    path = written(tmp_path, "cold: &cold\n  temperature: 300\n  pressure: 0\nhot:\n  temperature: 600\n  <<: *cold\n")
    assert read_yaml(path)["hot"] == {"temperature": 600, "pressure": 0}


def test_aliases_give_values_of_their_own() -> None:
    content = parse_yaml("a: &a {b: [1]}\nc: *a\n")
    content["c"]["b"].append(2)
    assert content["a"] == {"b": [1]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "did not find expected ',' or ']'|expected ',' or ']'"),
        ("? [1, 2]\n: 3\n", "the key in line 1 is a mapping or a list"),
        (
            "a: !!python/object/apply:os.getcwd []",
            "the tag 'tag:yaml.org,2002:python/object/apply:os.getcwd'",
        ),
        ("a: !!binary aGFsbG8=", "the tag 'tag:yaml.org,2002:binary' in line 1 is not plain data"),
        ("[" * 5000, "nested too deeply, beyond 64 levels in line 1|maximum nesting depth"),
        ("&a [1, *a]", r"the alias '\*a' in line 1 is part of what it stands for"),
        ("a: &a {b: *a}", r"the alias '\*a' in line 1 is part of what it stands for"),
        ("a: *b", r"undefined alias|stands for nothing"),
        ("a: 1\n---\nb: 2\n", "a second document begins in line 2"),
        ("<<: 5", "'<<' in line 1 merges mappings"),
        ("a: \0", "character"),
    ],
)
def test_what_is_no_document(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=rf"input\.yaml is not YAML that can be read: .*({message})"):
        read_yaml(written(tmp_path, text))


def test_an_alias_bomb_is_refused_at_once(tmp_path: Path) -> None:
    lines = ["a0: &a0 [" + ", ".join(["lol"] * 9) + "]"]
    lines += [f"a{n}: &a{n} [" + ", ".join([f"*a{n - 1}"] * 9) + "]" for n in range(1, 60)]
    path = written(tmp_path, "\n".join(lines))
    assert 3000 < path.stat().st_size < 5000
    began = time.process_time()
    with pytest.raises(ValueError, match=r"aliases repeat more than 100000 values up to line \d; write out"):
        read_yaml(path)
    assert time.process_time() - began < 5


def test_sizes_have_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "MOST_VALUES", 10)
    with pytest.raises(ValueError, match="more than 10 values up to line 1"):
        parse_yaml("[1,2,3,4,5,6,7,8,9,10,11]")
    with pytest.raises(ValueError, match="has 9 bytes; at most 8 are read"):
        read_bytes(written(tmp_path, "123456789"), 8)


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    for path, kind in ((tmp_path / "pipe.yaml", "a pipe"), (Path("/dev/zero"), "a device"), (tmp_path, "a folder")):
        for read in (read_yaml, read_json):
            with pytest.raises(ValueError, match=f"is {kind}; give a regular file"):
                read(path)
    with pytest.raises(ValueError, match=r"nowhere\.yaml cannot be read: No such file"):
        read_yaml(tmp_path / "nowhere.yaml")
    with pytest.raises(ValueError, match="cannot be read: embedded null"):
        read_yaml(Path("a\0b"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "nested too deeply"),
        ("{", "Expecting property name"),
    ],
)
def test_what_is_no_json(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=rf"input\.yaml is not JSON that can be read: {message}|is nested too deeply"):
        read_json(written(tmp_path, text))


def test_json_and_yaml_agree() -> None:
    content = {"a": [1, -2.5e-7, "x", None, True], "b": {"c": "1e3 K"}}
    assert parse_json(json.dumps(content)) == parse_yaml(json.dumps(content)) == content


def test_messages_are_one_short_line_without_control_characters() -> None:
    message = one_line("a\n  \x1b[31mred\0" + "x" * 2_000_000 + "; the remedy")
    assert len(message) <= LONGEST_MESSAGE
    assert message.startswith(r"a \x1b[31mred\x00xxx")
    assert message.endswith("; the remedy")
    assert message.isprintable()
    assert len(shown(list(range(100_000)))) <= 80
