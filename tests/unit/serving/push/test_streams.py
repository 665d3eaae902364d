"""Tests the streams of a real server over a topic in memory."""

from __future__ import annotations

import json
import random
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from syncer.config.schema import HttpSettings
from syncer.serving.server import Server
from syncer.serving.services import Services
from tests.harness.event_client import Client, client
from tests.harness.waiting import until
from tests.unit.serving.push.memory_topic import MemoryDocuments, MemoryTopic
from tests.unit.serving.serving_harness import READ, FakeHealth, address, get, send, services

BEGINNING = {"from": "beginning", "documents": "true"}


@contextmanager
def pushing(documents: MemoryDocuments, **settings: Any) -> Iterator[Server]:
    found = services()
    http = HttpSettings(port=0, requests_per_second=10_000, **settings)
    with Server(http, Services(FakeHealth(), found.metrics, documents=documents)) as server:
        yield server


@pytest.fixture
def documents() -> MemoryDocuments:
    return MemoryDocuments()


@pytest.fixture
def topic(documents: MemoryDocuments) -> MemoryTopic:
    return documents.orders


@pytest.fixture
def url(documents: MemoryDocuments) -> Iterator[str]:
    with pushing(documents) as server:
        yield server.url


def socket_of(url: str, query: str = "") -> ClientConnection:
    address = f"{url.replace('http', 'ws')}/models/orders/changes{query}"
    found: ClientConnection = connect(address, proxy=None, max_size=None)
    return found


def messages(socket: ClientConnection, until_event: str) -> list[dict[str, Any]]:
    """Returns the messages up to one of this event."""
    found: list[dict[str, Any]] = []
    while not found or found[-1]["event"] != until_event:
        found.append(json.loads(socket.recv(10)))
    return found


def test_a_client_sees_the_documents_and_their_changes(url: str, topic: MemoryTopic) -> None:
    topic.write("1", {"n": 1})
    topic.write("2", {"n": 1})
    with client(url, "orders", **BEGINNING) as one, client(url, "orders") as other:
        assert one.documents == {"1": {"n": 1}, "2": {"n": 1}} and other.documents == {}
        topic.write("1", {"n": 2})
        topic.write("2", None)
        topic.write("3", {"n": 1})
        until(lambda: one.documents == {"1": {"n": 2}, "3": {"n": 1}}, lambda: str(one.events))
        until(lambda: len(other.seen("change")) == 3)
        changes = {data["key"]: data for data in other.seen("change")}
        assert changes["2"] == {"key": "2", "version": changes["2"]["version"], "op": "delete"}
        assert changes["1"]["op"] == "upsert" and "document" not in changes["1"]


def test_a_client_resumes_in_another_process(documents: MemoryDocuments, topic: MemoryTopic) -> None:
    topic.write("1", {"n": 1})
    with pushing(documents) as first, client(first.url, "orders", **BEGINNING) as one:
        until(lambda: one.documents == {"1": {"n": 1}})
    for number in range(300):
        topic.write(str(number), {"n": 2})
    topic.write("1", None)
    with pushing(documents) as second, client(second.url, "orders", one.id, documents="true") as again:
        assert again.documents.keys() == {str(number) for number in range(300)} - {"1"}
        assert {"1"} == {data["key"] for data in again.seen("change") if data["op"] == "delete"}


def test_a_client_that_was_away_for_a_moment_resumes_from_memory(url: str, topic: MemoryTopic) -> None:
    with client(url, "orders") as one:
        topic.write("1", {"n": 1})
        until(lambda: one.seen("change"))
    readers = topic.readers
    topic.write("2", {"n": 1})
    with client(url, "orders", last_event_id=one.id) as again:
        until(lambda: again.seen("change"))
        assert [data["key"] for data in again.seen("change")] == ["2"]
    assert topic.readers == readers


def test_an_older_version_that_comes_late_is_not_sent(url: str, topic: MemoryTopic) -> None:
    topic.write("1", {"n": 5}, 5)
    with client(url, "orders", **BEGINNING) as one:
        topic.write("1", {"n": 4}, 4)
        topic.write("2", {"n": 1}, 6)
        until(lambda: "2" in one.documents)
        assert one.documents["1"] == {"n": 5}


def test_filters(url: str, topic: MemoryTopic) -> None:
    with (
        client(url, "orders", key=["1", "2"], documents="true") as keys,
        client(url, "orders", where="buyer.country:DE", documents="true") as where,
    ):
        topic.write("1", {"buyer": {"country": "DE"}})
        topic.write("3", {"buyer": {"country": "DE"}})
        until(lambda: where.documents.keys() == {"1", "3"}, lambda: str(where.events))
        topic.write("3", {"buyer": {"country": "FR"}})
        topic.write("2", None)
        until(lambda: where.documents.keys() == {"1"} and len(keys.seen("change")) == 2)
        [left] = [data for data in where.seen("change") if data["op"] == "left"]
        assert left["key"] == "3" and "document" not in left
        assert {data["key"] for data in keys.seen("change")} == {"1", "2"}


