"""Checks that the database's tables can carry a read model: kinds, keys, replica identities, indexes, privileges.

The rule for replica identities: the event of an UPDATE or DELETE must contain the old row's primary key and the columns
that link the row to its parent. If the identity lacks a column, Debezium does not leave it out of `before`. Debezium
invents a value (0, '', the column's default), and the syncer would silently miss documents.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from syncer.checks.finding import Finding, quote, quote_list, quote_table
from syncer.checks.groups import check_groups
from syncer.checks.list_index import list_index, missing_index
from syncer.checks.partials import check_partials
from syncer.declaration.catalog import Catalog, Leaf, Table
from syncer.declaration.compile import Compiled, TableUse
from syncer.declaration.names import literal
from syncer.events import TableName

KEY_TYPES = frozenset(
    {
        "smallint",
        "integer",
        "bigint",
        "oid",
        "numeric",
        "boolean",
        "uuid",
        "text",
        "character varying",
        "character",
        "name",
        '"char"',
        "citext",
        "enum",
        "date",
        "timestamp without time zone",
        "timestamp with time zone",
        "bytea",
        "inet",
        "cidr",
        "macaddr",
        "macaddr8",
        "ltree",
    }
)
"""Types whose values in events identify the row's value (tests/integration/test_connect.py proves each)."""

_REFUSED_KEYS = {
    "real": "events round it",
    "double precision": "events round it",
    "money": "its text depends on the locale",
    "interval": "equal intervals have several texts, and events lose digits",
    "time without time zone": "24:00:00 arrives as 00:00:00",
    "time with time zone": "events convert it to UTC and lose its zone",
    "json": "it has no equality operator",
    "bit": "events encode it as bytes without its length",
    "bit varying": "events encode it as bytes without its length",
    "composite": "events carry it as bytes of its text",
}

_REFUSED_KINDS = {
    "view": "a view sends no change events: use its tables",
    "materialized view": "a refresh sends no change events: use its tables",
    "foreign table": "its rows change on another server, outside of this server's WAL",
    "other": "it is not a table",
}


def check_model(
    where: str,
    compiled: Compiled,
    catalog: Catalog,
    *,
    role: str = "",
    mutable: Collection[str] = (),
) -> list[Finding]:
    """Finds what would make this read model's documents wrong or slow.

    where: the file of the declaration.
    role: the role that the syncer connects as, for the GRANT statements.
    mutable: see `check_groups`.
    """
    role = quote(role) if role else "CURRENT_USER"
    findings: list[Finding] = []
    for name in sorted(compiled.tables):
        table = catalog.tables.get(name)
        if table is None:
            fix = "create the table, or correct its name in the declaration"
            findings.append(Finding("error", "no-table", f"{where}: {name}", "the table does not exist", "", fix))
            continue
        uses = [use for use in compiled.table_uses if use.table == name]
        findings += _access(where, table, role)
        if kind := list(_kind(where, table)):
            findings += kind
            continue
        sought = [use for use in compiled.rendered.table_uses if use.table == name]
        findings += _identity(where, table, sought)
        findings += _new_partitions(where, table, sought, catalog)
        findings += _keys(where, table, compiled, sought)
        findings += _indexes(where, table, uses)
        if compiled.group and name == compiled.root:
            findings += check_groups(where, compiled, table, mutable)
    findings += _parent_indexes(where, compiled, catalog)
    findings += _step_indexes(where, compiled, catalog)
    if compiled.partials and (divided := catalog.tables.get(compiled.partials.table)):
        findings += check_partials(where, compiled.partials, divided, compiled.group)
    return list(dict.fromkeys(findings))


def needed_columns(compiled: Compiled, catalog: Catalog) -> dict[TableName, frozenset[str]]:
    """Returns the columns that events must contain, by table: primary keys and links."""
    needed: dict[TableName, frozenset[str]] = {}
    for use in compiled.rendered.table_uses:
        table = catalog.tables.get(use.table)
        columns = {*(table.primary_key if table else ()), *(use.lookup.columns if use.lookup else ())}
        needed[use.table] = needed.get(use.table, frozenset()) | columns
    return needed


