"""Options of libpq and explanations of refused connections, for every part that connects to PostgreSQL. No I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping

from syncer import tls

KEEPALIVE: Mapping[str, int] = {
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
"""Options of libpq; the DSN may override them. They detect a dead server in a minute instead of hours."""


def refused(text: str, section: str) -> str | None:
    """Returns the advice for a connection that the server, or its certificate, refused for good.

    libpq gives no SQLSTATE for it, only a text. Returns None if the connection can succeed later.
    section: the section of the configuration that has the DSN.
    """
    for pattern, hint in _REFUSED.items():
        if re.search(pattern, text):
            return hint.format(section=section, variable=f"SYNCER_{section.upper()}__PASSWORD")
    return None


_PASSWORD = "set {variable} or {section}.password_file"
_REFUSED = {
    "password authentication failed": _PASSWORD,
    "no password supplied": _PASSWORD,
    "no pg_hba.conf entry": "allow the syncer's host in pg_hba.conf",
    "(database|role) .* does not exist": "correct the database or role in {section}.dsn, or create it",
    "root certificate file": "set sslrootcert in {section}.dsn to a file with certificates",
    "(?i)certificate verify failed": tls.advice("sslrootcert in {section}.dsn"),
    "does not match host name": "use the host name of the server's certificate in {section}.dsn",
    "could not load (client )?certificate|private key file": "correct sslcert and sslkey in {section}.dsn",
    "does not support SSL": "change sslmode in {section}.dsn, or enable TLS on the server",
    "permission denied for database": "GRANT CONNECT ON DATABASE … TO the syncer's role",
}
