"""Types of settings that several sinks have: durations, sizes, addresses with credentials in them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import unquote, urlsplit

from pydantic import BeforeValidator, Field, WithJsonSchema

_QUANTITY = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*")
_TIMES = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_SIZES = {"": 1.0, "b": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 1024.0, "mib": 2.0**20, "gib": 2.0**30}


def _quantity(units: Mapping[str, float], example: str) -> BeforeValidator:
    def parse(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        match = _QUANTITY.fullmatch(value)
        if not match or match[2].lower() not in units:
            raise ValueError(f"it has to be a number with a unit, such as {example}")
        return float(match[1]) * units[match[2].lower()]

    return BeforeValidator(parse)


_NUMBER_OR_TEXT = [{"type": "number", "minimum": 0}, {"type": "string", "pattern": "^[0-9]"}]
_SCHEMA = WithJsonSchema({"anyOf": _NUMBER_OR_TEXT})
Seconds = Annotated[float, _quantity(_TIMES, "30s, 1h or 7d"), Field(gt=0), _SCHEMA]
Bytes = Annotated[int, _quantity(_SIZES, "8MiB"), Field(gt=0), _SCHEMA]


def take_credentials_out(data: Any) -> Any:
    """Moves `user:password@` of `url` to `username` and `password`, so that an address can be shown."""
    url = data.get("url") if isinstance(data, dict) else None
    if not isinstance(url, str) or not re.match(r"[^,]*@", url):
        return data
    parts = urlsplit(url)
    taken = {"url": parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()}
    for name, text in (("username", parts.username), ("password", parts.password)):
        if text and not data.get(name):
            taken[name] = unquote(text)
    return data | taken
