"""Replay: what is refused is tried again, because its cause was mended.

A document is rendered again. A record is read again, from the bytes in its letter, and goes the way of every
change: route, resolve, gate, render, write. What is refused again has a new letter with the new reason.
"""

from __future__ import annotations

from collections.abc import Sequence

from syncer import document
from syncer.change import Key, Position
from syncer.errand import Errand
from syncer.ports import Record
from syncer.registry import Registry
from syncer.sources import letters
from syncer.sources.letters import Letter, Subject


def replay(errand: Errand, registry: Registry, asked: Sequence[Letter]) -> dict[Subject, str]:
    """Try these again. Returns why those that still stand do."""
    topic = errand.opened.names.dead_letters
    impossible: dict[Subject, str] = {}
    keys: list[Key] = []
    records: list[Record] = []
    for letter in asked:
        try:
            if letter.subject.kind == "document":
                keys.append(document.parse_id(letter.subject.name, len(errand.opened.loaded.compiled.key)))
            else:
                records.append(_record(registry, letter))
        except ValueError as error:
            impossible[letter.subject] = str(error)
    errand.render(keys, "replay")
    errand.handle(records)
    now = {letter.subject: letter for letter in letters.read(registry.topics, topic)}
    left: dict[Subject, str] = {}
    done: list[Letter] = []
    for letter in asked:
        standing = now.get(letter.subject)
        if standing is None:  # accepted: the lane has settled it
            continue
        if letter.subject in impossible or standing.position != letter.position:
            left[letter.subject] = impossible.get(letter.subject, standing.reason)
        else:  # handled, and not refused again
            done.append(letter)
    letters.settle(registry.writing, topic, done)
    return left


def _record(registry: Registry, letter: Letter) -> Record:
    """As it was. Raises ValueError if the letter does not have it."""
    if letter.cut:
        raise ValueError(f"its letter holds only {letter.cut}")
    topic, partition, offset = letter.subject.name.rsplit("/", 2)
    value = letters.content(registry.topics, letter)
    return Record(Position(topic, int(partition), int(offset)), None, value)
