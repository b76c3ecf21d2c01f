"""The one reader of YAML and JSON: what is not plain data of a sane size is refused. Free of JAX.

A document is mappings, lists, strings, numbers, booleans and null, as YAML 1.2 and JSON know them: ``1e-3`` is a
number, and ``yes``, ``1_000`` and ``2024-01-01`` are strings. A key that stands twice is refused, of which YAML and
JSON would keep the last; so are tags, aliases that contain themselves or repeat too much, and files that are no files.
"""

from __future__ import annotations

import copy
import json
import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiida_difftre.engine.errors import one_line, shown

if TYPE_CHECKING:
    import yaml

LARGEST_DOCUMENT = 16 * 2**20
"""Bytes. A table of scattering paths, the longest part of any input, takes less than one MiB."""

DEEPEST_DOCUMENT = 64
"""Levels of mappings and lists; an input has some ten."""

MOST_VALUES = 2_000_000
"""Of a document, those of its aliases counted wherever they stand: as many as a file of the largest size holds."""

MOST_REPEATED_VALUES = 100_000
"""That aliases may add: they save a person from repeating a few settings."""

_CORE_TAG = "tag:yaml.org,2002:"
_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEAN = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER = re.compile(r"[-+]?[0-9]{1,19}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"([-+]?)\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


def read_bytes(path: Path, largest: int = LARGEST_DOCUMENT) -> bytes:
    """The bytes of a regular file.

    Args:
        path: links are followed; pipes, devices and sockets are not opened for reading, which might never end.
        largest: number of bytes beyond which a file is refused.

    Returns:
        The content.

    Raises:
        ValueError: naming the file, and what is wrong with it.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0))
    except (OSError, ValueError) as error:  # the latter for a NUL in the name
        raise ValueError(f"{one_line(str(path))} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    try:
        check_regular(path, os.fstat(handle), largest)
        with os.fdopen(handle, "rb", closefd=False) as stream:
            content = stream.read(largest + 1)
    finally:
        os.close(handle)
    if len(content) > largest:
        raise ValueError(f"{one_line(str(path))} grew beyond {largest} bytes while it was read")
    return content


def check_regular(path: Path, status: os.stat_result | None = None, largest: int | None = None) -> None:
    """Refuse what is no regular file: a folder, a pipe, a device, a socket; and a file that is too large.

    Raises:
        ValueError: naming the file, and what it is.
    """
    try:
        status = status or path.stat()
    except (OSError, ValueError) as error:
        raise ValueError(f"{one_line(str(path))} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not stat.S_ISREG(status.st_mode):
        kinds = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"))
        kind = next((name for test, name in kinds if test(status.st_mode)), "a device")
        raise ValueError(f"{one_line(str(path))} is {kind}; give a regular file")
    if largest is not None and status.st_size > largest:
        raise ValueError(f"{one_line(str(path))} has {status.st_size} bytes; at most {largest} are read")


def _text(path: Path, content: bytes, form: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{one_line(str(path))} is not {form}: it is no text in UTF-8 ({error.reason})") from None


def read_yaml(path: Path) -> Any:
    r"""Read a YAML or JSON file that holds plain data: mappings, lists, strings, numbers, booleans and null.

    Args:
        path: The file.

    Returns:
        Its content; None for an empty file.

    Raises:
        ValueError: For a file that is missing, no regular file, too large or not such YAML; the message names it.

    Example:
        Numbers are those of YAML 1.2, and ``yes`` is a string:

        >>> import tempfile
        >>> from pathlib import Path
        >>> from aiida_difftre.engine.contract.documents import read_yaml
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "settings.yaml")
        ...     _ = path.write_text("learning_rate: 1e-3\nverdict: yes\n", encoding="utf-8")
        ...     read_yaml(path)
        {'learning_rate': 0.001, 'verdict': 'yes'}
    """
    text = _text(path, read_bytes(path), "YAML")
    try:
        return parse_yaml(text)
    except ValueError as error:
        raise ValueError(f"{one_line(str(path))} is not YAML that can be read: {error}") from None


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        ValueError: naming the file, for one that is missing, no regular file, too large or not such JSON.
    """
    text = _text(path, read_bytes(path), "JSON")
    try:
        return parse_json(text)
    except ValueError as error:
        raise ValueError(f"{one_line(str(path))} is not JSON that can be read: {error}") from None


def parse_json(text: str | bytes) -> Any:
    """The content of JSON; numbers that are not finite come as they do from YAML: the models name and refuse them.

    Raises:
        ValueError: saying what is wrong, and where.
    """

    def integer(digits: str) -> float:
        return int(digits) if _INTEGER.fullmatch(digits) else float(digits)

    def mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        if len(content) != len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"the key {shown(twice)} stands twice; remove or rename one")
        return content

    try:
        return json.loads(text, object_pairs_hook=mapping, parse_int=integer)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def parse_yaml(text: str) -> Any:
    """The content of one YAML document; None for an empty one.

    Raises:
        ValueError: saying what is wrong, and in which line.
    """
    import yaml

    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    builder = _Builder()
    try:
        for event in yaml.parse(text, Loader=loader):
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        place = f" in line {error.problem_mark.line + 1}" if error.problem_mark is not None else ""
        raise ValueError(f"{error.problem or error.context}{place}") from None
    except yaml.YAMLError as error:  # a character that YAML does not allow
        raise ValueError(" ".join(str(error).split())) from None
    return builder.content


