"""Replay: what is refused is tried again, because its cause was mended.

A document is rendered again. A record is read again, from the bytes in its letter, and goes the way of every
change: route, resolve, gate, render, write. What is refused again has a new letter with the new reason.
"""

from __future__ import annotations

from collections.abc import Sequence

from syncer import document
from syncer.events import Key, Position
from syncer.operations.one_off import OneOffRun
from syncer.ports import DeadLetter, DeadLetterStore, Record, Subject
from syncer.registry.registry import Registry


def replay(errand: OneOffRun, registry: Registry, asked: Sequence[DeadLetter]) -> dict[Subject, str]:
    """Try these again. Returns why those that still stand do."""
    store = registry.dead_letters(errand.opened.loaded.name)
    impossible: dict[Subject, str] = {}
    keys: list[Key] = []
    records: list[Record] = []
    for letter in asked:
        try:
            if letter.subject.kind == "document":
                keys.append(document.parse_id(letter.subject.name, len(errand.opened.loaded.compiled.key)))
            else:
                records.append(_record(store, letter))
        except ValueError as error:
            impossible[letter.subject] = str(error)
    errand.render(keys, "replay")
    errand.handle(records)
    now = {letter.subject: letter for letter in store.read()}
    left: dict[Subject, str] = {}
    done: list[DeadLetter] = []
    for letter in asked:
        standing = now.get(letter.subject)
        if standing is None:  # accepted: the lane has settled it
            continue
        if letter.subject in impossible or standing.position != letter.position:
            left[letter.subject] = impossible.get(letter.subject, standing.reason)
        else:  # handled, and not refused again
            done.append(letter)
    store.resolve(done)
    return left


def _record(store: DeadLetterStore, letter: DeadLetter) -> Record:
    """As it was. Raises ValueError if the letter does not have it."""
    if letter.cut:
        raise ValueError(f"its letter holds only {letter.cut}")
    topic, partition, offset = letter.subject.name.rsplit("/", 2)
    value = store.content(letter)
    return Record(Position(topic, int(partition), int(offset)), None, value)
