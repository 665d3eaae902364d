"""Key patterns of the Redis sink, the places of a document, and how both are compared."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncer.cli.check_models import check_targets
from syncer.cli.check_report import CheckReport
from syncer.declaration.model import parse as parse_model
from syncer.sinks.redis.indexes import Index, tag_problem
from syncer.sinks.redis.keys import Keys
from syncer.sinks.redis.patterns import PLACEHOLDER, Pattern, parse_key
from syncer.sinks.redis.places import places_of, shown_places, wanted, with_places
from syncer.sinks.redis.record import Listed, parse

TEXTS = st.text("ab:{}*", max_size=4)


def index(key: str, score: str = "", member: str = "{id}") -> Index:
    block = {"key": key, "member": member} | ({"score": score} if score else {})
    return Index.model_validate({"sorted_set" if score else "set": block})


@st.composite
def patterns(draw: st.DrawFn) -> Pattern:
    text = "k" + draw(TEXTS).replace("{", "{{").replace("}", "}}")
    for name in draw(st.lists(st.sampled_from(["id", "x"]), max_size=2)):
        text += f"{{{name}}}" + draw(TEXTS).replace("{", "{{").replace("}", "}}")
    return Pattern(text)


@given(patterns(), patterns(), TEXTS, TEXTS)
def test_patterns_that_give_the_same_key_overlap(one: Pattern, other: Pattern, id: str, x: str) -> None:
    key = one.fill({"id": id, "x": x})
    assert one.matches(key)
    assert one.overlaps(other) == other.overlaps(one)
    if other.matches(key):
        assert one.overlaps(other)


def test_a_key_is_shown_with_a_placeholder_instead_of_the_id() -> None:
    pattern = Pattern("user:{id}:tag:{x}:{id}")
    assert pattern.with_placeholder("user:7:tag:a:7:7", "7") == "user:{id}:tag:a:7:{id}"
    assert pattern.with_placeholder("user:8:tag:a:7", "7") is None


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("board:{game}", ""),
        ("{{league}}:board:{game}", "league"),
        ("board:{{{id}}}:{x}", "{id}"),
        ("a{{b:{x}}}", "b:{x}"),
        ("{{}}x", ""),
        ("{{open", ""),
    ],
)
def test_the_hash_tag_of_a_pattern(text: str, tag: str) -> None:
    assert Pattern(text).tag == tag


def test_a_tag_with_literal_braces_is_no_placeholder() -> None:
    assert tag_problem("{{a}}:{id}", [index("{{a}}:x:{x}")]) == ""
    assert "none" in tag_problem("a:{id}", [index("b")])
    assert "changes with the field x" in tag_problem("{{{x}}}:{id}", [index("{{{x}}}:b")])


@pytest.mark.parametrize(
    "text", ["{id}", "{id", "a}b", "k{}", "k{x:3}", "k{x!r}", "syncer:{x}", "s{x}", "version:a", "v{x}"]
)
def test_texts_that_are_no_key_pattern(text: str) -> None:
    with pytest.raises(ValueError, match=r"brace|begin"):
        parse_key(text)


def test_read_and_normalize_show_the_same_places() -> None:
    indexes = [index("user:{id}:board", "points"), index("tag:{tags}", member="u{id}")]
    body = json.dumps({"points": 1.25, "tags": ["x", "y"]}).encode()
    actual: list[tuple[Listed, Any]] = [
        (Listed(place.kind, place.key, place.member), float(place.score) if place.score else True)
        for place in places_of(indexes, "7", body)
    ]
    expected = wanted(places_of(indexes, PLACEHOLDER, body))
    assert (
        shown_places(indexes, "7", actual)
        == expected
        == {"user:{id}:board": 1.25, "tag:x": "member", "tag:y": "member"}
    )
    assert json.loads(with_places(body, expected) or b"")["(indexes)"] == expected
    assert with_places(b"{ } ", expected) == with_places(None, expected)
    strange = [(Listed("set", "tag:z", "u7", "stray"), True), (Listed("set", "tag:x", "7"), True)]
    assert shown_places(indexes, "7", strange) == {"tag:z": "unexpected member", "tag:x 7": "of another declaration"}


def test_a_document_has_at_most_1000_members() -> None:
    tags = index("tag:{tags}")
    assert len(places_of([tags], "7", json.dumps({"tags": list(map(str, range(1000)))}).encode())) == 1000
    with pytest.raises(ValueError, match="more than 1000"):
        places_of([tags], "7", json.dumps({"tags": list(map(str, range(1001)))}).encode())


def test_values_that_no_key_can_have() -> None:
    for value, why in (({"a": 1}, "an object"), ([["x"], ["y"]], "lists")):
        with pytest.raises(ValueError, match=why):
            places_of([index("k:{a}:{b}")], "7", json.dumps({"a": value, "b": ["x", "y"]}).encode())
    with pytest.raises(ValueError, match="not a JSON object"):
        places_of([index("k")], "7", b"[]")


def test_a_text_of_another_owner_is_no_record() -> None:
    assert parse(b"00000000000000000007 2.0 deleted", "2.0") == (7, False, [])
    assert parse(b'07 2.0\n[["set","a\\/b","c"]]', "2.0") == (7, True, [Listed("set", "a/b", "c")])
    for text in (None, b"", b"theirs", b"07 3.0", b"07 2.0 gone"):
        assert parse(text, "2.0") is None


@pytest.mark.parametrize(
    ("block", "refused", "what"),
    [
        ({"key": "o:{id}", "indexes": [{"set": {"key": "x"}}, {"set": {"key": "board:{a}:b"}}]}, True, "board:{game}"),
        ({"key": "o:{id}", "indexes": [{"set": {"key": "player:{a}"}}]}, True, "player:{id}"),
        ({"key": "board:{id}", "indexes": [{"set": {"key": "x"}}]}, True, "board:{game}"),
        ({"key": "player:{id}:notes"}, False, ""),
        ({"key": "player:{id}"}, True, "also writes to redis player:{id}"),
    ],
)
def test_check_compares_the_indexes_of_all_files(block: dict[str, Any], refused: bool, what: str) -> None:
    """Before any of the read models has started, the server has no record of their keys."""
    text = "name: {}\nroot: {{table: public.t}}\nsink: {}\ndocument: {{a: a}}\n"
    players = {"redis": {"key": "player:{id}", "indexes": [{"set": {"key": "board:{game}"}}]}}
    models = [parse_model(text.format(*one), f"{one[0]}.yaml") for one in (("p", players), ("o", {"redis": block}))]
    report = CheckReport(findings={"Read model o": [], "Read model p": []})
    check_targets(models, report)
    found = [finding for all in report.findings.values() for finding in all]
    assert ([one.code for one in found], what in str(found)) == (["same-target"] if refused else [], True)


def test_the_syncers_own_keys_do_not_change_with_doubled_braces() -> None:
    """Earlier releases wrote {shop}:{id}, and their record has that name."""
    keys = Keys("{{shop}}:{id}")
    assert (keys.meta, keys.watermark()) == ("syncer:meta:{shop}:{id}", "syncer:watermark:{shop}:{id}")
    assert keys.marks(cluster=False)[0].endswith(":{shop}:{id}")
