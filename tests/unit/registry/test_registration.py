"""The message that a registered read model no longer fits its declaration."""

from __future__ import annotations

from dataclasses import replace

import pytest

from syncer.checks.table_state import FORM, TableState
from syncer.declaration.compile import Compiled, compile
from syncer.declaration.model import parse
from syncer.errors import Fatal
from syncer.registry.records import Registration
from syncer.registry.registry import check_hash
from tests.harness.catalogs import catalog, table

TEXT = "name: t\nroot: {table: t}\ndocument: {v: v}\nsink: {m: {}}"


def compiled(key: str) -> Compiled:
    return compile(parse(TEXT, "m.yaml"), catalog(table("t", f"id {key} key, v text")))


def registered(model: Compiled) -> Registration:
    return Registration("t", model.hash, 1, 1, {}, 0)


def tables(type: str) -> TableState:
    return {"form": FORM, "tables": {"public.t": {"columns": {"id": {"type_name": type}}}}}


def reason(registration: Registration, recorded: TableState, now: Compiled) -> str:
    with pytest.raises(Fatal, match="was changed since its documents were rendered") as error:
        check_hash(registration, now, recorded)
    assert error.value.hint == "syncer resync t"
    return error.value.why


def test_a_key_of_another_family_is_named_with_both_types() -> None:
    was = registered(compiled("int"))
    assert "the key public.t.id was integer and is now uuid (hash was 3-" in reason(
        was, tables("integer"), compiled("uuid")
    )
    assert "its file or the primary key of its root table was changed" in reason(was, {}, compiled("uuid"))
    check_hash(was, compiled("bigint"), tables("integer"))


def test_a_registration_by_another_version_of_the_syncer_is_reported() -> None:
    old = replace(registered(compiled("int")), hash="4542d2d63a034822")
    assert "another version of the syncer registered it" in reason(old, tables("integer"), compiled("int"))
