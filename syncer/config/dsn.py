"""Takes the password out of a PostgreSQL connection string and resolves the paths in it."""

from __future__ import annotations

import os
from pathlib import Path

_PATHS = ("sslrootcert", "sslcert", "sslkey", "sslcrl", "sslcrldir", "passfile")


def split_dsn(dsn: str, folder: Path = Path()) -> tuple[str, str | None]:
    """Returns a connection string without its password, and the password.

    folder: the start of relative paths in the string (`sslrootcert=ca.pem`).
    Raises ValueError if the text is not a connection string. The error does not repeat the text, which may hold a
    password.
    """
    from psycopg import Error
    from psycopg.conninfo import conninfo_to_dict, make_conninfo

    try:
        parts = conninfo_to_dict(dsn)
    except Error:
        raise ValueError("must be postgresql://user@host:port/database or key=value pairs") from None
    password = parts.pop("password", None)
    located = {
        name: os.path.normpath(folder / str(value))
        for name in _PATHS
        if (value := parts.get(name)) not in (None, "", "system")  # sslrootcert=system: the system's certificates
    }
    if password is None and all(parts[name] == path for name, path in located.items()):
        return dsn, None
    return make_conninfo("", **(parts | located)), None if password is None else str(password)
