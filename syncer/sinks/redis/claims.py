"""Records which read model the keys of an index belong to, so that no two read models have the same keys.

`verify` assumes that every member in these keys belongs to the read model (`strays.py`). One hash, `syncer:indexes`,
has the key patterns of all read models. The value of each pattern is a *claim*, which also records the form of the
members. A resync could not remove all members of another form. So an index with another form cannot use the same keys.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any, NamedTuple

import orjson

from syncer.sinks.problem import Problem
from syncer.sinks.redis.cluster import Servers
from syncer.sinks.redis.indexes import Index
from syncer.sinks.redis.keys import INDEXES
from syncer.sinks.redis.patterns import Pattern

_SCRIPT = resources.files(__package__).joinpath("claim.lua").read_text("utf-8")


class Claim(NamedTuple):
    """The value of a pattern. document: the key pattern of the documents. kind: TYPE of the index's keys."""

    model: str
    document: str
    kind: str
    member: str


class Claims(NamedTuple):
    """The indexes of one read model. All methods raise FAILURES."""

    servers: Servers
    model: str
    document: str
    """The key pattern of the documents."""
    indexes: Sequence[Index]

    def conflict(self) -> Problem | None:
        """Returns why an index cannot have its keys: another read model or an earlier declaration has members there."""
        return self._conflict(self._read()) if self.indexes else None

    def claim(self) -> Problem | None:
        """Records the keys of these indexes, unless there is a conflict. Checks and records in one atomic step.

        Claims of an earlier declaration stay until `drop_obsolete`, because its members do.
        """
        client: Any = self.servers.client()
        while self.indexes:
            found = self._read()
            if problem := self._conflict(found):
                return problem
            missing = {text: value for text, value in self._own().items() if found.get(text) != value}
            if not missing:
                return None
            pairs = [part for pair in (*found.items(), *missing.items()) for part in pair]
            if client.eval(_SCRIPT, 1, INDEXES, len(found), *pairs):  # otherwise another process was faster
                return None
        return None

    def claimed(self) -> list[Index]:
        """Returns the indexes whose keys are recorded for this read model."""
        found, own = self._read(), self._own()
        return [index for index in self.indexes if found.get(index.key.text) == own[index.key.text]]

    def drop_obsolete(self) -> None:
        """Removes the claims of earlier declarations, once all their members were removed.

        Claims with another key of the documents stay: no sweep found these documents, so their members are there.
        """
        own, obsolete = self._own(), []
        for text, value in self._read().items():
            claim = _parse(value)
            if text not in own and (claim.model, claim.document) == (self.model, self.document):
                obsolete.append(text)
        if obsolete:
            client: Any = self.servers.client()
            client.hdel(INDEXES, *obsolete)

    def _own(self) -> dict[str, bytes]:
        return {
            one.key.text: orjson.dumps(Claim(self.model, self.document, one.kind, one.member.text)._asdict())
            for one in self.indexes
        }

    def _conflict(self, found: Mapping[str, bytes]) -> Problem | None:
        for text, value in found.items():
            claim = _parse(value)
            for number, index in enumerate(self.indexes):
                if index.key.overlaps(Pattern(text)) and (problem := self._problem(index, text, claim)):
                    return problem._replace(block=("indexes", number))
        return None

    def _problem(self, index: Index, text: str, claim: Claim) -> Problem | None:
        """Returns why an index cannot share keys with a claim."""
        remove = f"redis-cli HDEL {INDEXES} '{text}'"
        if claim.model != self.model:
            return Problem(
                f"keys of {index.key.text} can equal keys of the index {text} of the read model {claim.model}",
                hint=f"begin them with another text; if that index no longer exists: {remove}",
            )
        where = f"keys of {index.key.text} can have members of an earlier declaration"
        if claim.document != self.document:
            return Problem(
                where,
                f"the documents of those members have the key {claim.document}",
                f"give the indexes other keys as well; after you have deleted the keys {text}: {remove}",
            )
        for name, before, now in (("TYPE", claim.kind, index.kind), ("member", claim.member, index.member.text)):
            if before != now:
                return Problem(
                    where,
                    f"the {name} of those was {before}, and is now {now}",
                    f"use another key; or remove the index, run syncer resync {self.model}, and add it again",
                )
        return None

    def _read(self) -> dict[str, bytes]:
        client: Any = self.servers.client()
        return {text.decode(): value for text, value in client.hgetall(INDEXES).items()}


def _parse(value: bytes) -> Claim:
    """Returns the claim in a value. One that was edited by hand belongs to a read model with no name."""
    try:
        return Claim(**orjson.loads(value))
    except (ValueError, TypeError):
        return Claim("", "", "", "")
