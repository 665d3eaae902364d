"""Implements `syncer serve`: pushes changes in a process of its own."""

from __future__ import annotations

from collections.abc import Sequence

from syncer.cli.context import Context, command, models_argument
from syncer.registry import loader
from syncer.runtime.serve import ServeProcess
from syncer.telemetry import logs


@command(
    "serve",
    """
    syncer serve
    SYNCER_HTTP__PORT=8081 SYNCER_PUSH__MAX_CLIENTS=2000 SYNCER_HTTP__MAX_CONNECTIONS=2100 syncer serve orders
    """,
    exits={0: "stopped by SIGTERM or Ctrl-C", 3: "no read model has a Kafka sink"},
)
@models_argument
def serve(context: Context, models: Sequence[str]) -> None:
    """Push changes of documents to clients until SIGTERM or Ctrl-C.

    This is the HTTP server of `syncer run`, without the part that writes documents. It reads the topics of the read
    models that have a Kafka sink. It needs no server other than Kafka. Use it for many clients. They then take no CPU
    time from the daemons that write documents.

    It serves /models/MODEL/changes, /metrics, /livez, /readyz and /status at http.host and http.port. /wait and
    /models/MODEL/refresh are served by `syncer run` only.
    """
    config = context.config
    logs.configure(config.log.level, config.log.format)
    ServeProcess(config, *loader.load_valid(config, models)).run()
