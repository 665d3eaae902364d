"""Shows the progress of long operations: bars on a terminal, otherwise a plain line every few seconds."""

from __future__ import annotations

import re
import time
from typing import Self

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.text import Text

from syncer.cli import output
from syncer.quantities import counted

EVERY = 3.0
"""Seconds between two plain lines of one label."""
_NUMBER = re.compile(r"\d[\d,]*")


class Progress:
    """Shows one bar per label, on standard error, so that results can be piped. Use it as a context manager.

    unit: the counted noun in singular, e.g. `document`.
    """

    def __init__(self, unit: str, *, console: Console | None = None) -> None:
        self.unit = unit
        self._console = console or output.console(err=True)
        self._bars: Bars | None = None
        self._tasks: dict[str, _Task] = {}
        if self._console.is_terminal:
            self._bars = Bars(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[unit]} {task.fields[rate]}", markup=False),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}", style="dim", markup=False),
                console=self._console,
            )

    def __enter__(self) -> Self:
        if self._bars:
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars:
            self._bars.stop()

    def update(self, label: str, done: int, total: int, note: str = "", *, unit: str = "") -> None:
        """Shows the current state. Frequent calls are cheap.

        Plain lines are printed only if something changed, and `EVERY` seconds apart unless the note is new.

        done, total: absolute numbers. total is 0 while it is unknown.
        unit: the counted noun of this label, if it is another one.
        """
        unit = unit or self.unit
        task = self._tasks.get(label)
        if task is None:
            task = self._tasks[label] = _Task(self._bars, label)
        now = time.monotonic()
        rate = task.rate(done, now)
        if self._bars and task.bar is not None:
            shown = f"{rate:,.0f}/s" if rate else ""
            self._bars.update(
                task.bar,
                completed=done,
                total=total or None,
                rate=shown,
                note=note,
                unit=counted(total or done, unit).partition(" ")[2],
            )
            return
        complete = 0 < total <= done
        # Numbers are ignored: a note such as `45 changes left` is another one at each call.
        is_new = (complete and not task.complete) or (note and _NUMBER.sub("", note) != _NUMBER.sub("", task.note))
        changed = (done, total, note) != task.printed
        if is_new or (changed and now - task.printed_at >= EVERY):
            task.printed_at, task.printed = now, (done, total, note)
            task.note, task.complete = note, complete
            click.echo(self._line(label, done, total, rate, note, unit), err=True)

    def echo(self, text: str) -> None:
        """Prints a line that stays on the screen, above the bars."""
        text = output.runnable(text)
        if self._bars:
            self._console.print(Text(text))
        else:
            click.echo(text, err=True)

    def _line(self, label: str, done: int, total: int, rate: float, note: str, unit: str) -> str:
        parts = [f"{label}: {counted(done, unit)}"]
        if total:
            parts = [f"{label}: {done:,} of {counted(total, unit)} ({100 * done // total}%)"]
        if rate:
            parts.append(f"{rate:,.0f}/s")
            if total > done:
                parts.append(f"{output.duration((total - done) / rate)} left")
        if note:
            parts.append(note)
        return ", ".join(parts)


class _Task:
    """Remembers when the line of one label was printed, and where its rate starts."""

    def __init__(self, bars: Bars | None, label: str) -> None:
        self.bar: TaskID | None = bars.add_task(label, total=None, rate="", note="", unit="") if bars else None
        self.printed_at, self.note, self.complete = -EVERY, "", False
        self.printed: tuple[int, int, str] | None = None
        self._first: tuple[float, int] | None = None

    def rate(self, done: int, now: float) -> float:
        """Returns the rate per second since the first call. Work that an earlier run finished does not count."""
        if self._first is None:
            self._first = now, done
        began, first = self._first
        return (done - first) / (now - began) if done > first and now > began else 0.0