class _Open:
    """A mapping or list whose end has not come yet."""

    def __init__(self, start: yaml.Event, before: int) -> None:
        self.content: dict[Any, Any] | list[Any] = [] if start.__class__.__name__.startswith("Sequence") else {}
        self.anchor: str | None = start.anchor  # type: ignore[attr-defined]
        self.before = before  # values of the document until here
        self.key: Any = _NONE
        self.lines: dict[Any, int] = {}
        self.merged: list[dict[Any, Any]] = []


_NONE, _MERGE = object(), object()


class _Builder:
    """Makes data from the events of a parser, without recursion: depth and size are known as they grow."""

    def __init__(self) -> None:
        self.content: Any = None
        self._documents = 0
        self._open: list[_Open] = []
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._values = 0
        self._repeated = 0

    def take(self, event: yaml.Event) -> None:
        """Go on by one event."""
        name = event.__class__.__name__
        line = 1 + (event.start_mark.line if event.start_mark is not None else 0)
        if name == "DocumentStartEvent":
            self._documents += 1
            if self._documents > 1:
                raise ValueError(f"a second document begins in line {line}; give one")
        elif name in ("MappingStartEvent", "SequenceStartEvent"):
            self._start(event, line)
        elif name in ("MappingEndEvent", "SequenceEndEvent"):
            self._end(line)
        elif name == "ScalarEvent":
            self._count(1, line)
            value = _scalar(event, line)
            if event.anchor is not None:  # type: ignore[attr-defined]
                self._anchors[event.anchor] = value, 1  # type: ignore[attr-defined]
            self._add(value, line)
        elif name == "AliasEvent":
            self._alias(event.anchor, line)  # type: ignore[attr-defined]

    def _count(self, number: int, line: int) -> None:
        self._values += number
        if self._values > MOST_VALUES:
            raise ValueError(f"it holds more than {MOST_VALUES} values up to line {line}")

    def _start(self, event: yaml.Event, line: int) -> None:
        kind = "seq" if event.__class__.__name__.startswith("Sequence") else "map"
        if event.tag not in (None, "!", _CORE_TAG + kind):  # type: ignore[attr-defined]
            raise ValueError(f"the tag {shown(event.tag)} in line {line} is not plain data; leave it out")  # type: ignore[attr-defined]
        if len(self._open) >= DEEPEST_DOCUMENT:
            raise ValueError(f"it is nested too deeply, beyond {DEEPEST_DOCUMENT} levels in line {line}")
        opened = _Open(event, self._values)
        if opened.anchor is not None:
            self._anchors.pop(opened.anchor, None)  # until its end it is what would contain itself
        self._count(1, line)
        self._open.append(opened)

    def _end(self, line: int) -> None:
        closed = self._open.pop()
        if isinstance(closed.content, dict):
            for default in closed.merged:
                closed.content.update({key: value for key, value in default.items() if key not in closed.content})
        if closed.anchor is not None:
            self._anchors[closed.anchor] = closed.content, self._values - closed.before
        self._add(closed.content, line)

    def _alias(self, anchor: str, line: int) -> None:
        if anchor not in self._anchors:
            inside = any(opened.anchor == anchor for opened in self._open)
            problem = "is part of what it stands for" if inside else "stands for nothing"
            raise ValueError(f"the alias {shown('*' + anchor)} in line {line} {problem}")
        value, size = self._anchors[anchor]
        self._count(size, line)
        self._repeated += size
        if self._repeated > MOST_REPEATED_VALUES:
            raise ValueError(
                f"aliases repeat more than {MOST_REPEATED_VALUES} values up to line {line}; write out what is needed"
            )
        self._add(copy.deepcopy(value), line)

    def _add(self, value: Any, line: int) -> None:
        if not self._open:
            self.content = value
            return
        place = self._open[-1]
        if isinstance(place.content, list):
            place.content.append(None if value is _MERGE else value)
        elif place.key is _NONE:
            self._key(place, value, line)
        else:
            if place.key is _MERGE:
                place.merged += _mappings(value, line)
            else:
                place.content[place.key] = value
            place.key = _NONE

    def _key(self, place: _Open, key: Any, line: int) -> None:
        if isinstance(key, dict | list):
            raise ValueError(f"the key in line {line} is a mapping or a list; give a word or a number")
        if key is not _MERGE and key in place.lines:
            raise ValueError(
                f"the key {shown(key)} stands twice, in lines {place.lines[key]} and {line}; remove or rename one"
            )
        place.lines[key] = line
        place.key = key


def _mappings(value: Any, line: int) -> Iterable[dict[Any, Any]]:
    parts = value if isinstance(value, list) else [value]
    if not all(isinstance(part, dict) for part in parts):
        raise ValueError(f"'<<' in line {line} merges mappings, such as <<: *name; write out the settings")
    return parts


def _scalar(event: Any, line: int) -> Any:
    """A value: as YAML 1.2 reads it where it is plain, a string where it stands in quotes or in a block."""
    text, tag = event.value, event.tag
    if tag is not None and tag != "!":
        if tag == _CORE_TAG + "str":
            return text
        raise ValueError(f"the tag {shown(tag)} in line {line} is not plain data; leave it out")
    if not event.implicit[0] or tag == "!":
        return text
    if text in _NULL:
        return None
    if text == "<<":
        return _MERGE
    if text in _BOOLEAN:
        return _BOOLEAN[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    if found := _NOT_FINITE.fullmatch(text):
        return float("nan") if found.group(3) else float(f"{found.group(1)}inf")
    return text
