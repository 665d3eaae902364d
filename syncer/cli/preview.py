"""`syncer preview`: documents as they would be now."""

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
    syncer preview stock 'berlin|sku-7'     a key of two columns
    syncer preview orders 1 2 3 --compact | jq .total
    """,
)
@click.argument("model")
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
@click.option("--compact", is_flag=True, help="One line a document, exactly as it is written to sinks.")
@click.pass_context
def preview(ctx: click.Context, context: Context, model: str, keys: Sequence[str], compact: bool) -> None:
    """Print the documents of these keys as PostgreSQL has them now.

    Nothing is written. The columns of a composite key are joined by `|` (and `|` or `\\` in them escaped by
    `\\`), as in the ids of documents. Exit code 1 if there is no document for one of the keys, or its row
    cannot be rendered.
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
    try:
        return document.parse_id(text, len(compiled.key))
    except ValueError as error:
        columns = "|".join(compiled.key)
        raise click.UsageError(f"{error}; give it as {columns}") from error


def check_key(view: View, key: Key, text: str) -> None:
    """Raises UsageError if PostgreSQL cannot read the key: no row is between it and itself."""
    try:
        view.render_range(key, key)
    except Reject as error:
        raise click.UsageError(f"{text!r}: {error.why or error.what}") from error


def show_row(row: Row, compiled: Compiled, compact: bool) -> None:
    if row.body is None:
        if row.id is None:
            why = f"{compiled.root} has no row with key {row.asked!r}"
        else:
            why = f"the row {row.id!r} of {compiled.root} is excluded by `where`"
        output.echo(f"no document: {why}", style="yellow", err=True)
    elif compact:
        click.echo(row.body)
    else:
        output.code(output.pretty(row.body), "json")
