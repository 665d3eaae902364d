"""Settings in layers: a YAML file, environment variables over it, options over those, secrets in files.

Every value knows where it came from, so that an error names the file and line or the variable. What there
is to set is not known here: `config/schema.py` declares that. pydantic-settings does the same layering but
forgets origins, and prints a rejected value (a password, too) in its errors.
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

from syncer.declaration.names import near
from syncer.errors import Fatal
from syncer.masking import is_secret

Path_ = tuple[str, ...]
M = TypeVar("M", bound=BaseModel)

ENV_PREFIX = "SYNCER_"
_PATH_NAME = re.compile(r"[._](file|location|keytab)$")
"""Settings that are paths: `ca_file`, and librdkafka's `ssl.ca.location`, `sasl.kerberos.keytab`, …"""
_NO_PATHS = ("", "probe")
"""What stands where a path may stand: librdkafka's `ssl.ca.location: probe` looks for the system's own."""


class Tree:
    """Nested settings, with the origin of every key: `config/syncer.yaml:12` or `environment variable X`."""

    def __init__(self, name: str, folder: Path = Path()) -> None:
        """folder: of the file; relative paths in the file start there."""
        self.name = name
        self.folder = folder
        self.values: dict[str, Any] = {}
        self.origins: dict[Path_, str] = {}
        self._over_file: set[Path_] = set()

    def origin(self, path: Path_) -> str:
        """Of the key, else of what it is in."""
        while path and path not in self.origins:
            path = path[:-1]
        return self.origins.get(path, self.name)

    def folder_of(self, path: Path_) -> Path:
        """The folder where a relative path in this setting starts.

        For a value of the file, and for a default, it is the file's folder. For a variable or an option of
        the command line, and without a file, it is the current folder.
        """
        over = any(path[:depth] in self._over_file for depth in range(1, len(path) + 1))
        return Path() if over else self.folder

    def located(self, path: Path_, value: str) -> str:
        """The path that a setting holds, as it can be opened from the current folder."""
        return os.path.normpath(self.folder_of(path) / value)

    def put(self, path: Path_, value: Any, origin: str) -> None:
        """Set one value over whatever lower layers said, its `_file` twin included.

        Raises Fatal when the same layer gives a value and its twin.
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
                raise Fatal(f"both {last} and {twin} are given", where=origin, hint=f"keep one; see {other}")
            del node[twin]
        node[last] = value
        self.origins[path] = origin
        self._over_file.add(path)


def read_yaml(path: Path) -> Tree:
    """The file as a tree. Raises Fatal with the line if it is not YAML, no mapping, or repeats a key."""
    tree = Tree(str(path), path.parent)
    try:
        loader = yaml.SafeLoader(path.read_text("utf-8"))
    except OSError as e:
        raise Fatal("cannot read the configuration", where=str(path), why=e.strerror or str(e)) from e
    except UnicodeDecodeError as e:
        raise Fatal("the configuration is not UTF-8", where=str(path)) from e
    try:
        node = loader.get_single_node()
        if node is not None:
            tree.values = _construct(loader, node, (), tree)
    except yaml.MarkedYAMLError as e:
        line = e.problem_mark.line + 1 if e.problem_mark else 1
        raise Fatal("not valid YAML", where=f"{path}:{line}", why=e.problem or "") from None
    if not isinstance(tree.values, dict):
        raise Fatal("the configuration has to be a mapping of sections", where=f"{path}:1")
    return tree


def _construct(loader: yaml.SafeLoader, node: yaml.Node, path: Path_, tree: Tree) -> Any:
    if not isinstance(node, yaml.MappingNode):
        return loader.construct_object(node, deep=True)
    loader.flatten_mapping(node)
    result: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = str(key_node.value)
        where = f"{tree.name}:{key_node.start_mark.line + 1}"
        if key in result:
            raise Fatal(f"{key} is given twice", where=where, hint=f"see {tree.origin((*path, key))}")
        tree.origins[*path, key] = where
        result[key] = _construct(loader, value_node, (*path, key), tree)
    for key in result:
        if f"{key}_file" in result:
            where = tree.origin((*path, key))
            raise Fatal(f"both {key} and {key}_file are given", where=where, hint="keep one")
    return result


def add_environment(tree: Tree, environ: Mapping[str, str], top_level: set[str]) -> None:
    """Lay `SYNCER_<SECTION>__<KEY>` over the tree; `top_level` names the settings that are no section.

    Names without `__` that are not in `top_level` are left alone: Kubernetes makes `SYNCER_PORT` and the
    like for a service called syncer.
    """
    for name in sorted(environ):
        if not name.upper().startswith(ENV_PREFIX):
            continue
        path = tuple(name[len(ENV_PREFIX) :].lower().split("__"))
        if all(path) and (len(path) > 1 or path[0] in top_level):
            tree.put(path, environ[name], f"environment variable {name}")


def build(cls: type[M], tree: Tree, at: Path_ = (), values: Mapping[str, Any] | None = None) -> M:
    """The settings as `cls`, secrets read from their files.

    at: where in the tree they are. values: instead of what the tree has there.
    Raises Fatal with every error found, each with its origin and, for unknown names, the nearest right one.
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


