"""Runs a command on a pseudo-terminal of its own, as a user does in a window."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_STYLE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\]8;[^\x1b]*\x1b\\")


@dataclass(frozen=True)
class Shown:
    """How a command ended, and what the terminal showed, without styles."""

    status: int
    text: str


def run(
    command: Sequence[str], *, cwd: Path, environment: Mapping[str, str] | None = None, columns: int = 120
) -> Shown:
    """Run it to its end in a session whose controlling terminal is new. Then close the terminal, as a window
    is closed: what belongs to the session gets SIGHUP. Questions are answered with Enter."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    with subprocess.Popen(
        ["setsid", "--ctty", "--wait", *command], cwd=cwd, env=environment, stdin=its, stdout=its, stderr=its
    ) as process:
        os.close(its)
        shown = b""
        try:
            while part := _read(ours):
                shown += part
                if re.search(rb"\[y/N\]:? $", shown):
                    os.write(ours, b"\n")  # Enter, as the question proposes
        finally:
            os.close(ours)
    text = _STYLE.sub("", shown.decode()).replace("\r\n", "\n")
    return Shown(process.returncode, text)


def _read(descriptor: int) -> bytes:
    """What was written to the terminal; empty once no process has it open any more."""
    try:
        return os.read(descriptor, 65536)
    except OSError:  # Linux: EIO
        return b""
