"""Mutations of valid inputs: of the values of a document, of the bytes of a file, of the words of a command."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

Path = tuple[Any, ...]

STRANGE: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31, 2**63, 10**30, 0.0, -0.5, 1e-300, 1e300, -1e300, float("nan"), float("inf"),
    "", "yes", "1_000", "1e3", "300", "nan", "x", "a\0b", "\x1b[31mred", "\u202e", "..", "/dev/zero", "~", "*a",
    "é" * 50, "x" * 5000, [], {}, [[]], [{}], {"": None}, {"a": {"b": {"c": []}}}, [0] * 2000, list(range(30)),
    {str(n): n for n in range(300)},
)  # fmt: skip
"""Values that people, programs and transmissions put where something else belongs."""

VALUES = st.one_of(
    st.sampled_from(STRANGE),
    st.integers(),
    st.floats(),
    st.text(max_size=12),
    st.floats(min_value=-10, max_value=1000).map(lambda number: round(number, 3)),
)

OPERATIONS = ("replace", "replace", "replace", "drop", "duplicate", "rename", "swap", "scale", "wrap", "add")

Mutation = tuple[int, str, Any]

MUTATIONS: st.SearchStrategy[list[Mutation]] = st.lists(
    st.tuples(st.integers(0, 10**6), st.sampled_from(OPERATIONS), VALUES), min_size=1, max_size=4
)


def places(content: Any, where: Path = ()) -> Iterator[Path]:
    """The paths of all values in a document, the first few of a long list."""
    items: Any = ()
    if isinstance(content, dict):
        items = content.items()
    elif isinstance(content, list):
        items = list(enumerate(content))[:8]
    for key, value in items:
        yield (*where, key)
        yield from places(value, (*where, key))


def mutated(content: Any, mutations: list[Mutation]) -> Any:
    """A copy of a document with some values changed, dropped, doubled, renamed, swapped, scaled or wrapped."""
    changed = copy.deepcopy(content)
    for number, operation, value in mutations:
        paths = list(places(changed))
        if not paths:
            return value
        *parents, key = paths[number % len(paths)]
        parent = changed
        for part in parents:
            parent = parent[part]
        _apply(parent, key, operation, copy.deepcopy(value), number)
    return changed


def _apply(parent: Any, key: Any, operation: str, value: Any, number: int) -> None:
    old = parent[key]
    if operation == "drop":
        del parent[key]
    elif operation == "duplicate" and isinstance(parent, list):
        parent.insert(key, copy.deepcopy(old))
    elif operation == "rename" and isinstance(parent, dict):
        parent[f"{key}_" if not isinstance(value, str | int) else value] = parent.pop(key)
    elif operation == "swap":
        other = list(parent)[number % len(parent)] if isinstance(parent, dict) else number % len(parent)
        parent[key], parent[other] = parent[other], old
    elif operation == "scale" and isinstance(old, int | float) and not isinstance(old, bool):
        parent[key] = old * random.Random(number).choice((-1, 0, 1e-9, 0.1, 10, 1e3, 1e9))
    elif operation == "wrap":
        parent[key] = [old] if number % 2 else {"value": old}
    elif operation == "add" and isinstance(parent, dict):
        parent["extra" if not isinstance(value, str | int) else value] = value
    else:
        parent[key] = value


TOKENS = (
    b"\0", b"\xff", b"\n", b" ", b"0", b"-", b".", b"nan", b"1e999", b"9" * 25, b"[", b"]", b"{", b"}", b"&a ", b"*a",
    b": ", b"- ", b"<<: ", b"!!binary ", b"\x1b[2J", b'"', b"'", b"#", b"=", b",", b"\t", b"\xef\xbb\xbf", b"\x80",
)  # fmt: skip

Edit = tuple[int, str, bytes]

EDITS: st.SearchStrategy[list[Edit]] = st.lists(
    st.tuples(
        st.integers(0, 10**9),
        st.sampled_from(("replace", "insert", "delete", "cut", "repeat", "zero", "flip")),
        st.one_of(st.sampled_from(TOKENS), st.binary(min_size=1, max_size=8)),
    ),
    min_size=1,
    max_size=5,
)


def edited(content: bytes, edits: list[Edit]) -> bytes:
    """A copy of a file with some bytes replaced, inserted, deleted, cut off, repeated, zeroed or flipped."""
    changed = bytearray(content)
    for number, operation, token in edits:
        place = number % (len(changed) + 1)
        size = 1 + number % 64
        if operation == "replace":
            changed[place : place + len(token)] = token
        elif operation == "insert":
            changed[place:place] = token
        elif operation == "delete":
            del changed[place : place + size]
        elif operation == "cut":
            del changed[place:]
        elif operation == "repeat":
            changed[place:place] = changed[place : place + 20 * size]
        elif operation == "zero":
            changed[place : place + size] = b"\0" * len(changed[place : place + size])
        elif place < len(changed):
            changed[place] ^= 1 << (number % 8)
    return bytes(changed)
