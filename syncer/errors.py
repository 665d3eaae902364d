"""The three kinds of error, and what each of them does to a read model.

Every error that leaves a module is one of these. It says *what* failed, *where*, *why*, and what to run
or change next (`hint`). Nothing is logged and swallowed on the way; each kind is decided in one place.

========  ===========================================  ==============================================
kind      meaning                                      what is done, and where
========  ===========================================  ==============================================
`Reject`  this record or document can never be taken   a dead letter, and on it goes: `pipeline/lane.py`
`Retry`   a sink is away or busy                       back-off, then rendered again: `pipeline/writer.py`
`Retry`   PostgreSQL or Kafka is; tables do not fit    back-off, then all is opened again: `runtime/supervisor.py`
`Fatal`   going on would lose or falsify data          this read model stops, no other: `runtime/supervisor.py`
========  ===========================================  ==============================================

A command ends with any of them (`cli/__init__.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from syncer.masking import mask_text

ARROW = "\n  → "
"""Comes before the hint where an error is one text."""


def apart(text: str) -> tuple[str, str]:
    """The text of one error without its hint, and the hint. Several errors in one text stay together."""
    told, _, hint = text.partition(ARROW)
    return (text, "") if ARROW in hint else (told, hint)


def with_hint(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields for programs: the hint that is in a `reason` or `last_error` is a field of its own."""
    told = {key: apart(fields[key]) for key in ("reason", "last_error") if key in fields}
    hint = next((hint for _, hint in told.values() if hint), "")
    return {**fields, **{key: text for key, (text, _) in told.items()}, "hint": hint}


class SyncerError(Exception):
    """Base of the three kinds. No part of it holds a secret: it may be printed anywhere.

    what: the operation that failed, as a sentence without the full stop.
    where: the file and line, table, topic and partition, index or URL.
    why: the cause as its origin words it.
    hint: the command to run or the setting to change.
    """

    def __init__(self, what: str, *, where: str = "", why: str = "", hint: str = "") -> None:
        self.what, self.where, self.why, self.hint = map(mask_text, (what, where, why, hint))
        super().__init__(self.what)

    def __str__(self) -> str:
        return f"{self.where}: {self.detail}" if self.where else self.detail

    @property
    def detail(self) -> str:
        """All but where, for a reader who knows that."""
        text = f"{self.what}: {self.why}" if self.why else self.what
        return f"{text}{ARROW}{self.hint}" if self.hint else text


class Retry(SyncerError):
    """Transient: the same work can succeed later. The batch is rendered again, never re-sent."""


class Reject(SyncerError):
    """Permanent for one record or one document. Its batch goes on without it."""


class Fatal(SyncerError):
    """Permanent for the read model: an operator has to act. Offsets stay where they are."""


class WeakIdentity(Fatal):
    """Events of a table do not tell what a read model needs of old rows. It stops until that is changed. Then
    it goes on by itself, and all documents are rendered again."""


class Unknown(Fatal):
    """A name that was asked for is none: a mistake of whoever asked, and of nothing that is there."""
