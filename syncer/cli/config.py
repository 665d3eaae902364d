"""`syncer config`: the settings in force, and the form of the file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from syncer import config as settings
from syncer import sinks
from syncer.cli import output
from syncer.cli.context import Context, as_json, command, group


@group(
    "config",
    """
    syncer config show
    syncer config schema > config/syncer.schema.json
    """,
)
def config() -> None:
    """Show the settings in force, or the JSON Schema of the file."""


@command(
    "show",
    """
    syncer config show
    SYNCER_LOG__LEVEL=debug syncer config show
    syncer config show --json
    """,
    config,
)
@as_json
def show(context: Context, as_json: bool) -> None:
    """Print every setting and where it is from; secrets are masked."""
    loaded = context.config
    masked = loaded.masked()
    for kind in loaded.sinks:
        loaded.connection(kind, sinks.find(kind).Connection)  # for its errors
    if as_json:
        output.say_json(masked)
        return
    rows = []
    for path, value in _flat(masked):
        shown = "" if value is None else str(value)
        rows.append((".".join(path), shown, loaded.origin(*path)))
    output.table(["setting", "value", "from"], rows)


def _flat(tree: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, (*path, key))
        else:
            yield (*path, key), value


@command("schema", "syncer config schema > config/syncer.schema.json", config)
def schema(context: Context) -> None:
    """Print the JSON Schema of the configuration file, for editors."""
    output.say_json(file_schema())


def file_schema() -> dict[str, Any]:
    """The JSON Schema of `config/syncer.yaml`, with the sections of all sinks there are."""
    result = settings.Config.model_json_schema()
    definitions = result.setdefault("$defs", {})
    for kind in sinks.kinds():
        own = sinks.find(kind).Connection.model_json_schema(ref_template=f"#/$defs/{kind}/$defs/{{model}}")
        definitions[kind] = own
        result["properties"][kind] = {"$ref": f"#/$defs/{kind}"}
    for definition in (result, *definitions.values()):
        _allow_files(definition)
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "syncer.yaml"}
    return head | {key: value for key, value in result.items() if key != "title"}


def _allow_files(definition: dict[str, Any]) -> None:
    """A secret may come from a file instead; nothing is required, as the environment may give it."""
    definition.pop("required", None)
    properties = definition.get("properties", {})
    for name in list(properties):
        if "writeOnly" in str(properties[name]):  # how pydantic marks a SecretStr
            description = f"File that holds {name}"
            properties.setdefault(f"{name}_file", {"type": "string", "description": description})
