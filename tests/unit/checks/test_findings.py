"""Findings about read models and the source, from facts given as literals."""

from dataclasses import replace
from typing import Any

import pytest

from syncer.checks import (
    Finding,
    Publication,
    Slot,
    SourceFacts,
    check_model,
    check_source,
    needed_columns,
    publication_statements,
)
from syncer.checks.finding import quote, quote_table
from syncer.declaration.catalog import Catalog, Column, Identity, Index, Leaf, Table
from syncer.declaration.compile import Compiled, Lookup, TableUse
from syncer.events import TableName

ORDERS = TableName("public", "orders")
ITEMS = TableName("public", "order_items")


def table(name: TableName, identity: Identity = "default", *, key_type: str = "bigint", **changes: Any) -> Table:
    columns = {c: Column(c, "bigint", "bigint", True) for c in ("id", "order_id", "quantity")}
    columns["id"] = Column("id", key_type, key_type, True)
    covered = {"default": ("id",), "full": tuple(columns), "index": ("order_id",), "nothing": ()}[identity]
    made = Table(
        name,
        1,
        "table",
        "permanent",
        columns,
        ("id",),
        (Index("pk", ("id",), True, False), Index("fk", ("order_id",), False, False)),
        (Leaf(1, name, identity, covered),),
    )
    return replace(made, **changes)


def model(*, lookup_sql: str | None = None) -> Compiled:
    link = Lookup(("order_id",), ("bigint",), lookup_sql)
    nothing = frozenset[str]()
    return Compiled(
        "orders",
        ORDERS,
        ("id",),
        ("bigint",),
        (TableUse("", ORDERS, None, nothing, nothing), TableUse("items", ITEMS, link, nothing, nothing)),
        (),
        "",
        "",
        "",
        "",
        "",
        "",
    )


def findings(orders: Table | None = None, items: Table | None = None, **options: Any) -> list[Finding]:
    tables = (orders or table(ORDERS), items or table(ITEMS, "full"))
    return check_model("orders.yaml", model(), Catalog({t.name: t for t in tables}), **options)


def only(found: list[Finding]) -> Finding:
    assert len(found) == 1, found
    return found[0]


def test_a_valid_model_has_no_findings() -> None:
    assert findings() == []
    assert needed_columns(model(), Catalog({ORDERS: table(ORDERS), ITEMS: table(ITEMS)})) == {
        ORDERS: {"id"},
        ITEMS: {"id", "order_id"},
    }


def test_a_missing_table_is_an_error() -> None:
    assert only(check_model("m.yaml", model(), Catalog({ORDERS: table(ORDERS)}))).code == "no-table"


def test_every_leaf_needs_a_replica_identity_with_the_link_columns() -> None:
    found = only(findings(items=table(ITEMS)))
    assert (found.severity, found.code) == ("error", "identity")
    assert "order_id" in found.what
    assert found.fix == "ALTER TABLE public.order_items REPLICA IDENTITY FULL;"

    leaves = (
        Leaf(2, TableName("Größe", "or der"), "default", ("id",)),
        Leaf(3, TableName("public", "p2"), "full", ("id", "order_id", "quantity")),
        Leaf(4, TableName("public", "p3"), "index", ("id", "order_id")),
    )
    found, later = findings(items=table(ITEMS, kind="partitioned", leaves=leaves))
    assert found.fix == 'ALTER TABLE "Größe"."or der" REPLICA IDENTITY FULL;'
    assert (later.severity, later.code) == ("warning", "new-partitions")


def test_a_replica_identity_without_the_primary_key_is_an_error_even_for_the_root() -> None:
    found = only(findings(table(ORDERS, "index")))
    assert (found.code, found.fix) == ("identity", "ALTER TABLE public.orders REPLICA IDENTITY FULL;")


def test_hazard_16_no_identity_makes_the_applications_updates_fail() -> None:
    found = only(findings(table(ORDERS, "nothing")))
    assert found.code == "identity-nothing" and "application's own UPDATE" in found.why


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"kind": "view"}, "table-kind"),
        ({"kind": "foreign table"}, "table-kind"),
        ({"kind": "materialized view"}, "table-kind"),
        ({"inherits": True}, "inheritance"),
        ({"persistence": "unlogged"}, "not-logged"),
        ({"persistence": "temporary"}, "not-logged"),
        ({"primary_key": ()}, "no-primary-key"),
        ({"row_security": True}, "row-security"),
        ({"can_select": False}, "no-select"),
    ],
)
def test_tables_that_cannot_be_captured_are_errors(changes: dict[str, Any], code: str) -> None:
    found = only(findings(table(ORDERS, **changes), role="reader"))
    assert (found.severity, found.code) == ("error", code)


