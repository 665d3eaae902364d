"""Declares every setting: sections, keys, defaults and units. `load` reads the file and the environment.

Later sources win: the file, then variables `SYNCER_<SECTION>__<KEY>`, then command-line options.
Any `KEY` can be given as `KEY_file`, the path of a file that contains the value. This is meant for secrets.
Relative paths in the file start at the file's folder. Those in variables and options start at the current folder.
Unknown keys are errors.
The sections `elasticsearch`, `redis`, … belong to the sinks of these names. Each sink declares the keys of its section,
and `Config.connection` validates them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from syncer.config import layers
from syncer.config.dsn import split_dsn
from syncer.config.installed_sinks import section_of, sink_modules
from syncer.config.types import Token, take_credentials_out
from syncer.errors import Fatal
from syncer.masking import mask
from syncer.quantities import Bytes, Seconds
from syncer.tls import CaFile

DEFAULT_PATH = Path("config/syncer.yaml")
M = TypeVar("M", bound=BaseModel)
Count = Annotated[int, Field(gt=0)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class PostgresSettings(Section):
    """The PostgreSQL primary that documents are rendered from. A standby does not work."""

    section: ClassVar[str] = "postgres"
    """The name of the section in the configuration."""
    dsn: str = Field(description="Connection string, as a URL or as key=value pairs; better without the password")
    password: SecretStr | None = Field(
        default=None, description="Password; overrides the password in the connection string"
    )
    connect_timeout: Seconds = Field(default=10, description="Timeout for opening a connection (seconds)")
    statement_timeout: Seconds = Field(default=60, description="Cancel a statement that runs longer (seconds)")
    application_name: str = Field(default="syncer", description="Name shown in pg_stat_activity")

    @model_validator(mode="before")
    @classmethod
    def _take_password_out(cls, data: Any, info: ValidationInfo) -> Any:
        if isinstance(data, dict) and isinstance(data.get("dsn"), str):
            tree = (info.context or {}).get("tree")
            folder = tree.folder_of((cls.section, "dsn")) if tree else Path()
            dsn, password = split_dsn(data["dsn"], folder)
            data = data | {"dsn": dsn, "password": data.get("password") or password}
        return data

    def arguments(self) -> dict[str, Any]:
        """Returns keyword arguments for `psycopg.connect`. They include the password: never print them."""
        result: dict[str, Any] = {
            "conninfo": self.dsn,
            "connect_timeout": max(2, round(self.connect_timeout)),  # libpq accepts whole seconds, at least 2
            "application_name": self.application_name,
        }
        if self.password:
            result["password"] = self.password.get_secret_value()
        return result


class KafkaSettings(Section):
    """The Kafka cluster with Debezium's change events, the syncer's offsets and work items, and the topics of sinks."""

    bootstrap_servers: str = Field(description="Addresses as host:port, separated by commas")
    topic_prefix: str = Field(min_length=1, description="The connector's topic.prefix")
    group_prefix: str = Field(
        default="syncer", min_length=1, description="Prefix of the syncer's consumer groups and of its own topics"
    )
    state_topic: str = Field(default="syncer.state", description="Compacted topic for all state of the syncer")
    partitions: Count = Field(default=4, description="Partitions of the topics that the syncer creates")
    replication_factor: Count = Field(
        default=1, description="Replicas of the topics that the syncer creates; use 3 in production"
    )
    properties: dict[str, str | int | float | bool] = Field(
        {}, repr=False, description="Further librdkafka settings, e.g. security.protocol, sasl.password"
    )

    @field_validator("properties")
    @classmethod
    def _dots(cls, value: dict[str, Any]) -> dict[str, Any]:
        """Turns underscores into dots. Variable names have no dots, and librdkafka's names have no underscores."""
        return {name.replace("_", "."): item for name, item in value.items()}


class ConnectSettings(Section):
    """The REST API of Kafka Connect. Commands and the daemon use it to set up and to check the connector."""

    url: str | None = Field(
        default=None, description="Address, such as http://host:8083; without it, connectors are not checked"
    )
    definitions: Path = Field(default=Path("connectors"), description="Folder of connector definitions (*.json)")
    username: str | None = Field(default=None, description="User for basic authentication")
    password: SecretStr | None = Field(default=None, description="Password for basic authentication")
    ca_file: CaFile | None = Field(
        default=None, description="PEM file of the certificate authority that signed the server's certificate"
    )
    timeout: Seconds = Field(default=30, description="Timeout of a request (seconds)")
    offset_topic: str = Field(
        default="connect-offsets",
        description="Topic of Kafka Connect's source offsets (offset.storage.topic of its workers)",
    )

    _credentials = model_validator(mode="before")(take_credentials_out)


