"""The three kinds of error, and the effect of each on a read model.

Every error that leaves a module is one of these. It says *what* failed, *where*, *why*, and what to run or change
next (`hint`). No module logs an error and goes on. One place handles each kind.

========  ===========================================  ==============================================
kind      meaning                                      effect, and where it is decided
========  ===========================================  ==============================================
`Reject`  a record or document is never acceptable     dead letter, the batch goes on: `pipeline/lane.py`
`Retry`   a sink is unreachable or busy                back-off, then render again: `pipeline/lane.py`
`Retry`   PostgreSQL or Kafka is unreachable, or the   back-off, then open everything again:
          tables do not fit the read model             `runtime/supervisor.py`
`Fatal`   to go on would lose or falsify data          this read model stops, no other: `runtime/supervisor.py`
========  ===========================================  ==============================================

A command ends with any of them. `cli/__init__.py` prints it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from syncer.masking import mask_text

ARROW = "\n  → "
"""Separates the hint from the rest where an error is one text."""


def split_hint(text: str) -> tuple[str, str]:
    """Returns the text of one error without its hint, and the hint. Does not split a text with several errors."""
    detail, _, hint = text.partition(ARROW)
    return (text, "") if ARROW in hint else (detail, hint)


def with_hint(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Returns fields for programs. Moves the hint in `reason` to a field of its own.

    The hint of `last_error` is removed: that error is over, so its command must not be run any more.
    """
    parts = {key: split_hint(fields[key]) for key in ("reason", "last_error") if key in fields}
    _, hint = parts.get("reason", ("", ""))
    return {**fields, **{key: text for key, (text, _) in parts.items()}, "hint": hint}


class SyncerError(Exception):
    """Base of the three kinds. Secrets are masked in all parts, so an error may be printed anywhere.

    what: the operation that failed, as a sentence without the full stop.
    where: the file and line, table, topic and partition, index or URL.
    why: the cause, in the words of the server or library.
    hint: the command to run or the setting to change.
    """

    def __init__(self, what: str, *, where: str = "", why: str = "", hint: str = "") -> None:
        self.what, self.where, self.why, self.hint = map(mask_text, (what, where, why, hint))
        super().__init__(self.what)

    def __str__(self) -> str:
        return f"{self.where}: {self.detail}" if self.where else self.detail

    @property
    def detail(self) -> str:
        """The error without its `where`, for output that shows the place already."""
        text = f"{self.what}: {self.why}" if self.why else self.what
        return f"{text}{ARROW}{self.hint}" if self.hint else text


class Retry(SyncerError):
    """Transient: the same work can succeed later. Documents are rendered again, never sent again."""


class Reject(SyncerError):
    """Permanent for one record or document. The rest of its batch goes on."""


class Fatal(SyncerError):
    """Permanent for the read model: an operator has to act. No offset is committed past the failure."""


class LaterEpoch(Fatal):
    """A sink holds documents of a later epoch: another process rebuilds them, or the record of the epoch was lost."""


class WeakIdentity(Fatal):
    """The change events of a table lack columns of old rows that a read model needs.

    The read model stops until the table's replica identity is changed. Then it goes on without a command, and all
    documents are rendered again.
    """


class Unknown(Fatal):
    """A command named a read model, or another object, that does not exist. Nothing is wrong with existing ones."""
