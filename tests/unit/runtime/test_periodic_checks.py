"""What is done beside the supervision of a read model, never twice at a time."""

from __future__ import annotations

from threading import Event

import pytest

from syncer.runtime.periodic_checks import BackgroundTask


def test_what_is_done_beside_is_done_once_at_a_time_and_tells_its_error() -> None:
    beside, go_on, ended = BackgroundTask("a test"), Event(), Event()

    def fail() -> None:
        assert go_on.wait(10)
        raise KeyError("its error")

    assert beside.ready() and beside.silent() == 0.0
    beside.begin(fail)
    beside.at_end(ended.set)
    assert not beside.ready() and beside.silent() > 0.0
    assert not ended.is_set(), "what it uses is closed after its end"
    go_on.set()
    assert ended.wait(10)
    assert beside.silent() == 0.0
    with pytest.raises(KeyError, match="its error"):
        beside.ready()
    assert beside.ready(), "told once"


def test_what_was_never_begun_is_closed_at_once() -> None:
    closed = Event()
    BackgroundTask("a test").at_end(closed.set)
    assert closed.is_set()
