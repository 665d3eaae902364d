"""Checks files of CA certificates, and explains errors about untrusted server certificates, for all servers."""

from __future__ import annotations

import ssl
from typing import Annotated

from pydantic import AfterValidator


def check_ca_file(path: str) -> str:
    """Returns the path of a PEM file, if it holds certificates. Raises ValueError with the fault of the file."""
    try:
        ssl.create_default_context(cafile=path)
    except ssl.SSLError as error:
        raise ValueError(f"{path} holds no certificates in PEM form ({error.reason})") from None
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    return path


CaFile = Annotated[str, AfterValidator(check_ca_file)]
"""A setting: the path of a PEM file with the certificates of the authorities that sign server certificates."""


def is_untrusted(text: str) -> bool:
    """Whether the text of a client's error says that it does not trust the server's certificate."""
    return "certificate verify failed" in text.lower() or "certificate_verify_failed" in text.lower()


def advice(setting: str) -> str:
    """Returns the hint for such an error. setting: the name of the setting that holds the path."""
    return (
        f"{setting} has to name a PEM file with the certificate of the authority that signed the server's; "
        "the address has to be a name in the server's certificate"
    )
