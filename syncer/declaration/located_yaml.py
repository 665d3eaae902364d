"""YAML with lines: a file as plain values, and the line of every one of them, for errors that say where.

Reads YAML as version 1.2 means it, so that the key `on` is a word and not a truth value. Duplicate keys are
errors. Text stays text: values are only read as numbers and truth values under the places that the caller
names; elsewhere `1` is the text "1", a SQL literal like any other.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import TypeAlias

import yaml

from syncer.errors import Fatal

Plain: TypeAlias = "str | int | float | bool | list[Plain] | dict[str, Plain] | None"
Path = tuple[str | int, ...]

_NULL = re.compile(r"~|null|Null|NULL|")
_BOOLEAN = re.compile(r"true|True|TRUE|false|False|FALSE")
_INTEGER = re.compile(r"[-+]?\d+")
_FLOAT = re.compile(r"[-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?")


def read(text: str, file: str, *, typed_under: Collection[str] = ()) -> tuple[Plain, Mapping[Path, int]]:
    """The values of a YAML document, and the line (1 is the first) of each path in it.

    typed_under: top-level keys below which unquoted scalars are numbers, truth values and null.
    Raises Fatal for what is not YAML, for a second document, for duplicate and non-text keys.
    """
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise Fatal(
            "this is not YAML",
            where=f"{file}:{mark.line + 1}" if mark else file,
            why=getattr(error, "problem", None) or str(error),
            hint="quote texts that hold `: `, ` #` or begin with one of * & ! | > % @ ` [ {",
        ) from error
    lines: dict[Path, int] = {(): 1}
    if node is None:
        return None, lines
    return _Reader(file, typed_under, lines).value(node, ()), lines


class _Reader:
    def __init__(self, file: str, typed_under: Collection[str], lines: dict[Path, int]) -> None:
        self._file = file
        self._typed_under = typed_under
        self._lines = lines
        self._open: set[int] = set()

    def value(self, node: yaml.Node, path: Path) -> Plain:
        self._lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        if id(node) in self._open:
            raise self._error("this value contains itself", node)
        self._open.add(id(node))
        found: Plain
        if isinstance(node, yaml.MappingNode):
            found = self._mapping(node, path)
        else:
            found = [self.value(item, (*path, place)) for place, item in enumerate(node.value)]
        self._open.discard(id(node))
        return found

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Plain]:
        found: dict[str, Plain] = {}
        for key, item in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise self._error("a key has to be a word or a text", key)
            name = str(key.value)
            if name in found:
                raise self._error(f"the key {name!r} is here twice", key)
            self._lines[(*path, name)] = key.start_mark.line + 1
            found[name] = self.value(item, (*path, name))
        return found

    def _scalar(self, node: yaml.ScalarNode, path: Path) -> Plain:
        text = str(node.value)
        if node.style is None and path and path[0] in self._typed_under:
            return _typed(text)
        return text

    def _error(self, what: str, node: yaml.Node) -> Fatal:
        return Fatal(what, where=f"{self._file}:{node.start_mark.line + 1}")


def _typed(text: str) -> Plain:
    """An unquoted scalar by YAML's core schema, without its hexadecimal, octal and infinite numbers."""
    if _NULL.fullmatch(text):
        return None
    if _BOOLEAN.fullmatch(text):
        return text.lower() == "true"
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text
