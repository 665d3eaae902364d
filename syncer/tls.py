"""Says which file is missing or wrong when a server's certificate is not trusted. For all servers alike."""

from __future__ import annotations

import ssl
from typing import Annotated

from pydantic import AfterValidator


def readable(path: str) -> str:
    """The path of a PEM file with certificates. Raises ValueError that says what is wrong with the file."""
    try:
        ssl.create_default_context(cafile=path)
    except ssl.SSLError as error:
        raise ValueError(f"{path} holds no certificates in PEM form ({error.reason})") from None
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    return path


CaFile = Annotated[str, AfterValidator(readable)]
"""A setting that names the certificates of the authorities behind a server's own certificate."""


def distrusted(text: str) -> bool:
    """Whether an error of a client says that it does not trust the server's certificate."""
    return "certificate verify failed" in text.lower() or "certificate_verify_failed" in text.lower()


def advice(setting: str) -> str:
    """What to do about that. setting: names the file."""
    return (
        f"{setting} has to name a PEM file with the certificate of the authority that signed the server's; "
        "the address has to be a name in the server's certificate"
    )
