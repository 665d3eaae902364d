"""Dead letters from the operator's view: listing, showing, replaying, dropping, and automatic resolution."""

from __future__ import annotations

import json
from typing import Any

import urllib3

from devstack import Stack
from syncer.events import Position
from syncer.kafka.admin import KafkaAdmin
from syncer.kafka.dead_letters import CONFIG, KafkaDeadLetterStore, KafkaOpenDeadLetters
from syncer.kafka.producer import KafkaProducer
from syncer.kafka.reader import TopicReader
from syncer.ports import Record
from tests.harness import Names
from tests.harness.system import ORDERS, System
from tests.harness.waiting import until

CUSTOMERS = "INSERT INTO {schema}.customers VALUES (1, 'Ada'), (2, 'Grace')"
FIVE = "INSERT INTO {schema}.orders (id, customer_id) SELECT n, 1 + n % 2 FROM generate_series(1, 5) n"
NO_ADDRESS = "UPDATE {schema}.orders SET address = 'no address' WHERE id = 3"
NO_PARTS = "UPDATE {schema}.orders SET parts = 0 WHERE id = 4"


def listed(system: System, model: str) -> dict[str, dict[str, Any]]:
    """Returns the dead letters by the name of their document or record."""
    found = json.loads(system.run("dlq", "list", model, "--json"))
    return {letter["name"]: letter for letter in found}


def accept_malformed_addresses(system: System) -> None:
    """Makes the index accept malformed addresses, as an operator might."""
    body = {"properties": {"address": {"type": "ip", "ignore_malformed": True}}}
    url = f"{system.stack.elasticsearch}/{system.orders}/_mapping"
    assert urllib3.request("PUT", url, json=body).status == 200


def test_documents_are_replayed_without_a_daemon_until_they_are_accepted(system: System) -> None:
    system.execute(CUSTOMERS, FIVE, NO_ADDRESS, NO_PARTS)
    orders = system.orders
    output = system.run("backfill", orders, expect=1)
    assert f"{orders}: 2 documents were rejected\n  → syncer dlq list {orders}" in output
    letters = listed(system, orders)
    assert letters.keys() == {"3", "4"}
    assert "no address" in letters["3"]["reason"] and "division by zero" in letters["4"]["reason"]
    assert letters["3"]["handle"] in system.run("dlq", "list")
    since = letters["3"]["since"]
    system.execute("UPDATE {schema}.orders SET parts = 1 WHERE id = 4")
    assert f"{orders}: 1 document was rejected" in system.run("backfill", orders, expect=1)  # only those of this run
    system.execute(NO_PARTS)
    system.run("backfill", orders, expect=1)
    letters = listed(system, orders)

    output = system.run("dlq", "show", orders, "3")
    assert "document 3" in output and "no address" in output and '"status": "new"' in output
    assert "division by zero" in system.run("dlq", "show", orders, letters["4"]["handle"])
    assert "there is no open dead letter '99'" in system.run("dlq", "show", orders, "99", expect=3)
    assert "or use --all" in system.run("dlq", "replay", orders, expect=2)

    output = system.run("dlq", "replay", orders, "--all", expect=1)  # nothing has been fixed yet
    assert "0 of 2 dead letters resolved" in output and "no address" in output
    letters = listed(system, orders)
    assert letters.keys() == {"3", "4"} and letters["3"]["since"] == since, "the time of the first rejection"
    accept_malformed_addresses(system)
    assert "1 of 2 dead letters resolved" in system.run("dlq", "replay", orders, "--all", expect=1)
    assert system.documents(orders)["3"]["address"] == "no address"
    assert listed(system, orders).keys() == {"4"}

    assert "add --yes" in system.run("dlq", "drop", orders, "4", expect=2)
    assert "1 dead letter dropped" in system.run("dlq", "drop", orders, "4", "--yes")
    assert listed(system, orders) == {} and system.status_of(orders)["dead_letters"] == 0


def test_a_dead_letter_is_resolved_when_its_document_is_accepted_after_a_change(system: System) -> None:
    daemon = system.start()
    system.execute(CUSTOMERS, FIVE, NO_ADDRESS, NO_PARTS)
    until(lambda: listed(system, system.orders).keys() == {"3", "4"})
    until(lambda: daemon.metric("syncer_dead_letters", model=system.orders) == 2)
    output = system.run("backfill", system.orders, expect=1)  # the daemon renders a part of the ranges
    assert f"{system.orders}: 2 documents were rejected" in output
    daemon.stop()
    daemon = system.start()  # the new daemon reads the dead letters that the backfill wrote
    until(lambda: daemon.metric("syncer_dead_letters", model=system.orders) == 2)
    system.execute("UPDATE {schema}.orders SET address = '10.0.0.1' WHERE id = 3")
    until(lambda: listed(system, system.orders).keys() == {"4"})
    until(lambda: daemon.metric("syncer_dead_letters", model=system.orders) == 1)
    system.execute("DELETE FROM {schema}.orders WHERE id = 4")
    until(lambda: system.status_of(system.orders)["dead_letters"] == 0)
    until(lambda: daemon.metric("syncer_dead_letters", model=system.orders) == 0)
    system.until_in_sync()


