"""Merges the layers of settings: a YAML file, environment variables over it, options over those, secrets in files.

Each value remembers its origin, so that an error names the file and line, or the variable. This module does not know
which settings exist: `config/schema.py` declares them. pydantic-settings offers the same layers. But it loses the
origins, and its errors print rejected values, including passwords.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from syncer.declaration import located_yaml
from syncer.declaration.names import near
from syncer.errors import Fatal
from syncer.masking import is_secret

Names = tuple[str, ...]
M = TypeVar("M", bound=BaseModel)

ENV_PREFIX = "SYNCER_"
_PATH_NAME = re.compile(r"[._](file|location|keytab)$")
"""Names of settings whose values are paths: `ca_file`, and librdkafka's `ssl.ca.location`, `sasl.kerberos.keytab`, …"""
_NO_PATHS = ("", "probe")
"""Values of such settings that are not paths. `ssl.ca.location: probe` makes librdkafka search the system's."""


class Tree:
    """Nested settings with the origin of every key: `config/syncer.yaml:12` or `environment variable X`."""

    def __init__(self, name: str, folder: Path = Path()) -> None:
        """Creates an empty tree.

        name: the file's name, for errors. folder: the file's folder, where the relative paths in it start.
        """
        self.name = name
        self.folder = folder
        self.values: dict[str, Any] = {}
        self.origins: dict[Names, str] = {}
        self._over_file: set[Names] = set()

    def origin(self, path: Names) -> str:
        """Returns the origin of a key. Without one, returns the origin of the nearest section around it."""
        while path and path not in self.origins:
            path = path[:-1]
        return self.origins.get(path, self.name)

    def folder_of(self, path: Names) -> Path:
        """Returns the folder where a relative path in this setting starts.

        For a value from the file and for a default, this is the file's folder. For a variable or a command-line option,
        and if there is no file, it is the current folder.
        """
        over = any(path[:depth] in self._over_file for depth in range(1, len(path) + 1))
        return Path() if over else self.folder

    def located(self, path: Names, value: str) -> str:
        """Returns a setting's path in a form that can be opened from the current folder."""
        return os.path.normpath(self.folder_of(path) / value)

    def put(self, path: Names, value: Any, origin: str) -> None:
        """Sets a value. It replaces the value of lower layers, and also their `_file` twin of the key.

        Raises Fatal if the same layer gives both the key and its twin.
        """
        node = self.values
        for depth, part in enumerate(path[:-1], 1):
            if not isinstance(node.get(part), dict):
                node[part] = {}
                self.origins[path[:depth]] = origin
            node = node[part]
        last = path[-1]
        twin = last.removesuffix("_file") if last.endswith("_file") else f"{last}_file"
        if twin in node:
            other = self.origin((*path[:-1], twin))
            if other.split(" ")[0] == origin.split(" ")[0]:
                raise Fatal(f"both {last} and {twin} are given", where=origin, hint=f"keep one of them; see {other}")
            del node[twin]
        node[last] = value
        self.origins[path] = origin
        self._over_file.add(path)


def read_yaml(path: Path) -> Tree:
    """Returns the file as a tree.

    Raises Fatal, with the line, if the file is not YAML, is not a mapping, or duplicates a key. A key and its `_file`
    twin count as duplicates.
    """
    try:
        text = path.read_text("utf-8")
    except OSError as e:
        raise Fatal("cannot read the configuration file", where=str(path), why=e.strerror or str(e)) from e
    except UnicodeDecodeError as e:
        raise Fatal("the configuration file is not UTF-8", where=str(path)) from e
    values, lines = located_yaml.read(text, str(path), located_yaml.yaml_1_1, merge_keys=True)
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise Fatal(
            "the configuration file has to be a mapping of sections",
            where=f"{path}:1",
            hint="see docs/configuration.md",
        )
    tree = Tree(str(path), path.parent)
    tree.values = values
    for place, line in lines.items():
        names = tuple(name for name in place if isinstance(name, str))
        if names and len(names) == len(place):  # items of a list have the origin of the list
            tree.origins[names] = f"{path}:{line}"
    _refuse_twins(values, (), tree)
    return tree


def _refuse_twins(values: Mapping[str, Any], path: Names, tree: Tree) -> None:
    for key, value in values.items():
        if f"{key}_file" in values:
            where = tree.origin((*path, key))
            raise Fatal(f"both {key} and {key}_file are given", where=where, hint="keep one of them")
        if isinstance(value, dict):
            _refuse_twins(value, (*path, key), tree)


def add_environment(tree: Tree, environ: Mapping[str, str], top_level: set[str]) -> None:
    """Sets the values of all variables `SYNCER_<SECTION>__<KEY>` in the tree.

    top_level: the settings that are not sections. Other names without `__` are ignored, because Kubernetes creates
    variables such as `SYNCER_PORT` for a service called syncer.
    """
    for name in sorted(environ):
        if not name.upper().startswith(ENV_PREFIX):
            continue
        path = tuple(name[len(ENV_PREFIX) :].lower().split("__"))
        if all(path) and (len(path) > 1 or path[0] in top_level):
            tree.put(path, environ[name], f"environment variable {name}")


