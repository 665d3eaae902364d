"""The table with the real delta-rs, on a local disk. The first tests are the contract that the model has, too."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

from syncer.declaration.compiled import Field
from syncer.errors import Fatal, SyncerError
from syncer.export.appender import Appender, Table
from syncer.export.columns import columns
from syncer.export.delta import DeltaLog, _why
from syncer.export.location import Location, locate
from syncer.export.pending import Pending
from syncer.ports import DocumentWrite
from tests.harness.fault_proxy import fault_proxy
from tests.harness.object_store import settings
from tests.unit.export.delta_model import Log, ModelTable

FIELDS = [Field("n", "bigint", many=False), Field("tags", "text", many=True)]
Open = Callable[[], Table]


def opened(folder: Path, fields: list[Field] = FIELDS, **options: Any) -> DeltaLog:
    settings = {"model": "orders", "topic_id": "T1", **options}
    log = DeltaLog(locate(str(folder), {}), columns(fields, "orders"), **settings)
    log.open()
    return log


@pytest.fixture(params=["model", "delta-rs"])
def table(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Open, Callable[[], list[tuple[int, int]]]]:
    """Returns a function that opens the table as another process does, and one that returns its rows."""
    if request.param == "model":
        log = Log()
        return lambda: ModelTable(log), lambda: sorted(log.rows())
    return lambda: opened(tmp_path), lambda: sorted((row["_partition"], row["_offset"]) for row in rows(tmp_path))


def rows(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = DeltaTable(str(folder)).to_pyarrow_table().to_pylist()
    return sorted(found, key=lambda row: (row["_partition"], row["_offset"]))


def pending(*offsets: int, partition: int = 0, body: bytes | None = b'{"n":1,"tags":["a"]}') -> Pending:
    found = Pending({partition: offsets[0]})
    found.add(DocumentWrite(partition, at, f"id{at}", at + 1, body, 0) for at in offsets)
    return found


def test_rows_and_offsets_become_visible_together(table: Any) -> None:
    open_table, found = table
    one, two = open_table(), open_table()
    one.load()
    assert one.next_offsets([0, 1]) == {}
    assert one.append(pending(0, 1), {0: 2})
    two.load()
    assert two.next_offsets([0, 1]) == {0: 2} and found() == [(0, 0), (0, 1)]
    assert two.append(pending(0, partition=1), {1: 1})
    one.load()
    assert one.next_offsets([0, 1]) == {0: 2, 1: 1}


def test_an_append_over_a_version_that_was_not_loaded_fails(table: Any) -> None:
    """Also if the other commit has another partition, so that delta-rs would see no conflict."""
    open_table, found = table
    one, two = open_table(), open_table()
    one.load(), two.load()
    assert two.append(pending(0, partition=1), {1: 1})
    assert not one.append(pending(0), {0: 1})
    assert found() == [(1, 0)]
    one.load()
    assert one.append(pending(0), {0: 1})


def test_no_writer_compares_transactions(table: Any) -> None:
    """The reason why they are read before each append."""
    open_table, found = table
    one = open_table()
    one.load()
    assert one.append(pending(0, 1), {0: 2})
    assert one.append(pending(0), {0: 1})
    assert found() == [(0, 0), (0, 0), (0, 1)]


def test_delta_rs_rebases_an_append_that_it_sees_no_conflict_for(tmp_path: Path) -> None:
    """The reason for `max_commit_retries=0`."""
    opened(tmp_path)
    late, early = DeltaTable(str(tmp_path)), DeltaTable(str(tmp_path))
    data = DeltaTable(str(tmp_path)).to_pyarrow_table()
    for handle, app, retries in ((early, "a", 0), (late, "b", 15)):
        found = CommitProperties(app_transactions=[Transaction(app, 1)], max_commit_retries=retries)
        write_deltalake(handle, data, mode="append", commit_properties=found)
    assert late.version() == early.version() + 1


def test_transactions_outlive_checkpoints(tmp_path: Path) -> None:
    log = opened(tmp_path)
    for at in range(3):
        Appender(log).append(pending(at))
    delta = DeltaTable(str(tmp_path))
    delta.create_checkpoint()
    delta.cleanup_metadata()
    again = opened(tmp_path)
    again.load()
    assert again.next_offsets([0]) == {0: 3}


def test_new_fields_become_columns_and_missing_ones_stay(tmp_path: Path) -> None:
    Appender(opened(tmp_path)).append(pending(0))
    earlier = opened(tmp_path)
    later = opened(tmp_path, [Field("n", "bigint", many=False), Field("extra", "text", many=False)])
    Appender(later).append(pending(1, body=b'{"n":2,"extra":"x"}'))
    Appender(earlier).append(pending(2, body=b'{"n":3,"tags":[],"extra":"y"}'))
    found = [(row["n"], row["tags"], row["extra"], row["_other"]) for row in rows(tmp_path)]
    assert found == [(1, '["a"]', None, None), (2, None, "x", None), (3, "[]", None, '{"extra":"y"}')]
    opened(tmp_path)
    assert len(rows(tmp_path)) == 3


def test_a_changed_type_is_refused(tmp_path: Path) -> None:
    opened(tmp_path)
    with pytest.raises(Fatal) as caught:
        opened(tmp_path, [Field("n", "text", many=False)])
    assert "the column n has the type long, and the field has the type string" in str(caught.value)
    assert "another path" in caught.value.hint


@pytest.mark.parametrize(("before", "after"), [("text", "jsonb"), ("jsonb", "text")])
def test_a_change_between_text_and_json_is_refused(tmp_path: Path, before: str, after: str) -> None:
    """Both are strings in Delta. Also in a column that was added later."""
    opened(tmp_path)
    fields = [*FIELDS, Field("note", before, many=False)]
    Appender(opened(tmp_path, fields)).append(pending(0, body=b'{"note":"x"}'))
    DeltaTable(str(tmp_path)).optimize.compact()
    opened(tmp_path, fields)
    for changed in ([*FIELDS, Field("note", after, many=False)], [Field("tags", "text", many=False)]):
        with pytest.raises(Fatal, match=r"has the type string \((plain|json)\)"):
            opened(tmp_path, changed)


def test_a_field_that_was_removed_keeps_its_kind_of_text(tmp_path: Path) -> None:
    opened(tmp_path, [Field("note", "jsonb", many=False)])
    Appender(opened(tmp_path, FIELDS)).append(pending(0, body=b'{"note":"x"}'))
    assert [row["note"] for row in rows(tmp_path)] == ['"x"']


def test_a_topic_that_was_created_again_is_refused_until_it_is_confirmed(tmp_path: Path) -> None:
    Appender(opened(tmp_path)).append(pending(0))
    with pytest.raises(Fatal, match="created again") as caught:
        opened(tmp_path, topic_id="T2")
    assert "--new-topic" in caught.value.hint
    Appender(opened(tmp_path, topic_id="T2", new_topic=True)).append(pending(0))
    assert [(row["_topic_id"], row["_offset"]) for row in rows(tmp_path)] in (
        [("T1", 0), ("T2", 0)],
        [("T2", 0), ("T1", 0)],
    )
    opened(tmp_path, topic_id="T2")


def test_the_table_of_something_else_is_refused(tmp_path: Path) -> None:
    opened(tmp_path)
    with pytest.raises(Fatal, match="belongs to the read model orders"):
        opened(tmp_path, model="customers")
    other = tmp_path / "other"
    write_deltalake(str(other), DeltaTable(str(tmp_path)).to_pyarrow_table().select(["n"]))
    with pytest.raises(Fatal, match="was not created by syncer export"):
        opened(other)


def test_a_table_that_forgets_transactions_is_refused(tmp_path: Path) -> None:
    opened(tmp_path)
    DeltaTable(str(tmp_path)).alter.set_table_properties(
        {"delta.setTransactionRetentionDuration": "interval 1 days"}, raise_if_not_exists=False
    )
    with pytest.raises(Fatal, match="setTransactionRetentionDuration"):
        opened(tmp_path)


def test_the_probe_writes_and_leaves_nothing(tmp_path: Path) -> None:
    place = Location(str(tmp_path), None, {})
    log = DeltaLog(place, [], model="orders", topic_id="T1")
    log.probe()
    assert not log.find() and list(tmp_path.iterdir()) == []


def test_probes_of_concurrent_exports_do_not_disturb_each_other(tmp_path: Path) -> None:
    """Each may remove the file of the other. Some stores, and a folder, refuse to delete a missing file."""

    def probe(_: int) -> None:
        for _ in range(100):
            DeltaLog(Location(str(tmp_path), None, {}), [], model="orders", topic_id="T1").probe()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(probe, range(4)))
    assert list(tmp_path.iterdir()) == []


def test_other_threads_run_while_the_store_is_asked_for_the_table() -> None:
    """Here one of them is the store itself. A call that stops all threads of its process would time out."""
    empty = b"<ListBucketResult></ListBucketResult>"
    with fault_proxy("", elasticsearch=False) as store:
        store.rule = lambda request: (200, empty) if "list-type" in request.path else (404, b"")
        options = settings(store.url) | {"AWS_TIMEOUT": "5s", "max_retries": "0"}
        table = DeltaLog(Location("s3://lake/orders", None, options), [], model="orders", topic_id="T1")
        assert not table.find()
        assert store.seen


def test_an_unknown_kind_of_url_is_an_error() -> None:
    with pytest.raises(SyncerError, match="cannot write to the object store") as caught:
        DeltaLog(locate("foo://lake/orders", {}), [], model="orders", topic_id="T1").probe()
    assert "foo" in caught.value.why


def test_optimize_between_two_commits_harms_nothing(tmp_path: Path) -> None:
    log = opened(tmp_path)
    for at in range(3):
        Appender(log).append(pending(at))
    log.load()
    DeltaTable(str(tmp_path)).optimize.compact()
    conflicts: list[None] = []
    waiting = pending(3)
    assert not log.append(waiting, waiting.ends())
    Appender(log, lambda: conflicts.append(None)).append(waiting)
    assert [row["_offset"] for row in rows(tmp_path)] == [0, 1, 2, 3]


def test_only_the_code_and_the_message_of_an_answer_of_s3_are_reported() -> None:
    answer = "<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>Forbidden</Message><Key>x</Key></Error>"
    assert _why(OSError(f"403 ↳ {answer}")) == "403 : AccessDenied: Forbidden"
    assert _why(OSError("<?xml version='1.0'?><other/>")) == "<?xml version='1.0'?><other/>"
