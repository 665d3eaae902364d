"""Implements `syncer explain`: shows the tables, the SQL and the document fields of a read model."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import click
import sqlglot
from rich.tree import Tree
from sqlglot.errors import SqlglotError

from syncer import sinks
from syncer.cli import output
from syncer.cli.context import Context, as_json, command
from syncer.declaration.catalog import Table
from syncer.declaration.compiled import Climb, Compiled, Field, GroupColumn, Partials, TableUse
from syncer.errors import Fatal
from syncer.quantities import counted, duration_text
from syncer.registry import loader


@command(
    "explain",
    """
    syncer explain orders
    syncer explain orders --json | jq .tables
    """,
)
@click.argument("model")
@as_json
def explain(context: Context, model: str, as_json: bool) -> None:
    """Show tables, fields, mappings and SQL of a read model.

    Use it to see which changes update a document, and which statements run in PostgreSQL. The command needs
    PostgreSQL, because it reads the types of tables and columns. It changes nothing.
    """
    [loaded] = loader.load_models(context.config, [model])
    compiled = loaded.compiled
    if as_json:
        output.echo_json(_describe(loaded))
        return
    unit = "group of rows" if compiled.group else "row"
    output.echo(f"{compiled.name}: one document per {unit} of {compiled.root}", style="bold")
    output.echo(f"key: {', '.join(compiled.key)} ({', '.join(_key(loaded).values())})")
    for group in compiled.group:
        output.echo(f"group {group.name}: {group.text}{_bounds(group)}")
    output.echo(f"sinks: {', '.join(loaded.model.declaration.sink)}")
    output.echo(f"declaration: {loaded.model.file}, hash {compiled.hash}")
    _heading("Tables, and the columns whose changes update documents")
    output.draw(_tables(loaded))
    _heading("Document fields")
    output.draw(_fields(compiled))
    for kind, target in _targets(loaded).items():
        _heading(f"Sink {kind}")
        output.code(json.dumps(target, indent=2, ensure_ascii=False), "json")
    for use in compiled.table_uses:
        lookup = use.lookup
        if lookup and lookup.sql is not None:
            _heading(f"Lookup from {', '.join(lookup.columns)} of {_place(use)} to root keys")
            output.code(format_sql(lookup.sql), "postgres")
    if compiled.partials:
        _heading("Partials")
        output.echo(_partials(compiled.partials))
        output.code(format_sql(compiled.partials.parts.render), "postgres")
    _heading("Rendering: one statement for any number of root keys")
    output.code(format_sql(compiled.render), "postgres")


def _partials(partials: Partials) -> str:
    """Returns what is divided, which index serves it, and what is promised."""
    combined = ", ".join(field.name for field in partials.fields if field.function)
    return (
        f"{partials.relation} ({partials.table}) is divided into buckets of {_size(partials)} of {partials.by}\n"
        f"combined from the buckets: {combined}\n"
        f"index: ({', '.join([*partials.link, partials.by])})\n"
        "Each partial is exact at its version. A document may combine partials of several snapshots, so a row that\n"
        "moves between buckets may be missing or counted twice for a moment. The document converges, and the\n"
        "watermark says when. Lanes run the statement below; `verify` and `preview` render whole documents."
    )


def _size(partials: Partials) -> str:
    if isinstance(partials.size, int):
        return counted(partials.size, "value")
    return duration_text(round(partials.size.total_seconds()))


def _heading(text: str) -> None:
    output.echo()
    output.echo(text, style="bold cyan")


def _place(use: TableUse) -> str:
    return f"{use.path} ({use.table})" if use.path else str(use.table)


def _tables(loaded: loader.LoadedModel) -> Tree:
    """Returns the uses of tables, nested as in the declaration."""
    nodes: dict[str, Tree] = {}
    root = Tree("")
    for use in loaded.compiled.table_uses:
        parent, _, name = use.path.rpartition(".")
        # A relation can be inside a nested object, which is not a table. Its parent is the nearest table.
        while parent and parent not in nodes:
            parent = parent.rpartition(".")[0]
        text = _line(use, name, loaded.catalog.tables.get(use.table))
        if use.path:
            nodes[use.path] = nodes.get(parent, root).add(text)
        else:
            root = nodes[""] = Tree(text)
    return root


def _line(use: TableUse, name: str, table: Table | None) -> str:
    head = f"{name}: {use.table}" if name else str(use.table)
    if table:
        identities = sorted({leaf.identity for leaf in table.leaves})
        head += f" (about {counted(table.rows_estimate, 'row')}, replica identity {', '.join(identities)})"
    uncertain = sorted(use.used - use.comparable)
    lines = [head, f"uses {', '.join(sorted(use.used))}"]
    if use.through:
        ends = ", ".join(f"{use.through}.{column}" for column in use.parent_columns)
        lines.insert(1, f"linked through {ends}; each row occurs once")
    if use.by_array:
        lines.insert(1, f"linked by the elements of an array: {use.by_array}; each row occurs once")
    if use.condition:
        lines.insert(1, f"linked only if {use.condition}")
    if use.lookup and use.lookup.sql is None:
        held = "has the keys of its roots" if use.lookup.array else "is the root's key"
        lines.append(f"{', '.join(use.lookup.columns)} {held}: no lookup needed")
    if use.ancestors:
        lines.append(_climb(use.ancestors.climb))
    if not use.comparable:
        lines.append("every change of a row counts: columns are compared only under REPLICA IDENTITY FULL")
    elif uncertain:
        lines.append(
            f"every change of a row counts, because these columns cannot be compared reliably: {', '.join(uncertain)}"
        )
    return "\n".join(lines)


def _climb(climb: Climb) -> str:
    step = ", ".join(f"{own} = {other}" for own, other in climb.step)
    order = "farthest" if climb.farthest_first else "nearest"
    return f"up to {counted(climb.limit, 'ancestor')}, the {order} first; step to the next one: {step}"


def _fields(compiled: Compiled) -> Tree:
    root = Tree(compiled.name)

    def add(node: Tree, fields: tuple[Field, ...]) -> None:
        for field in fields:
            kind = f"list of {field.type}" if field.many else field.type
            add(node.add(f"{field.name}: {kind}"), field.fields)

    add(root, compiled.fields)
    return root


def _targets(loaded: loader.LoadedModel) -> dict[str, Any]:
    """Returns the settings of each sink. The mapping is complete: derived fields, overridden by declared ones."""
    targets: dict[str, Any] = {}
    for kind, settings in loaded.model.declaration.sink.items():
        targets[kind] = dict(settings)
        with suppress(Fatal):  # a wrong block is shown as it was declared; `syncer check` reports it
            targets[kind] |= sinks.derived(kind, settings, loaded.compiled.fields)
    return targets


def _ancestors(climb: Climb) -> dict[str, Any]:
    return {
        "step": dict(climb.step),
        "limit": climb.limit,
        "first": "farthest" if climb.farthest_first else "nearest",
    }


def format_sql(sql: str) -> str:
    """Returns SQL with indentation, or unchanged if it cannot be parsed: its placeholders are not SQL."""
    try:
        return sqlglot.parse_one(sql, read="postgres").sql("postgres", pretty=True)
    except SqlglotError:
        return sql


def _bounds(group: GroupColumn) -> str:
    return f" (an index on {group.bounded} serves it)" if group.bounded else ""


def _key(loaded: loader.LoadedModel) -> dict[str, str]:
    """Returns the type of each column of the root's key."""
    if loaded.compiled.group:
        return dict(zip(loaded.compiled.key, loaded.compiled.key_types, strict=True))
    columns = loaded.catalog.tables[loaded.compiled.root].columns
    return {name: columns[name].base for name in loaded.compiled.key}


