"""Processes that tests start by fork end with the tests, also if the tests are killed."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
PROGRAM = """
import os, sys
from pathlib import Path
from tests.harness.fork import fork
log = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
servers = {"SYNCER_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1", "SYNCER_HTTP__PORT": "0"}
print(fork(["run", "--config", "config/syncer.yaml"], os.environ | servers, log, Path.cwd()).pid, flush=True)
sys.stdin.read()
"""
_PATIENCE = 30.0


def test_a_daemon_does_not_outlive_tests_that_are_killed(tmp_path: Path) -> None:
    tests = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, tmp_path / "log"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert tests.stdout is not None
    daemon = os.pidfd_open(int(tests.stdout.readline()))
    try:
        assert select.select([daemon], [], [], 0.0)[0] == [], "the daemon runs"
        tests.send_signal(signal.SIGKILL)
        assert select.select([daemon], [], [], _PATIENCE)[0] == [daemon], "the daemon has ended"
    finally:
        tests.kill()
        tests.communicate()
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(daemon, signal.SIGKILL)
        os.close(daemon)
