"""The tables of the PostgreSQL sink: which losses it detects, and how values read back."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from contextlib import closing
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from devstack import Stack
from syncer.declaration.compile import Field
from syncer.document import Batch
from syncer.errors import Fatal, Retry
from syncer.ports import DurabilityToken
from syncer.sinks.postgres import deadline, sessions
from syncer.sinks.postgres.sink import PostgresSink
from tests.conftest import program
from tests.harness.postgres_servers import postgres_stack
from tests.harness.table_sink import OTHER, Reads, prepared
from tests.harness.waiting import until

# -- losses


def test_losses_change_the_durability_token_and_maintenance_does_not(reads: Reads) -> None:
    with prepared(reads.sink(), {"1": "Ada"}) as sink:
        before = sink.durability()
        for statement in ("VACUUM FULL", "VACUUM (FREEZE)", "ANALYZE", "REINDEX TABLE"):
            reads.execute(f"{statement} read.things_000001")
        reads.execute("CHECKPOINT", "SELECT pg_switch_wal()")
        reads.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'syncer-sink'")
        with pytest.raises(Retry):
            sink.durability()
        assert sink.durability().documents == before.documents
        for loss in ("TRUNCATE read.things_000001", "DELETE FROM read.things_000001"):
            reads.execute(loss)
            after = sink.durability()
            assert after.documents != before.documents and after[:2] == sink.durability()[:2]
            before = after
        columns = "(LIKE read.things_000001 INCLUDING ALL)"
        reads.execute(
            f"CREATE TABLE read.copy {columns}",
            "INSERT INTO read.copy TABLE read.things_000001",
            "DROP TABLE read.things_000001 CASCADE",
            "ALTER TABLE read.copy RENAME TO things_000001",
            f"ALTER TABLE read.things_000001 OWNER TO {reads.role}",
        )
        assert sink.durability().documents != before.documents
        reads.execute("ALTER TABLE read.things_000001 SET UNLOGGED")
        with pytest.raises(Fatal, match="UNLOGGED"):
            sink.durability()
        reads.execute("DROP TABLE read.things_000001")
        for call in (sink.durability, sink.count, lambda: sink.prepare(new=False)):
            with pytest.raises(Fatal) as caught:
                call()
            assert caught.value.hint == "syncer resync things"


def test_rows_of_a_dump_change_the_token_although_the_mark_is_among_them(reads: Reads) -> None:
    with prepared(reads.sink(), {"1": "Ada"}) as sink:
        before = sink.durability()
        reads.execute("CREATE TABLE read.dump AS TABLE read.things_000001")
        sink.write(Batch((1 << 48) + 1, {"2": b'{"name":"Grace"}'}, []))
        with reads.admin.transaction():
            reads.execute("TRUNCATE read.things_000001", "INSERT INTO read.things_000001 TABLE read.dump")
        assert reads.names() == ["Ada"] and sink.durability().documents != before.documents


def test_a_server_whose_wal_went_backwards_has_lost_documents(reads: Reads) -> None:
    """A restored disk snapshot has the same identifiers and the same mark. Only its WAL ends earlier."""
    with prepared(reads.sink()) as sink, closing(reads.sink()) as other, closing(reads.sink()) as restarted:
        before = sink.durability()
        assert other.durability().documents == before.documents
        restarted.remember(before)
        assert restarted.durability().documents == before.documents
        restarted.remember(before._replace(written=str(int(before.written) + 1_000_000_000)))
        after = restarted.durability()
        assert after.documents != before.documents
        assert [one.durability().documents for one in (sink, other, restarted)] == [after.documents] * 3


def test_a_standby_is_refused_and_its_promotion_changes_the_token(postgres_alone: Stack, reads: Reads) -> None:
    program(postgres_alone, "pg_basebackup")
    with prepared(reads.sink(), {"1": "Ada"}) as sink, postgres_stack(standby_of=postgres_alone.postgres) as copy:
        before = sink.durability()
        elsewhere = make_conninfo(reads.dsn, port=conninfo_to_dict(copy.postgres)["port"])
        [error] = reads.preflight(elsewhere)
        assert "standby" in error and "postgres_sink.dsn" in error
        with closing(reads.sink(dsn=elsewhere)) as follower:
            with pytest.raises(Retry, match="standby"):
                follower.durability()
            with psycopg.connect(copy.postgres, autocommit=True) as admin:
                admin.execute("SELECT pg_promote()")
            assert follower.durability().documents != before.documents
            assert follower.write(Batch((1 << 48) + 1, {"1": b'{"name":"Grace"}'}, [])).written == 1


def test_after_a_failover_nothing_that_the_old_server_acknowledges_counts(
    postgres_alone: Stack, reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One process reaches both servers: new sessions open on the new one, idle ones are still on the old one."""
    program(postgres_alone, "pg_basebackup")
    with prepared(reads.sink(), {"1": "Ada"}) as sink, postgres_stack(standby_of=postgres_alone.postgres) as copy:
        before = sink.durability()
        with psycopg.connect(copy.postgres, autocommit=True) as admin:
            admin.execute("SELECT pg_promote()")
        old, elsewhere = sink._sessions._connection, conninfo_to_dict(copy.postgres)["port"]
        new = old.model_copy(update={"dsn": make_conninfo(reads.dsn, port=elsewhere)})
        batch = Batch((1 << 48) + 1, {"1": b'{"name":"Grace"}'}, [])

        send, seen = sink._writer._send, list[DurabilityToken]()

        def send_during_the_failover(*arguments: Any) -> None:
            sink._sessions._connection = new
            seen.append(sink.durability())  # the only idle session is in use, so this one opens on the new server
            send(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(sink._writer, "_send", send_during_the_failover)
            with pytest.raises(Retry, match="another server replaced"):
                sink.write(batch)
        [after] = seen
        assert after.documents != before.documents
        assert reads.names() == ["Grace"], "the old server acknowledged the write"
        assert sink.durability()[:2] == after[:2] and sink.write(batch).written == 1

        sink._sessions._connection = old
        sink._sessions.close()
        with pytest.raises(Retry, match="was replaced by another one"):
            sink.write(batch)


def test_old_deletes_are_forgotten_and_young_ones_are_not(reads: Reads) -> None:
    with prepared(reads.sink(tombstone="30m"), {"1": "Ada", "2": "Grace", "3": "Edsger"}) as sink:
        sink.write(Batch((1 << 48) + 1, {}, ["1", "2", "absent"]))
        reads.execute(
            "UPDATE read.things_000001 SET _deleted_at = now() - interval '31 min' WHERE _id IN ('1', 'absent')"
        )
        token = sink.durability()
        assert sink.versions(["1", "2", "3", "absent"]) == {"2": (1 << 48) + 1, "3": 1 << 48}
        assert reads.names() == ["Edsger"] and sink.durability().documents == token.documents


# -- values


def test_a_session_that_ended_is_replaced_and_its_batch_is_repeated(reads: Reads) -> None:
    with prepared(reads.sink(), {"1": "Ada"}) as sink:
        reads.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'syncer-sink'")
        batch = Batch((1 << 48) + 1, {"1": b'{"name":"Augusta"}'}, [])
        with pytest.raises(Retry):
            sink.write(batch)
        assert sink.write(batch).written == 1 and reads.names() == ["Augusta"]


def test_a_lock_on_the_table_ends_the_write_in_time(reads: Reads) -> None:
    with prepared(reads.sink(), {"1": "Ada"}) as sink, reads.admin.transaction():
        reads.execute("LOCK TABLE read.things_000001")
        with pytest.raises(Retry, match="statement timeout"):
            sink.write(Batch((1 << 48) + 1, {"1": b'{"name":"Augusta"}'}, []), timeout=0.2)


def test_a_commit_that_waits_for_a_missing_standby_ends_with_retry(
    reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadline, "GRACE", 1.0)
    with prepared(reads.sink(), {"1": "Ada"}) as sink:
        reads.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'", "SELECT pg_reload_conf()")
        try:
            until(lambda: reads.query("SHOW synchronous_standby_names") == [("nobody",)])
            with pytest.raises(Retry, match="cannot write"):
                sink.write(Batch((1 << 48) + 1, {"1": b'{"name":"Augusta"}'}, []), timeout=0.5)
        finally:
            reads.execute("ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()")
        until(lambda: reads.query("SHOW synchronous_standby_names") == [("",)])
        assert sink.write(Batch((1 << 48) + 2, {"1": b'{"name":"Grace"}'}, [])).written == 1


def test_a_session_keeps_no_timeout_that_was_not_set(reads: Reads, monkeypatch: pytest.MonkeyPatch) -> None:
    with prepared(reads.sink()) as sink:
        with sink._sessions.session("test", 0.0001) as session:
            assert session.execute("SHOW statement_timeout").fetchall() == [("100ms",)]
        with monkeypatch.context() as patch:
            patch.setattr(sessions, "_SET_LIMIT", "SELECT pg_catalog.set_config('no such setting', %s, false)")
            with pytest.raises(Fatal), sink._sessions.session("test", 30):
                pass
        with sink._sessions.session("test", 30) as again:
            assert again is session and again.execute("SHOW statement_timeout").fetchall() == [("30s",)]


def test_a_session_that_was_idle_for_long_is_not_used_again(reads: Reads, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that was frozen for longer than deletes are kept must not write what it was about to write."""
    with prepared(reads.sink()) as sink:
        with sink._sessions.session("test") as first:
            assert first.execute("SHOW idle_session_timeout").fetchall() == [("10min",)]
        with sink._sessions.session("test") as second:
            assert second is first
        monkeypatch.setattr(sessions, "_IDLE_SECONDS", 0.0)
        with sink._sessions.session("test") as third:
            assert third is not first and first.closed


def test_declared_types_round_and_read_back_as_normalized(reads: Reads) -> None:
    fields = (Field("total", "numeric", many=False), Field("tags", "text", many=True), Field("at", "date", many=False))
    columns = {"total": "numeric(6,2)", "tags": "text[]", "at": "text"}
    with prepared(reads.sink(fields, columns=columns)) as sink:
        body = b'{"total":12.345,"tags":["a",null,"b\\"c"],"at":"2024-02-29"}'
        assert sink.write(Batch(2 << 40, {"1": body}, [])).written == 1
        assert sink.read(["1"]) == {"1": sink.normalize(body)}
        assert reads.query("SELECT total::text, tags, at FROM read.things") == [
            ("12.35", ["a", None, 'b"c'], "2024-02-29")
        ]
        out = sink.write(Batch(3 << 40, {"1": b'{"total":123456}', "2": b'{"total":1}'}, []))
        assert out.written == 1 and [(one.id, one.kind) for one in out.rejected] == [("1", "22003")]


def test_a_value_that_no_index_entry_can_hold_harms_no_other_document(reads: Reads) -> None:
    with prepared(reads.sink(indexes=[{"columns": ["name"]}])) as sink:
        large = json.dumps({"name": random.Random(1).randbytes(4000).hex()}).encode()
        out = sink.write(Batch(1 << 48, {"large": large, "small": b'{"name":"Ada"}'}, []))
        assert [(one.id, one.kind) for one in out.rejected] == [("large", "54000")] and reads.names() == ["Ada"]


def test_fields_and_indexes_may_have_any_names(reads: Reads) -> None:
    names = ["100%", "%s", 'a "b"', "select", "größe", "placed at", "{table}", "a;b"]
    fields = tuple(Field(name, "text", many=False) for name in names)
    with prepared(reads.sink(fields, indexes=[{"columns": [f"{name} DESC"]} for name in names])) as sink:
        body = json.dumps({name: f"value {n}" for n, name in enumerate(names)}).encode()
        assert sink.write(Batch(1 << 48, {"1": body}, [])).written == 1
        assert sink.read(["1"]) == {"1": sink.normalize(body)} and sink.outgrown() == []
        assert reads.trial(fields) == []
        with prepared(reads.sink(fields[::-1], generation=2)) as following:
            following.activate()


def test_columns_that_no_longer_fit_are_reported(reads: Reads) -> None:
    with prepared(reads.sink()) as sink:
        assert sink.outgrown() == []
    with closing(reads.sink(OTHER)) as later:
        assert later.outgrown() == ["n: the column has the type bigint, which cannot hold all text values"]


@pytest.mark.parametrize("call", [lambda sink: sink.durability(), lambda sink: sink.versions(["1"])])
def test_a_revoked_privilege_stops_the_read_model(reads: Reads, call: Callable[[PostgresSink], object]) -> None:
    with prepared(reads.sink(), {"1": "Ada"}) as sink:
        reads.execute(f"REVOKE ALL ON read.things_000001 FROM {reads.role}")
        with pytest.raises(Fatal, match="permission denied"):
            call(sink)