def build(cls: type[M], tree: Tree, at: Names = (), values: Mapping[str, Any] | None = None) -> M:
    """Returns the settings as an instance of `cls`, with the secrets read from their files.

    at: the path of the settings in the tree.
    values: replaces the tree's values at that path.
    Raises Fatal with every error found. Each has its origin. An unknown name has the nearest correct one as a hint.
    """
    if values is None:
        values = tree.values
        for part in at:
            values = values.get(part) or {}
    data = with_files(values, cls, tree, at)
    try:
        return cls.model_validate(data, context={"tree": tree})
    except ValidationError as e:
        error = e
    if _parse_variables(data, error, tree, at):
        try:
            return cls.model_validate(data, context={"tree": tree})
        except ValidationError as e:
            error = e
    found = [_problem(cls, item, tree, at) for item in error.errors(include_input=False, include_url=False)]
    if len(found) == 1:
        raise found[0] from None
    raise Fatal(f"{len(found)} errors in the configuration", where=tree.name, why="\n".join(map(str, found))) from None


def with_files(values: Mapping[str, Any], cls: type[BaseModel] | None, tree: Tree, at: Names) -> dict[str, Any]:
    """Returns a copy with secrets read from files, and with paths that can be opened from the current folder.

    A `KEY_file` that is not itself a declared key becomes KEY, with the content of the file. Relative paths start at
    `Tree.folder_of`.

    cls: declares the keys. Without it, the names decide: `masking.is_secret` recognizes secrets, and `…_file`,
    `….location` and similar names are paths.
    Raises Fatal if a file cannot be read.
    """
    fields = cls.model_fields if cls else {}
    result: dict[str, Any] = {}
    for key, value in values.items():
        bare = key.removesuffix("_file")
        path = (*at, key)
        if bare != key and key not in fields and (bare in fields if cls else is_secret(bare)):
            file = tree.located(path, str(value))
            try:
                result[bare] = Path(file).read_text("utf-8").rstrip("\r\n")
            except OSError as e:
                where = tree.origin(path)
                raise Fatal(f"cannot read {key} {file}", where=where, why=e.strerror or str(e)) from e
            tree.origins[*at, bare] = f"file {file}"
        elif isinstance(value, dict):
            result[key] = with_files(value, _section(fields.get(key)), tree, path)
        elif isinstance(value, str) and value not in _NO_PATHS and _holds_path(key, fields.get(key)):
            result[key] = tree.located(path, value)
        else:
            result[key] = value
    for key, field in fields.items():
        section = _section(field)
        if key in result:
            continue
        if isinstance(field.default, Path):
            result[key] = tree.located((*at, key), str(field.default))
        elif section and not field.is_required() and (inner := with_files({}, section, tree, (*at, key))):
            result[key] = inner
    return result


def _section(field: FieldInfo | None) -> type[BaseModel] | None:
    annotation = field.annotation if field else None
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _holds_path(name: str, field: FieldInfo | None) -> bool:
    """Returns whether a setting is the path of a file or folder."""
    if field and (field.annotation is Path or Path in get_args(field.annotation)):
        return True
    return _PATH_NAME.search(name) is not None


def _parse_variables(data: dict[str, Any], error: ValidationError, tree: Tree, at: Names) -> bool:
    """Parses variables that contain a YAML list or mapping, where validation rejected their text.

    Returns whether a value changed.
    """
    changed = False
    for item in error.errors(include_input=False, include_url=False):
        path = tuple(map(str, item["loc"]))
        node: Any = data
        for part in path[:-1]:
            node = node.get(part) if isinstance(node, dict) else None
        text = node.get(path[-1]) if isinstance(node, dict) and path else None
        if isinstance(text, str) and text[:1] in ("[", "{") and tree.origin((*at, *path)).startswith("env"):
            try:
                node[path[-1]] = yaml.safe_load(text)
            except yaml.YAMLError:
                continue
            changed = True
    return changed


def _problem(cls: type[BaseModel], item: Any, tree: Tree, at: Names) -> Fatal:
    path: Names = (*at, *map(str, item["loc"]))
    dotted, where = ".".join(path), tree.origin(path)
    if item["type"] == "extra_forbidden":
        owner: type[BaseModel] | None = cls
        for part in map(str, item["loc"][:-1]):
            field = owner.model_fields.get(part) if owner else None
            owner = field.annotation if field and isinstance(field.annotation, type) else None
        return unknown(dotted, where, owner.model_fields if owner else ())
    if item["type"] == "missing":
        variables = [ENV_PREFIX + "__".join(one).upper() for one in _required(cls, path, len(at))]
        hint = f"set it in the configuration file, or as {' and '.join(variables)}"
        return Fatal(f"{dotted} is missing", where=tree.name, hint=hint)
    message = item["msg"].removeprefix("Value error, ")
    return Fatal(f"{dotted} is invalid", where=where, why=message[:1].lower() + message[1:])


def _required(cls: type[BaseModel], path: Names, depth: int) -> list[Names]:
    """Returns the settings that a missing `path` needs. For a section, these are its keys without a default."""
    field = cls.model_fields.get(path[depth]) if len(path) == depth + 1 else None
    section = field.annotation if field else None
    if isinstance(section, type) and issubclass(section, BaseModel):
        return [(*path, name) for name, one in section.model_fields.items() if one.is_required()]
    return [path]


def unknown(dotted: str, where: str, names: Iterable[str]) -> Fatal:
    """Returns the error for an unknown setting. The hint is the nearest correct name, or otherwise all names.

    dotted: the setting. names: the correct names for its last part.
    """
    *parents, last = dotted.split(".")
    names = list(names)
    meant = near(last, names)
    hint = f"did you mean {'.'.join([*parents, meant])}?" if meant else f"known names: {', '.join(names)}"
    return Fatal(f"there is no setting {dotted}", where=where, hint=hint if names else "")