def _describe(loaded: loader.LoadedModel) -> dict[str, Any]:
    compiled = loaded.compiled

    def fields(of: tuple[Field, ...]) -> list[dict[str, Any]]:
        return [
            {"name": f.name, "type": f.type, "many": f.many} | ({"fields": fields(f.fields)} if f.fields else {})
            for f in of
        ]

    return {
        "name": compiled.name,
        "file": loaded.model.file,
        "hash": compiled.hash,
        "root": str(compiled.root),
        "key": _key(loaded),
        "group": [{"name": group.name, "expression": group.text, "bounded": group.bounded} for group in compiled.group],
        "tables": [
            {
                "path": o.path,
                "table": str(o.table),
                "columns": sorted(o.used),
                "compared": sorted(o.comparable),
                **({"when": o.condition} if o.condition else {}),
                **({"array": o.by_array} if o.by_array else {}),
                **({"ancestors": _ancestors(o.ancestors.climb)} if o.ancestors else {}),
                "lookup": o.lookup and {"columns": o.lookup.columns, "sql": o.lookup.sql},
            }
            for o in compiled.table_uses
        ],
        "fields": fields(compiled.fields),
        "sinks": _targets(loaded),
        "render": compiled.render,
    } | ({"partials": _described(compiled.partials)} if compiled.partials else {})


def _described(partials: Partials) -> dict[str, Any]:
    return {
        "relation": partials.relation,
        "table": str(partials.table),
        "by": partials.by,
        "size": partials.size if isinstance(partials.size, int) else _size(partials),
        "index": [*partials.link, partials.by],
        "fields": [field.name for field in partials.fields if field.function],
        "render": partials.parts.render,
    }