def unpublishable(table: Table) -> list[Leaf]:
    """Returns the leaves on which the application's own UPDATE and DELETE would fail once they are published."""
    return [leaf for leaf in table.leaves if (leaf.virtual if leaf.identity == "full" else not leaf.identity_columns)]


def unfit(table: Table | None) -> str:
    """Returns why a table must not be published as it is; empty if it may be."""
    if table is None:
        return "the table does not exist"
    return next((finding.what for finding in _kind("", table)), "")


def _access(where: str, table: Table, role: str) -> Iterator[Finding]:
    at = f"{where}: {table.name}"
    if not table.can_select:
        yield Finding(
            "error",
            "no-select",
            at,
            "the syncer's role has no SELECT privilege",
            "the syncer reads the table to render documents",
            f"GRANT USAGE ON SCHEMA {quote(table.name.schema)} TO {role};\n"
            f"GRANT SELECT ON {quote_table(table.name)} TO {role};",
        )
    if table.row_security:
        yield Finding(
            "error",
            "row-security",
            at,
            "row security hides rows from the syncer's role",
            "hidden rows would look deleted, so the syncer's sessions refuse queries on the table",
            f"ALTER ROLE {role} BYPASSRLS;",
        )


def _kind(where: str, table: Table) -> Iterator[Finding]:
    at = f"{where}: {table.name}"
    if table.kind in _REFUSED_KINDS:
        partitioned = any(leaf.oid != table.oid for leaf in table.leaves)
        what = "has a foreign table as partition" if partitioned else f"is a {table.kind}"
        yield Finding("error", "table-kind", at, what, _REFUSED_KINDS[table.kind])
    elif table.inherits:
        yield Finding(
            "error",
            "inheritance",
            at,
            "takes part in table inheritance",
            "the event of a child table does not name the parent table; the event of a partition does",
            "use declarative partitioning",
        )
    elif table.persistence != "permanent":
        yield Finding(
            "error",
            "not-logged",
            at,
            f"is {table.persistence}",
            "its changes are not in WAL",
            f"ALTER TABLE {quote_table(table.name)} SET LOGGED;" if table.persistence == "unlogged" else "",
        )
    elif not table.primary_key:
        yield Finding(
            "error",
            "no-primary-key",
            at,
            "has no primary key, and no unique index that identifies its rows",
            "without one of them, an event does not identify its row",
            f"ALTER TABLE {quote_table(table.name)} ADD PRIMARY KEY (…);",
        )


def _identity(where: str, table: Table, uses: Sequence[TableUse]) -> Iterator[Finding]:
    at = f"{where}: {table.name}"
    needed = _needed(table, uses)
    if failing := unpublishable(table):
        yield Finding(
            "error",
            "identity-nothing",
            at,
            f"no usable replica identity{_of(table, failing)}",
            "once published, the application's own UPDATE and DELETE would fail",
            _set_identity(table, failing, needed),
        )
    publishable = [leaf for leaf in table.leaves if leaf not in failing]
    # An index omits the old row of an update that changes none of its columns. The new row may then lack a long array.
    arrays = {use.lookup.array for use in uses if use.lookup} - {""}
    logged = {leaf: set(leaf.identity_columns) - (arrays if leaf.identity != "full" else set()) for leaf in publishable}
    lacking = [leaf for leaf in publishable if not needed <= logged[leaf]]
    if lacking:
        missing = ", ".join(sorted({c for leaf in lacking for c in needed - logged[leaf]}))
        yield Finding(
            "error",
            "identity",
            at,
            f"the replica identity leaves out {missing}{_of(table, lacking)}",
            "the old document would keep a row that was moved or deleted",
            _set_identity(table, lacking, needed),
        )


