"""What there is to set: sections, keys, defaults, units. `load` reads the file and the environment.

Lowest first: the file, `SYNCER_<SECTION>__<KEY>`, options of the command line. Any `KEY` may be given as
`KEY_file`, the path of a file that holds it, for secrets. Relative paths in the file start at the file's
folder, those of variables and options at the current folder. Unknown keys are errors. The sections
`elasticsearch`, `redis`, … belong to the sinks of these names, which declare them: `connection` checks them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import unquote, urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from syncer.config import layers
from syncer.config.sink_kinds import sink_modules
from syncer.errors import Fatal
from syncer.masking import mask
from syncer.tls import CaFile

DEFAULT_PATH = Path("config/syncer.yaml")
M = TypeVar("M", bound=BaseModel)

_QUANTITY = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-zA-Zµ]*)\s*")
_SIZES = {"": 1, "b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_TIMES = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def parse_size(value: Any) -> Any:
    """Bytes of `8MiB`, `500 kB`, `1024`. Raises ValueError for text that is no size."""
    return round(_quantity(value, _SIZES, "a size such as 8MiB")) if isinstance(value, str) else value


def parse_duration(value: Any) -> Any:
    """Seconds of `30s`, `250ms`, `5m`, `1.5`. Raises ValueError for text that is no duration."""
    return _quantity(value, _TIMES, "a duration such as 30s or 250ms") if isinstance(value, str) else value


def _quantity(text: str, units: Mapping[str, float], wanted: str) -> float:
    match = _QUANTITY.fullmatch(text)
    if not match or match[2].lower() not in units:
        raise ValueError(f"it has to be {wanted} (units: {', '.join(filter(None, units))})")
    return float(match[1]) * units[match[2].lower()]


_TEXT_OR_NUMBER = {"anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": "^[0-9]"}]}
Bytes = Annotated[int, BeforeValidator(parse_size), Field(gt=0), WithJsonSchema(_TEXT_OR_NUMBER)]
Seconds = Annotated[float, BeforeValidator(parse_duration), Field(gt=0), WithJsonSchema(_TEXT_OR_NUMBER)]
Count = Annotated[int, Field(gt=0)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class PostgresSettings(Section):
    """The primary that the read models are rendered from. A standby will not do."""

    dsn: str = Field(description="Connection string (URL or key=value), best without password")
    password: SecretStr | None = Field(default=None, description="Its password; wins over one inside the dsn")
    connect_timeout: Seconds = Field(default=10, description="Wait this long for a connection (seconds)")
    statement_timeout: Seconds = Field(default=60, description="Cancel a statement that runs longer (seconds)")
    application_name: str = Field(default="syncer", description="Shown in pg_stat_activity")

    @model_validator(mode="before")
    @classmethod
    def _take_password_out(cls, data: Any, info: ValidationInfo) -> Any:
        if isinstance(data, dict) and isinstance(data.get("dsn"), str):
            tree = (info.context or {}).get("tree")
            folder = tree.folder_of(("postgres", "dsn")) if tree else Path()
            dsn, password = split_dsn(data["dsn"], folder)
            data = data | {"dsn": dsn, "password": data.get("password") or password}
        return data

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of `psycopg.connect`, the password among them: never print them."""
        result: dict[str, Any] = {
            "conninfo": self.dsn,
            "connect_timeout": max(2, round(self.connect_timeout)),  # libpq takes whole seconds, 2 and up
            "application_name": self.application_name,
        }
        if self.password:
            result["password"] = self.password.get_secret_value()
        return result


class KafkaSettings(Section):
    """Where Debezium's change events come from, and where the syncer keeps its offsets and work items."""

    bootstrap_servers: str = Field(description="host:port, separated by commas")
    topic_prefix: str = Field(min_length=1, description="The connector's topic.prefix")
    group_prefix: str = Field(default="syncer", min_length=1, description="Begins the names of groups and own topics")
    state_topic: str = Field(default="syncer.state", description="Compacted topic for starting offsets and epochs")
    partitions: Count = Field(default=4, description="Partitions of the topics it creates")
    replication_factor: Count = Field(default=1, description="Replicas of the topics it creates (3 in production)")
    properties: dict[str, str | int | float | bool] = Field(
        {}, repr=False, description="Further librdkafka settings, e.g. security.protocol, sasl.password"
    )

    @field_validator("properties")
    @classmethod
    def _dots(cls, value: dict[str, Any]) -> dict[str, Any]:
        """No name of librdkafka has an underscore; names of variables have no dots."""
        return {name.replace("_", "."): item for name, item in value.items()}