def with_files(values: Mapping[str, Any], cls: type[BaseModel] | None, tree: Tree, at: Path_) -> dict[str, Any]:
    """A copy in which every `KEY_file` (unless it is a key of its own) became KEY, with the file's text, and
    every path can be opened from the current folder (see `Tree.folder_of`).

    cls: tells which keys there are; without it, names decide: a KEY that sounds like a secret is one, and
    `…_file`, `….location` and the like are paths.
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
    """Whether a setting is the path of a file or folder."""
    if field and (field.annotation is Path or Path in get_args(field.annotation)):
        return True
    return _PATH_NAME.search(name) is not None


def _parse_variables(data: dict[str, Any], error: ValidationError, tree: Tree, at: Path_) -> bool:
    """Read lists and mappings that variables hold as YAML, where text was not right."""
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


def _problem(cls: type[BaseModel], item: Any, tree: Tree, at: Path_) -> Fatal:
    path: Path_ = (*at, *map(str, item["loc"]))
    dotted, where = ".".join(path), tree.origin(path)
    if item["type"] == "extra_forbidden":
        owner: type[BaseModel] | None = cls
        for part in map(str, item["loc"][:-1]):
            field = owner.model_fields.get(part) if owner else None
            owner = field.annotation if field and isinstance(field.annotation, type) else None
        return unknown(dotted, where, owner.model_fields if owner else ())
    if item["type"] == "missing":
        variables = [ENV_PREFIX + "__".join(one).upper() for one in _required(cls, path, len(at))]
        hint = f"set it there, or as {' and '.join(variables)}"
        return Fatal(f"{dotted} is missing", where=tree.name, hint=hint)
    message = item["msg"].removeprefix("Value error, ")
    return Fatal(f"{dotted} is not right", where=where, why=message[:1].lower() + message[1:])


def _required(cls: type[BaseModel], path: Path_, depth: int) -> list[Path_]:
    """What has to be set for `path` to be there: of a section, those of its keys that have no default."""
    field = cls.model_fields.get(path[depth]) if len(path) == depth + 1 else None
    section = field.annotation if field else None
    if isinstance(section, type) and issubclass(section, BaseModel):
        return [(*path, name) for name, one in section.model_fields.items() if one.is_required()]
    return [path]


def unknown(dotted: str, where: str, names: Iterable[str]) -> Fatal:
    """There is no such setting; the hint is the nearest right name, or all of them."""
    *parents, last = dotted.split(".")
    names = list(names)
    meant = near(last, names)
    hint = f"did you mean {'.'.join([*parents, meant])}?" if meant else f"known here: {', '.join(names)}"
    return Fatal(f"there is no setting {dotted}", where=where, hint=hint if names else "")
