"""Runs the commands on real servers, in the order in which an operator uses them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import redis
import urllib3
from click.testing import CliRunner, Result

from devstack import Stack
from syncer import cli
from syncer.kafka.admin import KafkaAdmin
from tests.harness import Database, Names

SHOP = Path(__file__).parents[2] / "connectors" / "shop.json"
SCHEMA = """
CREATE TABLE customers (id bigint PRIMARY KEY, name text NOT NULL);
CREATE TABLE orders (
    id bigint PRIMARY KEY, customer_id bigint NOT NULL REFERENCES customers, status text NOT NULL,
    total numeric(10, 2));
CREATE INDEX ON orders (customer_id);
CREATE TABLE stock (warehouse text, sku text, quantity integer, PRIMARY KEY (warehouse, sku));
INSERT INTO customers VALUES (1, 'Ada'), (2, 'Grace');
INSERT INTO orders VALUES (1, 1, 'paid', 10.10), (2, 1, 'draft', 5), (3, 2, 'paid', 7.00);
INSERT INTO stock VALUES ('berlin', 'a|1', 4)
"""
ORDERS = """
name: orders
root: {table: public.orders}
where: status <> 'draft'
document:
  id: id
  total: total
  customer: {one: public.customers, on: {id: customer_id}, document: {name: name}}
sink: {elasticsearch: {index: PREFIX-orders}}
"""
CUSTOMERS = """
name: customers
root: {table: public.customers}
document:
  name: name
  orders: {many: public.orders, on: {customer_id: id}, value: id}
sink: {redis: {key: "PREFIX:{id}"}}
"""
STOCK = """
name: stock
root: {table: public.stock}
document: {quantity: quantity}
sink: {redis: {key: "PREFIX:stock:{id}", format: hash}}
"""

Run = Callable[..., Result]


@pytest.fixture
def run(
    stack: Stack, database: Database, names: Names, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Run]:
    """Returns a function that runs a command with the test's own read models, connector and settings."""
    database.execute(*SCHEMA.split(";"))
    for name, text in (("orders", ORDERS), ("customers", CUSTOMERS), ("stock", STOCK)):
        (tmp_path / "models").mkdir(exist_ok=True)
        (tmp_path / "models" / f"{name}.yaml").write_text(text.replace("PREFIX", names.prefix))
    definition = json.loads(SHOP.read_text())
    definition["name"] = names("connector")
    definition["config"] |= {
        "topic.prefix": names.prefix,
        "slot.name": names.prefix,
        "publication.name": names.prefix,
        "table.include.list": r"public\..*",
        "database.password": "${env:SHOP_PGPASSWORD}",
    }
    (tmp_path / "connectors").mkdir()
    (tmp_path / "connectors" / "shop.json").write_text(json.dumps(definition))
    environment = {
        "SYNCER_MODELS": str(tmp_path / "models"),
        "SYNCER_POSTGRES__DSN": database.dsn,
        "SYNCER_KAFKA__BOOTSTRAP_SERVERS": stack.kafka,
        "SYNCER_KAFKA__TOPIC_PREFIX": names.prefix,
        "SYNCER_KAFKA__GROUP_PREFIX": names.prefix,
        "SYNCER_KAFKA__STATE_TOPIC": names("state"),
        "SYNCER_KAFKA__PARTITIONS": "2",
        "SYNCER_CONNECT__URL": stack.connect,
        "SYNCER_CONNECT__DEFINITIONS": str(tmp_path / "connectors"),
        "SYNCER_ELASTICSEARCH__URL": stack.elasticsearch,
        "SYNCER_REDIS__URL": stack.redis,
        "SHOP_PGHOST": database.host,
        "SHOP_PGPORT": str(database.port),
        "SHOP_PGUSER": database.user,
        "SHOP_PGPASSWORD": database.password,
        "SHOP_PGDATABASE": database.name,
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)

    def invoke(*arguments: str, expect: int = 0) -> Result:
        result = CliRunner().invoke(cli.main, arguments)
        assert result.exit_code == expect, result.output + repr(result.exception)
        assert f":{database.password}@" not in result.output
        return result

    yield invoke
    with redis.Redis.from_url(stack.redis) as client:
        client.delete("syncer:customers:meta", "syncer:stock:meta")  # these names do not contain the prefix