class ConnectSettings(Section):
    """The REST interface of Kafka Connect, for `syncer connectors` and `syncer check`."""

    url: str | None = Field(default=None, description="http://host:8083; without it connectors are not looked at")
    definitions: Path = Field(default=Path("connectors"), description="Folder of connector definitions (*.json)")
    username: str | None = Field(default=None, description="For basic authentication")
    password: SecretStr | None = Field(default=None, description="For basic authentication")
    ca_file: CaFile | None = Field(default=None, description="PEM file of the authority behind its certificate")
    timeout: Seconds = Field(default=30, description="Wait this long for an answer (seconds)")

    @model_validator(mode="before")
    @classmethod
    def _take_password_out(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("url"), str) and "@" in data["url"]:
            parts = urlsplit(data["url"])
            taken = {"url": parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()}
            for name, text in (("username", parts.username), ("password", parts.password)):
                if text and not data.get(name):
                    taken[name] = unquote(text)
            data = data | taken
        return data


class HttpSettings(Section):
    """Health, metrics and status of `syncer run`."""

    host: str = Field(default="127.0.0.1", description="Address to listen on; 0.0.0.0 for all")
    port: int = Field(default=8080, ge=0, le=65535, description="Port to listen on; 0 for any free one")


class LogSettings(Section):
    """What `syncer run` says while it runs."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The least to be logged: debug, info, warning, error"
    )
    format: Literal["auto", "console", "json"] = Field(
        default="auto", description="console, json, or auto: console on a terminal"
    )


class PipelineSettings(Section):
    """Sizes and times of one batch. The defaults are measured; `bench/` tells what a change does."""

    max_records: Count = Field(default=5000, description="Events a batch")
    max_bytes: Bytes = Field(default=16 << 20, description="Events a batch (bytes)")
    chunk_documents: Count = Field(default=2000, description="Documents rendered by one statement")
    chunk_bytes: Bytes = Field(default=8 << 20, description="Rendered documents held at once, about (bytes)")
    fan_out: Count = Field(default=20_000, description="Dirty roots of one batch; more go to the work topic")
    commit_interval: Seconds = Field(default=1.0, description="Commit offsets this often (seconds)")
    gate_timeout: Seconds = Field(default=30, description="Report why, when a transaction stays invisible (seconds)")
    max_age: Seconds = Field(
        default=30, le=600, description="Render a batch again that was not written by then (seconds)"
    )
    change_lanes: Count = Field(
        default=1, description="Batches of changes done at the same time, a process and read model"
    )
    work_lanes: Count = Field(default=1, description="Work items done at the same time, a process and read model")
    stop_timeout: Seconds = Field(default=8, description="Finish the batch in hand within this time (seconds)")


class BackfillSettings(Section):
    """How `syncer backfill` walks a table."""

    range_documents: Count = Field(default=2000, description="Documents a work item")
    workers: Count = Field(default=2, description="Ranges rendered at the same time")


class DeadLetters(Section):
    """When refused documents are too many for dead letters. 100 bad ones among good ones never are."""

    max_consecutive: int = Field(
        default=100,
        ge=0,
        description="Stop the read model when a sink refuses this many documents in a row with the same type"
        " of error; 0: never",
    )


class WatchSettings(Section):
    """How `syncer run` watches connector, slot, publication and the stream of changes as a whole."""

    interval: Seconds = Field(default=10, description="Look, and send a message, this often (seconds)")
    overdue: Seconds = Field(
        default=120, description="Tell, when such a message has not come within this time (seconds)"
    )


class Source(Section):
    """What is done about losses of the connector itself."""

    repair_after_resume: Literal["auto", "always", "never"] = Field(
        default="auto",
        description="Render all documents again after the connector resumed: always, never, or auto (unless "
        "Kafka Connect says that Debezium is 3.7 or later, which loses no rows then)",
    )


class Config(Section):
    """All settings. The sections of the sinks are checked by `connection`."""

    models: Path = Field(default=Path("readmodels"), description="Folder of the read models")
    postgres: PostgresSettings
    kafka: KafkaSettings
    connect: ConnectSettings = Field(default_factory=ConnectSettings)
    http: HttpSettings = Field(default_factory=HttpSettings)
    log: LogSettings = Field(default_factory=LogSettings)
    pipeline: PipelineSettings = Field(default_factory=PipelineSettings)
    backfill: BackfillSettings = Field(default_factory=BackfillSettings)
    dead_letters: DeadLetters = Field(default_factory=DeadLetters)
    watch: WatchSettings = Field(default_factory=WatchSettings)
    source: Source = Field(default_factory=Source)
    _tree: layers.Tree = PrivateAttr()

    def model_post_init(self, context: Any) -> None:
        self._tree = (context or {}).get("tree") or layers.Tree("configuration")

    @property
    def sinks(self) -> dict[str, dict[str, Any]]:
        """The sections that are named after sinks, unchecked, secrets in them: see `connection`."""
        values = self._tree.values
        given = {kind: values[kind] or {} for kind in sink_modules() if kind in values}
        return {kind: layers.with_files(section, None, self._tree, (kind,)) for kind, section in given.items()}

    def connection(self, kind: str, cls: type[M]) -> M:
        """The section of a sink as the sink's own class. Raises Fatal with the origin of what is wrong."""
        return layers.build(cls, self._tree, (kind,), self._tree.values.get(kind) or {})

    def masked(self) -> dict[str, Any]:
        """Everything as it may be shown: secrets are `***`."""
        shown = self.model_dump(mode="json") | self.sinks
        return {key: mask(key, value) for key, value in shown.items()}

    def origin(self, *path: str) -> str:
        """Where a setting was made (`config/syncer.yaml:12`, `environment variable X`), or `default`."""
        return self._tree.origins.get(path, "default")

    def why_there(self, *path: str) -> str:
        """Where the setting of a folder comes from, and where its relative paths start."""
        folder = self._tree.folder_of(path)
        start = f"the folder of {self._tree.name}" if folder.parts else "the current folder"
        return f"{'.'.join(path)} is from: {self.origin(*path)}; relative paths there start at {start}"


