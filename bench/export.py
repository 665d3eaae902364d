"""Measures `syncer export`, and compares it with pyarrow writing the rows of the same table to one Parquet file.

The export reads Kafka, decodes JSON, converts each value, writes Parquet and commits. pyarrow has the values in memory
and only writes them, on one core or more. So its rate is the limit of the last part.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from statistics import median

import pyarrow.parquet
from deltalake import DeltaTable

from bench.arena import ROOT, Arena, Failed
from bench.report import Figure, Report

STEP = "export"
_MODEL = "order_versions"


def measure(arena: Arena, report: Report, echo: Callable[[str], None]) -> None:
    arena.reset()
    folder = arena.stack.home / "lake"
    before, arena.settings = arena.settings, {"SYNCER_MODELS": str(ROOT / "readmodels" / "order_analytics")}
    try:
        arena.syncer("backfill", _MODEL)
        count = arena.scalar("SELECT count(*) FROM orders")
        exported, written = [], []
        for _ in range(arena.sizes.repetitions):
            arena.settle()
            began = time.monotonic()
            arena.syncer("export", _MODEL, "--to", str(folder), "--until-caught-up")
            exported.append(count / (time.monotonic() - began))
            rows = DeltaTable(str(folder)).to_pyarrow_table()
            if rows.num_rows != count:
                raise Failed(f"the table has {rows.num_rows} rows instead of {count}")
            began = time.monotonic()
            pyarrow.parquet.write_table(rows, folder.with_suffix(".parquet"), compression="snappy")
            written.append(count / (time.monotonic() - began))
            echo(f"export: {exported[-1]:,.0f} rows/s; pyarrow: {written[-1]:,.0f} rows/s")
            shutil.rmtree(folder)
    finally:
        arena.settings = before
        shutil.rmtree(folder, ignore_errors=True)
        folder.with_suffix(".parquet").unlink(missing_ok=True)
    report.add(
        Figure(STEP, "pyarrow writes the same rows", written, "rows/s"),
        Figure(STEP, f"syncer export of {count:,} rows, whole command", exported, "rows/s", "pyarrow", median(written)),
    )