def test_missing_privileges_come_with_their_grant_statements() -> None:
    assert only(findings(table(ORDERS, can_select=False), role="Reader")).fix.splitlines() == [
        'GRANT USAGE ON SCHEMA public TO "Reader";',
        'GRANT SELECT ON public.orders TO "Reader";',
    ]


@pytest.mark.parametrize("kind", ["double precision", "interval", "json", "composite", "bit", "range", "array"])
def test_key_types_that_events_do_not_represent_exactly_are_errors(kind: str) -> None:
    found = only(findings(table(ORDERS, key_type=kind)))
    assert found.code == "key-type" and found.where.endswith("public.orders.id")


def test_a_generated_column_cannot_be_a_link() -> None:
    items = table(ITEMS, "full")
    columns = {**items.columns, "order_id": Column("order_id", "bigint", "bigint", True, ("quantity",))}
    assert only(findings(items=replace(items, columns=columns))).code == "generated-key"


def test_missing_indexes_on_both_sides_of_a_link_are_found() -> None:
    bare: dict[str, Any] = {"indexes": (Index("pk", ("id",), True, False), Index("p", ("order_id",), False, True))}
    found = only(findings(items=table(ITEMS, "full", **bare)))
    assert (found.severity, found.code) == ("warning", "no-index")
    assert found.fix == "CREATE INDEX CONCURRENTLY ON public.order_items (order_id);"
    assert only(findings(items=table(ITEMS, "full", rows_estimate=9, **bare))).severity == "note"

    catalog = Catalog({ORDERS: table(ORDERS), ITEMS: table(ITEMS, "full")})
    linked = model(lookup_sql="SELECT")
    root, items = linked.table_uses
    linked = replace(linked, table_uses=(root, replace(items, parent=ORDERS, parent_columns=("quantity",))))
    found = only(check_model("m", linked, catalog))
    assert found.fix == "CREATE INDEX CONCURRENTLY ON public.orders (quantity);"


LOGS = TableName("public", "logs")


def test_hazard_16_full_is_no_choice_for_a_table_with_virtual_generated_columns() -> None:
    """PostgreSQL 18 does not send virtual columns. It refuses updates of a table whose identity includes one."""
    leaf = Leaf(1, ITEMS, "default", ("id",), virtual=True)
    lacking = only(findings(items=replace(table(ITEMS, "default"), leaves=(leaf,))))
    assert lacking.code == "identity" and "REPLICA IDENTITY USING INDEX" in lacking.fix
    assert not lacking.fix.endswith(";"), "the fix is not a statement that can be run unchanged"
    full = replace(leaf, identity="full", identity_columns=("id", "order_id", "quantity"))
    failing = only(findings(items=replace(table(ITEMS, "full"), leaves=(full,))))
    assert failing.code == "identity-nothing" and "application's own UPDATE" in failing.why
    assert "order_id" in failing.fix and "USING INDEX" in failing.fix


FACTS = SourceFacts(
    server_version=150014,
    database="shop",
    in_recovery=False,
    wal_level="logical",
    effective_wal_level=None,
    max_slots=10,
    used_slots=1,
    max_senders=10,
    used_senders=1,
    wal_keep_size="4GB",
    role="syncer",
    role_replicates=True,
    publication_name="pub",
    slot=None,
    publication=Publication(
        "pub", False, frozenset({"insert", "update", "delete", "truncate"}), True, frozenset({ORDERS, ITEMS})
    ),
)


def source(**changes: Any) -> list[Finding]:
    return check_source(replace(FACTS, **changes), [ORDERS, ITEMS])


def publication(**changes: Any) -> dict[str, Any]:
    assert FACTS.publication
    return {"publication": replace(FACTS.publication, **changes)}


def test_a_valid_source_has_no_findings() -> None:
    assert source() == []
    assert source(**publication(all_tables=True, tables=frozenset())) == []


