"""Draws the screen of `syncer top` from the values of `/overview`."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.measure import Measurement
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from syncer.cli import output
from syncer.errors import Retry
from syncer.quantities import counted

_BLOCKS = "▁▂▃▄▅▆▇█"
_BUCKETS = 30
_STYLES = {"running": "green", "starting": "blue", "waiting": "yellow", "failed": "bold red", "stopped": "red"}
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


_LINE = "lag of 15 minutes"
_LEFT = ("model", "state", "verified", _LINE)
_DROPPED = (_LINE, "verified", "writes/s", "changes/s", "work", "dead letters")
"""The columns that are left out on a narrow terminal, in this order."""


class Screen:
    """Holds the last values, and the lag of the last 15 minutes."""

    def __init__(self) -> None:
        self._overview: dict[str, Any] = {}
        self._lags: dict[str, deque[tuple[float, float]]] = {}
        self._silence: tuple[float, Retry] | None = None
        self._answered = 0.0
        self.last = 0.0
        """The time of the last sample, in seconds since the Unix epoch."""

    def show(self, overview: dict[str, Any]) -> None:
        """Takes over the values of an answer."""
        self._overview, self._silence, self._answered = overview, None, time.time()
        history = overview["history"]
        self.last = max([self.last, *history["at"]])
        for name, columns in history["models"].items():
            lags = self._lags.setdefault(name, deque())
            lags.extend(
                (at, lag) for at, lag in zip(history["at"], columns.get("lag", ()), strict=False) if lag is not None
            )
            while lags and lags[0][0] < overview["now"] - history["kept"]:
                lags.popleft()

    def show_silence(self, error: Retry) -> None:
        """Keeps the values, and reports that the daemon does not answer."""
        self._silence = (self._silence or (self._answered, error))[0], error

    def render(self, console: Console) -> RenderableType:
        """Returns the screen. Leaves out columns that do not fit on the console."""
        lines = list(self._lines())
        parts = [self._head(), Text(), self._models(console), Text(), *lines, *([Text()] if lines else [])]
        parts.append(_source(self._overview["source"]))
        if console.is_terminal:
            parts += [Text(), Text("q: quit", style="dim")]
        return Group(*parts)

    def _head(self) -> RenderableType:
        overview = self._overview
        if self._silence:
            since, error = self._silence
            at, ago = time.strftime("%H:%M:%S", time.localtime(since)), output.duration(time.time() - since)
            return Text(f"The daemon does not answer since {at} ({ago}): {error.why or error.what}", style="bold red")
        process = overview["process"]
        where = f"daemon on {process['host']}, pid {process['pid']}, version {overview['version']}"
        at = time.strftime("%H:%M:%S", time.localtime(overview["now"]))
        return Text.assemble(("syncer top", "bold"), f"  {where}, at {at}")

    def _models(self, console: Console) -> Table:
        models = self._overview["models"]
        columns = {header: [cell(name, model) for name, model in models.items()] for header, cell in self._cells()}
        dropped = [header for header in _DROPPED if header in columns]
        while True:
            table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
            for header in columns:
                table.add_column(header, justify="left" if header in _LEFT else "right", overflow="fold")
            for row in zip(*columns.values(), strict=True):
                table.add_row(*row)
            if (
                not dropped
                or Measurement.get(console, console.options.update(max_width=10_000), table).maximum <= console.width
            ):
                return table
            del columns[dropped.pop(0)]

    def _cells(self) -> Iterator[tuple[str, Callable[[str, Mapping[str, Any]], Text]]]:
        """Yields the header of each column, and the function that makes its cell."""
        yield "model", lambda name, _: Text(name)
        yield "state", lambda _, model: Text(model["state"], style=_STYLES.get(model["state"], ""))
        if any("staleness_seconds" in model for model in self._overview["models"].values()):
            yield "staleness", lambda _, model: Text(_seconds(model.get("staleness_seconds")))
        yield "lag", lambda _, model: Text(_seconds(model["lag_seconds"]))
        yield "records", lambda _, model: Text(f"{model['lag_records']:,}")
        yield "work", lambda _, model: Text(f"{model['work_records']:,}")
        yield "changes/s", lambda _, model: Text(_rate(model["records_per_second"]))
        yield "writes/s", lambda _, model: Text(_rate(model["writes_per_second"]))
        yield "dead letters", lambda _, model: _letters(model["dead_letters"])
        yield "verified", lambda _, model: _verified(model.get("verification"), self._overview["now"])
        yield _LINE, lambda name, _: Text(self._line(name), style="cyan")

    def _line(self, name: str) -> str:
        """Returns the lag as a line of blocks. Its top is the highest lag, at least one second."""
        kept, now = self._overview["history"]["kept"], self._overview["now"]
        highest: list[float | None] = [None] * _BUCKETS
        for at, lag in self._lags.get(name, ()):
            bucket = min(_BUCKETS - 1, max(0, int((at - now + kept) / kept * _BUCKETS)))
            highest[bucket] = max(highest[bucket] or 0.0, lag)
        top = max([1.0, *(lag for lag in highest if lag is not None)])
        blocks = (" " if lag is None else _BLOCKS[min(7, int(8 * lag / top))] for lag in highest)
        return "".join(blocks) + f" max {_seconds(top)}"

    def _lines(self) -> Iterator[RenderableType]:
        """Yields reasons, progress and next commands of all read models."""
        for name, model in self._overview["models"].items():
            if model["reason"]:
                reason = " ".join(model["reason"].split())
                yield Text(reason if reason.startswith(name) else f"{name}: {reason}", style=_STYLES[model["state"]])
            if model["hint"]:
                yield Text(output.runnable(f"  → {model['hint']}"), style="bold")
            yield from _progress(name, model)
            for step in model["next_steps"]:
                yield Text.assemble(f"{name}: {step['text']} → ", (output.runnable(step["command"]), "bold"))
        for error in self._overview["broken"]:
            yield Text(f"invalid declaration: {' '.join(error['reason'].split())}", style="red")
        for finding in self._overview["source"]["findings"]:
            yield Text(" ".join(finding["reason"].split()), style="red")
            if finding["hint"]:
                yield Text(output.runnable(f"  → {finding['hint']}"), style="bold")


def _progress(name: str, model: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Yields a bar for each long operation of a read model that is under way."""
    backfill, resync, refresh = model.get("backfill") or {}, model.get("resync"), model.get("refresh")
    running = [("backfill", backfill)] if backfill.get("state") == "unfinished" else []
    if resync:
        running.append((f"resync to generation {resync['generation']}", resync))
    for what, one in running:
        percent, left = one["percent"], one["seconds_left"]
        at = "planning its ranges" if percent is None else f"{percent} %"
        rest = f", {output.duration(left)} left" if left is not None else ""
        if one.get("running") is False:
            rest = ", interrupted"
        row = Table.grid(padding=(0, 2, 0, 0))
        row.add_row(Text(f"{name}: {what}"), ProgressBar(100, percent or 0, width=30), Text(at + rest))
        yield row
    if refresh:
        items = counted(refresh["items_left"], "work item")
        yield Text(f"{name}: all documents are rendered again, {items} left: {refresh['why']}")