def test_a_mapping_that_rejects_every_document_stops_only_its_read_model(system: System) -> None:
    """Offsets stay, dead letters are limited, and a resync with the right mapping resolves all of them."""
    orders = system.orders
    system.environment["SYNCER_BACKFILL__RANGE_DOCUMENTS"] = "30"
    system.execute(
        CUSTOMERS,
        "INSERT INTO {schema}.orders (id, customer_id, address) "
        "SELECT n, 1 + n % 2, 'no address' FROM generate_series(1, 3000) n",
    )
    ranges = f"{system.prefix}.{orders}.1.backfill"
    output = system.run("backfill", orders, expect=3)
    assert f"the backfill stopped: elasticsearch:{orders} refused 100 documents in a row" in output
    assert "document_parsing_exception" in output and "→ correct the mapping" in output
    committed = sum(system.committed(ranges, ranges).values())
    letters = listed(system, orders)
    assert 30 * committed <= len(letters) < 100
    for letter in letters.values():  # each names the sink, the error and its cause
        assert letter["reason"].startswith(f"elasticsearch:{orders} refused the document: document_parsing")
        assert "'no address' is not an IP string literal" in letter["reason"]
    daemon = system.start(ready=False)
    daemon.until_state(system.summaries, "running")
    status = daemon.until_state(orders, "failed")
    assert f"elasticsearch:{orders} still refuses documents" in status["reason"]
    assert daemon.metric("syncer_breaker_open", model=orders) == 1
    assert listed(system, orders) == letters
    assert sum(system.committed(ranges, ranges).values()) == committed
    system.declare("orders", ORDERS.replace("type: ip", "type: keyword"))
    system.run("resync", orders, "--yes")
    daemon.until_state(orders, "running")
    system.until_in_sync()
    assert listed(system, orders) == {} and daemon.metric("syncer_breaker_open", model=orders) == 0
    daemon.stop()


def test_records_are_replayed_from_their_bytes(system: System) -> None:
    """One of the records is readable, as after an upgrade. The replay writes the document that it affects."""
    orders = system.orders
    system.execute(CUSTOMERS, FIVE)
    system.run("backfill", orders)
    system.execute("UPDATE {schema}.orders SET status = 'paid' WHERE id = 2")  # no daemon reads this change
    source = {"schema": system.schema, "table": "orders", "txId": None, "ts_ms": 1}
    image = {"id": 2, "customer_id": 1}
    good = json.dumps({"op": "u", "before": image, "after": image, "source": source}).encode()
    topic = f"{system.prefix}.{orders}.dlq"
    producer = KafkaProducer({"bootstrap.servers": system.stack.kafka})
    letters = KafkaOpenDeadLetters(system.topic_reader(), producer, topic).writer()
    changes = system.topic("orders")
    letters.record(Record(Position(changes, 0, 7), None, good), "it could not be read")
    letters.record(Record(Position(changes, 0, 8), None, b"\xff no JSON"), "it could not be read")
    letters.flush()
    names = f"{changes}/0/7", f"{changes}/0/8"
    assert listed(system, orders).keys() == set(names)
    assert '"op": "u"' in system.run("dlq", "show", orders, names[0])
    assert "\\xff no JSON" in system.run("dlq", "show", orders, names[1])
    output = system.run("dlq", "replay", orders, *names, expect=1)
    assert "1 of 2 dead letters resolved" in output and "cannot read a change event" in output
    assert system.documents(orders)["2"]["status"] == "paid"
    remaining = listed(system, orders)
    assert remaining.keys() == {names[1]} and "cannot read a change event" in remaining[names[1]]["reason"]
    assert "→" not in remaining[names[1]]["reason"] and "syncer dlq show" in remaining[names[1]]["hint"]


