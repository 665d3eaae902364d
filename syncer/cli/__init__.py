"""The command line, `syncer`: a file a command. What it says is for people; `--json` is for programs."""

from __future__ import annotations

import errno
import gc
import importlib
from typing import Any

import click

import syncer
from syncer.cli import context, output
from syncer.errors import Fatal, SyncerError

COMMANDS = (
    "check",
    "explain",
    "preview",
    "connectors",
    "backfill",
    "run",
    "status",
    "verify",
    "dlq",
    "resync",
    "config",
)
"""Each is in the module of its name, which is imported when the command, or the list of all, is asked for."""

_GC_THRESHOLDS = (50_000, 20, 20)
"""A batch is thousands of small objects that live until it is settled. To look through them every 700
allocations takes a fifth of the time (measured), and finds nothing: there are no cycles among them."""

EXIT_CODES = """\
\b
Exit codes:
  0  done, nothing to report
  1  a finding: an error in a check, a difference, a document that is not there
  2  wrong usage of the command line
  3  an error that needs an operator
  4  a server is away or busy: the same command can succeed later"""


class Commands(click.Group):
    """Finds commands by `COMMANDS`, and says errors of ours as text instead of a traceback; ends without one
    when its output is not taken."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        found: click.Command = getattr(importlib.import_module(f"{__name__}.{cmd_name}"), cmd_name)
        return found

    def invoke(self, ctx: click.Context) -> Any:
        shared = ctx.ensure_object(context.Context)
        try:
            try:
                return super().invoke(ctx)
            except SyncerError as error:
                if shared.debug:
                    raise
                output.echo_error(error)
                ctx.exit(output.exit_code(error))
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.ENOSPC):
                raise
            output.discard_stdout()
            if error.errno == errno.EPIPE:  # whoever read it, as `head`, has seen enough
                ctx.exit(output.PIPE)
            output.echo_error(Fatal("the output cannot be written", why=str(error.strerror)))
            ctx.exit(output.OPERATOR)


@click.group(
    "syncer",
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=f"""\
\b
Examples:
  syncer check                          what has to be done before it can run?
  syncer connectors apply               set up Debezium
  syncer backfill                       fill the read models
  syncer run                            keep them in step
  syncer -c prod.yaml check --json      for programs
{EXIT_CODES}

Every setting can also come from the environment, as SYNCER_<SECTION>__<KEY>; see `syncer config show`.""",
)
@context.common
@click.version_option(syncer.__version__, "-V", "--version", message="syncer %(version)s")
def main() -> None:
    """Keeps Elasticsearch and Redis read models in step with PostgreSQL.

    The options below can be given before or after the command.
    """
    gc.set_threshold(*_GC_THRESHOLDS)
