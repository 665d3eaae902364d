"""Tokens: their three forms, the suffix that names a history, and malformed texts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncer.clock import Identity
from syncer.freshness.refused import Refused
from syncer.freshness.tokens import EXAMPLES, Token, TokenKind, parse

HOME = Identity(7291834650234, 1)


def test_the_three_forms_are_parsed() -> None:
    assert parse("now") == Token(TokenKind.NOW)
    assert parse("x:7341") == Token(TokenKind.TRANSACTION, 7341)
    assert parse("l:16/B374D848") == Token(TokenKind.POSITION, 0x16_B374D848)
    assert parse("l:16/b374d848") == parse("l:16/B374D848")
    assert parse("x:7341@7291834650234/1") == Token(TokenKind.TRANSACTION, 7341, HOME)


def test_the_examples_of_the_message_are_valid() -> None:
    for example in EXAMPLES.replace("or ", "").split(", "):
        assert str(parse(example)) == example


identities = st.none() | st.builds(Identity, st.integers(0, (1 << 64) - 1), st.integers(0, (1 << 32) - 1))


@given(
    st.builds(Token, st.just(TokenKind.TRANSACTION), st.integers(3, (1 << 64) - 1), identities)
    | st.builds(Token, st.just(TokenKind.POSITION), st.integers(0, (1 << 64) - 1), identities)
)
def test_a_token_is_parsed_from_its_own_text(token: Token) -> None:
    assert parse(str(token)) == token


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "neither x: nor l:"),
        ("Now", "neither x: nor l:"),
        ("now@1/1", "neither x: nor l:"),
        ("7341", "neither x: nor l:"),
        ("y:1", "neither x: nor l:"),
        ("x:", "no transaction id"),
        ("x:-1", "no transaction id"),
        ("x:2", "no transaction id"),
        ("x:1.5", "no transaction id"),
        ("x: 7341", "no transaction id"),
        ("x:7341\n", "no transaction id"),
        ("x:٣٤٥", "no transaction id"),
        ("x:0x1F", "no transaction id"),
        (f"x:{1 << 64}", "no transaction id"),
        ("l:", "no WAL position"),
        ("l:123", "no WAL position"),
        ("l:16/G", "no WAL position"),
        ("l:123456789/0", "no WAL position"),
        ("l:1/2/3", "no WAL position"),
        ("x:7341@", "<system identifier>/<timeline>"),
        ("x:7341@5", "<system identifier>/<timeline>"),
        ("x:7341@5/1@5/1", "<system identifier>/<timeline>"),
        ("x:7341@5/-1", "<system identifier>/<timeline>"),
        ("x:" + "1" * 5000, "too long"),
    ],
)
def test_a_malformed_token_is_refused_with_a_valid_example(text: str, why: str) -> None:
    with pytest.raises(Refused) as caught:
        parse(text)
    assert caught.value.status == 400
    assert why in caught.value.why and EXAMPLES in caught.value.hint
    assert len(str(caught.value)) < 500


@given(st.text(max_size=120))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        parse(text)
    except Refused as error:
        assert error.status == 400  # noqa: PT017 - most texts are refused, a few are tokens


def test_a_token_of_another_history_is_refused() -> None:
    token = parse("x:7341@7291834650234/1")
    token.require(HOME)
    for other in (Identity(HOME.system, 2), Identity(5, 1)):
        with pytest.raises(Refused, match="another PostgreSQL server or timeline") as caught:
            token.require(other)
        assert caught.value.status == 409
        assert str(HOME) in caught.value.why and str(other) in caught.value.why


def test_a_token_without_a_suffix_fits_every_history() -> None:
    parse("x:7341").require(HOME)
    parse("x:7341").require(Identity(5, 1))
