"""Declares the types that settings and sinks share: sizes, durations, and addresses with credentials in them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import unquote, urlsplit

from pydantic import BeforeValidator, Field, WithJsonSchema

_QUANTITY = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-zA-Z]*)\s*")
_SIZES = {"": 1.0, "b": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2.0**10, "mib": 2.0**20, "gib": 2.0**30}
_TIMES = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def parse_size(value: Any) -> Any:
    """Returns the bytes of `8MiB`, `500 kB` or `1024`. Values other than text are returned as they are.

    Raises ValueError for text that is not a size.
    """
    return round(_quantity(value, _SIZES, "a size such as 8MiB")) if isinstance(value, str) else value


def parse_duration(value: Any) -> Any:
    """Returns the seconds of `30s`, `250ms`, `7d` or `1.5`. Values other than text are returned as they are.

    Raises ValueError for text that is not a duration.
    """
    return _quantity(value, _TIMES, "a duration such as 30s, 1h or 7d") if isinstance(value, str) else value


def _quantity(text: str, units: Mapping[str, float], expected: str) -> float:
    match = _QUANTITY.fullmatch(text)
    if not match or match[2].lower() not in units:
        raise ValueError(f"must be {expected} (units: {', '.join(filter(None, units))})")
    return float(match[1]) * units[match[2].lower()]


_TEXT_OR_NUMBER = {"anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": "^[0-9]"}]}
Bytes = Annotated[int, BeforeValidator(parse_size), Field(gt=0), WithJsonSchema(_TEXT_OR_NUMBER)]
Seconds = Annotated[float, BeforeValidator(parse_duration), Field(gt=0), WithJsonSchema(_TEXT_OR_NUMBER)]


def take_credentials_out(data: Any) -> Any:
    """Moves `user:password@` from `url` to `username` and `password`, so that the address can be printed.

    A username or password that is set explicitly wins over the one in the address.
    """
    url = data.get("url") if isinstance(data, dict) else None
    if not isinstance(url, str) or not re.match(r"[^,]*@", url):
        return data
    parts = urlsplit(url)
    taken = {"url": parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()}
    for name, text in (("username", parts.username), ("password", parts.password)):
        if text and not data.get(name):
            taken[name] = unquote(text)
    return data | taken