class HttpSettings(Section):
    """The HTTP server of `syncer run` and `syncer serve`."""

    host: str = Field(
        default="127.0.0.1",
        description="Address to listen on; 0.0.0.0 for all interfaces, which needs a token or `anonymous_read`",
    )
    port: int = Field(default=8080, ge=0, le=65535, description="Port to listen on; 0 for any free port")
    read_token: Token | None = Field(default=None, description="Bearer token that clients need to read")
    write_token: Token | None = Field(
        default=None, description="Bearer token that clients need to write; it may also read"
    )
    anonymous_read: bool = Field(
        default=False, description="Whether clients on other machines may read without a token"
    )
    allowed_hosts: list[str] = Field(
        default=[],
        description="Host names by which clients may address the server, besides localhost and IP addresses; checked "
        "if `host` is a loopback address or this list is not empty",
    )
    max_body: Bytes = Field(default=1 << 20, description="Maximum size of the body of a request (bytes)")
    max_connections: Count = Field(default=512, description="Maximum number of open connections")
    requests_per_second: Count = Field(
        default=200, description="Maximum number of requests per second from one client; twice as many in a burst"
    )
    request_timeout: Seconds = Field(
        default=10,
        description="Disconnect a client that does not send its request, or does not read its data, within this time"
        " (seconds)",
    )


