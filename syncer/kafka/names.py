"""The names of Debezium's topics."""

from __future__ import annotations

from syncer.events import TableName


def topic_of(prefix: str, table: TableName) -> str:
    """Returns the change topic of a table, as Debezium names it.

    Debezium replaces each character that Kafka rejects with `_`, and each character that UTF-16 encodes as two units
    with `__`. So several tables can have the same topic.
    """
    name = f"{prefix}.{table.schema}.{table.name}"
    return "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" * (1 + (ord(c) > 0xFFFF)) for c in name)
