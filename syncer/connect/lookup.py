"""Finds the definition of the connector that feeds the read models, and opens a client for Kafka Connect."""

from __future__ import annotations

from pathlib import Path

from syncer.config.schema import Config
from syncer.connect.client import Connect
from syncer.connect.definition import Definition, load_definition, load_definitions
from syncer.errors import Fatal

_NAMES = ("topic.prefix", "slot.name", "publication.name", "offsets.storage.topic")


def find_definition(config: Config, *, names_only: bool = False) -> Definition:
    """Returns the connector whose `topic.prefix` equals `kafka.topic_prefix`.

    names_only: fill in placeholders only in the settings that hold names, so that no secret has to be set.
    Raises Fatal unless exactly one connector has this prefix.
    """
    folder = config.connect.definitions
    prefix = config.kafka.topic_prefix
    if not folder.is_dir():
        raise Fatal(
            "the folder of connector definitions does not exist",
            where=str(folder.absolute()),
            why=config.explain_folder("connect", "definitions"),
            hint="create it, or set connect.definitions (or the variable SYNCER_CONNECT__DEFINITIONS)",
        )
    found = [d for d in load_definitions(folder, needed=_NAMES) if d.config.get("topic.prefix") == prefix]
    if len(found) == 1:
        return found[0] if names_only else load_definition(Path(found[0].path))
    where, hint = str(folder), "correct kafka.topic_prefix or connect.definitions in the configuration"
    if not found:
        raise Fatal(f"no connector definition has topic.prefix {prefix}", where=where, hint=hint)
    why = ", ".join(d.path for d in found)
    raise Fatal(f"several connector definitions have topic.prefix {prefix}", where=where, why=why, hint=hint)


def connect(config: Config, *, timeout: float = 0.0) -> Connect:
    """Opens a client for Kafka Connect with the configured settings.

    timeout: seconds, at most `connect.timeout`; 0 for `connect.timeout`.
    Raises Fatal when `connect.url` is not set.
    """
    settings = config.connect
    if not settings.url:
        raise Fatal("connect.url is not set", where="configuration", hint="set SYNCER_CONNECT__URL=http://host:8083")
    password = settings.password.get_secret_value() if settings.password else ""
    return Connect(
        settings.url,
        username=settings.username or "",
        password=password,
        timeout=min(settings.timeout, timeout or settings.timeout),
        ca_file=settings.ca_file,
    )


def publication(config: Config) -> str:
    """Returns the publication that the connector's definition names; empty if there is no valid definition."""
    try:
        return find_definition(config, names_only=True).config.get("publication.name", "")
    except Fatal:
        return ""
