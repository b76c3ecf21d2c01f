"""What is wrong with data in the words of the field, never in those of pydantic; and decimal commas."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from pydantic import Field

from aiida_difftre.engine.contract.base import Strict
from aiida_difftre.engine.contract.bounds import Temperature
from aiida_difftre.engine.contract.numbers import point_remedy, read_number
from aiida_difftre.engine.contract.validation import validate


class Inner(Strict):
    depth: Temperature
    kind: Literal["left", "right"] = "left"
    scale: float = 1.0


class Outer(Strict):
    name: str
    inner: Inner
    table: dict[str, Inner] = Field(default_factory=dict)
    numbers: list[float] = Field(default_factory=list, max_length=3)
    place: tuple[int, int] = (1, 2)
    is_open: bool = False


RIGHT: dict[str, Any] = {"name": "a", "inner": {"depth": 1.0}}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"name": "a"}, "inner: missing; write `inner:` and below it `depth:`"),
        ({"inner": {"depth": 1.0}}, "name: missing; write `name:` and text"),
        ({"name": "a", "inner": {}}, "inner.depth: missing; write `depth:` and a number, in K"),
        ({**RIGHT, "table": {"x": {}}}, "table.x.depth: missing; write `depth:` and a number, in K"),
        ({**RIGHT, "nam": 3}, "nam: unknown key (got 3); did you mean 'name'?"),
        ({**RIGHT, "zzz": 3}, "zzz: unknown key (got 3); known here: name, inner, table, numbers, place, is_open"),
        (
            {**RIGHT, "inner": 3},
            "inner: must be a mapping, of lines KEY: VALUE (got 3); known here: depth, kind, scale",
        ),
        ({**RIGHT, "table": [1]}, "table: must be a mapping, of lines KEY: VALUE"),
        ({**RIGHT, "numbers": 3.5}, "numbers: must be a list, such as [A, B] (got 3.5)"),
        ({**RIGHT, "numbers": [1, 2, 3, 4]}, "numbers: must have at most 3 entries"),
        ({**RIGHT, "place": [1]}, "place.1: missing; the list is too short"),
        ({**RIGHT, "place": [1, 2.5]}, "place.1: must be a whole number (got 2.5)"),
        ({**RIGHT, "is_open": 7.5}, "is_open: must be true or false (got 7.5)"),
        ({**RIGHT, "name": 7}, "name: must be text (got 7)"),
        ({"name": "a", "inner": {"depth": 1.0, "kind": "up"}}, "inner.kind: must be 'left' or 'right' (got 'up')"),
        (
            {"name": "a", "inner": {"depth": "2,5"}},
            "inner.depth: must be a number, in K (got '2,5'); write it with a decimal point: 2.5",
        ),
        (
            {"name": "a", "inner": {"depth": 1.0, "scale": "2,5"}},
            "inner.scale: must be a number (got '2,5'); write it with a decimal point: 2.5",
        ),
        ({**RIGHT, "numbers": [1, "one"]}, "numbers.1: must be a number (got 'one')"),
        (None, "must be a mapping, of lines KEY: VALUE (got None); known here: name, inner"),
    ],
)
def test_problems_are_told_plainly(content: Any, told: str) -> None:
    with pytest.raises(ValueError, match=r"^[^:]*: |^must be") as caught:
        validate(Outer, content)
    message = str(caught.value)
    assert message.startswith(told)
    assert "Input" not in message
    assert "dictionary" not in message


def test_a_place_in_a_document_is_told() -> None:
    with pytest.raises(ValueError, match=r"^section\.inner\.depth: must be above 0"):
        validate(Outer, {"name": "a", "inner": {"depth": -1.0}}, "section")


def test_numbers_have_a_decimal_point() -> None:
    assert read_number(" 2.5e3 ") == 2500.0
    with pytest.raises(ValueError, match=r"^'2,5' is no number; write it with a decimal point: 2\.5$"):
        read_number("2,5")
    with pytest.raises(ValueError, match=r"^'much' is no number$"):
        read_number("much")
    assert point_remedy("12,5 bar").endswith(": 12.5")
    assert point_remedy("O,O") == point_remedy(None) == point_remedy("2.5") == ""
