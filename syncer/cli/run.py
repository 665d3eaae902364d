"""`syncer run`: the daemon."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from syncer.cli.context import Context, command, models_argument
from syncer.registry import loader
from syncer.runtime.daemon import DaemonProcess
from syncer.telemetry import logs


@command(
    "run",
    """
    syncer run
    syncer run orders customers          only these; others may run elsewhere
    SYNCER_HTTP__HOST=0.0.0.0 syncer run --log-level debug
    """,
)
@models_argument
def run(context: Context, models: Sequence[str]) -> None:
    """Keep the read models in step, until SIGTERM or Ctrl-C.

    It waits for servers that are away, and goes on where it was. A read model that has to stop leaves the
    others running. /metrics, /livez, /readyz and /status are served at http.host and http.port.
    """
    config = context.config
    logs.configure(config.log.level, config.log.format)
    app = DaemonProcess(config, *loader.load_valid(config, models))
    app.run()
    if app.unfinished:
        # Python would wait for the clients that those threads are in, and they for their servers.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