def test_a_resync_resolves_the_dead_letters_of_rebuilt_documents(system: System) -> None:
    daemon = system.start()
    system.execute(CUSTOMERS, FIVE, NO_ADDRESS, NO_PARTS)
    system.produce("orders", b"no JSON")
    until(lambda: len(listed(system, system.orders)) == 3)
    system.execute("UPDATE {schema}.orders SET address = NULL WHERE id = 3")
    until(lambda: len(listed(system, system.orders)) == 2)
    before = listed(system, system.orders)["4"]
    daemon.stop()
    assert "1 document was rejected" in system.run("resync", system.orders, "--yes", expect=1)
    after = listed(system, system.orders)
    # The new generation starts ten minutes in the past, so it reads the bad record too.
    assert after.keys() == {"4", *(name for name in after if name.startswith(system.topic("orders")))}
    assert len(after) == 2 and after["4"]["version"] >> 48 == 2 and before["version"] >> 48 == 1


def test_a_dead_letter_topic_of_an_earlier_version_becomes_compacted(system: System) -> None:
    topic, topics = f"{system.prefix}.{system.orders}.dlq", system.kafka_admin()
    topics.create([topic], {"retention.ms": "-1", "cleanup.policy": "delete"}, partitions=1)
    system.execute(CUSTOMERS, FIVE)
    system.run("backfill", system.orders)
    assert topics.config(topic, "cleanup.policy") == "compact"


def test_every_rejection_is_reported_although_the_daemon_is_killed(system: System) -> None:
    system.environment["SYNCER_PIPELINE__MAX_RECORDS"] = "50"
    system.execute(CUSTOMERS)
    daemon = system.start()
    system.execute(
        "INSERT INTO {schema}.orders (id, customer_id, address) "
        "SELECT n, 1, CASE WHEN n % 3 = 0 THEN 'no address' END FROM generate_series(1, 900) n"
    )
    until(lambda: system.status_of(system.orders)["dead_letters"] > 0)
    daemon.kill()
    daemon = system.start()
    until(lambda: system.status_of(system.orders)["lag_records"] == 0)
    refused = {str(n) for n in range(3, 901, 3)}
    assert listed(system, system.orders).keys() == refused
    assert len(system.documents(system.orders)) == 600
    system.execute("UPDATE {schema}.orders SET address = NULL WHERE id <= 450")
    until(lambda: listed(system, system.orders).keys() == {id for id in refused if int(id) > 450})
    daemon.stop()


def test_letters_written_by_other_processes_are_read_incrementally_up_to_a_limit(stack: Stack, names: Names) -> None:
    settings, topic = {"bootstrap.servers": stack.kafka}, names("letters.dlq")
    topics = KafkaAdmin(settings, partitions=1, replication_factor=1)
    topics.create([topic], CONFIG, partitions=1)
    store = KafkaDeadLetterStore(topics, TopicReader(settings, topics), KafkaProducer(settings), topic)
    known, theirs = store.open(), store.open().writer()
    few = KafkaOpenDeadLetters(TopicReader(settings, topics), KafkaProducer(settings), topic, capacity=3)
    for steps in (range(2), range(2, 5)):
        for n in steps:
            theirs.document(str(n), 1 << 48 | 7, "no")
        theirs.flush()
        known.refresh()
        few.refresh()
        assert (len(known), len(few)) == (steps.stop, min(steps.stop, 3))
    theirs.accepted(["0", "1"], 1 << 48 | 8)
    theirs.flush()
    known.refresh()
    assert len(known) == 3
    assert [letter.subject.name for letter in store.read()] == ["2", "3", "4"]


TOTALS = """
name: {orders}
root: {{table: {schema}.customers}}
relations: {{orders: {{many: {schema}.orders, on: {{customer_id: id}}, partials: {{by: id, size: 2}}}}}}
document: {{name: name, address: last(orders.address order by orders.id)}}
sink:
  elasticsearch:
    index: {orders}
    mapping: {{address: {{type: ip}}}}
    settings: {{number_of_shards: 1, number_of_replicas: 0}}
"""


def test_another_bucket_resolves_the_dead_letter_of_a_partial(system: System) -> None:
    """Elasticsearch refuses the last address of a customer. Then an order in another bucket has the last address."""
    system.declare("orders", TOTALS)
    system.execute("CREATE INDEX ON {schema}.orders (customer_id, id)", CUSTOMERS, FIVE)
    orders = system.orders
    system.run("backfill", orders)
    system.start(orders)
    system.execute("UPDATE {schema}.orders SET address = 'no address' WHERE id = 4")
    # Buckets whose changes came in the same batch may have a letter, too.
    until(lambda: "1|2" in listed(system, orders), lambda: listed(system, orders))
    system.execute("INSERT INTO {schema}.orders (id, customer_id, address) VALUES (6, 1, '10.0.0.1')")
    until(lambda: listed(system, orders) == {}, lambda: listed(system, orders))
    assert "equal" in system.run("verify", orders)
