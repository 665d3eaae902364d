"""Runs a command on its own pseudo-terminal, as a user does in a terminal window."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_STYLE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\]8;[^\x1b]*\x1b\\")


@dataclass(frozen=True)
class Result:
    """The exit status of a command, and the text on its terminal without styles."""

    status: int
    text: str


def run(
    command: Sequence[str],
    *,
    cwd: Path,
    environment: Mapping[str, str] | None = None,
    columns: int = 120,
    react: Callable[[str], str] = lambda _: "",
) -> Result:
    """Runs a command to its end in a new session with its own controlling terminal.

    Afterwards it closes the terminal, as a user closes a window: all processes of the session get SIGHUP. It answers
    questions with Enter.

    react: called after each output with all text so far, without styles. Returns keys to press, such as `q`.
    """
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    with subprocess.Popen(
        ["setsid", "--ctty", "--wait", *command],
        cwd=cwd,
        env=environment,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
    ) as process:
        os.close(terminal)
        shown = b""
        try:
            while part := _read(controller):
                shown += part
                if re.search(rb"\[y/N\]:? $", shown):
                    os.write(controller, b"\n")  # Enter chooses the default answer
                if keys := react(_STYLE.sub("", shown.decode(errors="ignore"))):
                    os.write(controller, keys.encode())
        finally:
            os.close(controller)
    text = _STYLE.sub("", shown.decode()).replace("\r\n", "\n")
    return Result(process.returncode, text)


def _read(descriptor: int) -> bytes:
    """Returns the next output on the terminal. It is empty when no process has the terminal open."""
    try:
        return os.read(descriptor, 65536)
    except OSError:  # Linux: EIO
        return b""
