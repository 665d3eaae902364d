"""Reads YAML files together with the line of every value, so that errors can name the line.

Read models and the configuration file are read here. They differ in how an unquoted scalar becomes a value, so the
caller passes a function for that:

* `text_except_under`: text stays text, except below the keys that the caller names. In a read model, `1` is the text
  "1", which is a SQL literal like any other. Words have their YAML 1.2 meaning: the key `on` is text and not `true`.
* `yaml_1_1`: the values of PyYAML, as administrators know them from other configuration files.

Duplicate keys are errors. PyYAML would silently keep the last one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import TypeAlias

import yaml

from syncer.errors import Fatal

Plain: TypeAlias = "str | int | float | bool | list[Plain] | dict[str, Plain] | None"
Path = tuple[str | int, ...]
Scalars = Callable[[yaml.ScalarNode, Path], Plain]
"""Returns the value of a scalar. Arguments: the node, and its path in the document."""

_NULL = re.compile(r"~|null|Null|NULL|")
_BOOLEAN = re.compile(r"true|True|TRUE|false|False|FALSE")
_INTEGER = re.compile(r"[-+]?\d+")
_FLOAT = re.compile(r"[-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?")


def text_except_under(keys: Collection[str]) -> Scalars:
    """Returns a function that reads scalars as text.

    keys: the top-level keys below which unquoted scalars are numbers, booleans and null.
    """

    def value(node: yaml.ScalarNode, path: Path) -> Plain:
        text = str(node.value)
        return _core_schema(text) if node.style is None and path and path[0] in keys else text

    return value


def yaml_1_1(node: yaml.ScalarNode, path: Path) -> Plain:
    """Returns the value that PyYAML's safe loader gives a scalar. Raises YAMLError for an unknown tag."""
    found: Plain = yaml.SafeLoader("").construct_object(node)
    return found


def read(text: str, file: str, scalars: Scalars, *, merge_keys: bool = False) -> tuple[Plain, Mapping[Path, int]]:
    """Returns the values of a YAML document, and the line of each path in it. The first line is 1.

    merge_keys: expand `<<: *anchor`, which YAML 1.1 has and YAML 1.2 has not.
    Raises Fatal for text that is not YAML, for a second document, and for a duplicate or composite key.
    """
    lines: dict[Path, int] = {(): 1}
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is None:
            return None, lines
        return _Reader(file, scalars, lines, merge_keys=merge_keys).value(node, ()), lines
    except (yaml.YAMLError, ValueError) as error:  # ValueError: an impossible date
        mark = getattr(error, "problem_mark", None)
        raise Fatal(
            "this is not valid YAML",
            where=f"{file}:{mark.line + 1}" if mark else file,
            why=getattr(error, "problem", None) or str(error),
            hint="indent with spaces, not with tabs"
            if "'\\t'" in str(error)
            else "quote a text that contains `: ` or ` #`, or that begins with one of * & ! | > % @ ` [ {. Inside of"
            " {…} and […], also quote a text that contains a comma or a bracket",
        ) from error


class _Reader:
    def __init__(self, file: str, scalars: Scalars, lines: dict[Path, int], *, merge_keys: bool) -> None:
        self._file = file
        self._scalars = scalars
        self._lines = lines
        self._merge_keys = merge_keys
        self._open: set[int] = set()
        """The collections around the current value, to detect an alias to one of them."""

    def value(self, node: yaml.Node, path: Path) -> Plain:
        self._lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.ScalarNode):
            return self._scalars(node, path)
        if id(node) in self._open:
            raise self._error("this value contains itself", node)
        self._open.add(id(node))
        found: Plain
        if isinstance(node, yaml.MappingNode):
            found = self._mapping(node, path)
        else:
            found = [self.value(item, (*path, position)) for position, item in enumerate(node.value)]
        self._open.discard(id(node))
        return found

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Plain]:
        first: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise self._error("a key has to be a single word or text, not a list or a mapping", key)
            name, line = str(key.value), key.start_mark.line + 1
            if name in first:
                raise self._error(f"the key {name!r} is duplicated", key, hint=f"see line {first[name]}; keep one")
            first[name] = line
        if self._merge_keys:
            yaml.SafeLoader("").flatten_mapping(node)
        found: dict[str, Plain] = {}
        for key, item in node.value:  # merged keys come first, so that written ones win
            name = str(key.value)
            self._lines[(*path, name)] = key.start_mark.line + 1
            found[name] = self.value(item, (*path, name))
        return found

    def _error(self, what: str, node: yaml.Node, hint: str = "") -> Fatal:
        return Fatal(what, where=f"{self._file}:{node.start_mark.line + 1}", hint=hint)


def _core_schema(text: str) -> Plain:
    """Returns the value of an unquoted scalar by YAML's core schema.

    Hexadecimal, octal and infinite numbers stay text.
    """
    if _NULL.fullmatch(text):
        return None
    if _BOOLEAN.fullmatch(text):
        return text.lower() == "true"
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text
