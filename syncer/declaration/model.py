"""Loads read models: from a YAML file to a validated declaration that knows the line of each of its parts.

`form.py` declares the form. Whether the tables and columns exist is not checked here: `compile.py` does that.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from syncer.declaration import form_errors, located_yaml
from syncer.declaration.form import Declaration, ManyRelation, Object, OneRelation, Shown, UpRelation
from syncer.declaration.mistakes import together
from syncer.declaration.names import spellings
from syncer.errors import Fatal
from syncer.events import TableName


@dataclass(frozen=True)
class Model:
    """A declaration, its file, and the line of each of its parts."""

    declaration: Declaration
    file: str
    lines: Mapping[located_yaml.Path, int]

    @property
    def name(self) -> str:
        return self.declaration.name

    def at(self, path: located_yaml.Path) -> str:
        """Returns `file:line` of a place in the declaration, or of the nearest place around it that has a line."""
        return form_errors.at(self.file, self.lines, path)


def yaml_path_of(model: Model, field: tuple[str, ...]) -> located_yaml.Path:
    """Returns the path in the YAML where a field of the document is declared.

    field: the names of the field and of the objects around it, from the outside in.
    """
    entries: Mapping[str, Any] = model.declaration.document
    part: str = "document"
    path: located_yaml.Path = ()
    for name in field:
        path = (*path, part, name)
        part = "object" if isinstance(entries.get(name), Object) else "document"
        entries = getattr(entries.get(name), part, None) or {}
    return path


def load(path: str | Path) -> Model:
    """Returns the read model of one file. Raises Fatal with every mistake in its form."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Fatal("cannot read the read model", where=str(path), why=str(error)) from error
    return parse(text, str(path))


def parse(text: str, file: str) -> Model:
    """Returns the read model that a YAML text declares. file: the name that errors show."""
    plain, lines = located_yaml.read(text, file, located_yaml.text_except_under({"sink"}))
    if not isinstance(plain, dict):
        raise Fatal("a read model has to be a mapping", where=file, hint="start with `name: …`")
    try:
        return Model(Declaration.model_validate(plain), file, lines)
    except ValidationError as error:
        raise together(form_errors.explain(error, file, lines)) from error


def load_all(folder: str | Path) -> list[Model]:
    """Returns the read models of all `*.yaml` and `*.yml` files in a folder, sorted by name.

    Raises Fatal with the mistakes of all of them.
    """
    models, errors = load_all_valid(folder)
    if errors:
        raise together(errors)
    return models


def load_all_valid(folder: str | Path, *, why: str = "") -> tuple[list[Model], list[Fatal]]:
    """Returns the valid read models of a folder, sorted by name, and the errors of the others.

    why: the reason for choosing this folder, for the error. Raises Fatal if the folder does not exist.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise Fatal(
            "the folder of the read models does not exist",
            where=str(folder.absolute()),
            why=why,
            hint="set `models` in the configuration, or use --models FOLDER",
        )
    errors: list[Fatal] = []
    models: dict[str, Model] = {}
    for path in sorted(p for p in folder.iterdir() if p.suffix in (".yaml", ".yml")):
        try:
            found = load(path)
        except Fatal as error:
            errors.append(error)
            continue
        if other := models.get(found.name):
            what, why = f"the name {found.name!r} is already taken", f"{other.file} has it too"
            errors.append(Fatal(what, where=found.at(("name",)), why=why, hint="rename one of the two read models"))
        models.setdefault(found.name, found)
    return sorted(models.values(), key=lambda m: m.name), errors


def tables(model: Model) -> set[TableName]:
    """Returns every table whose catalog entry `compile` needs, in each spelling that could be meant."""
    return {table for spelled in possible_tables(model) for table in spelled}


def possible_tables(model: Model) -> list[tuple[TableName, ...]]:
    """Returns the possible spellings of each table. The first spelling that exists is the one that is meant."""
    found = []
    for text, _ in named_tables(model):
        with suppress(ValueError):  # `bind` reports it, with the other mistakes
            found.append(tuple(spellings(text)))
    return found


def meant(spelled: Iterable[Sequence[TableName]], existing: Container[TableName]) -> set[TableName]:
    """Returns the existing tables that are meant. `Orders` and `orders` may both exist."""
    first = (next((table for table in names if table in existing), None) for names in spelled)
    return {table for table in first if table is not None}


def named_tables(model: Model) -> Iterator[tuple[str, located_yaml.Path]]:
    """Yields each table as the declaration writes it, and its path in the YAML. The root comes first."""
    yield model.declaration.root.table, ("root", "table")

    def walk(entries: Mapping[str, object], path: located_yaml.Path) -> Iterator[tuple[str, located_yaml.Path]]:
        for name, entry in entries.items():
            here = (*path, name)
            if isinstance(entry, OneRelation):
                yield entry.one, (*here, "one")
            elif isinstance(entry, ManyRelation):
                yield entry.many, (*here, "many")
            elif isinstance(entry, UpRelation):
                yield entry.up, (*here, "up")
            elif isinstance(entry, Object):
                yield from walk(entry.object, (*here, "object"))
            if isinstance(entry, OneRelation | ManyRelation | UpRelation):
                yield from walk(entry.relations, (*here, "relations"))
            if isinstance(entry, Shown):
                yield from walk(entry.document or {}, (*here, "document"))

    yield from walk(model.declaration.relations, ("relations",))
    yield from walk(model.declaration.document, ("document",))
