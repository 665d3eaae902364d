"""The one reader of YAML files: values, lines, duplicate keys, and the two ways to read scalars."""

from __future__ import annotations

import pytest

from syncer.declaration.located_yaml import read, text_except_under, yaml_1_1
from syncer.errors import Fatal

TEXT = """\
on: yes
number: 1
typed:
  number: 1
  quoted: '1'
  list: [true, {a: 1.5}, null]
"""


def test_scalars_are_text_except_below_the_given_keys() -> None:
    values, lines = read(TEXT, "a.yaml", text_except_under({"typed"}))
    typed = {"number": 1, "quoted": "1", "list": [True, {"a": 1.5}, None]}
    assert values == {"on": "yes", "number": "1", "typed": typed}
    assert lines["on",] == 1
    assert lines["typed", "list", 1, "a"] == 6


def test_scalars_can_have_the_values_of_yaml_1_1() -> None:
    values, _ = read(TEXT, "a.yaml", yaml_1_1)
    typed = {"number": 1, "quoted": "1", "list": [True, {"a": 1.5}, None]}
    assert values == {"on": True, "number": 1, "typed": typed}, "keys are always text"


def test_merge_keys_are_expanded_on_request_and_written_keys_win() -> None:
    text = "base: &base {a: 1, b: 2}\nmore:\n  b: 3\n  <<: *base\n"
    values, lines = read(text, "a.yaml", yaml_1_1, merge_keys=True)
    assert values == {"base": {"a": 1, "b": 2}, "more": {"a": 1, "b": 3}}
    assert lines["more", "b"] == 3
    plain, _ = read(text, "a.yaml", yaml_1_1)
    assert isinstance(plain, dict) and plain["more"] == {"b": 3, "<<": {"a": 1, "b": 2}}


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("a: 1\nb:\n  - {c: 1, c: 2}\n", 3, "the key 'c' is duplicated"),
        ("a: 1\n[b]: 2\n", 2, "a key has to be a single word or text"),
        ("a: &x\n  b: *x\n", 1, "this value contains itself"),
        ("a: !unknown b\n", 1, "this is not valid YAML: could not determine a constructor"),
        ("a: [\n", 2, "this is not valid YAML"),
        (
            "a:\n\tb: 1\n",
            2,
            "this is not valid YAML: found character '\\t' that cannot start any token\n  → indent with spaces",
        ),
        (
            "a:\n  b: 1\n\tc: 1\n",
            3,
            "this is not valid YAML: found character '\\t' that cannot start any token\n  → indent with spaces",
        ),
        ("a: @b\n", 1, "this is not valid YAML: found character '@' that cannot start any token\n  → quote a text"),
    ],
)
def test_mistakes_are_reported_with_their_line(text: str, line: int, what: str) -> None:
    with pytest.raises(Fatal) as error:
        read(text, "a.yaml", yaml_1_1)
    assert str(error.value).startswith(f"a.yaml:{line}: {what}")
