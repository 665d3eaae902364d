"""Reads a connector's definition: a JSON file whose placeholders are filled in when it is applied.

`${env:NAME}` and `${env:NAME:-default}` stand for an environment variable. `${file:path}` stands for the text of a file
without its last line break. A relative path starts at the folder of the definition.

The syncer never prints a value from a file. Nor does it print a value if the variable or the setting is named like a
secret. Placeholders of Kafka Connect's own providers (`${file:/path:key}`, `${vault:…}`) stay as they are.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from syncer import masking
from syncer.errors import Fatal
from syncer.masking import MASK, is_secret

_PLACEHOLDER = re.compile(r"\$\{(env|file):([^}:]+)(?::(-)([^}]*))?\}")


@dataclass(frozen=True)
class Definition:
    """A connector as its file defines it. `config` holds secrets; `repr` and `shown` do not."""

    name: str
    config: Mapping[str, str]
    masked: frozenset[str]
    """Settings whose values are secrets from outside of the file."""
    path: str = ""

    def __repr__(self) -> str:
        return f"Definition({self.name!r}, {self.shown()!r})"

    def shown(self) -> dict[str, str]:
        """Returns the settings for printing, with secrets masked."""
        return {key: self.mask(key, value) for key, value in self.config.items()}

    def mask(self, key: str, value: str) -> str:
        """Returns the value of a setting, or a mask if it is a secret."""
        return MASK if key in self.masked else str(masking.mask(key, value))

    def hide(self, text: str) -> str:
        """Masks this connector's secrets in a server's message."""
        hidden = {self.config[key] for key in self.config if is_secret(key) or key in self.masked}
        for value in sorted(hidden, key=len, reverse=True):
            if len(value) >= 4:
                text = text.replace(value, MASK)
        return text


def load_definition(
    path: Path, environment: Mapping[str, str] = os.environ, *, needed: Collection[str] | None = None
) -> Definition:
    """Reads one file: `{"name": …, "config": {…}}`. Without a name, the file's name is the connector's name.

    needed: the settings that the caller uses; None for all. Placeholders in other settings stay as they are.
    Raises Fatal if the file is not such JSON, or if a placeholder's variable or file does not exist.
    """
    try:
        document = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise Fatal("cannot read the connector's definition", where=str(path), why=str(error.strerror)) from error
    except ValueError as error:
        raise Fatal("the connector's definition is not JSON", where=str(path), why=str(error)) from error
    if not isinstance(document, dict) or not isinstance(document.get("config"), dict):
        hint = 'write {"name": "…", "config": {"…": "…"}}'
        raise Fatal("the file is not a connector's definition", where=str(path), hint=hint)
    config: dict[str, str] = {}
    masked: set[str] = set()
    for key, value in document["config"].items():
        config[key], secret = _text(value), False
        if needed is None or key in needed:
            config[key], secret = _fill_in(config[key], f"{path}: {key}", environment, path.parent)
        if secret:
            masked.add(key)
    return Definition(str(document.get("name") or path.stem), config, frozenset(masked), str(path))


def load_definitions(
    folder: Path, environment: Mapping[str, str] = os.environ, *, needed: Collection[str] | None = None
) -> list[Definition]:
    """Reads all `*.json` of a folder, sorted by file name.

    needed: see `load_definition`.
    Raises Fatal as `load_definition`, and if two connectors have the same name.
    """
    found = [load_definition(path, environment, needed=needed) for path in sorted(folder.glob("*.json"))]
    _refuse_duplicates(found)
    return found


def _refuse_duplicates(definitions: Iterable[Definition]) -> None:
    paths: dict[str, str] = {}
    for definition in definitions:
        if other := paths.get(definition.name):
            raise Fatal(
                f"two connectors have the name {definition.name!r}",
                where=f"{other}, {definition.path}",
                hint="rename one of them",
            )
        paths[definition.name] = definition.path


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _fill_in(text: str, where: str, environment: Mapping[str, str], folder: Path) -> tuple[str, bool]:
    """Fills in the placeholders. Returns the text, and whether it contains a secret."""
    secret = False

    def value(match: re.Match[str]) -> str:
        nonlocal secret
        kind, name, has_default, default = match.groups()
        if kind == "env" and name not in environment and has_default:
            return str(default)
        if kind == "env":
            if name not in environment:
                raise Fatal(f"the environment variable {name} is not set", where=where, hint=f"export {name}=…")
            secret |= is_secret(name)
            return environment[name]
        secret = True
        try:
            return (folder / name).read_text("utf-8").removesuffix("\n")
        except (OSError, ValueError) as error:
            raise Fatal(f"cannot read {folder / name}", where=where, why=str(error)) from error

    return _PLACEHOLDER.sub(value, text), secret
