"""Declares the types that settings and sinks share: tokens, and addresses with credentials."""

from __future__ import annotations

import re
from typing import Annotated, Any
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, SecretStr


def check_token(token: SecretStr) -> SecretStr:
    """Returns the token. Raises ValueError if it is short, or cannot be sent as a bearer token (RFC 6750)."""
    if not re.fullmatch(r"[A-Za-z0-9._~+/-]{16,}=*", token.get_secret_value()):
        raise ValueError("must have at least 16 characters: letters, digits, and -._~+/; try openssl rand -hex 32")
    return token


Token = Annotated[SecretStr, AfterValidator(check_token)]


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
