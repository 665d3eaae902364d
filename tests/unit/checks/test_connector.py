"""Findings about a connector's settings."""

from pathlib import Path

import pytest

from syncer.checks import (
    Finding,
    check_connector,
    check_repair,
    check_session_visibility,
    check_version,
    loses_only_inserts,
)
from syncer.connect.definition import load_definition
from syncer.events import TableName

CONNECTORS = Path(__file__).parents[3] / "connectors"
ORDERS = TableName("public", "orders")
ITEMS = TableName("public", "order_items")


def shop() -> dict[str, str]:
    return dict(load_definition(CONNECTORS / "shop.json", {"SHOP_PGPASSWORD": "x"}).config)


def connector(
    changes: dict[str, str | None] | None = None, needed: dict[TableName, list[str]] | None = None
) -> list[Finding]:
    config = {k: v for k, v in {**shop(), **(changes or {})}.items() if v is not None}
    return check_connector(config, [ORDERS, ITEMS], topic_prefix="shop", publication="syncer_shop", needed=needed)


def only(found: list[Finding]) -> Finding:
    assert len(found) == 1, found
    return found[0]


def test_the_demos_connector_has_no_findings() -> None:
    assert connector() == []


@pytest.mark.parametrize(
    ("key", "value", "severity"),
    [
        ("plugin.name", None, "error"),
        ("snapshot.mode", "initial", "warning"),
        ("snapshot.mode", None, "warning"),
        ("snapshot.mode", "initial_only", "error"),
        ("snapshot.mode", "when_needed", "error"),  # after a lost slot it would silently skip the lost changes
        ("publication.autocreate.mode", None, "error"),
        ("publication.name", "other", "error"),
        ("slot.name", None, "error"),
        ("slot.drop.on.stop", "true", "error"),
        ("topic.prefix", "store", "error"),
        ("decimal.handling.mode", "double", "error"),
        ("time.precision.mode", None, "error"),
        ("binary.handling.mode", "base64", "error"),
        ("interval.handling.mode", None, "error"),
        ("skipped.operations", None, "error"),
        ("skipped.operations", "t", "error"),
        ("errors.tolerance", "all", "error"),
        ("event.processing.failure.handling.mode", "skip", "error"),
        ("value.converter", "io.confluent.connect.avro.AvroConverter", "error"),
        ("value.converter.schemas.enable", None, "error"),
        ("value.converter.replace.null.with.default", None, "error"),
        ("key.converter", None, "error"),
        ("unavailable.value.placeholder", "?", "error"),
        ("lsn.flush.mode", "manual", "error"),
        ("offset.mismatch.strategy", "trust_slot", "error"),
        ("offset.mismatch.strategy", "TRUST_GREATER_LSN", "error"),
        ("lsn.flush.mode", "connector_and_driver", "error"),
        ("producer.override.acks", "1", "error"),
        ("message.prefix.exclude.list", "syncer.*", "error"),
        ("message.prefix.include.list", "app,audit", "error"),
        ("message.key.columns", "public.orders:status", "error"),
        ("table.include.list", "public.orders", "error"),
        ("table.exclude.list", "public.order.*", "error"),
        ("schema.include.list", "other", "error"),
        ("column.exclude.list", "public.orders.note", "error"),
        ("topic.creation.default.cleanup.policy", "compact,delete", "error"),
        ("tombstones.on.delete", None, "warning"),
        ("producer.override.max.request.size", None, "warning"),
        ("table.include.list", "public.(", "warning"),
        ("heartbeat.interval.ms", None, "warning"),
        ("converters", "mine", "warning"),
        ("poll.interval.ms", None, "note"),
        ("max.queue.size.in.bytes", None, "note"),
        ("provide.transaction.metadata", "true", "note"),
    ],
)
def test_hazard_07_settings_that_lose_or_alter_changes(key: str, value: str | None, severity: str) -> None:
    found = only(connector({key: value}))
    assert found.severity == severity
    assert found.where == f"connector: {key}"


@pytest.mark.parametrize("strategy", ["no_validation", "trust_offset"])
def test_a_connector_that_continues_at_its_own_offset_has_no_finding(strategy: str) -> None:
    assert connector({"offset.mismatch.strategy": strategy}) == []


def test_include_lists_match_whole_names_in_any_case() -> None:
    assert connector({"table.include.list": r"PUBLIC\.order.*, other\.x"}) == []
    found = only(connector({"table.include.list": "public.order"}))
    assert "public.order_items, public.orders" in found.what


def test_transforms_that_alter_events_are_errors_and_unknown_ones_warnings() -> None:
    def severities(kind: str) -> list[str]:
        return [f.severity for f in connector({"transforms": "a", "transforms.a.type": kind})]

    assert severities("io.debezium.transforms.ExtractNewRecordState") == ["error"]
    assert severities("org.apache.kafka.connect.transforms.Filter") == ["error"]
    assert severities("io.debezium.transforms.Filter") == ["error"]
    assert severities("my.Own") == ["warning"]
    assert severities("org.apache.kafka.connect.transforms.InsertHeader") == []


def test_columns_outside_of_keys_and_links_may_be_excluded() -> None:
    needed = {ORDERS: ["id"], ITEMS: ["id", "order_id"]}
    found = only(connector({"column.exclude.list": r"public\.orders\.note"}, needed))
    assert found.severity == "note"
    found = only(connector({"column.exclude.list": r"public\..*\.order_id"}, needed))
    assert found.severity == "error" and "public.order_items.order_id" in found.what


@pytest.mark.parametrize("version", ["3.6.3.Final", "3.6.3.Final-redhat-00001", "2.7.4", "1.9.7.Final"])
def test_hazard_30_a_connector_that_loses_rows_when_it_resumes_is_an_error(version: str) -> None:
    found = only(list(check_version(version, "http://connect:8083")))
    assert (found.severity, found.where) == ("error", "http://connect:8083")
    assert version in found.what and "loses rows of a COPY" in found.why and "3.7 or later" in found.fix


@pytest.mark.parametrize("version", ["3.7.0.Final", "3.7.0-SNAPSHOT", "3.10.1.Final", "4.0.0.Alpha1"])
def test_a_version_that_loses_only_inserts_has_no_finding(version: str) -> None:
    assert list(check_version(version, "")) == []
    assert loses_only_inserts(version) is True


@pytest.mark.parametrize("version", ["", "null", "unknown", "v-next"])
def test_an_unreadable_version_is_neither_an_error_nor_known_to_be_safe(version: str) -> None:
    assert list(check_version(version, "")) == []
    assert loses_only_inserts(version) is None


@pytest.mark.parametrize(
    ("sees", "policy", "warned"),
    [(False, "auto", True), (False, "always", True), (False, "never", False), (True, "auto", False)],
)
def test_a_role_that_cannot_see_when_the_reader_started_causes_a_warning(sees: bool, policy: str, warned: bool) -> None:
    found = list(check_session_visibility(sees, 'the "syncer"', policy))
    assert [(f.severity, f.fix) for f in found] == [
        ("warning", 'GRANT pg_read_all_stats TO "the ""syncer""";')
    ] * warned


def test_hazard_30_a_warning_says_that_lost_rows_are_not_repaired() -> None:
    found = only(list(check_repair("never")))
    assert (found.severity, found.fix) == ("warning", "repair_after_resume: auto")
    assert "lose rows of a COPY" in found.why
    assert not [*check_repair("auto"), *check_repair("always")]
