"""Builds the body of a `_bulk` request and interprets the answer, item by item. No I/O.

The text of a document goes into the body unchanged. An answer has one item for each action, in order.
https://www.elastic.co/docs/api/doc/elasticsearch/operation/operation-bulk

======  ===================================================  ==========================================
status  of an item                                           outcome
======  ===================================================  ==========================================
2xx     done                                                 `written` or `deleted`
404     delete of an absent id; its version is remembered    `deleted`
404     `index_not_found_exception`                          Fatal: the index or its alias is missing
409     the index has the same or a newer version            `stale`; Fatal if it is of a later epoch
429     also 5xx, and blocks (disk full, index closed)       `retry`
401     also `security_exception`                            Fatal: credentials
else    the document is at fault                             `rejected`
======  ===================================================  ==========================================
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from json import JSONDecoder
from typing import Any, NamedTuple

import orjson

from syncer.document import Batch, Outcome, Rejection
from syncer.errors import Fatal, Retry
from syncer.quantities import counted
from syncer.sinks.elasticsearch.client import CREDENTIALS, DISK_FULL, reason_of
from syncer.sinks.target import Target

MAX_ID_BYTES = 512
PROBE = 1
"""A version below that of every document. A delete with it changes nothing and is answered with the present version."""
# Elasticsearch (8.19) ignores `require_alias` for deletes. A request of nothing but deletes with external versions
# creates an index under the name of a lost alias. An update without changes in front of them prevents that.
_GUARD = b'{"update":{"_id":"-"}}\n{"doc":{}}\n'
_DELETE = b'{"delete"'
_SURELY_FITS = MAX_ID_BYTES // 4  # characters, of up to four bytes each
FILTER = "errors,items.*.status,items.*.error.type,items.*.error.reason,items.*.error.caused_by"
_CONFLICT = re.compile(r"current version \[(-?\d+)\] is higher or equal to the one provided \[(\d+)\]$")
_BLOCKS = frozenset(("index_closed_exception", "cluster_block_exception", "unavailable_shards_exception"))


class Chunk(NamedTuple):
    """The documents of one request: for each id an action line and, except for deletes, the document's line.

    Deletes come last.
    """

    ids: list[str]
    lines: list[bytes]

    @property
    def deletes(self) -> int:
        if not self.lines[-1].startswith(_DELETE):
            return 0
        return sum(line.startswith(_DELETE) for line in self.lines)

    def body(self) -> bytes:
        only_deletes = self.lines[0].startswith(_DELETE)
        return b"".join((_GUARD, *self.lines) if only_deletes else self.lines)

    def halves(self) -> tuple[Chunk, Chunk]:
        half = len(self.ids) // 2
        return Chunk(self.ids[:half], self.lines[:half]), Chunk(self.ids[half:], self.lines[half:])


def id_problem(id: str) -> str:
    """Returns why no document can have this id, or an empty text. Such an id would fail the whole request."""
    if not id:
        return "the id is empty"
    size = len(id.encode())
    return f"the id has {size} bytes, the limit of Elasticsearch is {MAX_ID_BYTES}" if size > MAX_ID_BYTES else ""


def chunks(batch: Batch, max_bytes: Callable[[], int], largest: int, out: Outcome) -> Iterator[Chunk]:
    """Yields the batch as requests of at most `max_bytes`, called for each. A larger document has its own request.

    Adds documents that cannot be sent to `out.rejected`: impossible ids, and more than `largest` bytes.
    """
    ids: list[str] = []
    lines: list[bytes] = []
    size, limit = 0, max_bytes()
    for id, line in _lines(batch):
        length = len(line)
        if length > largest:
            reason = f"{length} bytes, the limit of the server is {largest} per request"
            out.rejected.append(Rejection(id, reason, "too large"))
            continue
        if (len(id) > _SURELY_FITS or not id) and (reason := id_problem(id)):
            if line.startswith(_DELETE):
                out.deleted += 1  # no such document can exist
            else:
                out.rejected.append(Rejection(id, reason, "the id"))
            continue
        if size + length > limit and ids:
            yield Chunk(ids, lines)
            ids, lines, size, limit = [], [], 0, max_bytes()
        ids.append(id)
        lines.append(line)
        size += length
    if ids:
        yield Chunk(ids, lines)


def _lines(batch: Batch) -> Iterator[tuple[str, bytes]]:
    """Yields each id with its lines.

    A line break in a JSON text can only be between its tokens, where a space means the same.
    """
    dumps, version_of = orjson.dumps, batch.version_of
    for id, body in batch.upserts.items():
        if b"\n" in body:
            body = body.replace(b"\n", b" ")
        head = b'{"index":{"version_type":"external","version":%d,"_id":%b}}' % (version_of(id), dumps(id))
        yield id, b"%b\n%b\n" % (head, body)
    for id in batch.deletes:
        yield id, b'{"delete":{"version_type":"external","version":%d,"_id":%b}}\n' % (version_of(id), dumps(id))


def apply_answer(chunk: Chunk, answer: dict[str, Any], target: Target, out: Outcome) -> bool:
    """Adds every item of the answer to `out`. Returns whether the server had time for all of them (no 429).

    Raises Fatal as in the table, and Retry for an answer with another number of items.
    """
    items = _items(chunk, answer, target)
    if not answer.get("errors"):
        deletes = chunk.deletes
        out.written += len(items) - deletes
        out.deleted += deletes
        return True
    in_time = True
    for id, item in zip(chunk.ids, items, strict=True):
        [(action, result)] = item.items()
        status, error = result["status"], result.get("error")
        if error is None:
            out.written += action == "index"
            out.deleted += action == "delete"
        elif status == 409:
            found, given = _versions(error)
            target.stale(id, given, found, out)
        else:
            failed(id, status, error["type"], reason_of(error), target, out)
            in_time = in_time and status != 429
    return in_time


def present_versions(chunk: Chunk, answer: dict[str, Any], target: Target) -> dict[str, int]:
    """Returns id → present version from the answer to deletes with the version PROBE.

    Raises Fatal as in the table, and Retry if the server did not process all of them.
    """
    found: dict[str, int] = {}
    out = Outcome()
    for id, item in zip(chunk.ids, _items(chunk, answer, target), strict=True):
        [(_, result)] = item.items()
        error = result.get("error")
        if error is None:
            continue
        if result["status"] == 409:
            found[id] = _versions(error)[0]
        else:
            failed(id, result["status"], error["type"], reason_of(error), target, out)
    if out.retry:
        raise Retry("cannot read the versions", where=target.name, why=out.retry_reason)
    return {id: version for id, version in found.items() if version > PROBE}


def _items(chunk: Chunk, answer: dict[str, Any], target: Target) -> list[dict[str, Any]]:
    """Returns the items of an answer, without that of the guard. Raises Retry if their number is wrong."""
    items: list[dict[str, Any]] = answer.get("items", [])
    if items and "update" in items[0]:
        del items[0]
    if len(items) != len(chunk.ids):
        raise wrong_number(len(items), len(chunk.ids), target)
    return items


def wrong_number(answers: int, documents: int, target: Target) -> Retry:
    """Returns the error for a response that has more or fewer answers than the request has documents."""
    what = f"Elasticsearch sent {counted(answers, 'answer')} to {counted(documents, 'document')}"
    return Retry(what, where=target.name)


def _versions(error: dict[str, Any]) -> tuple[int, int]:
    """Returns the present version and the given one of a conflict."""
    match = _CONFLICT.search(error["reason"])
    found, given = map(int, match.groups()) if match else (0, 0)
    return found, given


def failed(id: str, status: int, kind: str, reason: str, target: Target, out: Outcome) -> None:
    """Adds a failed item to `out`, or raises Fatal."""
    text = f"{kind}: {reason}"
    if kind == "index_not_found_exception" or "no write index" in reason:
        raise Fatal("the index is missing", where=target.name, why=reason, hint=target.resync)
    if kind == "security_exception" or status == 401:
        raise Fatal("the user has no privilege to write to the index", where=target.name, why=reason, hint=CREDENTIALS)
    if status == 429 or status >= 500 or kind in _BLOCKS:
        out.retry.append(id)
        out.retry_reason = text + (f"\n  → {DISK_FULL}" if "read-only-allow-delete" in reason else "")
    else:
        out.rejected.append(Rejection(id, text, kind))


_scan = JSONDecoder().raw_decode


def documents(text: str) -> Iterator[dict[str, Any]]:
    """Yields the items of an `_mget` answer. `_source` is the stored text, not parsed.

    The request must have no `filter_path`. Elasticsearch would write the documents again, with other digits.
    """
    at = text.index("[", text.index('"docs"')) + 1
    while text[at] != "]":
        at = text.index("{", at) + 1
        doc: dict[str, Any] = {}
        while text[at] != "}":
            name, at = _scan(text, at)
            value, end = _scan(text, at + 1)
            doc[name] = text[at + 1 : end].encode() if name == "_source" else value
            at = end + (text[end] == ",")
        yield doc
        at += 1 + (text[at + 1] == ",")