class LogSettings(Section):
    """The log of `syncer run` and `syncer serve`."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Lowest level that is logged: debug, info, warning, error"
    )
    format: Literal["auto", "console", "json"] = Field(
        default="auto", description="console, json, or auto: console on a terminal, otherwise json"
    )


class PipelineSettings(Section):
    """Limits of one batch. The defaults come from measurements. `bench/` measures the effect of other values."""

    max_records: Count = Field(default=5000, description="Maximum number of change events in a batch")
    max_bytes: Bytes = Field(default=16 << 20, description="Maximum size of the change events in a batch (bytes)")
    chunk_documents: Count = Field(default=2000, description="Maximum number of documents that one statement renders")
    chunk_bytes: Bytes = Field(
        default=8 << 20, description="Approximate maximum size of the documents that one statement renders (bytes)"
    )
    fan_out: Count = Field(
        default=20_000,
        description="If the look-ups of a batch find this many documents, their ids go to the work topic",
    )
    commit_interval: Seconds = Field(default=1.0, description="Time between commits of offsets (seconds)")
    gate_timeout: Seconds = Field(
        default=30,
        description="Report a transaction in Kafka that is still invisible in PostgreSQL after this time (seconds)",
    )
    max_age: Seconds = Field(
        default=30,
        le=600,
        description="Maximum age of a snapshot when its documents are written; older documents are rendered again;"
        " at most 600 (seconds)",
    )
    change_lanes: Count = Field(
        default=1, description="Batches of change events processed concurrently, per process and read model"
    )
    work_lanes: Count = Field(default=1, description="Work items processed concurrently, per process and read model")
    stop_timeout: Seconds = Field(default=8, description="On shutdown, time to finish the current batch (seconds)")


class BackfillSettings(Section):
    """How `syncer backfill` and `syncer resync` split the root table. Each range of keys is one work item."""

    range_documents: Count = Field(
        default=2000, description="Maximum number of documents in a range; with partials, maximum number of partials"
    )
    workers: Count = Field(default=2, description="Ranges rendered concurrently, per process")


class DeadLetterSettings(Section):
    """If a sink rejects too many documents in a row, the read model stops. Single bad documents do not stop it."""

    max_consecutive: int = Field(
        default=100,
        ge=0,
        description="Stop the read model when a sink rejects this many documents in a row with the same type"
        " of error; 0: never stop",
    )


class RefreshSettings(Section):
    """Limits of requests to refresh documents now (`POST /models/MODEL/refresh` and `syncer refresh`)."""

    max_documents: Count = Field(default=1000, description="Maximum number of documents that one request may refresh")
    max_requests: Count = Field(
        default=32, description="Requests that are processed at the same time, per process and read model"
    )
    lanes: Count = Field(
        default=2, description="Batches of documents refreshed concurrently, per process and read model"
    )
    client_rate: float = Field(
        default=200, ge=0, description="Documents that one client may refresh per second, on average; 0: no limit"
    )
    key_rate: float = Field(
        default=20, ge=0, description="How often one document may be refreshed per second, on average; 0: no limit"
    )
    timeout: Seconds = Field(default=10, description="Timeout of a request that does not set one (seconds)")
    max_timeout: Seconds = Field(default=60, description="Longest timeout that a request may set (seconds)")


class PushSettings(Section):
    """Limits of the clients that receive changes (`GET /models/MODEL/changes`)."""

    max_clients: Count = Field(
        default=256, description="Maximum number of clients per process; `http.max_connections` has to be higher"
    )
    max_keys: Count = Field(
        default=10_000, description="Changed documents that may wait for one slow client before its stream ends"
    )
    max_bytes: Bytes = Field(
        default=8 << 20, description="Size of the changes that may wait for one slow client (bytes)"
    )


class WatchSettings(Section):
    """How `syncer run` monitors the connector, the slot and the publication."""

    interval: Seconds = Field(default=10, description="Time between two checks (seconds)")
    overdue: Seconds = Field(
        default=120, description="Report a canary message that has not arrived through Kafka after this time (seconds)"
    )


class FreshnessSettings(Section):
    """How the daemon measures the age of the documents (docs/freshness.md)."""

    interval: Seconds = Field(
        default=1.0,
        description="Time between two snapshots that may become the watermark; each sends one canary message (seconds)",
    )
    publish_interval: float = Field(
        default=1.0,
        ge=0,
        description="Approximate time between two watermarks that are written to the sinks (seconds); 0: write none",
    )


class SourceSettings(Section):
    """Whether the syncer repairs the documents of rows that the connector may lose when it resumes."""

    repair_after_resume: Literal["auto", "always", "never"] = Field(
        default="auto",
        description="What to render again after the connector resumed: auto (the documents of rows that were written "
        "shortly before; all documents if Debezium is older than 3.7, or if these rows are not known), always (all "
        "documents) or never (nothing)",
    )


class Config(Section):
    """All settings. `connection` validates the sections of the sinks."""

    models: Path = Field(default=Path("readmodels"), description="Folder of the read models")
    postgres: PostgresSettings
    kafka: KafkaSettings
    connect: ConnectSettings = Field(default_factory=ConnectSettings)
    http: HttpSettings = Field(default_factory=HttpSettings)
    log: LogSettings = Field(default_factory=LogSettings)
    pipeline: PipelineSettings = Field(default_factory=PipelineSettings)
    backfill: BackfillSettings = Field(default_factory=BackfillSettings)
    dead_letters: DeadLetterSettings = Field(default_factory=DeadLetterSettings)
    refresh: RefreshSettings = Field(default_factory=RefreshSettings)
    push: PushSettings = Field(default_factory=PushSettings)
    watch: WatchSettings = Field(default_factory=WatchSettings)
    freshness: FreshnessSettings = Field(default_factory=FreshnessSettings)
    source: SourceSettings = Field(default_factory=SourceSettings)
    _tree: layers.Tree = PrivateAttr()

    def model_post_init(self, context: Any) -> None:
        self._tree = (context or {}).get("tree") or layers.Tree("configuration")

    @property
    def sinks(self) -> dict[str, dict[str, Any]]:
        """Returns section → values of the sinks, not validated and with secrets. `connection` validates them.

        Leaves out a sink whose section is a field of this class: `kafka`.
        """
        values, own = self._tree.values, type(self).model_fields
        names = [name for name in map(section_of, sink_modules()) if name in values and name not in own]
        return {name: layers.with_files(values[name] or {}, None, self._tree, (name,)) for name in names}

    def connection(self, kind: str, cls: type[M]) -> M:
        """Returns a sink's section as the sink's own class.

        Raises Fatal with every error in it, each with the origin of the value.
        """
        section = section_of(kind)
        return layers.build(cls, self._tree, (section,), self._tree.values.get(section) or {})

    def masked(self) -> dict[str, Any]:
        """Returns all settings for printing. Secrets are `***`."""
        shown = self.model_dump(mode="json") | self.sinks
        return {key: mask(key, value) for key, value in shown.items()}

    def origin(self, *path: str) -> str:
        """Returns the origin of a setting: `config/syncer.yaml:12`, `environment variable X` or `default`."""
        return self._tree.origins.get(path, "default")

    def explain_folder(self, *path: str) -> str:
        """Explains a folder setting: where it is set, and where its relative paths start."""
        folder = self._tree.folder_of(path)
        start = f"the folder of {self._tree.name}" if folder.parts else "the current folder"
        return f"{'.'.join(path)} is set by: {self.origin(*path)}; its relative paths start at {start}"


def load(
    path: Path | str | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Config:
    """Reads the configuration file and applies the environment and the options over it.

    path: the file; without it, `$SYNCER_CONFIG`, otherwise `config/syncer.yaml`. If that default does not exist, the
    environment alone is read.
    options: values by dotted name that win over all others, e.g. `{"log.level": "debug"}`.
    Raises Fatal with every error found.
    """
    environ = os.environ if environ is None else environ
    chosen = path or environ.get("SYNCER_CONFIG")
    file = Path(chosen) if chosen else DEFAULT_PATH
    if chosen or file.exists():
        if not file.exists():
            raise Fatal(
                "the configuration file does not exist", where=str(file), hint="give another path: --config FILE"
            )
        tree = layers.read_yaml(file)
    else:
        tree = layers.Tree(f"environment (there is no {file} in the current folder)")
    layers.add_environment(tree, environ, {"models"})
    for name, value in (options or {}).items():
        tree.put(tuple(name.split(".")), value, "command line")
    sections = [section_of(kind) for kind in sink_modules()]
    known = [*Config.model_fields, *sections]
    for name in tree.values:
        if name not in known:
            raise layers.unknown(name, tree.origin((name,)), known)
        if not isinstance(tree.values[name] or {}, dict) and name != "models":
            raise Fatal(
                f"{name} is a section, but it has a single value",
                where=tree.origin((name,)),
                hint=f"write its keys below it; docs/configuration.md lists them under `{name}`",
            )
    fields = Config.model_fields
    given = [name for name in tree.values if name in fields or name not in sections]
    values = {name: tree.values[name] for name in given if tree.values[name] is not None}
    return layers.build(Config, tree, values=values)
