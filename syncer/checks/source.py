"""Checks that the server and its publication send every change. Defines the facts that it judges."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from syncer.checks.finding import Finding, quote, quote_table
from syncer.events import TableName

RESET = "syncer connectors reset (it prints what to resync)"
"""The fix for a slot that is missing, or that lost WAL it needs."""
OPERATIONS = ("insert", "update", "delete", "truncate")


@dataclass(frozen=True, slots=True)
class Publication:
    name: str
    all_tables: bool
    operations: frozenset[str]
    """Of `OPERATIONS`."""
    via_root: bool
    tables: frozenset[TableName]
    """The tables that it names, and the tables that subscribers see. A partitioned table appears as its root under
    `via_root`, as its leaves otherwise."""
    row_filters: frozenset[TableName] = frozenset()
    column_lists: frozenset[TableName] = frozenset()
    excepted: frozenset[TableName] = frozenset()
    """The tables that FOR ALL TABLES EXCEPT leaves out (PostgreSQL 19)."""
    generated: bool = False
    """Whether it sends stored generated columns (an option since PostgreSQL 18)."""


@dataclass(frozen=True, slots=True)
class Reader:
    """The walsender process that sends a slot's changes to the connector. A different process means that the connector
    resumed."""

    pid: int
    since: int | None
    """Its start time in microseconds since the Unix epoch; None if the role may not see it."""


@dataclass(frozen=True, slots=True)
class Slot:
    name: str
    plugin: str
    database: str
    active: bool
    wal_status: str
    """`reserved`, `extended`, `unreserved` or `lost`."""
    behind: int | None
    """Bytes of WAL from the position that the reader has confirmed to the current position; None on a standby."""
    two_phase: bool = False
    """Whether it decodes prepared transactions when they are prepared, not when they are committed."""
    reader: Reader | None = None


@dataclass(frozen=True, slots=True)
class SourceFacts:
    server_version: int
    """`server_version_num`, for example 150014."""
    database: str
    in_recovery: bool
    wal_level: str
    effective_wal_level: str | None
    """The level at which WAL is written now. From PostgreSQL 19 on, it is `logical` even under `wal_level=replica`
    while a logical slot exists. None on older servers."""
    max_slots: int
    used_slots: int
    max_senders: int
    used_senders: int
    wal_keep_size: str
    """`max_slot_wal_keep_size` with its unit, `-1` for no limit."""
    role: str
    role_replicates: bool
    """Whether the role is a superuser or has REPLICATION."""
    publication_name: str
    publication: Publication | None
    slot: Slot | None
    partitioned: frozenset[TableName] = frozenset()
    """The requested tables that are partitioned."""
    roots: Mapping[TableName, TableName] = field(default_factory=dict)
    """For each requested table that is a partition: the table at the top of its tree."""
    generated: frozenset[TableName] = frozenset()
    """The requested tables with stored generated columns. Empty before PostgreSQL 18."""
    generated_identity: frozenset[TableName] = frozenset()
    """The tables of `generated` whose replica identity includes such a column, in at least one partition."""
    sees_sessions: bool = True
    """Whether the role may see when sessions of other roles began (it has the rights of pg_read_all_stats)."""


_GENERATED = "publish_generated_columns = stored"


def _send_generated(name: str) -> str:
    return f"ALTER PUBLICATION {quote(name)} SET ({_GENERATED});"


def check_source(facts: SourceFacts, tables: Collection[TableName], *, connector_role: str = "") -> list[Finding]:
    """Finds settings of the server, the publication and the slot that would lose changes of these tables.

    connector_role: the role that the connector logs in as; empty if it is not known.
    """
    return [
        *_server(facts, connector_role),
        *check_publication(facts, tables),
        *_generated(facts, tables),
        *_slot(facts),
    ]


def publication_statements(
    name: str,
    publication: Publication | None,
    tables: Collection[TableName],
    partitioned: Collection[TableName],
    generated: Collection[TableName] = (),
) -> list[str]:
    """Returns the SQL that makes the publication send every change of these tables.

    The statements never remove anything from the publication. Without tables, they create none.
    publication: as it is now; None if it does not exist.
    generated: the tables whose stored generated columns it has to send (`SourceFacts.generated`).
    """
    wanted = sorted(set(tables))
    if publication is None and not wanted:
        return []
    sends = not set(generated).isdisjoint(wanted)
    if publication is None:
        listed = ", ".join(map(quote_table, wanted))
        options = "publish_via_partition_root = true" + (f", {_GENERATED}" if sends else "")
        return [f"CREATE PUBLICATION {quote(name)} FOR TABLE {listed} WITH ({options});"]
    statements = []
    if sends and not publication.generated:  # first, because a table that is added before would refuse updates
        statements.append(_send_generated(name))
    if missing := sorted(set(OPERATIONS) - publication.operations, key=OPERATIONS.index):
        every = ", ".join(o for o in OPERATIONS if o in publication.operations or o in missing)
        statements.append(f"ALTER PUBLICATION {quote(name)} SET (publish = '{every}');")
    if not publication.via_root and not set(partitioned).isdisjoint(wanted):
        statements.append(f"ALTER PUBLICATION {quote(name)} SET (publish_via_partition_root = true);")
    if new := [t for t in wanted if not publication.all_tables and t not in publication.tables]:
        statements.append(f"ALTER PUBLICATION {quote(name)} ADD TABLE {', '.join(map(quote_table, new))};")
    return statements


def _server(facts: SourceFacts, connector_role: str) -> Iterator[Finding]:
    at = f"PostgreSQL, database {facts.database}"
    if facts.server_version < 140000:
        yield Finding("error", "server-version", at, "the server is older than PostgreSQL 14", "", "upgrade PostgreSQL")
    if facts.in_recovery:
        yield Finding(
            "error",
            "standby",
            at,
            "the server is a standby",
            "snapshots of a standby have no clock",
            "set postgres.dsn to the primary",
        )
    yield from _wal_level(facts, at)
    if facts.slot is None and facts.used_slots >= facts.max_slots:
        yield Finding(
            "error",
            "no-free-slot",
            at,
            f"all {facts.max_slots} replication slots are in use",
            "the connector needs one",
            f"ALTER SYSTEM SET max_replication_slots = {facts.max_slots + 5};\nrestart the server",
        )
    if not (facts.slot and facts.slot.active) and facts.used_senders >= facts.max_senders:
        yield Finding(
            "error",
            "no-free-sender",
            at,
            f"all {facts.max_senders} WAL senders are in use",
            "the connector needs one",
            f"ALTER SYSTEM SET max_wal_senders = {facts.max_senders + 5};\nrestart the server",
        )
    if not facts.role_replicates and connector_role in ("", facts.role):
        yield Finding(
            "error" if connector_role else "note",
            "no-replication",
            f"role {facts.role}",
            "it does not have REPLICATION",
            "the connector needs a role that has it",
            f"ALTER ROLE {quote(facts.role)} REPLICATION;",
        )
    if facts.wal_keep_size == "-1":
        yield Finding(
            "note",
            "wal-keep-size",
            at,
            "max_slot_wal_keep_size has no limit",
            "while the connector is down, its slot retains WAL until the disk is full; with a limit, the slot is lost "
            "instead and a resync is needed",
            "ALTER SYSTEM SET max_slot_wal_keep_size = '50GB';\nSELECT pg_reload_conf();",
        )


def _wal_level(facts: SourceFacts, at: str) -> Iterator[Finding]:
    """Finds a `wal_level` with which changes cannot be decoded, or with which Debezium does not start.

    PostgreSQL 19 decodes changes even under `replica`, but Debezium checks the setting at each start. A connector
    that reads its slot has passed this check.
    """
    if facts.wal_level == "logical":
        return
    fix = "ALTER SYSTEM SET wal_level = 'logical';\nrestart the server"
    if facts.wal_level != "replica" or facts.effective_wal_level is None:
        why = "changes cannot be decoded from WAL"
        yield Finding("error", "wal-level", at, f"wal_level is {facts.wal_level}", why, fix)
    elif not (facts.slot and facts.slot.active):
        why = "PostgreSQL 19 can decode changes with it, but Debezium's connector (3.7) refuses to start"
        yield Finding("warning", "wal-level", at, "wal_level is replica", why, fix)


def check_publication(facts: SourceFacts, tables: Collection[TableName]) -> Iterator[Finding]:
    """Finds changes of these tables that the publication does not send."""
    at = f"publication {facts.publication_name}"
    publication = facts.publication
    whole = [table for table in tables if table not in facts.roots]
    if publication is None:
        created = publication_statements(facts.publication_name, None, whole, facts.partitioned, facts.generated)
        fix = "\n".join(created) or "correct the read models first: the publication needs their tables"
        yield Finding("error", "no-publication", at, "it does not exist", "no changes would be sent", fix)
        return
    statements = publication_statements(facts.publication_name, publication, whole, facts.partitioned)
    if missing := [o for o in OPERATIONS if o not in publication.operations]:
        what = f"it does not publish {', '.join(missing)}"
        yield Finding("error", "operations", at, what, "such changes would be silently lost", statements.pop(0))
    if not publication.via_root and (parents := facts.partitioned.intersection(tables)):
        yield Finding(
            "error",
            "via-root",
            at,
            f"partitions are published under their own names: {_list(parents)}",
            "their changes would not reach the table's topic",
            statements.pop(0),
        )
    if left_out := publication.excepted.intersection(whole):
        rest = ", ".join(map(quote_table, sorted(publication.excepted - left_out)))
        clause = f" EXCEPT (TABLE {rest})" if rest else ""
        yield Finding(
            "error",
            "not-published",
            at,
            f"its EXCEPT clause leaves out {_list(left_out)}",
            "changes of these tables would be silently lost",
            f"ALTER PUBLICATION {quote(publication.name)} SET ALL TABLES{clause};",
        )
    for table in sorted(set(tables) & facts.roots.keys()):
        yield Finding(
            "error",
            "partition",
            str(table),
            f"it is a partition of {facts.roots[table]}",
            "its changes are published under the name of the partitioned table",
            f"use {facts.roots[table]} in the read model",
        )
    if statements:
        lost = [table for table in whole if table not in publication.tables]
        why = "changes of these tables would not be sent"
        yield Finding("error", "not-published", at, f"it lacks {_list(lost)}", why, statements.pop())
    for what, code, restricted in (
        ("row filter", "row-filter", publication.row_filters),
        ("column list", "column-list", publication.column_lists),
    ):
        for table in sorted(restricted.intersection(tables)):
            pub, name = quote(publication.name), quote_table(table)
            yield Finding(
                "error",
                code,
                f"{at}: {table}",
                f"it has a {what}",
                "changes of rows or columns outside of it would be lost",
                f"ALTER PUBLICATION {pub} DROP TABLE {name};\nALTER PUBLICATION {pub} ADD TABLE {name};",
            )


def _generated(facts: SourceFacts, tables: Collection[TableName]) -> Iterator[Finding]:
    """Finds stored generated columns that the publication does not send.

    From PostgreSQL 18 on, UPDATE and DELETE of a published table fail if its replica identity includes such a column.
    """
    publication = facts.publication
    if publication is None or publication.generated:
        return
    published = facts.generated.intersection(tables) & publication.tables
    failing = published & facts.generated_identity
    fix = _send_generated(publication.name)
    if failing:
        what = f"it does not send generated columns in the replica identity of {_list(failing)}"
        why = "the application's own UPDATE and DELETE of these tables fail"
        yield Finding("error", "generated", f"publication {publication.name}", what, why, fix)
    elif published:
        what = f"it does not send generated columns of {_list(published)}"
        why = "under REPLICA IDENTITY FULL the application's own UPDATE and DELETE would fail"
        yield Finding("warning", "generated", f"publication {publication.name}", what, why, fix)


def _slot(facts: SourceFacts) -> Iterator[Finding]:
    if (slot := facts.slot) is None:
        return
    at = f"slot {slot.name}"
    if slot.wal_status == "lost":
        yield Finding(
            "error",
            "slot-lost",
            at,
            "PostgreSQL has removed WAL that the slot needs",
            "changes were lost",
            RESET,
        )
    if slot.plugin != "pgoutput" or slot.database != facts.database:
        yield Finding(
            "error",
            "slot-other",
            at,
            f"it belongs to plugin {slot.plugin} and database {slot.database}",
            f"the connector needs a slot of pgoutput in database {facts.database}",
            "set another slot.name in the connector's definition",
        )
    if slot.two_phase:
        yield Finding(
            "error",
            "slot-two-phase",
            at,
            "it decodes prepared transactions before they are committed (two_phase)",
            "a position in the stream then does not prove that all earlier commits are in Kafka",
            RESET,
        )


def _list(tables: Collection[TableName]) -> str:
    return ", ".join(map(str, sorted(tables)))
