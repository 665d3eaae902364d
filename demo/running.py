"""Starts servers and programs that stop together, for the demo and the examples."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import urllib3

import devstack
from demo import place, screen
from demo.screen import PROGRAMS, Failed, note
from devstack import process, stack
from devstack.system import Account


@contextmanager
def servers(home: Path, *, hint: str) -> Iterator[devstack.Stack]:
    """Starts new, empty servers. At the end, stops and deletes them, even after an error, unless they are kept.

    hint: what to do if servers of an earlier run are still running in `home`. Raises Failed with it.
    """
    if (home / stack.STATE).exists():
        left = devstack.load(home)
        if left.running():
            raise Failed(f"The servers of {shown(home)} are already running. {hint}")
        left.remove()
    started = devstack.start(home, ephemeral=True, echo=note)
    try:
        yield started
    finally:
        if started.reaper:
            started.remove()


def start_daemon(started: devstack.Stack, home: Path) -> None:
    """Starts `syncer run` in the background with its log in a file, and waits until it is ready.

    The daemon stops together with the servers.
    """
    log = home / "syncer.log"
    screen.command(f"syncer run > {shown(log)} 2>&1 &")
    url = f"http://127.0.0.1:{os.environ['SYNCER_HTTP__PORT']}/readyz"
    start(started, "syncer", [str(PROGRAMS / "syncer"), "run"], log, url)
    note(f"ready: {url}")


def start(started: devstack.Stack, name: str, command: list[str], log: Path, url: str) -> None:
    """Starts a program that stops together with the servers, and waits until `url` answers with status 200."""
    log.unlink(missing_ok=True)
    ourselves = Account(os.geteuid(), os.getegid(), "")
    program = process.spawn(command, account=ourselves, env=os.environ, cwd=place.ROOT, log=log)
    started.add_client(name, program)
    deadline = time.monotonic() + 60
    while not _ready(url):
        if not program.alive() or time.monotonic() > deadline:
            raise Failed(f"{' '.join(command)} did not become ready. The end of its log:\n{process.tail(log)}")
        time.sleep(0.1)


def shown(path: Path) -> str:
    """Returns a path relative to the current folder, if it is inside."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _ready(url: str) -> bool:
    try:
        return urllib3.request("GET", url, timeout=2, retries=False).status == 200
    except urllib3.exceptions.HTTPError:
        return False


def use_shop(dsn: str, seconds: float, rate: int = 200) -> None:
    """Runs transactions in the shop for some seconds."""
    program = ["-m", "demo.shop", "--dsn", dsn, "--seconds", f"{seconds:g}", "--rate", str(rate)]
    screen.command(f"python {' '.join(program)}")
    if subprocess.run([sys.executable, *program], cwd=place.ROOT, check=False).returncode:
        raise Failed("The program that uses the shop failed; its message is above.")
