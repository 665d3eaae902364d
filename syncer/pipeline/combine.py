"""Part of stage 7: combines documents from partials. A sink that stores partials looks like any other sink to a lane.

The lanes render partials (`declaration/partials.py`). `CombiningSink.write` takes these steps with a batch of partials:

1. It writes each partial, unless the sink has the same or a newer version of it.
2. It reads all partials of the affected roots from the sink.
3. It writes each document with the version `epoch << 48 | sum of the clocks of the partials`.

Why the sum? Suppose that two writers write partials of one document at the same time. One of them reads after both have
written. Each clock in the sum of this writer is at least as high as the same clock in the sum of the other writer. If
the other writer has read less, at least one clock is higher. So the document of the writer that has read everything
has the higher version, in any order of step 3. With the maximum, or with a clock that is taken later, the other
document could have the higher version.

So a sum must never fall. While a root exists, its partials stay, also those without rows. A deleted root partial stays
as a remembered delete. The document is deleted while the root partial is a delete, or shows that `where` excludes it.

A crash between the steps leaves an older document. The batch is not acknowledged then, and is repeated.

If the sink loses partials but not the document, the sum falls nevertheless. The stored document then has a higher
version than the sum of its partials. The write is rejected, so a dead letter reports the loss.

The sums are not snapshot clocks. They must not reach the gate, so `newest_version` of step 3 is dropped.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import cast

from syncer import document
from syncer.clock import EPOCH_SHIFT, split_version
from syncer.declaration.compiled import Compiled, Partials
from syncer.declaration.partial_keys import HIDDEN, ROOT_PARTIAL
from syncer.document import Batch, Outcome, Rejection
from syncer.errors import Fatal, Retry
from syncer.events import Key
from syncer.pipeline.combine_states import assemble
from syncer.pipeline.combined_blocks import CombinedBlocks
from syncer.pipeline.limits import LATE_HINT
from syncer.ports import PartialSink, Sink, StoredPartials, View
from syncer.quantities import counted

_HIDDEN = HIDDEN.encode()


class CombiningSink:
    """Writes partials to a sink, and the documents that they make. Implements what a lane needs of `ports.Sink`."""

    def __init__(self, sink: Sink, partials: Partials, model: str) -> None:
        if not isinstance(sink, PartialSink):
            raise Fatal("the sink cannot store partials", where=sink.name, hint="remove `partials` from the read model")
        self.name, self.in_place = sink.name, sink.in_place
        self._sink, self._stores = sink, sink
        self._partials, self._model = partials, model
        self._columns = len(partials.parts.key)
        self._blocks = CombinedBlocks(partials.fields)

    def write(self, batch: Batch, timeout: float = 30.0) -> Outcome:
        """Writes partials and the documents of their roots. The ids of the batch and of the outcome are of partials."""
        began = time.monotonic()
        ids: dict[str, dict[str, str]] = {}
        parts: dict[str, dict[str, bytes | None]] = {}
        for id in batch.ids():
            root, bucket = self._split(id)
            ids.setdefault(root, {})[bucket] = id
            parts.setdefault(root, {})[bucket] = batch.upserts.get(id)
        # A slow server must not use the whole time for partials: then no document would ever be written.
        stored = self._stores.write_partials(batch.version, parts, timeout / 2)
        combined = self._write_combined(stored, timeout - (time.monotonic() - began))
        return self._outcome(batch, ids, stored, combined)

    def _write_combined(self, stored: StoredPartials, timeout: float) -> Outcome:
        """Writes the documents of these roots. The ids of the outcome are of documents.

        When no time is left, they are rendered again: a document that arrives too late could bring back one whose
        delete the sink has forgotten.
        """
        batch = self._combined(stored)
        if not batch:
            return Outcome()
        if timeout <= 0:
            return Outcome(retry=batch.ids(), retry_reason=self._late())
        out = self._sink.write(batch, timeout)
        if out.stale:
            out.rejected += self._ahead(batch)
        missing = {*out.retry, *(one.id for one in out.rejected)}
        for id in batch.ids():
            if id not in missing:
                out.shown[id] = {bucket: part.version for bucket, part in stored[id].items()}
        return out

    def _late(self) -> str:
        error = Retry(
            "writing documents that are combined from partials took too long: the rest is rendered again",
            where=self.name,
            why="nothing is written later than pipeline.max_age after its snapshot",
            hint=LATE_HINT,
        )
        return str(error)

    def _ahead(self, batch: Batch) -> Iterator[Rejection]:
        """Yields the documents whose version in the sink is higher than the sum of all their partials.

        No writer can have written such a version: a sum never falls. So later changes would be ignored as stale, and
        nobody would notice. The versions are read before the partials, whose sum may grow in between.
        """
        found = {id: at for id, at in self._sink.versions(batch.ids()).items() if at > batch.version_of(id)}
        for id, parts in self._stores.read_partials(list(found)).items():
            total = combined_version((part.version for part in parts.values()), self._model)
            if found[id] > total:
                reason = f"it has version {found[id]}, but the sum of its partials is {total}: "
                reason += f"it was edited, or partials were lost; run: syncer verify {self._model} --repair"
                yield Rejection(id, reason, "ahead of its partials")

    def _combined(self, stored: StoredPartials) -> Batch:
        """Returns the documents, each with its own version."""
        versions: dict[str, int] = {}
        batch = Batch(0, {}, [], own_versions=versions)
        for root, parts in stored.items():
            of_root = parts.get(ROOT_PARTIAL)
            if of_root is None or of_root.refused:
                continue  # not rendered yet, for example during a backfill: the document would be incomplete
            versions[root] = combined_version((part.version for part in parts.values()), self._model)
            if of_root.body is None or of_root.body == _HIDDEN:
                batch.deletes.append(root)
            else:
                states = self._blocks.states(root, parts)
                batch.upserts[root] = assemble(self._partials.fields, of_root.body, states)
        return batch

    def _outcome(
        self, batch: Batch, ids: Mapping[str, Mapping[str, str]], stored: StoredPartials, combined: Outcome
    ) -> Outcome:
        """Returns the outcome of the partials. A partial is written when the document of its root is."""
        out = Outcome(retry_reason=combined.retry_reason, request_bytes=combined.request_bytes, shown=combined.shown)
        retry, rejected = set(combined.retry), {one.id: one for one in combined.rejected}
        for root, of_root in ids.items():
            refused = rejected.get(root)
            for bucket, id in of_root.items():
                found = stored.get(root, {}).get(bucket)
                if root in retry or found is None:
                    out.retry.append(id)
                elif refused is not None:
                    out.rejected.append(Rejection(id, refused.reason, refused.kind, root))
                elif found.refused:
                    out.rejected.append(Rejection(id, found.refused, "partials", root))
                elif found.version > batch.version:
                    out.stale += 1
                    out.newest_version = max(out.newest_version, found.version)  # of a partial, so it is a clock
                elif found.body is None:
                    out.deleted += 1
                else:
                    out.written += 1
        return out

    def ids(self, since: str = "") -> Iterator[str]:
        """Yields the ids of all partials in the sink, and of the root partials of all documents and buckets.

        A sweep renders them. So it also renders buckets that have no rows any more, and root partials that are missing
        because no row has the key of their buckets. `since` is ignored.
        """
        for root, bucket in self._stores.partial_ids():
            yield self._join(root, bucket)
            if bucket != ROOT_PARTIAL:
                yield self._join(root, ROOT_PARTIAL)
        for root in self._sink.ids():
            yield self._join(root, ROOT_PARTIAL)

    def every_partial(self, keys: Sequence[Key]) -> Iterator[Key]:
        """Yields the keys of all partials that the sink has of these roots."""
        roots = {document.document_id(key): key for key in keys}
        for root, parts in self._stores.read_partials(list(roots)).items():
            for bucket in parts:
                yield (*roots[root], bucket)

    def close(self) -> None:
        self._sink.close()

    def __getattr__(self, name: str) -> object:
        """Everything else is the same as for documents."""
        return getattr(self._sink, name)

    def _split(self, id: str) -> tuple[str, str]:
        return split_id(self._partials, id)

    def _join(self, root: str, bucket: str) -> str:
        return document.document_id((*document.parse_id(root, self._columns - 1), bucket))


def split_id(partials: Partials, id: str) -> tuple[str, str]:
    """Returns the id of the document and the bucket of a partial. id: of the partial."""
    *root, bucket = document.parse_id(id, len(partials.parts.key))
    return document.document_id(tuple(root)), bucket


def combined_version(versions: Iterable[int], model: str) -> int:
    """Returns the version of a document from those of all its partials, which are of one epoch.

    Raises Fatal if the sum of the clocks does not fit into a version.
    """
    all_versions = list(versions)
    (epoch, _), (last_epoch, _) = split_version(min(all_versions)), split_version(max(all_versions))
    if epoch != last_epoch:
        raise AssertionError(f"partials of several epochs: {epoch} and {last_epoch}")
    total = sum(all_versions) - len(all_versions) * (epoch << EPOCH_SHIFT)
    if total >= 1 << EPOCH_SHIFT:
        raise Fatal(
            f"a document has {counted(len(all_versions), 'partial')}, too many for its version",
            where=model,
            hint=f"choose a larger `size` of `partials`, then: syncer resync {model}",
        )
    return epoch << EPOCH_SHIFT | total


def every_partial(partials: Partials, view: View, sinks: Iterable[object], keys: Sequence[Key]) -> list[Key]:
    """Returns the keys of all partials of these roots: those with rows in PostgreSQL, and those that a sink has."""
    found = dict.fromkeys(view.look_up(partials.every, keys))
    for sink in sinks:
        if isinstance(sink, CombiningSink):
            found |= dict.fromkeys(sink.every_partial(keys))
    return list(found)


def combining(sinks: Sequence[Sink], compiled: Compiled) -> list[Sink]:
    """Returns the sinks as the lanes of a read model use them. Raises Fatal if one cannot store partials."""
    if compiled.partials is None:
        return list(sinks)
    return [cast(Sink, CombiningSink(sink, compiled.partials, compiled.name)) for sink in sinks]
