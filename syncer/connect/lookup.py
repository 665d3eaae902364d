"""The one connector that feeds the read models: its definition, and Kafka Connect as it is configured."""

from __future__ import annotations

from pathlib import Path

from syncer.config.schema import Config
from syncer.connect.client import Connect
from syncer.connect.definition import Definition, load_definition, load_definitions
from syncer.errors import Fatal

_NAMES = ("topic.prefix", "slot.name", "publication.name")


def find_definition(config: Config, *, names_only: bool = False) -> Definition:
    """The one connector of the folder whose `topic.prefix` is ours. names_only: placeholders are filled in
    there only, so that secrets need not be known. Raises Fatal if there is none, or two."""
    folder = config.connect.definitions
    prefix = config.kafka.topic_prefix
    if not folder.is_dir():
        raise Fatal(
            "there is no folder of connector definitions",
            where=str(folder.absolute()),
            why=config.why_there("connect", "definitions"),
            hint="set connect.definitions, as SYNCER_CONNECT__DEFINITIONS or in the configuration",
        )
    found = [d for d in load_definitions(folder, needed=_NAMES) if d.config.get("topic.prefix") == prefix]
    if len(found) == 1:
        return found[0] if names_only else load_definition(Path(found[0].path))
    where, hint = str(folder), "see kafka.topic_prefix and connect.definitions in the configuration"
    if not found:
        raise Fatal(f"no connector is defined that has topic.prefix {prefix}", where=where, hint=hint)
    why = ", ".join(d.path for d in found)
    raise Fatal(f"several connectors have topic.prefix {prefix}", where=where, why=why, hint=hint)


def connect(config: Config, *, timeout: float = 0.0) -> Connect:
    """timeout: seconds, if less than `connect.timeout`. Raises Fatal when connect.url is not set."""
    settings = config.connect
    if not settings.url:
        raise Fatal("connect.url is not set", where="configuration", hint="SYNCER_CONNECT__URL=http://host:8083")
    password = settings.password.get_secret_value() if settings.password else ""
    return Connect(
        settings.url,
        username=settings.username or "",
        password=password,
        timeout=min(settings.timeout, timeout or settings.timeout),
        ca_file=settings.ca_file,
    )


def publication(config: Config) -> str:
    """The publication of the connector's definition; empty if there is no definition to tell it."""
    try:
        return find_definition(config, names_only=True).config.get("publication.name", "")
    except Fatal:
        return ""
