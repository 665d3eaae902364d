"""Parses tokens. A token names the commit that a document has to show.

    x:<xid8>    a transaction: pg_current_xact_id(), read inside the writing transaction
    l:<lsn>     a WAL position: pg_current_wal_insert_lsn(), read after the commit
    now         the time of the request: no help from the writer

The first two may end in `@<system>/<timeline>`, which names the PostgreSQL server's history (`clock.Identity`).
Transaction ids and WAL positions mean something else on another server, or after a failover. Without the suffix, a
token of another history cannot be recognized.

Pure. `snapshots.py` asks PostgreSQL.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from http import HTTPStatus

from syncer.clock import Identity
from syncer.freshness.refused import Refused

EXAMPLES = "x:7341, l:16/B374D848, x:7341@7291834650234/1, or now"
_LONGEST = 100
"""Characters. The longest valid token has 58."""
_FIRST_XID = 3
"""PostgreSQL gives no transaction a lower id (PostgreSQL manual, "Transactions and Identifiers")."""
_FORM = re.compile(r"(?P<kind>[xl]):(?P<value>[^@]*)(?:@(?P<suffix>.*))?", re.DOTALL)
_NUMBER = re.compile(r"[0-9]{1,20}")
_LSN = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")
_SUFFIX = re.compile(r"([0-9]{1,20})/([0-9]{1,10})")


class TokenKind(Enum):
    """The kinds of tokens, each with the letters that it begins with."""

    TRANSACTION = "x"
    POSITION = "l"
    NOW = "now"


@dataclass(frozen=True, slots=True)
class Token:
    """A parsed token."""

    kind: TokenKind
    value: int = 0
    """The 64-bit transaction id, or the WAL position in bytes. 0 for `now`."""
    identity: Identity | None = None
    """The history that the token belongs to. None if the token does not name one."""

    def __str__(self) -> str:
        if self.kind is TokenKind.NOW:
            return "now"
        value = str(self.value) if self.kind is TokenKind.TRANSACTION else format_lsn(self.value)
        suffix = f"@{self.identity.system}/{self.identity.timeline}" if self.identity else ""
        return f"{self.kind.value}:{value}{suffix}"

    def require(self, identity: Identity) -> None:
        """Raises Refused (409) if the token names another history than this one."""
        if self.identity is not None and self.identity != identity:
            raise Refused(
                HTTPStatus.CONFLICT,
                "the token belongs to another PostgreSQL server or timeline",
                where=f"token {self}",
                why=f"the token is of {self.identity}, the syncer reads {identity}",
                hint="write again, or read from PostgreSQL: after a failover the commit may be lost",
            )


def parse(text: str) -> Token:
    """Returns the token of a text. Raises Refused (400) with a valid example."""
    if text == "now":
        return Token(TokenKind.NOW)
    match = _FORM.fullmatch(text) if len(text) <= _LONGEST else None
    if match is None:
        raise _malformed(text, "it begins with neither x: nor l:" if len(text) <= _LONGEST else "it is too long")
    kind, value, suffix = TokenKind(match["kind"]), match["value"], match["suffix"]
    number = _transaction(text, value) if kind is TokenKind.TRANSACTION else _position(text, value)
    return Token(kind, number, None if suffix is None else _identity(text, suffix))


def format_lsn(position: int) -> str:
    """Returns PostgreSQL's text of a WAL position in bytes, such as `16/B374D848`."""
    return f"{position >> 32:X}/{position & 0xFFFFFFFF:X}"


def _transaction(text: str, value: str) -> int:
    if not _NUMBER.fullmatch(value) or not _FIRST_XID <= int(value) < 1 << 64:
        raise _malformed(text, f"{value!r} is no transaction id (xid8: a decimal number of 64 bits, at least 3)")
    return int(value)


def _position(text: str, value: str) -> int:
    match = _LSN.fullmatch(value)
    if match is None:
        raise _malformed(text, f"{value!r} is no WAL position (pg_lsn: two hexadecimal numbers and a slash)")
    return int(match[1], 16) << 32 | int(match[2], 16)


def _identity(text: str, suffix: str) -> Identity:
    match = _SUFFIX.fullmatch(suffix)
    if match is None:
        raise _malformed(text, f"{suffix!r} is not <system identifier>/<timeline>, two decimal numbers")
    return Identity(int(match[1]), int(match[2]))


def _malformed(text: str, why: str) -> Refused:
    shown = text if len(text) <= _LONGEST else text[:_LONGEST] + "…"
    return Refused(
        HTTPStatus.BAD_REQUEST,
        "the token cannot be parsed",
        where=f"token {shown!r}",
        why=why,
        hint=f"valid tokens look like {EXAMPLES}",
    )
