"""The two blocks of the Elasticsearch sink: `Settings` in a read model, `Connection` in the configuration."""

from __future__ import annotations

import re
from typing import Annotated, Any

from elasticsearch import Elasticsearch
from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from syncer.config.types import take_credentials_out
from syncer.declaration.names import Pattern
from syncer.quantities import Bytes, Seconds
from syncer.sinks.elasticsearch.client import client
from syncer.tls import CaFile


class Settings(BaseModel):
    """Writes the documents to a search index of Elasticsearch."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    index: Annotated[
        str,
        Pattern(
            r"^[^A-Z\\/*?\"<>| ,#:._+-][^A-Z\\/*?\"<>| ,#:]*$",
            'in lower case, without spaces and \\ / * ? " < > | , # :, and not begin with one of . _ + -',
        ),
    ] = Field(
        description="The alias that applications read; the indexes behind it are INDEX-000001 and so on",
        max_length=200,
    )
    mapping: dict[str, Any] = Field(
        {}, description="Mapping of the fields (in the syntax of Elasticsearch), merged over the derived one"
    )
    settings: dict[str, Any] = Field(
        {}, description="Settings of the index: number_of_shards, refresh_interval, analysis and so on"
    )

    def index_of(self, generation: int) -> str:
        """Returns the name of the index of a generation."""
        return f"{self.index}-{generation:06d}"


class Connection(BaseModel):
    """The address and the credentials of Elasticsearch."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    url: str = Field("http://127.0.0.1:9200", description="Addresses as http(s)://host:port, separated by commas")
    username: str | None = Field(None, description="User for basic authentication")
    password: SecretStr | None = Field(None, description="Password for basic authentication")
    api_key: SecretStr | None = Field(None, description="Encoded API key, instead of username and password")
    ca_file: CaFile | None = Field(
        None, description="PEM file of the certificate authority that signed the server's certificate"
    )
    timeout: Seconds = Field(60, description="Timeout of a request (seconds)")
    max_bulk_bytes: Bytes = Field(8 << 20, description="Maximum size of one bulk request (bytes)")

    _credentials = model_validator(mode="before")(take_credentials_out)

    @field_validator("url")
    @classmethod
    def _addresses(cls, value: str) -> str:
        for part in value.split(","):
            if not re.match(r"https?://[^/@]+:\d+(/|$)", part.strip()):
                raise ValueError("it has to be http://host:port or https://host:port")
        return value

    def client(self) -> Elasticsearch:
        """Returns a client that has not connected yet and never retries."""
        basic = (self.username, self.password.get_secret_value()) if self.username and self.password else None
        return client(
            self.url,
            basic_auth=basic,
            api_key=self.api_key.get_secret_value() if self.api_key else None,
            ca_file=self.ca_file,
            timeout=self.timeout,
        )
