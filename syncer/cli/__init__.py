"""Implements the command line `syncer`, one module per command. Output is for people; `--json` is for programs."""

from __future__ import annotations

import errno
import gc
import importlib
from typing import Any

import click
from click.exceptions import NoSuchCommand

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
    "serve",
    "status",
    "wait",
    "refresh",
    "top",
    "verify",
    "trace",
    "dlq",
    "resync",
    "export",
    "config",
)
"""Each command is in the module of the same name. The module is imported when the command or the list is needed."""

_GC_THRESHOLDS = (50_000, 20, 20)
"""Python's default threshold is 700 allocations. A batch has thousands of small objects that live until its offsets
are committed. Scanning them that often took a fifth of the run time (measured). It frees nothing, because these
objects have no reference cycles."""

EXIT_CODES = """\
\b
Exit codes:
  0  success, nothing to report
  1  the command worked and found a problem, e.g. an error in check or a difference in verify
  2  wrong usage of the command line
  3  an error that an operator has to fix
  4  a server is unreachable or busy; the same command can succeed later"""


class Commands(click.Group):
    """Loads commands by name and turns their errors into messages and exit codes.

    There is no traceback either if standard output is closed or its disk is full.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        found: click.Command = getattr(importlib.import_module(f"{__name__}.{cmd_name}"), cmd_name)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except NoSuchCommand as error:  # click compares the name with the modules that are already imported
            raise NoSuchCommand(error.command_name, possibilities=COMMANDS, ctx=ctx) from None

    def invoke(self, ctx: click.Context) -> Any:
        gc.set_threshold(*_GC_THRESHOLDS)  # before the import of the command, of which it takes a tenth
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
            if error.errno == errno.EPIPE:  # e.g. `head` has read enough lines
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
  syncer check                          list what is missing before the syncer can run
  syncer connectors apply               set up topics, publication and Debezium connector
  syncer backfill                       write all documents once
  syncer run                            keep the read models in sync
  syncer -c prod.yaml check --json      print JSON for programs

{EXIT_CODES}

Every setting can also come from an environment variable named SYNCER_<SECTION>__<KEY>. `syncer config show` prints
all settings and where each value comes from.""",
)
@context.common
@click.version_option(syncer.__version__, "-V", "--version", message="syncer %(version)s")
def main() -> None:
    """Keep read models in sync with PostgreSQL.

    Read models are documents in Elasticsearch, Redis, PostgreSQL tables or Kafka topics. Each of the options below can
    be given before or after the command.
    """
