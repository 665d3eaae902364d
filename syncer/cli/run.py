"""Implements `syncer run`: runs the daemon."""

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
    syncer run orders customers          only these read models; others can run elsewhere
    SYNCER_HTTP__HOST=0.0.0.0 SYNCER_HTTP__READ_TOKEN_FILE=/run/secrets/http syncer run
    syncer run --log-level debug
    """,
    exits={0: "stopped by SIGTERM or Ctrl-C", 3: "stopped by a signal, after every read model had failed"},
)
@models_argument
def run(context: Context, models: Sequence[str]) -> None:
    """Keep the read models in sync until SIGTERM or Ctrl-C.

    This is the daemon. Run it as a service, on any number of machines. The daemons share the work through Kafka's
    consumer groups. Without arguments, a daemon runs all read models.

    It waits for unreachable servers and continues where it stopped. If one read model has to stop, the others keep
    running. The daemon serves a page, /metrics, /livez, /readyz and /status over HTTP at http.host and http.port.
    """
    config = context.config
    logs.configure(config.log.level, config.log.format)
    app = DaemonProcess(config, *loader.load_valid(config, models))
    app.run()
    if app.unfinished:
        # A normal exit would wait for these threads. They are blocked in clients that wait for their servers.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
