"""Finds the dead letters of partials that are resolved by documents which the sinks accepted.

If a sink refuses a document, the partial whose change was refused gets a dead letter. The letter has the version of the
partial. Later, another partial of the document may change. The sink then accepts the document, and the document shows
the first partial in the version of the letter or in a later one. So the sink has accepted the state that the letter is
about, and the letter is resolved.

A sink may have kept a newer document instead (`Outcome.stale`). That document has a higher sum. So it shows each
partial in the same version or in a later one (`combine.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from syncer import document

Versions = Mapping[str, Mapping[str, int]]
"""By document id and bucket."""


class AcceptedPartials:
    """The partials that accepted documents show, until their batch is acknowledged.

    sinks: the names of all sinks. columns: the number of columns of a partial's key.
    """

    def __init__(self, sinks: Sequence[str], columns: int) -> None:
        self._sinks, self._columns = sinks, columns
        self._found: dict[str, dict[str, Mapping[str, int]]] = {}

    def add(self, sink: str, shown: Versions) -> None:
        """Adds the versions of the partials in documents that a sink accepted (`Outcome.shown`)."""
        if shown:
            self._found.setdefault(sink, {}).update(shown)

    def take(self) -> Iterator[tuple[str, int]]:
        """Yields the id of each partial that every sink accepted, with the lowest of its versions. Forgets them.

        There may be thousands of partials. So the caller iterates only if there are letters.
        """
        found, self._found = self._found, {}
        return self._in_all(found)

    def _in_all(self, found: Mapping[str, Versions]) -> Iterator[tuple[str, int]]:
        of_sinks = [found.get(sink, {}) for sink in self._sinks]
        for root in of_sinks[0]:
            for bucket in of_sinks[0][root]:
                versions = [shown.get(root, {}).get(bucket, 0) for shown in of_sinks]
                if all(versions):
                    yield self._id(root, bucket), min(versions)

    def _id(self, root: str, bucket: str) -> str:
        return document.document_id((*document.parse_id(root, self._columns - 1), bucket))
