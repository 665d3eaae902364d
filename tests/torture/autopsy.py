"""What can be known of documents that are wrong in the end, while the servers still have it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import urllib3
from confluent_kafka import Consumer, TopicPartition

from syncer.clock import split_version
from tests.convergence.deployment import Deployment
from tests.convergence.documents import Difference


def autopsy(deployment: Deployment, found: Sequence[Difference], folder: Path) -> None:
    """Write to the folder: wrong documents with versions and shards, PostgreSQL's snapshot, and every record
    of the syncer's own topics with their times."""
    with (folder / "wrong.jsonl").open("w") as out:
        with deployment.database.connect() as connection:
            row = connection.execute("SELECT pg_current_snapshot()::text, now()::text").fetchone()
        print(json.dumps({"snapshot": row and row[0], "now": row and row[1]}), file=out)
        for one in found:
            print(
                json.dumps({"where": one.where, "kind": one.kind, "id": one.id, **_meta(deployment, one)}),
                file=out,
            )
    with (folder / "topics.jsonl").open("w") as out:
        for message in _messages(deployment):
            print(json.dumps(message), file=out)


def _meta(deployment: Deployment, one: Difference) -> dict[str, Any]:
    model, _, sink = one.where.partition(" in ")
    if sink != "elasticsearch":
        return {}
    index = deployment.model(model)
    base = deployment.stack.elasticsearch
    doc = urllib3.request("GET", f"{base}/{index}/_doc/{one.id}?_source=false", timeout=10).json()
    shard = urllib3.request("GET", f"{base}/{index}/_search_shards?routing={one.id}", timeout=10).json()
    epoch, clock = split_version(doc.get("_version", 0))
    return {
        "epoch": epoch,
        "clock": clock,
        "seq_no": doc.get("_seq_no"),
        "term": doc.get("_primary_term"),
        "shard": shard["shards"][0][0]["shard"],
    }


def _messages(deployment: Deployment) -> Iterator[dict[str, Any]]:
    """Of every topic of the deployment but the changes: in order of their partitions."""
    consumer = Consumer(
        {"bootstrap.servers": deployment.stack.kafka, "group.id": "autopsy", "enable.auto.commit": False}
    )
    try:
        topics = consumer.list_topics(timeout=30).topics
        for topic in sorted(topics):
            if deployment.names.prefix not in topic or topic.startswith(f"{deployment.names.prefix}."):
                continue
            for number in topics[topic].partitions:
                low, high = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=30)
                consumer.assign([TopicPartition(topic, number, low)])
                at = low
                while at < high and (got := consumer.poll(10)) is not None:
                    at = (got.offset() or 0) + 1
                    value = got.value()
                    yield {
                        "topic": topic,
                        "partition": number,
                        "offset": got.offset(),
                        "ms": got.timestamp()[1],
                        "value": value.decode(errors="replace") if value else None,
                    }
    finally:
        consumer.close()
