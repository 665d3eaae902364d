"""Decides which settings are secrets, by their names, and hides them wherever something is printed.

There is one list of names. Logs, `syncer config`, connector differences and every error message use it.
Where a value is known to be a secret for another reason, its owner hides it (`connect/definition.py`).
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
"""Ends of names that say where a secret is, or of which kind, and are none themselves."""

_URL_PASSWORD = re.compile(r"(://[^:/@\s]*):[^/\s]*@")
_VALUE = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[^\s,;&'"…]+)"""
_ASSIGNMENT = re.compile(
    rf"""(?P<name>["']?[\w.-]*(?:{_SECRET})[\w.-]*["']?)(?P<sign>\s*=\s*|(?<=["'])\s*:\s*)(?P<value>{_VALUE})""",
    re.IGNORECASE,
)
_HEADER = re.compile(r"\b((?:Basic|Bearer|ApiKey)\s+)[\w+/=._~-]{8,}")


def is_secret(name: str) -> bool:
    """Whether a setting or variable of this name holds a secret."""
    return _SECRET_NAME.search(name) is not None and _PLAIN_NAME.search(name) is None


def mask_text(text: str) -> str:
    """The text without the secrets in it: passwords of URLs, `password=…` and the like, sign-in headers."""
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
    """A setting as it may be shown: `***` if its name says that it is a secret; secrets inside of text, lists
    and mappings are masked, too."""
    if isinstance(value, dict):
        return {key: mask(str(key), item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [mask(name, item) for item in value]
    if value not in (None, "") and not isinstance(value, bool) and is_secret(name):
        return MASK
    return mask_text(value) if isinstance(value, str) else value