def refetched(url: str, last: str) -> tuple[str, Client]:
    one = Client(url, "orders", last)
    one.thread.join(10)
    assert [event for event, _ in one.events] == ["must-refetch"]
    return one.seen("must-refetch")[0]["reason"], one


def test_a_client_that_cannot_resume_has_to_fetch_everything(url: str, topic: MemoryTopic) -> None:
    with client(url, "orders") as one:
        topic.write("1", {"n": 1})
        until(lambda: one.seen("change"))
    topic.retention = 0.0
    with pushing(MemoryDocuments()) as other:
        assert "another topic" not in refetched(other.url, one.id)[0], "the same topic id, with fewer records"
    other_documents = MemoryDocuments()
    other_documents.orders.id = "another"
    with pushing(other_documents) as other:
        reason, again = refetched(other.url, one.id)
        assert "another topic" in reason
        with client(other.url, "orders", again.id):
            pass  # the id of the event is one with which the client can resume


def test_a_client_that_was_away_for_too_long_has_to_fetch_everything(documents: MemoryDocuments) -> None:
    with pushing(documents) as first, client(first.url, "orders") as one:
        documents.orders.write("1", {"n": 1})
        until(lambda: one.seen("change"))
    documents.orders.write("2", {"n": 1})
    documents.orders.retention = 0.0
    documents.orders.window = -3600.0  # the next process keeps no changes in memory
    with pushing(documents) as second:
        assert "away for too long" in refetched(second.url, one.id)[0]
    documents.orders.retention = 3600.0
    documents.orders.delete_records()
    with pushing(documents) as third:
        assert "were deleted" in refetched(third.url, one.id)[0]


def test_all_clients_have_to_fetch_everything_when_the_topic_is_created_again(url: str, topic: MemoryTopic) -> None:
    topic.write("1", {"n": 1})
    with client(url, "orders") as one:
        topic.create_again()
        until(lambda: one.seen("must-refetch"))
    topic.write("2", {"n": 2})
    with client(url, "orders", **BEGINNING) as one:
        assert one.documents == {"2": {"n": 2}}


def stalled(url: str, headers: str = "") -> socket.socket:
    """Returns the connection of a client that requests changes and does not read them."""
    found = socket.socket()
    found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    found.connect(address(url))
    request = f"GET /models/orders/changes?documents=true HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n"
    found.sendall(request.encode())
    return found


def test_a_client_that_does_not_read_is_disconnected_and_delays_no_other(documents: MemoryDocuments) -> None:
    large = "x" * 100_000
    with pushing(documents, request_timeout=1, max_connections=18) as server, client(server.url, "orders") as one:
        with stalled(server.url):
            until(lambda: get(f"{server.url}/status")[0] == 503, lambda: "the second stream is not counted")
            for number in range(200):
                documents.orders.write(str(number % 70), {"n": number, "large": large})
            documents.orders.write("last", {"n": 1})
            began = time.monotonic()
            until(lambda: "last" in {data["key"] for data in one.seen("change")})
            assert time.monotonic() - began < 1.0
            until(lambda: get(f"{server.url}/status")[0] == 200, lambda: "the stalled stream goes on")
        assert not one.seen("must-refetch")


def test_a_socket_that_does_not_read_is_disconnected(documents: MemoryDocuments) -> None:
    upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "
    with (
        pushing(documents, request_timeout=1, max_connections=17) as server,
        stalled(server.url, headers=f"{upgrade}{'A' * 22}==\r\n") as stuck,
    ):
        assert stuck.recv(12) == b"HTTP/1.1 101"
        until(lambda: get(f"{server.url}/status")[0] == 503, lambda: "the socket is not counted")
        for number in range(200):
            documents.orders.write(str(number % 35), {"n": number, "large": random.randbytes(100_000).hex()})
        until(lambda: get(f"{server.url}/status")[0] == 200, lambda: "the socket is still open")


def test_too_many_changes_for_a_slow_client_end_its_stream(documents: MemoryDocuments) -> None:
    documents.settings = documents.settings.model_copy(update={"max_keys": 50})
    with pushing(documents, request_timeout=30) as server, stalled(server.url) as slow:
        until(lambda: b"live" in slow.recv(4096))
        for number in range(300):
            documents.orders.write(str(number), {"n": number, "large": "x" * 100_000})
        received = b""
        while part := slow.recv(1 << 20):
            received += part
        assert b"event: must-refetch" in received and b"too slowly" in received
        assert received.endswith(b"0\r\n\r\n"), "the stream ends in order"
        assert documents.metric("clients_dropped_total", reason="slow") == 1
        assert documents.metric("clients_dropped_total", reason="gap") == 0


