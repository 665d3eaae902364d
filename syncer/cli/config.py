"""Implements `syncer config`: prints the effective settings, and the schema and reference of the file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click
from pydantic import BaseModel

from syncer import sinks
from syncer.cli import output
from syncer.cli.context import Context, as_json, command, group
from syncer.config import schema as settings
from syncer.config.installed_sinks import section_of, sink_modules


@group(
    "config",
    """
    syncer config show
    syncer config schema > config/syncer.schema.json
    """,
)
def config() -> None:
    """Show the effective settings or the schema of the file."""


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
    """Print every setting and where its value comes from.

    The origin is a line of the file, an environment variable, an option or the default. Secrets are masked. No server
    is contacted.
    """
    loaded = context.config
    masked = loaded.masked()
    given = loaded.sinks
    for kind in sink_modules():
        if section_of(kind) in given:
            loaded.connection(kind, sinks.find(kind).Connection)  # raises Fatal if the section is not valid
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
    """Print the JSON Schema of the configuration file. Editors use it for completion and checks."""
    output.echo_json(file_schema())


def file_schema() -> dict[str, Any]:
    """Returns the JSON Schema of `config/syncer.yaml`, with the sections of all installed sinks."""
    result = settings.Config.model_json_schema()
    definitions = result.setdefault("$defs", {})
    for kind in sink_modules():
        name = section_of(kind)
        if name in settings.Config.model_fields:  # the sink uses this section, too
            continue
        own = sinks.find(kind).Connection.model_json_schema(ref_template=f"#/$defs/{name}/$defs/{{model}}")
        definitions[name] = own
        result["properties"][name] = {"$ref": f"#/$defs/{name}"}
    for definition in (result, *definitions.values()):
        _allow_files(definition)
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "syncer.yaml"}
    return head | {key: value for key, value in result.items() if key != "title"}


def _allow_files(definition: dict[str, Any]) -> None:
    """Adds `KEY_file` for every secret. Makes no key required, because environment variables can set any of them."""
    definition.pop("required", None)
    properties = definition.get("properties", {})
    for name in list(properties):
        if "writeOnly" in str(properties[name]):  # how pydantic marks a SecretStr
            description = f"File that holds {name}"
            properties.setdefault(f"{name}_file", {"type": "string", "description": description})


@command("docs", "syncer config docs > docs/configuration.md", config)
def docs(context: Context) -> None:
    """Print the reference of all settings as Markdown."""
    click.echo(markdown(), nl=False)


def markdown() -> str:
    """Returns the text of `docs/configuration.md`."""
    lines = [
        "# Configuration",
        "",
        "The settings are in one YAML file. The option `--config` names the file. Without the option, the variable",
        "`SYNCER_CONFIG` names it. Without both, the file is `config/syncer.yaml`.",
        "",
        "- Environment variables override the file. Their names are `SYNCER_<SECTION>__<KEY>`, for example",
        "  `SYNCER_KAFKA__TOPIC_PREFIX`. `SYNCER_MODELS` sets `models`.",
        "- `syncer config show` prints every setting in use, and where its value comes from.",
        "- Unknown keys are errors.",
        "- A size is a number of bytes, or text such as `8MiB`. Units: `B`, `KB`, `MB`, `GB`, `KiB`, `MiB`, `GiB`.",
        "- A duration is a number of seconds, or text such as `250ms`. Units: `ms`, `s`, `m` or `min`, `h`, `d`.",
        "- To keep a secret out of the file, set `KEY_file` instead of `KEY`, for example `password_file`. The value",
        "  is the path of a file that contains the secret.",
        "- The daemon reads the settings when it starts. Restart it after a change.",
        "",
        "## Relative paths",
        "",
        "| where the path is given | it is relative to |",
        "| --- | --- |",
        "| in the file, or a default | the folder of the file |",
        "| in a variable or a command-line option | the current folder |",
        "| `${file:path}` in a connector definition | the folder of that definition |",
        "",
        "This applies to `models`, `connect.definitions`, `ca_file` and every `KEY_file`. It also applies to paths in",
        "`postgres.dsn`, such as `sslrootcert`, and in `kafka.properties`, such as `ssl.ca.location`.",
        "",
        "This page is generated by `syncer config docs`. A test fails if the page is out of date.",
    ]
    fields = settings.Config.model_fields
    sections = {name: field.annotation for name, field in fields.items()}
    sections |= {section_of(kind): sinks.find(kind).Connection for kind in sink_modules()}
    for name, cls in sections.items():
        lines += ["", f"## `{name}`", ""]
        if not (isinstance(cls, type) and issubclass(cls, BaseModel)):
            lines.append(f"{fields[name].description}. Default: `{fields[name].default}`.")
            continue
        lines += [cls.__doc__ or "", "", "| key | default | meaning |", "| --- | --- | --- |"]
        for key, field in cls.model_fields.items():
            default = field.get_default(call_default_factory=True)
            shown = "required" if field.is_required() else "" if default is None else f"`{default}`"
            lines.append(f"| `{key}` | {shown} | {field.description} |")
    return "\n".join(lines) + "\n"