def load(
    path: Path | str | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Config:
    """Read the file (else `$SYNCER_CONFIG`, else `config/syncer.yaml`) and lay the environment over it.

    options: dotted names and values over all else, e.g. `{"log.level": "debug"}`.
    Raises Fatal that says all that is wrong. Without any file, the environment alone may do.
    """
    environ = os.environ if environ is None else environ
    chosen = path or environ.get("SYNCER_CONFIG")
    file = Path(chosen) if chosen else DEFAULT_PATH
    if chosen or file.exists():
        if not file.exists():
            raise Fatal("there is no such configuration file", where=str(file), hint="--config FILE names one")
        tree = layers.read_yaml(file)
    else:
        tree = layers.Tree(f"environment (and there is no {file} here)")
    layers.add_environment(tree, environ, {"models"})
    for name, value in (options or {}).items():
        tree.put(tuple(name.split(".")), value, "command line")
    kinds = sink_modules()
    known = [*Config.model_fields, *kinds]
    for name in tree.values:
        if name not in known:
            raise layers.unknown(name, tree.origin((name,)), known)
        if not isinstance(tree.values[name] or {}, dict) and name != "models":
            raise Fatal(f"{name} is a section of settings, not one value", where=tree.origin((name,)))
    values = {name: value for name, value in tree.values.items() if name not in kinds and value is not None}
    return layers.build(Config, tree, values=values)


_DSN_PATHS = ("sslrootcert", "sslcert", "sslkey", "sslcrl", "sslcrldir", "passfile")


def split_dsn(dsn: str, folder: Path = Path()) -> tuple[str, str | None]:
    """A connection string without its password, and the password.

    folder: where relative paths in it (`sslrootcert=ca.pem`) start.
    Raises ValueError for what is no connection string, without repeating it.
    """
    from psycopg import Error
    from psycopg.conninfo import conninfo_to_dict, make_conninfo

    try:
        parts = conninfo_to_dict(dsn)
    except Error:
        raise ValueError("it has to be postgresql://user@host:port/database or key=value pairs") from None
    password = parts.pop("password", None)
    located = {
        name: os.path.normpath(folder / str(value))
        for name in _DSN_PATHS
        if (value := parts.get(name)) not in (None, "", "system")  # sslrootcert=system
    }
    if password is None and all(parts[name] == path for name, path in located.items()):
        return dsn, None
    return make_conninfo("", **(parts | located)), None if password is None else str(password)
