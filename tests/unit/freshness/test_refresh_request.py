"""The body of a request. `tests/integration/test_refresh.py` sends bad bodies to a daemon."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncer.declaration.compile import Compiled, compile
from syncer.declaration.model import parse as parse_model
from syncer.freshness.refresh_request import RefreshRequest, parse, text_of
from syncer.freshness.refused import Refused
from syncer.freshness.tokens import parse as parse_token
from tests.harness.catalogs import catalog, table
from tests.unit.pipeline.examples import MODEL

PAIRS = compile(
    parse_model("name: p\nroot: {table: public.pairs}\ndocument: {n: n}\nsink: {memory: {}}\n", "p.yaml"),
    catalog(table("pairs", "a bigint key, b text key, n bigint")),
)


def request(body: Any, model: Compiled = MODEL) -> RefreshRequest:
    return parse(body, model, timeout=10, max_timeout=60, most=4)


def test_keys_are_ids_or_values_of_the_key_columns() -> None:
    assert request({"keys": ["7", 7, [7], 8]}).keys == [("7",), ("8",)]
    assert request({"keys": ["1|a\\|b", [1, "a|b"]]}, PAIRS).keys == [("1", "a|b")]
    assert request({"keys": [7]}).timeout == 10 and str(request({"keys": [7]}).token) == "now"
    full = request({"keys": [7], "token": "x:800", "timeout": 0.5})
    assert (full.token, full.timeout) == (parse_token("x:800"), 0.5)


def test_rows_name_their_table_with_or_without_its_schema() -> None:
    for name in ("items", "public.items"):
        found = request({"table": name, "rows": [{"order_id": 1}, {"order_id": 2}]})
        assert [use.path for use in found.uses] == ["items"] and found.size == 2


@pytest.mark.parametrize("entry", ["1", [1], [1, 2, 3], 5])
def test_a_key_with_the_wrong_number_of_columns_is_refused(entry: Any) -> None:
    with pytest.raises(Refused) as caught:
        request({"keys": [entry]}, PAIRS)
    assert caught.value.status == 400 and caught.value.why


def test_more_entries_than_the_limit_are_refused() -> None:
    with pytest.raises(Refused) as caught:
        request({"keys": [1, 2, 3, 4, 5]})
    assert caught.value.status == 413 and "GET /wait" in caught.value.hint


@pytest.mark.parametrize("value", [1.5, None, [], {}, "a\0b", "\ud800"])
def test_values_without_a_text_are_refused(value: Any) -> None:
    with pytest.raises(Refused) as caught:
        text_of(value, "column 'id'")
    assert caught.value.status == 400


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=8,
)
bodies = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(("keys", "table", "rows", "token", "timeout", "other"), anything),
)


@given(anything | bodies)
def test_any_json_is_parsed_or_refused(body: Any) -> None:
    try:
        assert request(body).size > 0
    except Refused as error:
        assert error.status in (400, 413)  # noqa: PT017 - nearly all bodies are refused
        json.dumps(str(error))