@pytest.mark.parametrize(
    ("changes", "code", "fix"),
    [
        ({"server_version": 130000}, "server-version", ""),
        ({"in_recovery": True}, "standby", "primary"),
        ({"wal_level": "replica"}, "wal-level", "wal_level = 'logical'"),
        ({"wal_level": "minimal", "effective_wal_level": "minimal"}, "wal-level", "wal_level = 'logical'"),
        ({"used_slots": 10}, "no-free-slot", "max_replication_slots"),
        ({"used_senders": 10}, "no-free-sender", "max_wal_senders"),
        ({"role_replicates": False}, "no-replication", "ALTER ROLE syncer REPLICATION;"),
        ({"wal_keep_size": "-1"}, "wal-keep-size", "max_slot_wal_keep_size"),
        (
            {"publication": None},
            "no-publication",
            "CREATE PUBLICATION pub FOR TABLE public.order_items, public.o",
        ),
        (
            publication(all_tables=True, tables=frozenset({ITEMS}), excepted=frozenset({ORDERS})),
            "not-published",
            "ALTER PUBLICATION pub SET ALL TABLES;",
        ),
        (
            publication(all_tables=True, tables=frozenset(), excepted=frozenset({ORDERS, LOGS})),
            "not-published",
            "ALTER PUBLICATION pub SET ALL TABLES EXCEPT (TABLE public.logs);",
        ),
        (
            publication(tables=frozenset({ITEMS})),
            "not-published",
            "ALTER PUBLICATION pub ADD TABLE public.orders;",
        ),
        (
            publication(operations=frozenset({"insert"})),
            "operations",
            "(publish = 'insert, update, delete, truncate')",
        ),
        (
            {**publication(via_root=False), "partitioned": frozenset({ORDERS})},
            "via-root",
            "ALTER PUBLICATION pub SET (publish_via_partition_root = true);",
        ),
        (publication(row_filters=frozenset({ORDERS})), "row-filter", "DROP TABLE public.orders;"),
        (publication(column_lists=frozenset({ORDERS})), "column-list", "ADD TABLE public.orders;"),
        ({"roots": {ORDERS: TableName("public", "top")}}, "partition", "use public.top"),
        ({"slot": Slot("s", "pgoutput", "shop", False, "lost", None)}, "slot-lost", "resync"),
        ({"slot": Slot("s", "wal2json", "shop", True, "reserved", 0)}, "slot-other", "slot.name"),
        ({"slot": Slot("s", "pgoutput", "shop", True, "reserved", 0, True)}, "slot-two-phase", "reset"),
    ],
)
def test_hazard_07_sources_that_would_lose_changes(changes: dict[str, Any], code: str, fix: str) -> None:
    found = only(source(**changes))
    assert found.code == code
    assert fix in found.fix


@pytest.mark.parametrize(
    ("slot", "severities"),
    [
        (None, ["warning"]),
        (Slot("s", "pgoutput", "shop", False, "reserved", 0), ["warning"]),
        (Slot("s", "pgoutput", "shop", True, "reserved", 0), []),
    ],
)
def test_wal_level_replica_on_postgresql_19_is_a_warning_unless_the_connector_runs(
    slot: Slot | None, severities: list[str]
) -> None:
    effective = "logical" if slot else "replica"
    found = source(server_version=190000, wal_level="replica", effective_wal_level=effective, slot=slot)
    assert [finding.severity for finding in found] == severities
    assert all("Debezium" in finding.why and "wal_level = 'logical'" in finding.fix for finding in found)


def test_hazard_16_generated_columns_of_the_identity_have_to_be_published() -> None:
    """On PostgreSQL 18, the application's own UPDATE fails otherwise."""
    generated = {"generated": frozenset({ORDERS, ITEMS}), "generated_identity": frozenset({ITEMS})}
    fix = "ALTER PUBLICATION pub SET (publish_generated_columns = stored);"
    found = only(source(**generated))
    assert (found.severity, found.code, found.fix) == ("error", "generated", fix)
    assert "public.order_items" in found.what and "public.orders" not in found.what
    weak = only(source(**{**generated, "generated_identity": frozenset()}))
    assert (weak.severity, weak.code, weak.fix) == ("warning", "generated", fix)
    assert source(**generated, **publication(generated=True)) == []
    created = only(source(**generated, publication=None))
    assert "(publish_via_partition_root = true, publish_generated_columns = stored)" in created.fix
    lacking = publication(tables=frozenset({ITEMS}))["publication"]
    assert publication_statements("pub", lacking, [ORDERS, ITEMS], [], [ORDERS]) == [
        fix,  # before the table is in the publication
        "ALTER PUBLICATION pub ADD TABLE public.orders;",
    ]


def test_each_problem_of_a_publication_has_its_own_statement() -> None:
    broken = publication(operations=frozenset({"insert"}), via_root=False, tables=frozenset({ITEMS}))
    found = source(**broken, partitioned=frozenset({ORDERS}))
    assert [f.code for f in found] == ["operations", "via-root", "not-published"]
    assert [f.fix for f in found] == publication_statements("pub", broken["publication"], [ORDERS, ITEMS], [ORDERS])


def test_names_are_quoted_when_needed() -> None:
    assert quote_table(TableName("public", "order")) == 'public."order"'
    assert [quote(name) for name in ("a_1", "A", 'a"b', "é", "1a", "a b")] == [
        "a_1",
        '"A"',
        '"a""b"',
        '"é"',
        '"1a"',
        '"a b"',
    ]


def test_a_finding_is_printed_with_its_cause_and_fix() -> None:
    found = Finding("error", "x", "orders.yaml: public.a", "is a view", "no changes", "DROP VIEW a;\nuse b")
    assert str(found) == "error: orders.yaml: public.a: is a view (no changes)\n  → DROP VIEW a;\n  → use b"
