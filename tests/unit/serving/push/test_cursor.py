from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncer.serving.push.cursor import Cursor, hash_of

NUMBERS = st.integers(0, (1 << 63) - 1)
CURSORS = st.builds(
    Cursor, st.builds(hash_of, st.text()), NUMBERS, st.lists(NUMBERS, min_size=1, max_size=64).map(tuple)
)


@given(CURSORS)
def test_a_cursor_survives_its_text(cursor: Cursor) -> None:
    text = cursor.encode()
    assert Cursor.decode(text) == cursor
    assert text.isascii() and not set(text) & set(" \r\n\0&=+/")


@given(st.text() | st.binary().map(lambda data: data.hex()) | CURSORS.map(lambda one: one.encode()[:-1]))
def test_any_other_text_is_refused_or_is_the_only_text_of_its_cursor(text: str) -> None:
    try:
        found = Cursor.decode(text)
    except ValueError:
        return
    assert found.encode() == text


def test_a_cursor_is_short() -> None:
    cursor = Cursor.of(hash_of("topic"), 1_800_000_000.5, {0: 1_000_000, 1: 1_000_000, 2: 5, 3: 0})
    assert len(cursor.encode()) <= 32


VALID = Cursor(hash_of("x"), 1, (1,)).encode()


@pytest.mark.parametrize("text", ["AQ", "A" * 20000, "é", "AQ==", VALID + "=", VALID + " ", VALID[:12], VALID[:-2]])
def test_a_malformed_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^(it|a|the last)\b"):
        Cursor.decode(text)
