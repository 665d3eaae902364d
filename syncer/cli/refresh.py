"""Implements `syncer refresh`: renders documents now and writes them to the sinks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from http import HTTPStatus
from typing import Any

import click

from syncer.cli import output
from syncer.cli.context import Context, as_json, command
from syncer.freshness.refused import Refused
from syncer.freshness.tokens import EXAMPLES
from syncer.operations.refresh import refresh_here
from syncer.operations.through_daemon import refresh_through
from syncer.quantities import counted
from syncer.registry import loader
from syncer.registry.backends import open_registry


@command(
    "refresh",
    """
    syncer refresh orders 17 18
    syncer refresh orders 17 --token l:16/B374D848
    syncer refresh orders 17 --url http://127.0.0.1:8080
    """,
    exits={0: "every sink has the documents", 1: "a document was refused and has a dead letter now"},
)
@click.argument("model")
@click.argument("keys", metavar="KEY...", nargs=-1, required=True)
@click.option("--token", default="now", show_default=True, help=f"The commit to show: {EXAMPLES}.")
@click.option("--url", metavar="URL", help="Address of a daemon that does the work.", show_default="this process")
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    show_default="setting refresh.timeout",
    help="Time after which the command gives up.",
)
@as_json
@click.pass_context
def refresh(
    ctx: click.Context,
    context: Context,
    model: str,
    keys: Sequence[str],
    token: str,
    url: str | None,
    timeout: float | None,
    as_json: bool,
) -> None:
    """Render documents now and write them to every sink. KEY is a document's id.

    The documents show PostgreSQL as it is now. If --token names a transaction that is still open, the command first
    waits for its commit. `syncer wait --help` describes tokens.

    The command needs PostgreSQL, Kafka and the sinks. It does not need Kafka Connect, the stream of changes
    or a running daemon.

    With --url, a daemon does the work. This is faster, because the daemon has already opened the read model. The
    command sends http.write_token to the daemon.
    """
    config = context.config
    seconds = config.refresh.timeout if timeout is None else timeout
    body: dict[str, Any] = {"keys": list(keys), "token": token, "timeout": seconds}
    try:
        if url:
            done = refresh_through(config, url, model, body, seconds)
        else:
            [declared] = loader.load_declared(config, [model])
            done = refresh_here(config, declared, open_registry(config), body)
    except Refused as error:
        if error.status is not HTTPStatus.UNPROCESSABLE_ENTITY:
            raise
        output.echo_error(error)
        ctx.exit(output.FINDING)
    if as_json:
        output.echo_json(asdict(done))
    else:
        output.echo(f"{model}: {counted(done.refreshed, 'document')} refreshed, as of {done.snapshot_at}")
