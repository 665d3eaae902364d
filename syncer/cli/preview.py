"""Implements `syncer preview`: renders documents and prints them."""

from __future__ import annotations

from collections.abc import Sequence

import click

from syncer import document
from syncer.cli import output
from syncer.cli.context import Context, command
from syncer.declaration.compiled import Compiled
from syncer.document import Row
from syncer.errors import Reject
from syncer.events import Key
from syncer.ports import View
from syncer.postgres.snapshot_reader import SnapshotReader
from syncer.registry import loader


@command(
    "preview",
    r"""
    syncer preview orders 4711
    syncer preview stock 'berlin|sku-7'     a key with two columns
    syncer preview orders 1 2 3 --compact | jq .total
    """,
    exits={0: "all documents were printed", 1: "at least one key has no document, or its row cannot be rendered"},
)
@click.argument("model")
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
@click.option("--compact", is_flag=True, help="Print one line per document, exactly as it is written to sinks.")
@click.pass_context
def preview(ctx: click.Context, context: Context, model: str, keys: Sequence[str], compact: bool) -> None:
    """Render documents from the current rows and print them.

    The documents are printed as JSON. Use the command to try out a declaration, or to see what a document should be.
    It needs PostgreSQL only and changes nothing.

    A key is the id of a document. It contains the key columns of the root row or, if the root is grouped, the values of
    the group expressions. The columns of a composite key are joined by `|`. Within a column,
    write `\\|` for `|`, and `\\\\` for `\\`.
    """
    config = context.config
    [loaded] = loader.load_models(config, [model])
    rows = SnapshotReader(
        config.postgres.arguments(), loaded.compiled, statement_timeout=config.postgres.statement_timeout
    )
    missing = False
    try:
        with rows.view() as view:
            for text in keys:
                key = key_of(text, loaded.compiled)
                check_key(view, key, text)
                try:
                    [row] = view.render([key])
                except Reject as error:
                    missing = True
                    where = f"{loaded.compiled.root}, key {text}"
                    output.echo_error(Reject("no document", where=where, why=error.why, hint=error.hint))
                    continue
                missing |= row.body is None
                show_row(row, loaded.compiled, compact)
    finally:
        rows.close()
    if missing:
        ctx.exit(output.FINDING)


def key_of(text: str, compiled: Compiled) -> tuple[str, ...]:
    """Returns the key columns of a document's id. Raises UsageError if their number is wrong."""
    try:
        return document.parse_id(text, len(compiled.key))
    except ValueError as error:
        columns = "|".join(compiled.key)
        raise click.UsageError(f"{error}; the key is {columns}") from error


def check_key(view: View, key: Key, text: str) -> None:
    """Raises UsageError if PostgreSQL cannot convert the key to the types of its columns.

    The query asks for an empty range, from the key to the same key, so that it renders nothing.
    """
    try:
        view.render_range(key, key)
    except Reject as error:
        raise click.UsageError(f"{text!r}: {error.why or error.what}") from error


def show_row(row: Row, compiled: Compiled, compact: bool) -> None:
    """Prints the document of a row, or why there is none."""
    if row.body is None:
        if compiled.group:
            why = f"{compiled.root} has no rows in the group {row.asked!r}, or `where` excludes all of them"
        elif row.id is None:
            why = f"{compiled.root} has no row with key {row.asked!r}"
        else:
            why = f"the row {row.id!r} of {compiled.root} is excluded by `where`"
        output.echo(f"no document: {why}", style="yellow", err=True)
    elif compact:
        click.echo(row.body)
    else:
        output.code(output.pretty(row.body), "json")