def _source(source: Mapping[str, Any]) -> Text:
    parts = [f"connector: {source['connector'] or 'unknown'}"]
    if source["late_seconds"]:
        parts.append(f"changes are not delivered since {_seconds(source['late_seconds'])}")
    if slot := source.get("slot"):
        limit = f" of {_bytes(slot['limit_bytes'])}" if slot["limit_bytes"] else ", no limit"
        parts.append(f"slot {slot['name']} retains {_bytes(slot['retained_bytes'])} of WAL{limit}")
        if slot["lost_in_seconds"] is not None:
            parts.append(f"at this rate it is lost in {output.duration(slot['lost_in_seconds'])}")
    return Text("; ".join(parts))


def _letters(open_letters: int | None) -> Text:
    return Text("?" if open_letters is None else f"{open_letters:,}", style="red" if open_letters else "")


def _verified(found: Mapping[str, Any] | None, now: float) -> Text:
    if not found:
        return Text("never", style="dim")
    age = f"{output.duration(now - found['at'])} ago"
    if found["state"] == "different":
        return Text(f"{found['differences']:,} differed, {age}", style="red")
    return Text(age, style="yellow" if found["state"] == "old" else "green")


def _seconds(value: float | None) -> str:
    if value is None:
        return "?"
    return f"{value:.1f} s" if value < 10 else output.duration(value)


def _rate(value: float | None) -> str:
    return "?" if value is None else f"{value:,.1f}" if 0 < value < 10 else f"{value:,.0f}"


def _bytes(value: float) -> str:
    unit = 0
    while value >= 1024 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:,.1f} {_UNITS[unit]}" if unit else f"{value:,.0f} B"