def set_replica_identity(database: Database) -> None:
    database.execute("ALTER TABLE orders REPLICA IDENTITY FULL")


def test_a_mapping_refused_by_elasticsearch_is_reported_with_its_line(
    run: Run, stack: Stack, database: Database, names: Names, tmp_path: Path
) -> None:
    set_replica_identity(database)
    text = ORDERS.replace("PREFIX", names.prefix).replace("total: total", '"_id": total')
    file = tmp_path / "models" / "orders.yaml"
    (tmp_path / "models" / "stock.yaml").unlink()

    def refused(*options: str) -> list[tuple[str, str]]:
        found = json.loads(run("check", "orders", "--json", *options, expect=1).stdout)["findings"]
        return [(f["severity"], f["where"].rpartition("/")[2]) for f in found if f["code"].startswith("sink")]

    file.write_text(text)
    assert refused() == [("error", "orders.yaml:7: elasticsearch")]
    mapping = "sink:\n  elasticsearch:\n    index: i\n    mapping:\n      id:\n        type: keywrod\n"
    file.write_text(ORDERS.partition("sink:")[0] + mapping.replace(" i\n", f" {names('orders')}\n"))
    assert refused() == [("error", "orders.yaml:14: elasticsearch")]
    assert refused("--read-only") == []
    assert "The mapper type [keywrod]" in run("check", "orders", expect=1).output
    url = f"{stack.elasticsearch}/syncer-check-*?expand_wildcards=all"
    assert urllib3.request("GET", url).json() == {}


def test_from_an_empty_system_to_verified_documents(run: Run, stack: Stack, database: Database, names: Names) -> None:
    # `check` prints every required step, and the printed steps are sufficient.
    output = run("check", expect=1).output
    assert "ALTER TABLE public.orders REPLICA IDENTITY FULL;" in output
    assert f"CREATE PUBLICATION {names.prefix} FOR TABLE" in output
    assert "Read model stock: ok" in output and "the connector does not exist yet" in output
    found = json.loads(run("check", "--json", expect=1).stdout)
    assert found["errors"] == 2
    assert {f["code"] for f in found["findings"] if f["severity"] == "error"} == {
        "identity",
        "no-publication",
    }

    # A connector is not applied before the tables are ready.
    output = run("connectors", "apply", "--yes", expect=1).output
    assert "REPLICA IDENTITY FULL" in output and "nothing was applied" in output
    assert database.query("SELECT FROM pg_publication") == []
    database.execute(run("check", "--sql", expect=1).stdout.splitlines()[0])

    # Changes require a confirmation.
    output = run("connectors", "apply", "--dry-run").output
    assert f"topic {names.prefix}.public.orders: create with 2 partitions" in output
    assert f"connector {names('connector')}: create" in output and "CREATE PUBLICATION" in output
    assert database.password not in [word.strip(",") for word in output.split()] or database.password == database.user
    assert "add --yes" in run("connectors", "apply", expect=2).output
    assert database.query("SELECT FROM pg_publication") == []
    assert "does not exist" in run("connectors", "status", expect=1).output

    run("connectors", "apply", "--yes")
    assert "unchanged" in run("connectors", "apply").output  # nothing to confirm
    assert "0 errors, 0 warnings" in run("check").output
    state = json.loads(run("connectors", "status", "--json").stdout)
    assert state["status"]["tasks"] == [{"id": 0, "state": "RUNNING", "trace": ""}]
    assert state["slot"]["name"] == names.prefix
    assert names.prefix in run("connectors", "status").output

    # Fill the sinks and compare.
    assert "has never run" in run("verify", expect=3).output
    status = json.loads(run("status", "--json", expect=1).stdout)
    assert [(m["state"], m["lag_seconds"]) for m in status["models"]] == [("new", None)] * 3
    connector = {"name": names("connector"), "state": "running"}
    eventually(lambda: json.loads(run("status", "--json", expect=1).stdout)["source"]["connector"] == connector)
    assert "orders: done" in run("backfill").stderr
    assert run("verify").stdout.count("equal") == 3
    [status] = json.loads(run("status", "--json", "orders", expect=1).stdout)["models"]
    assert (status["model"], status["state"], status["work_records"]) == ("orders", "stopped", 0)
    assert status["lag_seconds"] is None
    assert status["notes"][0] == "orders: no daemon runs it → syncer run"
    assert re.fullmatch(r"orders: verified \d+ s ago, 2 documents equal", status["notes"][1])
    assert status["staleness_seconds"] is None and status["watermark"] is None
    with redis.Redis.from_url(stack.redis) as client:
        client.set(f"{names.prefix}:1", '{"name": "Eve"}')
        client.delete(f"{names.prefix}:2")
    output = run("verify", "customers", "--patience", "0", expect=1).stdout
    assert "DIFFERENT" in output and "missing: 2" in output

    run("connectors", "delete", "--yes")
    assert urllib3.request("GET", f"{stack.connect}/connectors/{names('connector')}").status == 404
    assert "there is no such connector" in run("connectors", "delete", "--yes", expect=3).output


