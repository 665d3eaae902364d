"""Recognizes settings that hold secrets by their names, and masks their values in all output.

Logs, `syncer config`, connector differences and every error message use this one list of names. A module that knows
of another secret masks it itself (`connect/definition.py`).
"""

from __future__ import annotations

import re
from typing import Any

MASK = "***"

_SECRET = (
    r"pass(?:word|wd|phrase)|(?<![a-z])pass(?![a-z])|(?<![a-z])pwd(?![a-z])|secret|credential|token(?!i[sz])"
    r"|jaas|api[._-]?key|access[._-]?key|private|keystore\.key|\.pem(?![a-z])|user\.info|authorization"
)
_SECRET_NAME = re.compile(_SECRET, re.IGNORECASE)
_PLAIN_NAME = re.compile(r"(?:_file|\.file|\.location|\.url|\.type|\.algorithm)$", re.IGNORECASE)
"""Ends of names whose values say where a secret is, or of which kind, and hold no secret."""

_URL_PASSWORD = re.compile(r"(://[^:/@\s]*):[^/\s]*@")
_VALUE = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[^\s,;&'"…]+)"""
_ASSIGNMENT = re.compile(
    rf"""(?P<name>["']?[\w.-]*(?:{_SECRET})[\w.-]*["']?)(?P<sign>\s*=\s*|(?<=["'])\s*:\s*)(?P<value>{_VALUE})""",
    re.IGNORECASE,
)
_HEADER = re.compile(r"\b((?:Basic|Bearer|ApiKey)\s+)[\w+/=._~-]{8,}")


def is_secret(name: str) -> bool:
    """Whether a setting or variable with this name holds a secret."""
    return _SECRET_NAME.search(name) is not None and _PLAIN_NAME.search(name) is None


def mask_text(text: str) -> str:
    """Returns the text with its secrets masked: passwords in URLs, `password=…` and similar, authorization headers."""
    if "=" in text or ":" in text:
        text = _ASSIGNMENT.sub(_masked, _URL_PASSWORD.sub(rf"\1:{MASK}@", text))
    return _HEADER.sub(rf"\1{MASK}", text)


def _masked(match: re.Match[str]) -> str:
    name, sign, value = match.group("name", "sign", "value")
    if not is_secret(name.strip("\"'")):
        return match[0]
    quote = value[0] if value[0] in "'\"" and sign.strip() == ":" else ""
    return f"{name}{sign}{quote}{MASK}{quote}"


def mask(name: str, value: Any) -> Any:
    """Returns a setting's value for output: `***` if its name is that of a secret.

    Masks secrets inside texts, lists and mappings, too.
    """
    if isinstance(value, dict):
        return {key: mask(str(key), item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [mask(name, item) for item in value]
    if value not in (None, "") and not isinstance(value, bool) and is_secret(name):
        return MASK
    return mask_text(value) if isinstance(value, str) else value
