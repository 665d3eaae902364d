"""Replays dead letters: processes rejected documents and records again, after their cause was fixed.

A document is rendered again. A record is read again from the bytes in its dead letter. It passes the same stages as
every change: route, resolve, gate, render, write. A document or record that is rejected again gets a new dead letter
with the new reason.
"""

from __future__ import annotations

from collections.abc import Sequence

from syncer import document
from syncer.events import Key, Position
from syncer.operations.one_off import OneOffRun
from syncer.ports import DeadLetter, DeadLetterStore, Record, Subject
from syncer.registry.registry import Registry


def replay(run: OneOffRun, registry: Registry, letters: Sequence[DeadLetter]) -> dict[Subject, str]:
    """Processes these dead letters again. Returns the subjects that are still rejected, with the reason."""
    store = registry.dead_letters(run.opened.loaded.name)
    impossible: dict[Subject, str] = {}
    keys: list[Key] = []
    records: list[Record] = []
    for letter in letters:
        try:
            if letter.subject.kind == "document":
                keys.append(document.parse_id(letter.subject.name, len(run.opened.loaded.compiled.rendered.key)))
            else:
                records.append(_record(store, letter))
        except ValueError as error:
            impossible[letter.subject] = str(error)
    run.render(keys, "replay")
    run.handle(records)
    now = {letter.subject: letter for letter in store.read()}
    rejected: dict[Subject, str] = {}
    done: list[DeadLetter] = []
    for letter in letters:
        current = now.get(letter.subject)
        if current is None:  # accepted, and the lane has resolved it
            continue
        if letter.subject in impossible or current.position != letter.position:
            rejected[letter.subject] = impossible.get(letter.subject, current.reason)
        else:  # processed without a new rejection
            done.append(letter)
    store.resolve(done)
    return rejected


def _record(store: DeadLetterStore, letter: DeadLetter) -> Record:
    """Returns the original record. Raises ValueError if the dead letter has only a part of it."""
    if letter.cut:
        raise ValueError(f"the dead letter holds only {letter.cut}")
    topic, partition, offset = letter.subject.name.rsplit("/", 2)
    value = store.content(letter)
    return Record(Position(topic, int(partition), int(offset)), None, value)