def test_names_and_values_that_look_like_markup_are_printed_literally(
    run: Run, database: Database, names: Names, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich prints as on a terminal
    table, column, value = "[bold]x[/bold]", ":smile:", "[/] :id: [red]y"
    database.execute(
        f'CREATE TABLE "{table}" (id int PRIMARY KEY, "{column}" text)',
        f"INSERT INTO \"{table}\" VALUES (1, '{value}')",
    )
    key = f"{names.prefix}:id:[b]{{id}}[/b]"
    declaration = {
        "name": "markup",
        "root": {"table": f'public."{table}"'},
        "document": {column: f'"{column}"'},
        "sink": {"redis": {"key": key}},
    }
    (tmp_path / "models" / "markup.yaml").write_text(json.dumps(declaration))

    def shown(*arguments: str, expect: int = 0) -> str:
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", run(*arguments, expect=expect).output)

    output = shown("explain", "markup")
    assert f"public.{table}" in output and f"{column}: text" in output and key in output
    assert f'"{column}": "{value}"' in shown("preview", "markup", "1")
    assert f"public.{table} has no row with key '2'" in shown("preview", "markup", "2", expect=1)
    assert f'FOR TABLE public."{table}"' in shown("check", "markup", expect=1)


def test_the_daemon_follows_changes_and_stops_cleanly(run: Run, stack: Stack, database: Database, names: Names) -> None:
    set_replica_identity(database)
    run("connectors", "apply", "--yes")
    command = [sys.executable, "-m", "syncer", "run", "customers", "orders"]
    environment = os.environ | {"SYNCER_HTTP__PORT": "0"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as daemon:
        try:
            assert daemon.stderr is not None
            started = json.loads(daemon.stderr.readline())
            assert started["message"] == "daemon started" and started["models"] == ["customers", "orders"]
            eventually(lambda: urllib3.request("GET", started["http"] + "/readyz").status == 200)
            database.execute("INSERT INTO customers VALUES (7, 'Mary')")
            with redis.Redis.from_url(stack.redis) as client:
                eventually(lambda: client.get(f"{names.prefix}:7") is not None)
            metrics = urllib3.request("GET", started["http"] + "/metrics").data.decode()
            assert 'syncer_events_total{model="customers",op="c"} 1.0' in metrics
            eventually(lambda: "running" in run("status", "customers", expect=1).stdout)
            output = run("status", "customers", expect=1).stdout
            assert "no backfill was run" in output and "→ syncer backfill customers" in output
        finally:
            daemon.terminate()
            began = time.monotonic()
            rest = daemon.communicate(timeout=30)[1]
    assert time.monotonic() - began < 10
    assert daemon.returncode == 0
    messages = [json.loads(line)["message"] for line in rest.splitlines()]
    assert messages[-2:] == ["daemon is stopping", "daemon stopped"], rest
    assert "stopped" in run("status", "customers", expect=1).stdout


def eventually(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never became true"
        time.sleep(0.1)


def test_a_changed_connector_definition_is_shown_and_applied(
    run: Run, database: Database, names: Names, tmp_path: Path
) -> None:
    set_replica_identity(database)
    run("connectors", "apply", "--yes")
    path = tmp_path / "connectors" / "shop.json"
    path.write_text(path.read_text().replace('"max.batch.size": "8192"', '"max.batch.size": "4096"'))
    assert "its settings differ from" in run("check").output
    assert "1 setting differs" in run("connectors", "status").output
    assert "~ max.batch.size: 8192 → 4096" in run("connectors", "apply", "--yes").output
    assert "0 errors, 0 warnings" in run("check").output


def test_status_needs_only_the_names_of_connectors(run: Run, names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SHOP_PGPASSWORD")
    output = run("status", expect=1).stdout
    assert f"connector {names('connector')}: it does not exist" in output and "SHOP_PGPASSWORD" not in output
    output = run("connectors", "apply", "--yes", expect=1).output
    assert "shop.json: database.password: the environment variable SHOP_PGPASSWORD is not set" in output


def test_explain(run: Run) -> None:
    output = run("explain", "orders").stdout
    for part in (
        "orders: one document per row of public.orders",
        "key: id (bigint)",
        "customer: public.customers",
        "uses id, name",
        "total: numeric",
        "Lookup from id of customer",
        "SELECT",
        "LEFT JOIN",
    ):
        assert part in output, part
    explained = json.loads(run("explain", "orders", "--json").stdout)
    assert [t["table"] for t in explained["tables"]] == ["public.orders", "public.customers"]
    assert explained["tables"][0]["columns"] == ["customer_id", "id", "status", "total"]
    assert explained["sinks"]["elasticsearch"]["mapping"]["properties"]["id"] == {"type": "long"}
    assert "did you mean 'orders'?" in run("explain", "order", expect=2).stderr


def test_preview(run: Run, tmp_path: Path) -> None:
    result = run("preview", "orders", "1")
    assert json.loads(result.stdout) == {"id": 1, "total": 10.1, "customer": {"name": "Ada"}}
    assert '"total": 10.10,' in result.stdout
    lines = run("preview", "orders", "1", "3", "--compact").stdout.splitlines()
    assert [json.loads(line)["id"] for line in lines] == [1, 3]
    result = run("preview", "orders", "2", "99", "3", expect=1)
    assert "the row '2' of public.orders is excluded by `where`" in result.stderr
    assert "public.orders has no row with key '99'" in result.stderr
    assert json.loads(result.stdout)["id"] == 3
    assert json.loads(run("preview", "stock", r"berlin|a\|1").stdout) == {"quantity": 4}
    assert "the key is warehouse|sku" in run("preview", "stock", "berlin", expect=2).stderr
    assert "invalid input syntax" in run("preview", "orders", "one", expect=2).stderr
    path = tmp_path / "models" / "orders.yaml"
    path.write_text(path.read_text().replace("total: total", "total: total / (id - 1)"))
    result = run("preview", "orders", "1", "3", expect=1)
    assert "error: no document\n  where: public.orders, key 1\n  why:   division by zero" in result.stderr
    assert "Usage" not in result.stderr and json.loads(result.stdout)["id"] == 3


def test_an_unknown_read_model_is_a_usage_error(run: Run) -> None:
    for command in ("check", "explain", "status", "verify", "resync", "backfill"):
        output = run(command, "order", expect=2).stderr
        assert "there is no read model called order" in output and "did you mean 'orders'?" in output


def test_dropping_and_replaying_without_dead_letters_is_reported(run: Run) -> None:
    for command in ("drop", "replay"):
        assert run("dlq", command, "orders", "--all").stdout == "orders: no open dead letters\n"


def test_mistakes_do_not_hide_each_other(run: Run, database: Database, tmp_path: Path) -> None:
    set_replica_identity(database)
    orders = tmp_path / "models" / "orders.yaml"
    orders.write_text(orders.read_text().replace("total: total", "total: totla"))
    stock = tmp_path / "models" / "stock.yaml"
    stock.write_text(stock.read_text().replace("format: hash", "fromat: hash"))
    connector = tmp_path / "connectors" / "shop.json"
    connector.write_text(connector.read_text().replace('"no_data"', '"initial"'))
    output = run("check", expect=1).output
    assert "totla" in output and "total" in output and "orders.yaml:7" in output
    assert "fromat" in output and "stock.yaml:5" in output
    assert "snapshot.mode: is initial" in output
    assert "Read model customers: ok" in output
    orders.write_text(ORDERS.replace("public.orders", "order").replace("public.customers", "custmers"))
    output = run("check", "orders", expect=1).output
    assert "orders.yaml:3: there is no table public.order\n    → did you mean 'public.orders'?" in output
    assert "orders.yaml:8: there is no table public.custmers\n    → did you mean 'public.customers'?" in output
    orders.write_text("name: orders\nrot: {}\n")
    output = run("check", expect=1).output
    assert "orders.yaml:2" in output and "root" in output
    assert "Read model customers: ok" in output and "fromat" in output


def test_commands_report_unreachable_servers(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNCER_CONNECT__URL", "http://127.0.0.1:1")
    assert "Kafka Connect is unreachable" in run("check", expect=1).output
    assert "Kafka Connect is unreachable" in run("connectors", "status", expect=4).stderr
    monkeypatch.setenv("SYNCER_POSTGRES__DSN", "postgresql://a:hunter2@127.0.0.1:1/x")
    result = run("check", expect=4)
    assert "cannot connect to PostgreSQL" in result.stderr and "hunter2" not in result.output


def test_check_reports_each_unreachable_server_as_a_finding(
    run: Run, stack: Stack, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_replica_identity(database)
    run("connectors", "apply", "--yes")
    monkeypatch.setenv("SYNCER_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:1")
    monkeypatch.setenv("SYNCER_ELASTICSEARCH__URL", "http://127.0.0.1:1")
    monkeypatch.setenv("SYNCER_REDIS__URL", "redis://127.0.0.1:1/0")
    output = run("check", expect=1).stdout
    assert "→ check that Kafka is up and kafka.bootstrap_servers is correct" in output
    assert "error: Elasticsearch at http://127.0.0.1:1: Elasticsearch does not answer" in output
    assert "→ check that Elasticsearch is up and elasticsearch.url is correct" in output
    assert "error: Redis at redis://127.0.0.1:1/0: Redis cannot be used" in output
    assert "→ check that Redis is up and redis.url is correct" in output
    assert "3 errors" in output and "Kafka Connect: ok" in output
    monkeypatch.setenv("SYNCER_KAFKA__BOOTSTRAP_SERVERS", stack.kafka)
    assert run("check", "--sql", expect=1).stdout == ""
    output = run("check", "orders", expect=1).stdout
    assert "Elasticsearch at" in output and "Redis" not in output  # this read model does not use Redis


def test_check_reports_conditions_that_make_the_watermark_false_or_impossible(
    run: Run, stack: Stack, database: Database, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_replica_identity(database)
    create = "SELECT pg_create_logical_replication_slot(%s, 'pgoutput', false, true)"
    database.query(create, [names.prefix])
    topics = KafkaAdmin({"bootstrap.servers": stack.kafka}, partitions=1, replication_factor=1)
    topics.create([f"{names.prefix}.public.orders"], {"unclean.leader.election.enable": "true"})
    topics.create([names("offsets")], {"cleanup.policy": "delete"})
    monkeypatch.setenv("SYNCER_CONNECT__OFFSET_TOPIC", names("offsets"))

    def codes() -> set[tuple[str, str]]:
        found = json.loads(run("check", "--json", expect=1).stdout)["findings"]
        return {(f["severity"], f["code"]) for f in found}

    assert codes() >= {("error", "slot-two-phase"), ("error", "unclean-election"), ("error", "offset-topic")}
    monkeypatch.setenv("SYNCER_CONNECT__OFFSET_TOPIC", names("nothing"))
    assert codes() >= {("warning", "offset-topic")}


def test_check_reports_a_required_resync(
    run: Run, stack: Stack, database: Database, names: Names, tmp_path: Path
) -> None:
    set_replica_identity(database)
    run("connectors", "apply", "--yes")
    run("check")
    topics = KafkaAdmin({"bootstrap.servers": stack.kafka}, partitions=1, replication_factor=1)
    assert names("state") not in topics.existing()  # `check` reads only, and creates no topic
    run("backfill", "customers", "stock")
    run("check")
    database.execute("ALTER TABLE stock ALTER COLUMN quantity TYPE bigint")
    run("check")  # not an error: the documents are rendered again
    database.execute("ALTER TABLE stock ALTER COLUMN sku TYPE uuid USING md5(sku)::uuid")
    customers = tmp_path / "models" / "customers.yaml"
    customers.write_text(customers.read_text().replace("  name: name", "  name: upper(name)"))
    output = run("check", expect=1).stdout
    for model in ("customers", "stock"):
        assert f"error: {model}: the read model was changed since its documents were rendered" in output
        assert f"→ syncer resync {model}" in output
    assert "2 errors" in output and "its file or the primary key of its root table was changed" in output
    assert "the key public.stock.sku was text and is now uuid" in output
    run("connectors", "delete", "--yes")
    output = run("check", "customers", expect=1).stdout
    assert "the connector was deleted\n    no change reaches customers" in output


def test_a_wrong_password_ends_with_exit_code_3(run: Run, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNCER_POSTGRES__PASSWORD", "wr0ng")
    result = run("preview", "orders", "1", expect=3)
    assert "password authentication failed" in result.stderr and "wr0ng" not in result.output
    assert "SYNCER_POSTGRES__PASSWORD" in result.stderr


def test_the_printed_sql_is_valid_and_names_the_tables_it_leaves_out(
    run: Run, database: Database, tmp_path: Path
) -> None:
    database.execute("CREATE VIEW seen AS SELECT * FROM stock", "CREATE TABLE keyless (id bigint)")
    folder, names = tmp_path / "models", ("orders", "customers", "stock", "seen", "keyless")

    def script() -> list[str]:
        lines = run("check", "--sql", expect=1).stdout.splitlines()
        with psycopg.connect(database.dsn) as connection, connection.transaction(force_rollback=True):
            for line in lines:
                connection.execute(line.encode())
        return lines

    for name in names[3:]:
        text = f"name: {name}\nroot: {{table: public.{name}}}\ndocument: {{id: id}}\n"
        (folder / f"{name}.yaml").write_text(f"{text}sink: {{redis: {{key: '{name}:{{id}}'}}}}\n")
    lines = script()
    [publication] = [line for line in lines if line.startswith("CREATE PUBLICATION")]
    assert "public.orders" in publication and "seen" not in publication and "keyless" not in publication
    for name, why in (("keyless", "has no primary key"), ("seen", "is a view")):
        [line] = [line for line in lines if line.startswith(f"-- not covered: the tables of read model {name}: ")]
        assert why in line
    assert "ALTER TABLE public.orders REPLICA IDENTITY FULL;" in lines

    for name in names:
        path = folder / f"{name}.yaml"
        path.write_text(re.sub(r"(id|name|quantity): \1\b", r"\1: no_such_column", path.read_text(), count=1))
    (folder / "broken.yaml").write_text("name: broken\nroot: {tabel: x}\n")
    lines = script()
    assert not [line for line in lines if "PUBLICATION" in line]
    for name in names:
        [line] = [line for line in lines if line.startswith(f"-- not covered: the tables of read model {name}: ")]
        # Problems of the table are reported before problems of its columns.
        assert {"keyless": "has no primary key", "seen": "is a view"}.get(name, "no_such_column") in line
    assert any(line.startswith("-- not covered") and "broken.yaml" in line for line in lines)
