"""YAML files: keys that stand twice, merges, nesting, what cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from aiida_difftre.data.documents import read_yaml


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "input.yaml"
    path.write_text(text)
    return path


def test_a_key_that_stands_twice(tmp_path: Path) -> None:
    path = written(tmp_path, "targets:\n  rdf: one.yaml\n  adf: two.yaml\n  rdf: three.yaml\n")
    with pytest.raises(ValueError, match=r"(?s)the key 'rdf' stands twice, in line 2 too; .*line 4"):
        read_yaml(path)


def test_merged_keys_may_be_replaced(tmp_path: Path) -> None:
    path = written(tmp_path, "cold: &cold\n  temperature: 300\n  pressure: 0\nhot:\n  <<: *cold\n  temperature: 600\n")
    assert read_yaml(path)["hot"] == {"temperature": 600, "pressure": 0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "is not YAML"),
        ("? [1, 2]\n: 3\n", "is not YAML"),
        ("a: !!python/object/apply:os.getcwd []", "is not YAML"),
        ("[" * 5000, "nested too deeply"),
    ],
)
def test_what_is_no_document(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=rf"input\.yaml {message}|input\.yaml is not YAML .*{message}"):
        read_yaml(written(tmp_path, text))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere\.yaml cannot be read"):
        read_yaml(tmp_path / "nowhere.yaml")
