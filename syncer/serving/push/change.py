"""A change of a document, as clients receive it. All clients share it, so it is parsed and encoded once."""

from __future__ import annotations

from typing import Any, Literal

import orjson

from syncer.ports import DocumentWrite

Op = Literal["upsert", "delete", "left"]
"""`left`: the document exists, but does not match the client's filter. A client removes it, as after a delete."""
OVERHEAD = 160
"""Bytes that a change takes in memory besides its document, roughly."""
_MISSING = object()


class Change:
    """One write of a document. body: the document as JSON text; None for a delete."""

    __slots__ = ("_document", "_texts", "body", "key", "offset", "partition", "version")

    def __init__(self, write: DocumentWrite) -> None:
        self.key, self.version, self.body = write.id, write.version, write.body
        self.partition, self.offset = write.partition, write.offset
        self._document: Any = _MISSING
        self._texts: dict[tuple[Op, bool], bytes] = {}

    @property
    def document(self) -> Any:
        """The document as values; None for a delete, and for text that is no JSON."""
        if self._document is _MISSING:
            try:
                self._document = None if self.body is None else orjson.loads(self.body)
            except orjson.JSONDecodeError:
                self._document = None
        return self._document

    def text(self, op: Op, *, documents: bool) -> bytes:
        """Returns the change as JSON text in one line. documents: whether an upsert has its document."""
        found = self._texts.get((op, documents))
        if found is None:
            found = orjson.dumps({"key": self.key, "version": self.version, "op": op})
            if documents and op == "upsert" and self.body is not None:
                # A line break outside of a string is the same as a space. Inside of a string there is none.
                line = self.body.replace(b"\r", b" ").replace(b"\n", b" ")
                found = found[:-1] + b',"document":' + line + b"}"
            self._texts[op, documents] = found
        return found

    def size(self, op: Op, *, documents: bool) -> int:
        """Returns how many bytes the change takes in the mailbox of a client."""
        return OVERHEAD + len(self.key) + (len(self.body or b"") if documents and op == "upsert" else 0)
