"""`syncer config`: the settings in force, and the form of the file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click
from pydantic import BaseModel

from syncer import sinks
from syncer.cli import output
from syncer.cli.context import Context, as_json, command, group
from syncer.config import schema as settings
from syncer.config.sink_kinds import sink_modules


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
        output.echo_json(masked)
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
    output.echo_json(file_schema())


def file_schema() -> dict[str, Any]:
    """The JSON Schema of `config/syncer.yaml`, with the sections of all sinks there are."""
    result = settings.Config.model_json_schema()
    definitions = result.setdefault("$defs", {})
    for kind in sink_modules():
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


@command("docs", "syncer config docs > docs/configuration.md", config)
def docs(context: Context) -> None:
    """Print the reference of all settings, as Markdown."""
    click.echo(markdown(), nl=False)


def markdown() -> str:
    """The text of `docs/configuration.md`."""
    lines = [
        "# Configuration",
        "",
        "One YAML file (`--config`, else `$SYNCER_CONFIG`, else `config/syncer.yaml`). Over it, variables:",
        "`SYNCER_<SECTION>__<KEY>`, e.g. `SYNCER_KAFKA__TOPIC_PREFIX`. Any key can be given as `KEY_file`,",
        "the path of a file that holds the value: for secrets. Sizes are bytes or text such as `8MiB`,",
        "durations seconds or text such as `250ms`. Unknown keys are errors. `syncer config show` prints",
        "what is in force.",
        "",
        "Relative paths in the file start at the file's own folder, wherever the syncer is started. Relative",
        "paths in variables and in options of the command line start at the current folder. This holds for",
        "`models`, `connect.definitions`, `ca_file`, every `KEY_file`, the paths in `postgres.dsn`",
        "(`sslrootcert` and the like) and in `kafka.properties` (`ssl.ca.location` and the like). A default",
        "starts where a value in the file would. A relative `${file:path}` in a connector's definition",
        "starts at the definition's folder.",
        "",
        "Made by `syncer config docs`; a test keeps it current.",
    ]
    fields = settings.Config.model_fields
    sections = {name: field.annotation for name, field in fields.items()}
    sections |= {kind: sinks.find(kind).Connection for kind in sink_modules()}
    for name, cls in sections.items():
        lines += ["", f"## `{name}`", ""]
        if not (isinstance(cls, type) and issubclass(cls, BaseModel)):
            lines.append(f"{fields[name].description}. Default: `{fields[name].default}`.")
            continue
        lines += [cls.__doc__ or "", "", "| key | default | meaning |", "| --- | --- | --- |"]
        for key, field in cls.model_fields.items():
            default = field.get_default(call_default_factory=True)
            told = "required" if field.is_required() else "" if default is None else f"`{default}`"
            lines.append(f"| `{key}` | {told} | {field.description} |")
    return "\n".join(lines) + "\n"
