"""Implements `syncer top`: shows the values of a daemon's page in the terminal."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from typing import Any

import click
import orjson
import urllib3
from pydantic import SecretStr
from rich.live import Live

from syncer.cli import output, top_screen
from syncer.cli.context import Context, command
from syncer.config.schema import HttpSettings
from syncer.errors import Fatal, Retry

_TIMEOUT = 5.0  # seconds
# Addresses to listen on, and where a program on the same machine reaches them.
_LOCAL = {"0.0.0.0": "127.0.0.1", "::": "::1"}


@command(
    "top",
    """
    syncer top
    syncer top --url http://10.0.0.7:8080
    syncer top | head -5                  print the values once
    """,
    exits={0: "ended with q or Ctrl-C, or the values were printed once", 4: "no daemon answers"},
)
@click.option(
    "--url", metavar="URL", help="Address of the daemon.", show_default="settings http.host and http.port", default=None
)
@click.option(
    "--interval",
    type=click.FloatRange(0.5, 3600),
    metavar="SECONDS",
    default=2,
    show_default=True,
    help="Time between two updates.",
)
def top(context: Context, url: str | None, interval: float) -> None:
    """Show the live state of a daemon in the terminal.

    The values are those of the daemon's page: state, lag, rates, progress and dead letters of each read model, and the
    next commands. The small chart on the right shows the lag of the last 15 minutes. A narrow terminal shows fewer
    columns. Press q or Ctrl-C to end.

    Without a terminal, the command prints the values once and ends. If the daemon requires a token, set
    http.read_token_file in the configuration, or SYNCER_HTTP__READ_TOKEN.
    """
    daemon = _Daemon(*_address(context, url))
    screen = top_screen.Screen()
    screen.show(daemon.read(0.0))
    console = output.console()
    if not console.is_terminal:
        console.print(screen.render(console), soft_wrap=False)
        return
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # so that the terminal is restored
    live = Live(screen.render(console), console=console, screen=True, auto_refresh=False)
    with contextlib.suppress(KeyboardInterrupt), _keys() as quits, live:
        while not quits(interval):
            try:
                screen.show(daemon.read(screen.last))
            except Retry as error:
                screen.show_silence(error)
            live.update(screen.render(console), refresh=True)


def _address(context: Context, url: str | None) -> tuple[str, SecretStr | None]:
    """Returns the URL of the daemon, and the token to send. With `url`, a configuration is not necessary."""
    http: HttpSettings | None = None
    try:
        http = context.config.http
    except Fatal:
        if url is None:
            raise
    token = (http.read_token or http.write_token) if http else None
    if url is not None:
        return url.rstrip("/"), token
    assert http is not None
    if not http.port:
        hint = "syncer top --url URL; the log of the daemon has its URL in the entry `daemon started`"
        raise Fatal("the port of the daemon is not known", where="http.port 0", hint=hint)
    host = _LOCAL.get(http.host, http.host)
    return f"http://[{host}]:{http.port}" if ":" in host else f"http://{host}:{http.port}", token


class _Daemon:
    """Reads `/overview` of one daemon."""

    def __init__(self, url: str, token: SecretStr | None) -> None:
        self.url = url
        self._headers = {"Authorization": f"Bearer {token.get_secret_value()}"} if token else {}
        self._pool = urllib3.PoolManager(timeout=_TIMEOUT, retries=False)

    def read(self, since: float) -> dict[str, Any]:
        """Returns the values. since: as in `runtime.overview.Overview.read`.

        Raises Retry if no daemon answers, Fatal if it refuses or is no daemon.
        """
        try:
            response = self._pool.request("GET", f"{self.url}/overview?since={since}", headers=self._headers)
        except urllib3.exceptions.LocationValueError as error:
            raise Fatal("the URL is not valid", where=self.url, why=str(error)) from error
        except urllib3.exceptions.HTTPError as error:
            hint = "syncer run, or name the address of a daemon: syncer top --url URL"
            raise Retry("no daemon answers", where=self.url, why=_cause(error), hint=hint) from error
        if response.status in (401, 403):
            hint = "set http.read_token_file in the configuration, or SYNCER_HTTP__READ_TOKEN"
            raise Fatal("the daemon refuses the request", where=self.url, why=_reason(response), hint=hint)
        if response.status in (429, 503):
            raise Retry("the daemon is busy", where=self.url, why=_reason(response))
        try:
            found: dict[str, Any] = orjson.loads(response.data)
            if response.status == 200 and "models" in found:
                return found
        except orjson.JSONDecodeError:
            pass
        why = f"status {response.status} for /overview"
        raise Fatal("this is not a daemon of this version", where=self.url, why=why, hint="syncer top --url URL")


def _cause(error: urllib3.exceptions.HTTPError) -> str:
    """Returns the text of an error without the object that urllib3 puts in front of it."""
    return str(error).rpartition(": ")[2] or type(error).__name__


def _reason(response: urllib3.BaseHTTPResponse) -> str:
    with contextlib.suppress(orjson.JSONDecodeError, TypeError, KeyError):
        return str(orjson.loads(response.data)["error"])
    return f"status {response.status}"


@contextlib.contextmanager
def _keys() -> Iterator[Callable[[float], bool]]:
    """Yields a function that waits for the given seconds, or until q is pressed. It returns whether it was."""
    if not sys.stdin.isatty():
        yield _sleep
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)

    def quits(seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if select.select([descriptor], [], [], left)[0] and os.read(descriptor, 1) in (b"q", b"Q", b""):
                return True
        return False

    try:
        tty.setcbreak(descriptor)
        yield quits
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _sleep(seconds: float) -> bool:
    time.sleep(seconds)
    return False
