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
from syncer.declaration.compiled import Compiled, Field, TableUse
from syncer.errors import Fatal
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
    """Show tables, document fields, mappings and SQL of a read model.

    Use it to see which changes update a document, and which statements run in PostgreSQL. The command needs
    PostgreSQL, because it reads the types of tables and columns. It changes nothing.
    """
    [loaded] = loader.load_models(context.config, [model])
    compiled = loaded.compiled
    if as_json:
        output.echo_json(_describe(loaded))
        return
    output.echo(f"{compiled.name}: one document per row of {compiled.root}", style="bold")
    output.echo(f"key: {', '.join(compiled.key)} ({', '.join(_key(loaded).values())})")
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
    _heading("Rendering: one statement for any number of root keys")
    output.code(format_sql(compiled.render), "postgres")


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
        head += f" (about {table.rows_estimate:,} rows, replica identity {', '.join(identities)})"
    uncertain = sorted(use.used - use.comparable)
    lines = [head, f"uses {', '.join(sorted(use.used))}"]
    if use.lookup and use.lookup.sql is None:
        lines.append(f"{', '.join(use.lookup.columns)} is the root's key: no lookup needed")
    if not use.comparable:
        lines.append("every change of a row counts: columns are compared only under REPLICA IDENTITY FULL")
    elif uncertain:
        lines.append(
            f"every change of a row counts, because these columns cannot be compared reliably: {', '.join(uncertain)}"
        )
    return "\n".join(lines)


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


def format_sql(sql: str) -> str:
    """Returns SQL with indentation, or unchanged if it cannot be parsed: its placeholders are not SQL."""
    try:
        return sqlglot.parse_one(sql, read="postgres").sql("postgres", pretty=True)
    except SqlglotError:
        return sql


def _key(loaded: loader.LoadedModel) -> dict[str, str]:
    """Returns the type of each column of the root's key."""
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
        "tables": [
            {
                "path": o.path,
                "table": str(o.table),
                "columns": sorted(o.used),
                "compared": sorted(o.comparable),
                "lookup": o.lookup and {"columns": o.lookup.columns, "sql": o.lookup.sql},
            }
            for o in compiled.table_uses
        ],
        "fields": fields(compiled.fields),
        "sinks": _targets(loaded),
        "render": compiled.render,
    }
