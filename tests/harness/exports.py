"""A read model with a topic, its export by `syncer export`, and the queries of docs/analytics.md over the table."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
from click.testing import CliRunner
from confluent_kafka.admin import AdminClient

import devstack
from demo.lake import Lake, connect
from syncer import cli, sinks
from syncer.clock import version
from syncer.document import Batch
from syncer.ports import Sink
from tests.contracts.sinks import compiled
from tests.harness import Database, Names
from tests.harness.object_store import BUCKET, ObjectStore, settings
from tests.harness.process import SyncerProcess
from tests.harness.settings import environment

PAGE = (Path(__file__).parents[2] / "docs" / "analytics.md").read_text("utf-8")
MODEL = """
name: NAME
root: {table: public.things}
document: {n: n, price: price, name: name, tags: tags}
sink: {kafka: {topic: NAME, cleanup_policy: delete, partitions: 2}}
"""
TABLE = "CREATE TABLE things (id text PRIMARY KEY, n bigint, price numeric, name text, tags text[])"


def views() -> str:
    """Returns the views of the page, over the view `lake`."""
    [found] = re.findall(r"(?ms)^```sql\n(-- Views.*?)^```$", PAGE)
    return str(found).replace("delta_scan('/var/lake/orders')", "lake")


class Exports:
    """A read model with a topic, and the table to which it is exported. store: None for a table in a folder."""

    def __init__(
        self, stack: devstack.Stack, database: Database, names: Names, folder: Path, store: ObjectStore | None = None
    ) -> None:
        self.name = self.topic = names("export")
        self.kafka, self.database, self.folder = stack.kafka, database, folder
        self.admin = AdminClient({"bootstrap.servers": stack.kafka})
        self.path = store.folder / self.name if store else folder / "lake"
        self.to = f"s3://{BUCKET}/{self.name}" if store else str(self.path)
        self.lake = Lake(self.path, views())
        database.execute(TABLE)
        (folder / "models").mkdir()
        (folder / "models" / f"{self.name}.yaml").write_text(MODEL.replace("NAME", self.name))
        prefixes = {"topic_prefix": names("changes"), "group_prefix": names("group"), "state_topic": names("state")}
        self.environment = environment(stack, database, folder, **prefixes)
        if store:
            self.environment |= settings(store.url)
        self.sink: Sink = self.open_sink()
        self.processes: list[SyncerProcess] = []

    def open_sink(self) -> Sink:
        connection = {"bootstrap_servers": self.kafka, "topic_prefix": "shop"}
        topic = {"topic": self.topic, "cleanup_policy": "delete", "partitions": 2}
        sink = sinks.build("kafka", topic, model=compiled(self.name), connection=connection)
        sink.prepare()
        return sink

    def write(self, clock: int, upserts: dict[str, Any], deletes: list[str] | None = None) -> None:
        """Writes documents of one snapshot, as the pipeline does."""
        bodies = {id: json.dumps(document, separators=(",", ":")).encode() for id, document in upserts.items()}
        out = self.sink.write(Batch(version(1, clock), bodies, deletes or [], committed_ms=1_700_000_000_000))
        assert not out.rejected and not out.retry

    def run(self, *options: str, expect: int = 0, caught_up: bool = True, output: str = "output") -> str:
        """Runs the command until it has caught up. Returns its output."""
        arguments = ["export", self.name, "--to", self.to, *options]
        arguments += ["--until-caught-up"] if caught_up else []
        done = CliRunner().invoke(cli.main, arguments, env=self.environment, catch_exceptions=False)
        assert done.exit_code == expect, done.output
        return str(getattr(done, output))

    def run_process(self, *options: str) -> str:
        """As `run`, in a process of its own. Some calls of delta-rs stop all threads of a process, such as a proxy."""
        process = self.start(*options)
        status, text = process.process.wait(60), process.log.read_text()
        assert status == 0, text
        return text

    def start(self, *options: str) -> SyncerProcess:
        log = self.folder / f"export-{len(self.processes)}.log"
        arguments = ["export", self.name, "--to", self.to, *options]
        self.processes.append(SyncerProcess(arguments, self.environment, log, self.folder))
        return self.processes[-1]

    def check_rows(self, expected: int) -> None:
        """Checks that the table has each record of the topic once: no gap and no duplicate."""
        found = Counter(self.lake.query("SELECT _partition, _offset FROM lake"))
        ends: Counter[int] = Counter(partition for partition, _ in found)
        assert sorted(found.elements()) == [(p, at) for p in sorted(ends) for at in range(ends[p])]
        assert len(found) == expected

    def count(self) -> int:
        """Returns the number of rows. 0 while another process creates the table."""
        try:
            return int(self.lake.query("SELECT count(*) FROM lake")[0][0])
        except duckdb.Error:
            return 0

    def close(self) -> None:
        for process in self.processes:
            process.kill()
        self.sink.close()


def duplicates(folder: Path, count: int, records: int) -> dict[int, Counter[tuple[int, int]]]:
    """Returns the records that are in a table more than once, by the number of the table: FOLDER/1, FOLDER/2, ….

    count: of the tables. records: the number of records that each table must have.
    """
    result = {}
    with connect() as connection:
        for n in range(1, count + 1):
            rows = connection.execute(f"SELECT _partition, _offset FROM delta_scan('{folder}/{n}')").fetchall()
            found = Counter((int(partition), int(offset)) for partition, offset in rows)
            assert len(found) == records, f"cut {n}: {sorted(found)}"
            if more := found - Counter(dict.fromkeys(found, 1)):
                result[n] = more
    return result
