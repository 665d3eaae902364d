"""Saves all evidence about wrong documents, while the servers still have it."""

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
    """Writes two files to the folder.

    wrong.jsonl: the snapshot of PostgreSQL, and each wrong document with its version and shard.
    topics.jsonl: every record of the syncer's own topics, with its timestamp.
    """
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
        for record in _records(deployment):
            print(json.dumps(record), file=out)


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


def _records(deployment: Deployment) -> Iterator[dict[str, Any]]:
    """Yields the records of all topics of the deployment, except the topics of the connector, by partition."""
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
                next_offset = low
                while next_offset < high and (record := consumer.poll(10)) is not None:
                    next_offset = (record.offset() or 0) + 1
                    value = record.value()
                    yield {
                        "topic": topic,
                        "partition": number,
                        "offset": record.offset(),
                        "ms": record.timestamp()[1],
                        "value": value.decode(errors="replace") if value else None,
                    }
    finally:
        consumer.close()
