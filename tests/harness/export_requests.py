"""Runs exports to an object store in child processes, and kills or freezes each at one request that writes.

    python -m tests.harness.export_requests '{"upstream": URL, "prefix": …, "mode": "kill", "moment": "after"}'

The first child is cut at its first request that writes, the second child at its second one, and so on, until a child
ends without a cut. Each has a table of its own: s3://lake/PREFIX/1, …. Prints the number of cuts.

The commits of the other child have fewer rows. So a commit that replaces one of another child changes the table.

    kill after      SIGKILL; the store has carried out the request. Then another child finishes the work
    freeze before   SIGSTOP; another child does the work. Then the store gets the request, and the first child continues
    freeze after    SIGSTOP; the store has carried out the request. Another child does the work. The first one continues

overwrites: the folder of the bucket. Then the store ignores `If-None-Match`: the weakened rule of the store.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from threading import Event
from urllib.parse import urlsplit

from tests.harness import export_steps
from tests.harness.export_steps import RECORDS, child, ended, export
from tests.harness.fault_proxy import Answer, Request, fault_proxy
from tests.harness.object_store import BUCKET, settings


class Cut:
    """Stops a process at one of its requests. Requests are counted from 1."""

    def __init__(self, at: int, number: signal.Signals, moment: str) -> None:
        self._at, self._number, self._moment = at, number, moment
        self._count = 0
        self._pid = 0
        self._target: Request | None = None
        self._known, self._resume = Event(), Event()

    def watch(self, pid: int) -> None:
        """Sets the process to stop. Its requests wait for this."""
        self._pid = pid
        self._known.set()

    def resume(self) -> None:
        """Lets the request of a frozen process continue."""
        self._resume.set()

    def request(self, request: Request) -> Answer:
        """Decides about a request that the store has not got yet."""
        if request.method in ("GET", "HEAD"):
            return "pass"
        self._count += 1
        if self._count != self._at:
            return "pass"
        if self._moment == "after":
            self._target = request
            return "pass"
        return self._stop()

    def answered(self, request: Request) -> None:
        """Stops the process if the store has just carried out the request of the cut."""
        if request is self._target:
            self._stop()

    def _stop(self) -> Answer:
        self._known.wait()
        os.kill(self._pid, self._number)
        if self._number == signal.SIGKILL:
            return "cut"
        self._resume.wait()
        return "pass"


def main(
    upstream: str, prefix: str, mode: str, moment: str, log: str = "DeltaLog", overwrites: str | None = None
) -> None:
    number = signal.SIGKILL if mode == "kill" else signal.SIGSTOP
    kind = getattr(export_steps, log)
    cuts = 0
    with fault_proxy(upstream, elasticsearch=False) as proxy:
        os.environ |= settings(proxy.url)
        while True:
            cut = Cut(cuts + 1, number, moment)

            def rule(request: Request, cut: Cut = cut) -> Answer:
                answer = cut.request(request)
                if overwrites and "if-none-match" in request.headers:
                    key = urlsplit(request.path).path.removeprefix(f"/{BUCKET}/")
                    (Path(overwrites) / key).unlink(missing_ok=True)
                return answer

            proxy.rule, proxy.answered = rule, cut.answered

            table = f"s3://{BUCKET}/{prefix}/{cuts + 1}"

            def work(table: str = table) -> None:
                export(table, kind)

            def other(table: str = table) -> None:
                export(table, kind, RECORDS // 3)

            first = child(work)
            cut.watch(first)
            status = ended(first)
            if status == 0:
                break
            assert status == -number, f"cut {cuts + 1}: {status}"
            cuts += 1
            assert ended(child(other)) == 0, f"cut {cuts}: the second process failed"
            if mode == "freeze":
                cut.resume()
                os.kill(first, signal.SIGCONT)
                assert ended(first) == 0, f"cut {cuts}: the frozen process failed"
    print(cuts)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
