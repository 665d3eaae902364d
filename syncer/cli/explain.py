"""`syncer explain`: what a read model reads, how, and what comes out."""

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
    """Show the tables and columns a read model uses, its SQL, its look-ups and its documents' form.

    Needs PostgreSQL, whose catalog gives names their meaning.
    """
    [loaded] = loader.load_models(context.config, [model])
    compiled = loaded.compiled
    if as_json:
        output.echo_json(_describe(loaded))
        return
    output.echo(f"{compiled.name}: a document a row of {compiled.root}", style="bold")
    output.echo(f"key: {', '.join(compiled.key)} ({', '.join(_key(loaded).values())})")
    output.echo(f"sinks: {', '.join(loaded.model.declaration.sink)}")
    output.echo(f"declaration: {loaded.model.file}, hash {compiled.hash}")
    _heading("Tables, and the columns whose change makes a document dirty")
    output.draw(_tables(loaded))
    _heading("Document")
    output.draw(_fields(compiled))
    for kind, target in _targets(loaded).items():
        _heading(f"Sink {kind}")
        output.code(json.dumps(target, indent=2, ensure_ascii=False), "json")
    for occurrence in compiled.occurrences:
        lookup = occurrence.lookup
        if lookup and lookup.sql is not None:
            _heading(f"From {', '.join(lookup.columns)} of {_place(occurrence)} to the roots")
            output.code(format_sql(lookup.sql), "postgres")
    _heading("Rendering: one statement for any number of keys")
    output.code(format_sql(compiled.render), "postgres")


def _heading(text: str) -> None:
    output.echo()
    output.echo(text, style="bold cyan")


def _place(occurrence: TableUse) -> str:
    return f"{occurrence.path} ({occurrence.table})" if occurrence.path else str(occurrence.table)


def _tables(loaded: loader.LoadedModel) -> Tree:
    """Nested as in the declaration; the paths of occurrences are dotted."""
    nodes: dict[str, Tree] = {}
    root = Tree("")
    for occurrence in loaded.compiled.occurrences:
        parent, _, name = occurrence.path.rpartition(".")
        # a relation may sit inside a nested object, which is no table: climb to the nearest table
        while parent and parent not in nodes:
            parent = parent.rpartition(".")[0]
        text = _line(occurrence, name, loaded.catalog.tables.get(occurrence.table))
        if occurrence.path:
            nodes[occurrence.path] = nodes.get(parent, root).add(text)
        else:
            root = nodes[""] = Tree(text)
    return root


def _line(occurrence: TableUse, name: str, table: Table | None) -> str:
    head = f"{name}: {occurrence.table}" if name else str(occurrence.table)
    if table:
        identities = sorted({leaf.identity for leaf in table.leaves})
        head += f" (about {table.rows_estimate:,} rows, replica identity {', '.join(identities)})"
    uncertain = sorted(occurrence.used - occurrence.comparable)
    lines = [head, f"uses {', '.join(sorted(occurrence.used))}"]
    if occurrence.lookup and occurrence.lookup.sql is None:
        lines.append(f"{', '.join(occurrence.lookup.columns)} is the root's key: no look-up needed")
    if not occurrence.comparable:
        lines.append("every change counts: columns are compared under REPLICA IDENTITY FULL only")
    elif uncertain:
        lines.append(f"every change counts, as these cannot be compared for certain: {', '.join(uncertain)}")
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
    """The settings of each sink, with the whole mapping where there is one: derived, then as declared."""
    targets: dict[str, Any] = {}
    for kind, settings in loaded.model.declaration.sink.items():
        targets[kind] = dict(settings)
        with suppress(Fatal):  # a wrong block is shown as it was declared; `syncer check` reports it
            targets[kind] |= sinks.derived(kind, settings, loaded.compiled.fields)
    return targets


def format_sql(sql: str) -> str:
    """Indented, if it can be parsed (it came from a parser, but placeholders are no SQL)."""
    try:
        return sqlglot.parse_one(sql, read="postgres").sql("postgres", pretty=True)
    except SqlglotError:
        return sql


def _key(loaded: loader.LoadedModel) -> dict[str, str]:
    """The root's key: the type of each column."""
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
            for o in compiled.occurrences
        ],
        "fields": fields(compiled.fields),
        "sinks": _targets(loaded),
        "render": compiled.render,
    }
