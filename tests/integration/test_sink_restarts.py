"""Stops and kills an Elasticsearch server of its own, and checks that its shards have forgotten deletes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import urllib3

import devstack
from devstack import Stack
from syncer import sinks
from syncer.document import Batch
from syncer.errors import Retry
from tests.conftest import temporary_home
from tests.contracts.sinks import compiled
from tests.harness.waiting import until


@pytest.fixture(scope="module")
def private() -> Iterator[Stack]:
    own = devstack.start(temporary_home(), only=["elasticsearch"], ephemeral=True)
    try:
        yield own
    finally:
        own.remove()


@pytest.mark.parametrize("how", ["halt", "kill"])
def test_hazard_21_a_restarted_server_forgets_deletes_and_changes_the_durability_token(
    private: Stack, how: str
) -> None:
    name = f"things-{how}"
    sink = sinks.build(
        "elasticsearch",
        {"index": name, "settings": {"number_of_replicas": 0}},
        model=compiled(name),
        connection={"url": private.elasticsearch},
    )
    sink.prepare()
    sink.write(Batch(5, {str(n): b"{}" for n in range(50)}, []))
    sink.write(Batch(7, {}, ["1"]))
    urllib3.request("POST", f"{private.elasticsearch}/{name}/_flush")
    before = sink.durability()
    assert sink.write(Batch(6, {"1": b"{}"}, [])).stale == 1
    getattr(private, how)("elasticsearch")
    with pytest.raises(Retry):
        sink.durability()
    private.launch("elasticsearch")

    def after() -> object:
        try:
            return sink.durability()
        except Retry:
            return None

    until(after)
    assert sink.write(Batch(6, {"1": b"{}"}, [])).written == 1  # the ghost
    assert sink.durability().tombstones != before.tombstones
    assert sink.durability().documents == before.documents
    assert set(sink.ids(before.written)) == {"1"}
    sink.close()
