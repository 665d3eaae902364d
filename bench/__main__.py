"""Runs the steps in order: `python -m bench --help`."""

from __future__ import annotations

import os
import platform
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click

from bench import (
    arena,
    backfill,
    boards,
    export,
    feed,
    freshness,
    groups,
    hot,
    latency,
    limits,
    machine,
    push,
    streaming,
    summaries,
    table,
    telemetry,
)
from bench.arena import ROOT, Arena, Failed, Sizes
from bench.report import Report
from devstack import DevstackError
from syncer import __version__
from syncer.cli import output

STEPS: dict[str, Callable[[Arena, Report, Callable[[str], None]], None]] = {
    limits.STEP: limits.measure,
    backfill.STEP: backfill.measure,
    streaming.STEP: streaming.measure,
    latency.STEP: latency.measure,
    freshness.STEP: freshness.measure,
    summaries.STEP: summaries.measure,
    table.STEP: table.measure,
    boards.STEP: boards.measure,
    push.STEP: push.measure,
    export.STEP: export.measure,
    groups.STEP: groups.measure,
    telemetry.STEP: telemetry.measure,
    hot.STEP: hot.measure,
    feed.STEP: feed.measure,
}
_QUIET = 0.05
"""The share of all cores that other programs may use. Above it, the report has a warning."""
_PUBLISHED = (ROOT / "docs" / "benchmarks.md", ROOT / "bench" / "results.json")
_PRIVATE = (ROOT / "build" / "bench.md", ROOT / "build" / "bench.json")


def _steps(_: click.Context, __: click.Parameter, value: str | None) -> list[str]:
    chosen = value.split(",") if value else list(STEPS)
    if unknown := set(chosen) - STEPS.keys():
        raise click.BadParameter(f"unknown step: {', '.join(sorted(unknown))}. Steps: {', '.join(STEPS)}")
    return [step for step in STEPS if step in chosen]


@click.command()
@click.option("--orders", type=click.IntRange(1000), help="Number of orders.  [default: 200000; with --quick 20000]")
@click.option(
    "--quick", is_flag=True, help="Use small tables and fewer repetitions. The figures are for comparison only."
)
@click.option(
    "--only", callback=_steps, metavar="STEP,…", help=f"Run only these steps: {', '.join(STEPS)}.  [default: all]"
)
def main(orders: int | None, quick: bool, only: list[str]) -> None:
    """Measure throughput, latency and memory, and the limits of the servers alone.

    A complete run writes docs/benchmarks.md and bench/results.json. Other runs write build/bench.md and
    build/bench.json. The exit status is 1 if a result is wrong. A missed goal is printed, but does not change it.
    """
    began = time.monotonic()

    def echo(line: str) -> None:
        output.echo(f"{time.monotonic() - began:6.0f} s  {line}")

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # raises SystemExit, so that every `finally` runs
    sizes = Sizes.of(orders, quick=quick)
    report = Report(machine.describe() | {"load at start": f"{os.getloadavg()[0]:.1f}"})
    try:
        with arena.opened(sizes, echo) as opened:
            _environment(report, opened)
            for step in only:
                echo(step)
                STEPS[step](opened, report, echo)
            if max(opened.elsewhere, default=0.0) > _QUIET:
                used = f"used up to {max(opened.elsewhere):.0%} of the cores, so an idle machine is faster."
                report.remarks.append(f"The machine was not idle. Other programs {used}")
    except (Failed, DevstackError) as error:
        output.echo(f"The benchmark failed: {error}", style="bold red")
        sys.exit(1)
    finally:
        if report.figures:
            report.environment["duration"] = f"{time.monotonic() - began:.0f} s"
            report.print(output.console())
    _write(report, _PRIVATE if quick or len(only) < len(STEPS) else _PUBLISHED)
    for figure in report.missed():
        output.echo(f"Goal missed: {figure.what}: ratio {figure.ratio:.2f}, goal {figure.goal}", style="red")


def _environment(report: Report, opened: Arena) -> None:
    names = ("customers", "products", "orders", "order_items")
    counts = {name: opened.scalar(f"SELECT count(*) FROM {name}") for name in names}
    report.environment |= {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "syncer": f"{__version__}, Python {platform.python_version()}",
        **arena.versions(opened),
        "heaps": ", ".join(f"{name} {size}" for name, size in opened.stack.site.heaps.items()),
        "data": ", ".join(f"{count:,} {name}" for name, count in counts.items()),
    }


def _write(report: Report, files: tuple[Path, Path]) -> None:
    markdown, json = files
    markdown.parent.mkdir(exist_ok=True)
    markdown.write_text(report.markdown())
    json.write_bytes(report.json())
    output.echo(f"Wrote {' and '.join(str(file.relative_to(ROOT)) for file in files)}.")


if __name__ == "__main__":
    main()
