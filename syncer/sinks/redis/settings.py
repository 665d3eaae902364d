"""The two blocks of the Redis sink: `Settings` in a read model, `Connection` in the configuration."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import redis
from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator
from redis.backoff import NoBackoff
from redis.retry import Retry

from syncer.config.types import take_credentials_out
from syncer.declaration.names import Pattern
from syncer.quantities import Seconds, lasting
from syncer.sinks.redis.cluster import Client
from syncer.sinks.redis.indexes import Index
from syncer.sinks.redis.keys import pattern_problem
from syncer.tls import CaFile


class Settings(BaseModel):
    """Writes each document to a key of Redis."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: str = Field(description="The key of a document; contains {id} exactly once: customer:{id}:summary")
    format: Literal["json", "hash"] = Field(
        "json", description="json: one string, the document's text; hash: a field for each value, flat only"
    )
    expire: Seconds | None = Field(
        None, description="Documents expire this long after they were last written, such as 7d (default: never)"
    )
    indexes: tuple[Index, ...] = Field(
        (), description="Sorted sets and sets that have the documents as members, with keys over their fields"
    )
    tombstone: Annotated[Seconds, lasting(least=1800)] = Field(
        3600,
        description="How long the version of a deleted document is kept, such as 1h; at least half an hour",
    )

    @field_validator("key")
    @classmethod
    def _pattern(cls, value: str) -> str:
        if problem := pattern_problem(value):
            raise ValueError(problem)
        return value


class Connection(BaseModel):
    """The address and the credentials of Redis."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    url: Annotated[str, Pattern(r"^(rediss?|unix)://", "redis://host:port/database, or rediss:// for TLS")] = Field(
        "redis://127.0.0.1:6379/0", description="Address as redis://host:port/database; rediss:// for TLS"
    )
    username: str | None = Field(None, description="ACL user; without it, the user `default`")
    password: SecretStr | None = Field(None, description="Password of the user")
    ca_file: CaFile | None = Field(
        None, description="PEM file of the certificate authority that signed the server's certificate"
    )
    timeout: Seconds = Field(10, description="Timeout of a command (seconds)")
    cluster: bool = Field(False, description="Set to true if the address belongs to a Redis Cluster")

    _credentials = model_validator(mode="before")(take_credentials_out)

    def client(self) -> Client:
        """Returns a client that never retries.

        A cluster is connected at once, a single server with its first command.
        """
        options: dict[str, Any] = {
            "username": self.username,
            "password": self.password.get_secret_value() if self.password else None,
            "socket_timeout": self.timeout,
            "socket_connect_timeout": self.timeout,
            "retry": Retry(NoBackoff(), 0),
        }
        if self.ca_file and self.url.startswith("rediss:"):
            options["ssl_ca_certs"] = self.ca_file
        if self.cluster:
            return redis.RedisCluster.from_url(self.url, **options)
        return redis.Redis.from_url(self.url, **options)
