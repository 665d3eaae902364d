"""Implements `syncer wait`: waits until the documents of a read model show a commit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from syncer.cli import output
from syncer.cli.context import Context, as_json, command
from syncer.freshness.tokens import EXAMPLES
from syncer.operations.through_daemon import default_url, wait_through
from syncer.registry import loader

_LONGEST = 60.0
"""Seconds. A daemon refuses longer timeouts."""


@command(
    "wait",
    """
    syncer wait orders                       everything that is committed now
    syncer wait orders --token x:7341        one transaction
    syncer wait orders --searchable --timeout 30 && curl "$URL/orders/_search"
    """,
    exits={
        0: "the documents show the commit",
        1: "the timeout passed",
        2: "malformed token, or unknown read model",
        3: "the transaction was rolled back, or the token is of another server",
        4: "no daemon answers",
    },
)
@click.argument("model")
@click.option("--token", default="now", show_default=True, help=f"The commit to show: {EXAMPLES}.")
@click.option(
    "--timeout",
    type=click.FloatRange(0, _LONGEST),
    default=5.0,
    metavar="SECONDS",
    show_default=True,
    help="Time after which the command gives up.",
)
@click.option("--searchable", is_flag=True, help="Wait also until searches find the documents.")
@click.option("--url", metavar="URL", help="Address of a daemon.", show_default="http.host and http.port")
@as_json
@click.pass_context
def wait(
    ctx: click.Context,
    context: Context,
    model: str,
    token: str,
    timeout: float,
    searchable: bool,
    url: str | None,
    as_json: bool,
) -> None:
    """Wait until every sink shows a commit.

    The command asks a running daemon, and sends http.read_token to it. When every sink shows the commit, the command
    prints how old a document can be.

    A token is `x:` and a transaction id, `l:` and a position in the WAL, or `now`. The part after `@` names the
    PostgreSQL server and its timeline. docs/freshness.md has the SQL that returns a token.
    """
    config = context.config
    if url is None:
        loader.load_declared(config, [model])  # a wrong name is an error of this command
    address = url or default_url(config.http)
    reached, answer = wait_through(config, address, model, token, timeout, searchable=searchable)
    if as_json:
        output.echo_json({"shown": reached, **answer})
    else:
        output.echo(f"{model}: {_reached(answer) if reached else _timed_out(answer, timeout)}")
    ctx.exit(0 if reached else output.FINDING)


def _reached(answer: Mapping[str, Any]) -> str:
    watermark = answer["watermark"]
    return (
        f"the commit is shown. The watermark is of {watermark['taken_at']} (clock {watermark['clock']}),"
        f" no document is older than {answer['staleness_seconds']:.1f} s"
    )


def _timed_out(answer: Mapping[str, Any], timeout: float) -> str:
    wanted, reached = (answer.get(name) or "unknown" for name in ("wanted", "reached"))
    why = answer.get("reason") or "the commit has not reached every sink yet"
    return f"the commit is not shown after {timeout:g} s: {why}\n  wanted clock {wanted}, reached {reached}"
