"""The place of the table: a folder, or the URL of an object store. Checked before anything is read from the topic.

The credentials of an object store come from environment variables, with the names that delta-rs uses. The fence of the
export is that a file of the log can be created only once. So options that give up this property are refused.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from syncer.errors import Fatal

_PREFIXES = ("AWS_", "AZURE_", "GOOGLE_", "MOUNT_")
_FALSE = ("", "0", "false", "no", "off", "n")
"""All other values are refused, because a version of delta-rs may take them for true."""
_UNSAFE: Mapping[str, Callable[[str], bool]] = {
    "AWS_S3_ALLOW_UNSAFE_RENAME": lambda value: value not in _FALSE,
    "MOUNT_ALLOW_UNSAFE_RENAME": lambda value: value not in _FALSE,
    "AWS_CONDITIONAL_PUT": lambda value: value == "disabled",
    "CONDITIONAL_PUT": lambda value: value == "disabled",
}
"""Variables, and whether two processes can create the same file of the log with a value in lower case."""


class Location(NamedTuple):
    """Where the table is."""

    uri: str
    """A path or a URL, for delta-rs."""
    folder: Path | None
    """None for an object store."""
    options: dict[str, str]
    """Storage options of delta-rs. They contain credentials: do not print them."""


def locate(text: str, environment: Mapping[str, str]) -> Location:
    """Returns the location that a user named.

    environment: its variables `AWS_…`, `AZURE_…` and `GOOGLE_…` become storage options.
    Raises Fatal for a URL that contains a password, and for options that give up the fence.
    """
    for name, is_unsafe in _UNSAFE.items():
        if is_unsafe(environment.get(name, "").lower()):
            raise Fatal(
                f"{name}={environment[name]} is set, so records could be appended twice",
                where="environment",
                why="two processes could create the same version of the table",
                hint=f"unset {name}, and use a store with conditional writes",
            )
    if not re.match(r"[a-z][a-z0-9+.-]+://", text, re.IGNORECASE):
        return _folder(Path(text))
    parts = urlsplit(text)
    if parts.scheme.lower() == "file":
        return _folder(Path(unquote(parts.path)))
    if parts.username is not None and parts.password is not None:
        hint = "pass credentials in environment variables, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        raise Fatal("the URL contains a password", where=f"{parts.scheme}://{parts.hostname}{parts.path}", hint=hint)
    options = {name: value for name, value in environment.items() if name.startswith(_PREFIXES)}
    return Location(text, None, options)


def _folder(path: Path) -> Location:
    absolute = path.expanduser().absolute()
    return Location(str(absolute), absolute, {})


def check_writable(folder: Path) -> None:
    """Raises Fatal if the folder cannot hold a table: it is not writable, is no folder, or has other files.

    A missing folder is not created: then the nearest folder above it has to be writable. Leaves no file behind.
    """
    log, others = folder / "_delta_log", list[str]()
    try:
        existing = next(one for one in (log, folder, *folder.parents) if one.exists())
        with tempfile.NamedTemporaryFile(dir=existing, prefix=".syncer-"):
            pass
        if existing == folder:
            others = sorted(one.name for one in folder.iterdir())
    except OSError as error:
        raise Fatal(
            f"{folder} is not writable",
            where="--to",
            why=error.strerror or str(error),
            hint=f"give this user the right to write to {folder}, or choose another path",
        ) from error
    if others:
        raise Fatal(
            f"{folder} is not empty, and is not a Delta table",
            where="--to",
            why=f"it contains {others[0]}",
            hint="choose an empty folder, or one that does not exist",
        )