def _new_partitions(where: str, table: Table, uses: Sequence[TableUse], catalog: Catalog) -> Iterator[Finding]:
    """Warns that a new partition gets the identity DEFAULT, its primary key. It inherits neither FULL nor an index."""
    missing = _needed(table, uses).difference(() if table.key_index else table.primary_key)
    name = _shortened(f"{table.name.schema}_{table.name.name}_replica_identity")
    if table.kind != "partitioned" or not missing or name in catalog.event_triggers:
        return
    yield Finding(
        "warning",
        "new-partitions",
        f"{where}: {table.name}",
        f"a new partition will have a replica identity that leaves out {', '.join(sorted(missing))}",
        "PostgreSQL gives each new partition DEFAULT, even if the parent has another identity. The read model\n"
        "then stops until the identity is FULL, and renders all documents again. Set the identity in the\n"
        "transaction that creates the partition, or let a superuser create this event trigger:",
        _identity_trigger(table.name, name),
    )


def _identity_trigger(table: TableName, name: str) -> str:
    """Returns SQL that sets FULL on new partitions. The trigger reads only tables that the command created or altered,
    so it does not block other commands."""
    function = quote_table(TableName(table.schema, name))
    root = literal(quote_table(table))
    leaves = (
        "SELECT t.relid FROM pg_event_trigger_ddl_commands() d"
        " CROSS JOIN LATERAL pg_partition_tree(d.objid) t JOIN pg_class c ON c.oid = t.relid"
        " WHERE d.classid = 'pg_class'::regclass AND t.isleaf AND c.relreplident = 'd'"
    )
    leaves += f" AND pg_partition_root(t.relid) = to_regclass({root})"
    return (
        f"CREATE FUNCTION {function}() RETURNS event_trigger LANGUAGE plpgsql SET search_path = pg_catalog"
        f" AS $$ DECLARE leaf regclass; BEGIN FOR leaf IN {leaves} LOOP"
        " EXECUTE format('ALTER TABLE %s REPLICA IDENTITY FULL', leaf); END LOOP; END $$;\n"
        f"CREATE EVENT TRIGGER {quote(name)} ON ddl_command_end WHEN TAG IN ('CREATE TABLE', 'ALTER TABLE')"
        f" EXECUTE FUNCTION {function}();"
    )


def _shortened(name: str) -> str:
    """Truncates a name at 63 bytes, as PostgreSQL does."""
    return name.encode()[:63].decode(errors="ignore")


def _needed(table: Table, uses: Sequence[TableUse]) -> frozenset[str]:
    """Returns the columns of old rows that events must contain."""
    links = {column for use in uses if use.lookup for column in use.lookup.columns}
    return frozenset(links.union(table.primary_key))


def _keys(where: str, table: Table, compiled: Compiled, uses: Sequence[TableUse]) -> Iterator[Finding]:
    columns: dict[str, None] = {}
    arrays = {use.lookup.array for use in uses if use.lookup}  # the compiler refuses others
    for use in uses:
        columns |= dict.fromkeys(use.lookup.columns if use.lookup else compiled.key)
    for name in columns:
        column = table.columns.get(name)
        if column is None:
            continue  # the compiler has reported it
        at = f"{where}: {table.name}.{name}"
        if column.generated_from:
            yield Finding(
                "error",
                "generated-key",
                at,
                "a generated column is used as key or link",
                "change events leave it out",
                f"use the columns that it is computed from: {', '.join(column.generated_from)}",
            )
        elif column.base not in KEY_TYPES and name not in arrays:
            why = _REFUSED_KEYS.get(column.base, "the encoding of this type in events is not known to be exact")
            fix = "use a column of another type as key or link"
            yield Finding("error", "key-type", at, f"{column.type} cannot be a key or link", why, fix)


