"""The loop of an export: commits, the lag, gaps, and a table that was replaced. The topic is in memory."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path
from threading import Event

import pytest
from deltalake import DeltaTable

from syncer.errors import Fatal, Retry
from syncer.export import exporter
from syncer.export.appender import Table
from syncer.export.exporter import Batching, Exporter, Progress
from tests.harness.export_steps import open_log, topic
from tests.unit.serving.push.memory_topic import MemoryTopic

ROWS = 6


class Run:
    """One export of a topic to a folder."""

    def __init__(self, source: MemoryTopic, folder: Path, rows: int = 100, *, skip_gaps: bool = False) -> None:
        self.seen: list[Progress] = []
        self.stop = Event()

        def open_table(topic_id: str) -> Table:
            return open_log(str(folder), topic_id)

        self.exporter = Exporter(
            source,
            open_table,
            Batching(rows, 60),
            stop=self.stop,
            report=lambda now: self.seen.append(dataclasses.replace(now)),
            skip_gaps=skip_gaps,
        )

    def __call__(self) -> Progress:
        return self.exporter.run(until_caught_up=True)


def test_commits_are_made_at_the_number_of_rows(tmp_path: Path) -> None:
    run = Run(topic(), tmp_path, rows=4)
    done = run()
    assert (done.rows, done.commits, done.conflicts, done.lag_records, done.records) == (ROWS, 2, 0, 0, ROWS)
    sizes = DeltaTable(str(tmp_path)).get_add_actions(flatten=True)
    assert sorted(sizes.column("num_records").to_pylist()) == [2, 4]
    assert [one.lag_records for one in run.seen] == [2, 0, 0]


def test_an_export_that_is_stopped_commits_what_it_holds(tmp_path: Path) -> None:
    run = Run(topic(), tmp_path)
    run.stop.set()
    assert run.exporter.run().rows == ROWS


def test_missing_records_end_the_export_and_can_be_skipped(tmp_path: Path) -> None:
    source = topic()
    source.delete_records()
    source.write("a", {"n": 7})
    with pytest.raises(Fatal, match="records are missing in the topic"):
        Run(source, tmp_path)()
    run = Run(source, tmp_path, skip_gaps=True)
    assert (run().rows, run.exporter.progress.gaps) == (1, 2)
    notes = {one.note for one in run.seen if one.note}
    gaps = ("partition 0, offsets 0 to 1", "partition 1, offsets 0 to 3")
    assert notes == {f"skipped missing records: {gap}" for gap in gaps}


def test_a_gap_after_exported_records_can_be_skipped(tmp_path: Path) -> None:
    source = topic()
    Run(source, tmp_path)()
    source.write("a", {"n": 6})
    source.delete_records()
    with pytest.raises(Fatal, match="partition 1, offset 4:"):
        Run(source, tmp_path)()
    nothing = Run(source, tmp_path, skip_gaps=True)
    assert (nothing().rows, nothing.exporter.progress.lag_records) == (0, 0)
    source.write("a", {"n": 7})
    assert Run(source, tmp_path, skip_gaps=True)().rows == 1
    assert Run(source, tmp_path)().rows == 0, "the gap is behind the table"


def test_a_table_that_was_replaced_by_an_older_copy_is_detected(tmp_path: Path) -> None:
    source, folder, copy = topic(), tmp_path / "lake", tmp_path / "copy"
    open_log(str(folder), source.id)
    shutil.copytree(folder, copy)
    run, replaced = Run(source, folder, ROWS), list[bool]()

    def replace(now: Progress) -> None:
        if now.rows and not replaced:
            replaced.append(True)
            shutil.rmtree(folder)
            shutil.copytree(copy, folder)
            source.write("a", {"n": 9})
            source.write("a", {"n": 10})
            run.stop.set()

    run.exporter._report = replace
    with pytest.raises(Retry, match="older than the existing snapshot"):
        run.exporter.run()
    assert Run(source, folder)().rows == ROWS + 2
    assert DeltaTable(str(folder)).to_pyarrow_table().num_rows == ROWS + 2


def test_a_topic_that_was_created_again_during_the_run_is_not_mixed_up(tmp_path: Path) -> None:
    source = topic()
    run = Run(source, tmp_path, rows=2)
    run.exporter._report = lambda now: source.create_again() if now.rows == 2 else None
    with pytest.raises(Retry, match="created again"):
        run()
    assert DeltaTable(str(tmp_path)).to_pyarrow_table().num_rows == 2


def test_a_topic_that_lost_exported_records_is_refused(tmp_path: Path) -> None:
    """Records that take their offsets would be skipped."""
    source = topic()
    Run(source, tmp_path)()
    source.lose_last(1, 2)
    with pytest.raises(Fatal, match="the topic lost records") as caught:
        Run(source, tmp_path)()
    assert caught.value.why == "partition 1 ends at offset 2, and the export had read it up to offset 4"
    assert "another path" in caught.value.hint


@pytest.mark.parametrize("rows", [2, 100], ids=["exported", "held in memory"])
def test_records_that_are_lost_during_the_run_are_detected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    monkeypatch.setattr(exporter, "_CHECK", 0.0)
    source = topic()
    run = Run(source, tmp_path, rows=rows)

    def lose(now: Progress) -> None:
        if source.state().ends[1] == 0:
            run.stop.set()  # the run ends without an error if it does not detect the loss
        elif now.lag_records == 0 or now.held:
            source.lose_last(1, 4)

    run.exporter._report = lose
    with pytest.raises(Fatal, match="the topic lost records"):
        run.exporter.run()


def test_an_export_that_is_ahead_of_the_first_answer_is_not_a_loss(tmp_path: Path) -> None:
    """Another export commits new records between the check of the topic and the load of the table."""
    source = topic()
    run = Run(source, tmp_path)

    def open_table(topic_id: str) -> Table:
        source.write("a", {"n": 9})
        Run(source, tmp_path)()
        return open_log(str(tmp_path), topic_id)

    run.exporter._open_table = open_table
    assert run().rows == 0
    assert DeltaTable(str(tmp_path)).to_pyarrow_table().num_rows == ROWS + 1


def test_new_partitions_are_read_by_the_next_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "_CHECK", 0.0)
    source = topic()
    run = Run(source, tmp_path)

    def add(_: Progress) -> None:
        if len(source.begins) > 2:
            run.stop.set()  # the run ends without an error if it does not detect the partition
        else:
            source.add_partition()
            for key in "abc":
                source.write(key, {"n": 9})

    run.exporter._report = add
    with pytest.raises(Retry, match="number of partitions") as caught:
        run.exporter.run()
    assert "start the export again" in caught.value.hint
    assert Run(source, tmp_path)().lag_records == 0
    assert DeltaTable(str(tmp_path)).to_pyarrow_table().num_rows == ROWS + 3


def test_a_topic_without_partitions_is_no_empty_topic(tmp_path: Path) -> None:
    source = topic()
    source.begins.clear()
    with pytest.raises(Retry, match="does not list its partitions"):
        Run(source, tmp_path)()


def test_the_error_names_the_packages_that_are_not_installed() -> None:
    code = "import sys; sys.modules['deltalake'] = None; from syncer.operations import export; export._delta_log()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "the export needs packages that are not installed" in done.stderr
    assert "pip install 'readmodel-syncer[delta]'" in done.stderr


def test_the_base_installation_needs_no_extra_package() -> None:
    code = (
        "import sys; sys.modules['deltalake'] = sys.modules['pyarrow'] = None;"
        " import syncer.cli.export, syncer.operations.export, syncer.export.exporter, syncer.export.columns"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