def test_metrics_count_clients_and_the_changes_that_they_get(documents: MemoryDocuments) -> None:
    with pushing(documents, request_timeout=30) as server:
        with client(server.url, "orders") as one, stalled(server.url) as slow:
            until(lambda: one.seen("live") and b"live" in slow.recv(4096))
            assert documents.metric("clients") == 2
            for number in range(300):  # of 30 documents: the slow client gets few of their versions
                documents.orders.write(str(number % 30), {"n": number, "large": "x" * 100_000})
            documents.orders.write("last", {})
            until(lambda: "last" in {data["key"] for data in one.seen("change")})
            until(lambda: slow.recv(1 << 20) and documents.metric("events_conflated_total") > 0)
            assert documents.metric("events_total") >= len(one.seen("change"))
        until(lambda: documents.metric("clients") == 0)


def test_the_number_of_clients_is_limited() -> None:
    documents = MemoryDocuments(max_clients=1)
    with pushing(documents) as server:
        with client(server.url, "orders"):
            response = send(f"{server.url}/models/orders/changes")
            assert response.status == 503 and "syncer serve" in response.json()["hint"]
            with pytest.raises(InvalidStatus) as caught:
                socket_of(server.url)
            assert caught.value.response.status_code == 503
        until(lambda: send(f"{server.url}/models/orders/changes", "HEAD").status == 200)

        def admitted() -> bool:
            try:
                with socket_of(server.url) as one:
                    return messages(one, "live") != []
            except InvalidStatus:
                return False

        until(admitted)


def test_streams_end_in_order_when_the_server_stops(documents: MemoryDocuments) -> None:
    with pushing(documents) as server, socket_of(server.url) as other, stalled(server.url) as raw:
        messages(other, "live")
        received = b""
        while b"live" not in received:
            received += raw.recv(4096)
        began = time.monotonic()
        server.stop()
        assert time.monotonic() - began < 3
        while part := raw.recv(4096):
            received += part
        assert received.endswith(b"0\r\n\r\n")
        with pytest.raises(ConnectionClosed) as caught:
            other.recv(10)
        assert caught.value.rcvd and caught.value.rcvd.code == 1012


def test_a_socket_receives_the_same_as_a_stream_of_events(url: str, topic: MemoryTopic) -> None:
    topic.write("1", {"n": 1})
    with socket_of(url, "?from=beginning&documents=true") as one:
        first = messages(one, "live")
        change = next(message for message in first if message["event"] == "change")
        assert (change["key"], change["op"], change["document"]) == ("1", "upsert", {"n": 1})
        one.send("ignored")
        topic.write("1", None)
        [last] = messages(one, "change")
        assert (last["key"], last["op"]) == ("1", "delete") and last["version"] > change["version"]
    topic.write("2", {"n": 2})
    with socket_of(url, f"?last_event_id={last['id']}") as again:
        assert [message["key"] for message in messages(again, "live") if message["event"] == "change"] == ["2"]
    with client(url, "orders", last["id"]) as events:
        assert [data["key"] for data in events.seen("change")] == ["2"], "the ids of both are the same"


@pytest.mark.parametrize(
    ("path", "status", "error"),
    [
        ("/models/nothing/changes", 404, "does not exist"),
        ("/models/plain/changes", 409, "no Kafka sink"),
        ("/models/orders/changes?documents=yes", 400, "documents='yes'"),
        ("/models/orders/changes?from=now", 400, "from='now'"),
        ("/models/orders/changes?where=status", 400, "field:value"),
        ("/models/orders/changes?key=", 400, "a key is empty"),
        ("/models/orders/changes?last_event_id=17", 400, "the id '17' is invalid"),
        ("/models/orders/changes?filter=x", 400, "unknown parameters: filter"),
    ],
)
def test_bad_requests(url: str, path: str, status: int, error: str) -> None:
    response = send(url + path)
    assert response.status == status and error in response.json()["error"]
    assert send(url + path, "HEAD").status == status
    with pytest.raises(InvalidStatus) as caught:
        connect(url.replace("http", "ws") + path, proxy=None)
    assert caught.value.response.status_code == status


def test_a_malformed_header_is_400(url: str) -> None:
    assert send(f"{url}/models/orders/changes", headers={"Last-Event-ID": "17"}).status == 400


def test_a_token_is_needed(documents: MemoryDocuments) -> None:
    with pushing(documents, read_token=READ) as server:
        assert send(f"{server.url}/models/orders/changes").status == 401


def test_a_topic_that_cannot_be_read_is_503_until_it_can(url: str, topic: MemoryTopic) -> None:
    topic.error = "Kafka is unreachable"
    response = send(f"{url}/models/orders/changes")
    assert response.status == 503 and "Kafka is unreachable" in response.json()["error"]
    topic.error = ""
    until(lambda: send(f"{url}/models/orders/changes?last_event_id=AQ").status == 400)

    def works() -> bool:
        with socket_of(url) as one:
            return messages(one, "live") != []

    until(lambda: _tried(works))
    with client(url, "orders") as one:
        topic.error = "Kafka is unreachable"
        until(lambda: send(f"{url}/models/orders/changes", preload_content=False).status == 503)
        topic.write("1", {"n": 1})
        topic.error = ""
        until(lambda: one.seen("change"), lambda: "the client waits, and misses nothing")
        assert not one.seen("must-refetch")


def _tried(function: Any) -> bool:
    try:
        return bool(function())
    except InvalidStatus:
        return False
