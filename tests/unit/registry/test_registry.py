"""The reason for refusing a changed read model."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from syncer.checks.table_state import FORM
from syncer.errors import Fatal
from syncer.registry.registry import check_hash


def reason(recorded: str, base: str) -> str:
    """Returns the reason. recorded: the type of the key's column at that time. base: its type now, as compiled."""
    compiled: Any = SimpleNamespace(root="public.t", key=("id",), key_types=(base,), name="m", hash="2-b")
    tables = {"form": FORM, "tables": {"public.t": {"columns": {"id": {"type_name": recorded}}}}}
    registration: Any = SimpleNamespace(hash="2-a")
    with pytest.raises(Fatal) as raised:
        check_hash(registration, compiled, tables)
    return raised.value.why.partition(" (hash")[0]


@pytest.mark.parametrize(
    ("recorded", "base"),
    [
        ("integer", "bigint"),
        ("character varying(9)", "text"),
        ("timestamp(3) with time zone", "timestamp with time zone"),
        ("public.posint", "bigint"),  # a domain
        ("public.mood", "enum"),
    ],
)
def test_a_key_of_the_same_family_is_not_the_reason(recorded: str, base: str) -> None:
    assert reason(recorded, base) == "its file or the primary key of its root table was changed"


def test_a_key_of_another_family_is_named_with_both_types() -> None:
    assert reason("integer", "text") == "the key public.t.id was integer and is now text"
