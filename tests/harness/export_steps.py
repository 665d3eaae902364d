"""Runs exports in child processes, and kills or freezes each at one step of its work on the files of the table.

    python -m tests.harness.export_steps '{"folder": …, "mode": "kill"}'

The first child is cut at its first operation on a file, the second child at its second one, and so on, until a child
ends without a cut. Each has a table of its own: FOLDER/1, FOLDER/2, …. Prints the number of cuts. All export the same
topic in memory, with `RECORDS` records in two partitions.

    kill     SIGKILL; then another child finishes the work
    freeze   SIGSTOP; another child does the work; then SIGCONT, and the first child has to end, too

`cut.c` cuts the process. It is a library for LD_PRELOAD (`preloaded`), so the code of the export is not changed.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Collection
from pathlib import Path
from threading import Event

import pytest

from syncer.declaration.compiled import Field
from syncer.export import exporter
from syncer.export.appender import Table
from syncer.export.columns import columns
from syncer.export.delta import DeltaLog
from syncer.export.exporter import Batching, Exporter
from syncer.export.location import locate
from tests.unit.export.delta_model import TrustingAppender
from tests.unit.serving.push.memory_topic import MemoryTopic

FIELDS = (Field("n", "bigint", many=False), Field("name", "text", many=False))
RECORDS = 6


def topic() -> MemoryTopic:
    """Returns a topic with `RECORDS` records, the last of them a delete."""
    made = MemoryTopic()
    made.lossy = ""
    for n in range(RECORDS - 1):
        made.write("ab"[n % 2], {"n": n, "name": "x"})
    made.write("a", None)
    return made


class TrustingLog(DeltaLog):
    """The weakened rule: begins at the first record, and trusts that Delta refuses the transactions that it has."""

    def open(self) -> None:
        super().open()
        vars(exporter)["Appender"] = TrustingAppender

    def next_offsets(self, partitions: Collection[int]) -> dict[int, int]:
        return {}


def preloaded(folder: Path) -> dict[str, str]:
    """Compiles the library. Returns the environment with which a process loads it."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler, which builds the library that stops a process at a step")
    library = folder / "cut.so"
    source = Path(__file__).with_name("cut.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    return os.environ | {"LD_PRELOAD": str(library), "SYNCER_CUT": str(library)}


def open_log(table: str, topic_id: str, log: type[DeltaLog] = DeltaLog) -> DeltaLog:
    """Opens the table of a topic. Creates it if it is missing."""
    opened = log(locate(table, os.environ), columns(FIELDS, "steps"), model="steps", topic_id=topic_id)
    opened.open()
    return opened


def export(table: str, log: type[DeltaLog] = DeltaLog, rows: int = RECORDS // 2) -> None:
    """Exports the topic until the table has all of its records. rows: in each commit."""

    def open_table(topic_id: str) -> Table:
        return open_log(table, topic_id, log)

    batching = Batching(rows, 60)
    Exporter(topic(), open_table, batching, stop=Event(), report=lambda _: None).run(until_caught_up=True)


def child(work: Callable[[], None], arm: Callable[[], None] = lambda: None) -> int:
    """Runs work in a child. Returns its process id."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            arm()
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return pid


def ended(pid: int) -> int:
    """Waits for a child. Returns its exit status; the negative number of a signal that ended or stopped it."""
    _, status = os.waitpid(pid, os.WUNTRACED)
    return -os.WSTOPSIG(status) if os.WIFSTOPPED(status) else os.waitstatus_to_exitcode(status)


def main(folder: str, mode: str, log: str = "DeltaLog") -> None:
    library = ctypes.CDLL(os.environ["SYNCER_CUT"])
    number = signal.SIGKILL if mode == "kill" else signal.SIGSTOP
    cuts = 0
    while True:
        table = f"{folder}/{cuts + 1}"

        def work(table: str = table) -> None:
            export(table, globals()[log])

        def arm(table: str = table, at: int = cuts + 1) -> None:
            library.cut_arm(table.encode(), at, number)

        first = child(work, arm)
        status = ended(first)
        if status == 0:
            break
        assert status == -number, f"cut {cuts + 1}: {status}"
        cuts += 1
        assert ended(child(work)) == 0, f"cut {cuts}: the second process failed"
        if mode == "freeze":
            os.kill(first, signal.SIGCONT)
            assert ended(first) == 0, f"cut {cuts}: the frozen process failed"
    print(cuts)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
