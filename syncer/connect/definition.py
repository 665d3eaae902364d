"""A connector's definition: a JSON file whose placeholders are filled in when it is applied.

`${env:NAME}` and `${env:NAME:-default}` stand for an environment variable, `${file:path}` for the text of
a file without its last line break. A relative path starts at the folder of the definition. What came from a
file, or from a variable or into a setting that is named like a secret, is never printed. Placeholders of
Kafka Connect's own providers (`${file:/path:key}`, `${vault:…}`) are left to it.
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
    """A connector as it should be. `repr` and `shown` hold no secrets; `config` does."""

    name: str
    config: Mapping[str, str]
    masked: frozenset[str]
    """Keys whose values came from outside the file."""
    path: str = ""

    def __repr__(self) -> str:
        return f"Definition({self.name!r}, {self.shown()!r})"

    def shown(self) -> dict[str, str]:
        """The settings, fit for printing."""
        return {key: self.mask(key, value) for key, value in self.config.items()}

    def mask(self, key: str, value: str) -> str:
        return MASK if key in self.masked else str(masking.mask(key, value))

    def hide(self, text: str) -> str:
        """A server's message, without the secrets that it may quote."""
        hidden = {self.config[key] for key in self.config if is_secret(key) or key in self.masked}
        for value in sorted(hidden, key=len, reverse=True):
            if len(value) >= 4:
                text = text.replace(value, MASK)
        return text


def load_definition(
    path: Path, environment: Mapping[str, str] = os.environ, *, needed: Collection[str] | None = None
) -> Definition:
    """Read one file: `{"name": …, "config": {…}}`. needed: the settings that will be used, if not all are;
    the placeholders of others stay as they are.

    Raises Fatal if it is not such JSON, or a placeholder has nothing to stand for.
    """
    try:
        document = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise Fatal("cannot read the connector's definition", where=str(path), why=str(error.strerror)) from error
    except ValueError as error:
        raise Fatal("the connector's definition is not JSON", where=str(path), why=str(error)) from error
    if not isinstance(document, dict) or not isinstance(document.get("config"), dict):
        raise Fatal("not a connector's definition", where=str(path), hint='write {"name": "…", "config": {"…": "…"}}')
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
    """All `*.json` of a folder, by name. Raises Fatal as `load_definition`, and if two have one name."""
    found = [load_definition(path, environment, needed=needed) for path in sorted(folder.glob("*.json"))]
    _refuse_twins(found)
    return found


def _refuse_twins(definitions: Iterable[Definition]) -> None:
    paths: dict[str, str] = {}
    for definition in definitions:
        if other := paths.get(definition.name):
            raise Fatal(f"two connectors are called {definition.name!r}", where=f"{other}, {definition.path}")
        paths[definition.name] = definition.path


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _fill_in(text: str, where: str, environment: Mapping[str, str], folder: Path) -> tuple[str, bool]:
    """The text with its placeholders filled in, and whether any of it is a secret."""
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