def _indexes(where: str, table: Table, uses: Sequence[TableUse]) -> Iterator[Finding]:
    for use in uses:
        if use.lookup and use.listed_by is not None:
            yield from list_index(f"{where}: {use.path}", table, use.lookup.columns, use.listed_by)
        elif use.lookup and not use.is_root:
            why = "each render reads the whole table"
            yield from _link_index(f"{where}: {use.path}", table, use, use.lookup.columns, use.fixed, why)


def _parent_indexes(where: str, compiled: Compiled, catalog: Catalog) -> Iterator[Finding]:
    for use in compiled.table_uses:
        parent = catalog.tables.get(use.parent) if use.parent else None
        if parent and use.lookup and use.lookup.sql is not None:
            why = f"each change of {use.table} reads the whole table to find the rows that it belongs to"
            yield from _link_index(f"{where}: {use.path}", parent, use, use.parent_columns, use.parent_fixed, why)


def _step_indexes(where: str, compiled: Compiled, catalog: Catalog) -> Iterator[Finding]:
    """Demands an index that leads from a row of a tree to the rows below it."""
    for use in compiled.table_uses:
        table = catalog.tables.get(use.table)
        if table and use.ancestors and use.ancestors.climb.limit > 1:
            columns = [other for _, other in use.ancestors.climb.step]
            why = f"each change of {table.name} reads the whole table once for each level, to find the rows below"
            yield from _index(f"{where}: {use.path}", table, columns, (), why)


def _link_index(
    at: str, table: Table, use: TableUse, columns: Sequence[str], fixed: Collection[str], why: str
) -> Iterator[Finding]:
    """Demands the index of one side of a link. Without that of a link by an array, the read model is refused."""
    array = next((name for name in columns if name in table.columns and table.columns[name].base == "array"), "")
    if array:
        if array not in table.element_indexes:
            yield replace(missing_index(at, table, array, why, [quote(array)], using="gin"), severity="error")
        return
    for finding in _index(at, table, columns, fixed, why):
        yield replace(finding, severity="error") if use.by_array else finding


def _index(at: str, table: Table, columns: Sequence[str], fixed: Collection[str], why: str) -> Iterator[Finding]:
    if _has_index(table, columns, fixed):
        return
    yield missing_index(at, table, ", ".join(columns), why, [*map(quote, columns)])


def _has_index(table: Table, columns: Collection[str], fixed: Collection[str]) -> bool:
    """Returns whether an index serves `columns = …`: its first column is one of them.

    fixed: columns that the same search compares with constants. They may precede it.
    """
    firsts = (next((c for c in i.columns if c not in fixed), None) for i in table.indexes if not i.partial)
    return any(first in columns for first in firsts)


def _set_identity(table: Table, leaves: Sequence[Leaf], needed: Collection[str]) -> str:
    """Returns the fix that gives each leaf a replica identity with at least these columns."""
    if table.key_index and set(needed) <= set(table.primary_key) and [leaf.oid for leaf in leaves] == [table.oid]:
        return f"ALTER TABLE {quote_table(table.name)} REPLICA IDENTITY USING INDEX {quote(table.key_index)};"
    return "\n".join(
        f"{quote_table(leaf.name)} has virtual generated columns, so it cannot use FULL: create a unique index"
        f" on {quote_list(sorted(needed))}, all NOT NULL; ALTER TABLE … REPLICA IDENTITY USING INDEX …"
        if leaf.virtual
        else f"ALTER TABLE {quote_table(leaf.name)} REPLICA IDENTITY FULL;"
        for leaf in leaves
    )


def _of(table: Table, leaves: Sequence[Leaf]) -> str:
    """Returns the names of partitions. Empty for a table itself, which the finding names already."""
    return "" if [leaf.name for leaf in leaves] == [table.name] else f": {_names(leaves)}"


def _names(leaves: Sequence[Leaf]) -> str:
    shown = ", ".join(str(leaf.name) for leaf in leaves[:3])
    return shown if len(leaves) <= 3 else f"{shown} and {len(leaves) - 3} more"
