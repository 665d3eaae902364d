"""Checks that a connector's settings keep every change, in the form that `pipeline/decode.py` and
`pipeline/resolve.py` read.

`RULES` is the table of settings that must have one value. The functions below it check settings that depend on the
read models' tables, and settings that may alter events.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import NamedTuple

from syncer.checks.finding import Finding, Severity, quote
from syncer.events import TableName

POSTGRES_CONNECTOR = "io.debezium.connector.postgresql.PostgresConnector"
CANARY_PREFIX = "syncer-canary"
"""Prefix of the canary's logical messages. It does not begin with `syncer.`: the connector leaves out such messages."""
_LOSES_ONLY_INSERTS_SINCE = (3, 7)
"""The first version of Debezium that loses nothing but inserted rows when it resumes, and seldom."""
_JSON = "org.apache.kafka.connect.json.JsonConverter"


class Rule(NamedTuple):
    """A setting that must have one value."""

    key: str
    wanted: str
    default: str | None
    """The value that applies when the setting is missing; None if there is no default."""
    why: str
    severity: Severity = "error"
    tolerated: tuple[str, ...] = ()
    """Other values that cause a warning only."""


RULES = (
    Rule("connector.class", POSTGRES_CONNECTOR, None, "only Debezium's PostgreSQL connector reads PostgreSQL's WAL"),
    Rule("plugin.name", "pgoutput", "decoderbufs", "only pgoutput is part of PostgreSQL"),
    Rule(
        "snapshot.mode",
        "no_data",
        "initial",
        "a backfill renders the existing rows, so they need not pass through Kafka",
        tolerated=("initial", "always"),
    ),
    Rule(
        "publication.autocreate.mode",
        "disabled",
        "all_tables",
        "a publication made by Debezium can make the application's own UPDATE fail",
    ),
    Rule("slot.drop.on.stop", "false", "false", "changes made while the connector is stopped would be lost"),
    Rule("decimal.handling.mode", "string", "precise", "events must keep every digit of a key"),
    Rule("time.precision.mode", "isostring", "adaptive", "events must keep dates and times of keys exactly"),
    Rule("interval.handling.mode", "string", "numeric", "a number of microseconds loses months and days"),
    Rule("binary.handling.mode", "hex", "bytes", "the syncer reads binary keys as hexadecimal text"),
    Rule("skipped.operations", "none", "t", "the default skips TRUNCATE"),
    Rule("tombstones.on.delete", "false", "true", "tombstones are records that the syncer does not need", "warning"),
    Rule("errors.tolerance", "none", "none", "records that fail would be silently dropped"),
    Rule("event.processing.failure.handling.mode", "fail", "fail", "changes that fail would be silently dropped"),
    Rule(
        "unavailable.value.placeholder",
        "__debezium_unavailable_value",
        "__debezium_unavailable_value",
        "the syncer recognizes an unchanged large value by this placeholder",
    ),
    Rule("flush.lsn.source", "true", "true", "the slot would never advance, and WAL would fill the disk"),
    Rule(
        "lsn.flush.mode",
        "connector",
        "connector",
        "PostgreSQL may remove WAL only after Debezium has confirmed that its changes are in Kafka",
    ),
    Rule("key.converter", _JSON, None, "the syncer reads keys as JSON"),
    Rule("key.converter.schemas.enable", "false", "true", "the schema would be most of each record's size"),
    Rule("value.converter", _JSON, None, "the syncer reads events as JSON"),
    Rule("value.converter.schemas.enable", "false", "true", "the schema would be most of each record's size"),
    Rule(
        "value.converter.replace.null.with.default",
        "false",
        "true",
        "a NULL would arrive as the column's default",
    ),
    Rule(
        "topic.naming.strategy",
        "io.debezium.schema.SchemaTopicNamingStrategy",
        "io.debezium.schema.SchemaTopicNamingStrategy",
        "the syncer expects topics named prefix.schema.table",
    ),
    Rule("topic.delimiter", ".", ".", "the syncer expects topics named prefix.schema.table"),
    Rule(
        "include.unknown.datatypes",
        "true",
        "false",
        "events would leave out columns of types that Debezium does not know",
        "warning",
    ),
)

_HARMLESS = re.compile(r"org\.apache\.kafka\.connect\.transforms\.(InsertHeader|DropHeaders)")
_CHANGES_EVENTS = re.compile(
    r"ExtractNewRecordState|Filter|RegexRouter|ByLogicalTableRouter|ContentBasedRouter|ReplaceField|MaskField"
    r"|Flatten|ExtractField|ValueToKey|TimestampRouter|EventRouter|Cast|ExtractChangedRecordState|PartitionRouting"
)
_LISTS: tuple[tuple[str, Callable[[TableName], str], bool], ...] = (
    ("schema.include.list", lambda table: table.schema, True),
    ("schema.exclude.list", lambda table: table.schema, False),
    ("table.include.list", str, True),
    ("table.exclude.list", str, False),
)
_SKIPPING = ("trust_slot", "trust_greater_lsn")
"""Strategies of Debezium with which a connector continues at the slot's position, although Kafka has less."""
_COLUMN_SETTINGS = re.compile(r"column\.(exclude\.list|mask\..*|truncate\..*)")


def check_connector(
    config: Mapping[str, str],
    tables: Collection[TableName],
    *,
    topic_prefix: str,
    publication: str = "",
    needed: Mapping[TableName, Collection[str]] | None = None,
    where: str = "connector",
) -> list[Finding]:
    """Finds settings that would lose changes of the tables, or send them in a form that the syncer does not read.

    publication: the name of the publication with the tables; empty if it is not known.
    needed: the columns that events must contain, by table (`needed_columns`). If None, every column is needed.
    """
    findings = [found for rule in RULES if (found := _check_rule(rule, config, where))]
    for check in (_names, _table_lists, _columns, _transforms, _messages, _resume, _limits):
        findings += check(config, where, _Wanted(tables, topic_prefix, publication, needed))
    return findings


class _Wanted(NamedTuple):
    """The arguments of `check_connector` that do not come from the connector."""

    tables: Collection[TableName]
    topic_prefix: str
    publication: str
    needed: Mapping[TableName, Collection[str]] | None


def loses_only_inserts(version: str) -> bool | None:
    """Returns whether this version of Debezium can lose only inserted rows when it resumes; None if it is unreadable.

    An earlier version loses rows that have the same WAL position as the last row sent (debezium/dbz#1554), and other
    changes (dbz#76). A later one still loses the rest of a page of a COPY if it had sent only one row of the page.
    """
    found = re.match(r"(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) >= _LOSES_ONLY_INSERTS_SINCE if found else None


def check_version(version: str, where: str) -> Iterator[Finding]:
    """Finds a version of Debezium that often loses rows when it resumes.

    version: of the connector's plug-in, as Kafka Connect reports it; empty if it is not known.
    """
    if loses_only_inserts(version) is False:
        since = ".".join(map(str, _LOSES_ONLY_INSERTS_SINCE))
        yield Finding(
            "error",
            "connector-version",
            where,
            f"Debezium {version} is older than {since}",
            "it silently loses rows of a COPY when Kafka Connect is killed while it sends them",
            f"install Debezium's PostgreSQL connector {since} or later in Kafka Connect, and restart it",
        )


def check_repair(policy: str) -> Iterator[Finding]:
    """Finds that lost rows are not repaired. policy: `source.repair_after_resume`."""
    if policy == "never":
        yield Finding(
            "warning",
            "lost-rows",
            "source.repair_after_resume",
            "is never",
            "Debezium can lose rows of a COPY when Kafka Connect is killed, and nothing repairs this",
            "repair_after_resume: auto",
        )


def check_session_visibility(sees_sessions: bool, role: str, policy: str) -> Iterator[Finding]:
    """Finds a role that may not see when the connector resumed, if the policy needs this to repair documents.

    policy: `source.repair_after_resume`.
    """
    if policy != "never" and not sees_sessions:
        yield Finding(
            "warning",
            "hidden-reader",
            f"role {role}",
            "it may not see when the slot's reader started",
            "if the connector resumes with the same process id, the syncer does not detect it and lost rows stay lost",
            f"GRANT pg_read_all_stats TO {quote(role)};",
        )


def _check_rule(rule: Rule, config: Mapping[str, str], where: str) -> Finding | None:
    value = config.get(rule.key, rule.default)
    if value is not None and value.strip().lower() == rule.wanted.lower():
        return None
    what = "is not set" if rule.key not in config else f"is {value}"
    if rule.key not in config and rule.default is not None:
        what += f", so it defaults to {rule.default}"
    at = f"{where}: {rule.key}"
    severity: Severity = "warning" if value in rule.tolerated else rule.severity
    return Finding(severity, "connector-setting", at, what, rule.why, f'"{rule.key}": "{rule.wanted}"')


def _names(config: Mapping[str, str], where: str, wanted: _Wanted) -> Iterator[Finding]:
    for key, value, why in (
        ("topic.prefix", wanted.topic_prefix, "the syncer reads topics with this prefix"),
        ("publication.name", wanted.publication, "the connector must read the publication with the tables"),
        ("slot.name", "", "two connectors with the default name would use the same slot"),
    ):
        given = config.get(key, "")
        if not given:
            fix = f'"{key}": "{value or "…"}"'
            yield Finding("error", "connector-setting", f"{where}: {key}", "is not set", why, fix)
        elif value and given != value:
            fix = f'"{key}": "{value}"'
            yield Finding("error", "connector-setting", f"{where}: {key}", f"is {given}, not {value}", why, fix)


def _table_lists(config: Mapping[str, str], where: str, wanted: _Wanted) -> Iterator[Finding]:
    for key, text, included in _LISTS:
        if not config.get(key):
            continue
        patterns = _patterns(config[key])
        if patterns is None:
            what = "has a pattern that this check cannot read"
            why = "the pattern may leave out tables of a read model"
            yield Finding("warning", "connector-pattern", f"{where}: {key}", what, why)
            continue
        lost = [t for t in sorted(wanted.tables) if any(p.fullmatch(text(t)) for p in patterns) != included]
        if lost:
            what = f"{'lacks' if included else 'excludes'} {', '.join(map(str, lost))}"
            whole = ",".join([config[key], *(re.escape(text(t)) for t in lost)])
            fix = f'"{key}": {json.dumps(whole, ensure_ascii=False)}' if included else ""
            why = "changes of these tables would not be sent"
            yield Finding("error", "connector-tables", f"{where}: {key}", what, why, fix)


def _columns(config: Mapping[str, str], where: str, wanted: _Wanted) -> Iterator[Finding]:
    for key in config:
        if not _COLUMN_SETTINGS.fullmatch(key) and key != "column.include.list":
            continue
        at = f"{where}: {key}"
        patterns = _patterns(config[key])
        if patterns is None or wanted.needed is None:
            why = "events must contain keys and links unaltered"
            yield Finding("error", "connector-columns", at, "alters or leaves out columns", why, "remove it")
            continue
        columns = [f"{table}.{column}" for table, names in wanted.needed.items() for column in sorted(names)]
        hit = [c for c in columns if any(p.fullmatch(c) for p in patterns) != (key == "column.include.list")]
        if hit:
            what = f"alters or leaves out {', '.join(hit)}"
            why = "the syncer finds rows by these columns"
            yield Finding("error", "connector-columns", at, what, why)
        else:
            why = "a change of such a column counts as a change of the whole row"
            yield Finding("note", "connector-columns", at, "alters or leaves out columns", why)
    if config.get("message.key.columns"):
        yield Finding(
            "error",
            "connector-setting",
            f"{where}: message.key.columns",
            "is set",
            "the syncer identifies rows by their primary key, and Kafka orders their events by it",
            "remove it",
        )


def _transforms(config: Mapping[str, str], where: str, wanted: _Wanted) -> Iterator[Finding]:
    for alias in filter(None, map(str.strip, config.get("transforms", "").split(","))):
        kind = config.get(f"transforms.{alias}.type", "")
        at = f"{where}: transforms.{alias}"
        if _CHANGES_EVENTS.search(kind):
            why = "the syncer needs every event, as Debezium writes it"
            yield Finding("error", "connector-transform", at, f"{kind} drops or alters events", why, "remove it")
        elif not _HARMLESS.match(kind):
            why = "the syncer needs every event, as Debezium writes it"
            yield Finding("warning", "connector-transform", at, f"{kind} may drop or alter events", why)
    for key in ("converters", "post.processors"):
        if config.get(key):
            what, why = "may alter the values of keys and links", "events must contain keys and links unaltered"
            yield Finding("warning", "connector-setting", f"{where}: {key}", what, why)
    for key, value in config.items():
        if re.fullmatch(r"topic\.creation\..*\.cleanup\.policy", key) and "compact" in value:
            why = "compaction drops events whose before-image is still needed"
            yield Finding("error", "connector-topic", f"{where}: {key}", f"is {value}", why, f'"{key}": "delete"')


def _messages(config: Mapping[str, str], where: str, wanted: _Wanted) -> Iterator[Finding]:
    for key, included in (("message.prefix.include.list", True), ("message.prefix.exclude.list", False)):
        patterns = _patterns(config.get(key, ""))
        if config.get(key) and any(p.fullmatch(CANARY_PREFIX) for p in patterns or ()) != included:
            what = f"leaves out messages of prefix {CANARY_PREFIX}"
            why = "by these messages the syncer detects lost changes"
            fix = f'"{key}": "{CANARY_PREFIX}"' if included else f'"{key}": "syncer\\\\..*"'
            yield Finding("error", "connector-messages", f"{where}: {key}", what, why, fix)


def _resume(config: Mapping[str, str], where: str, wanted: _Wanted) -> Iterator[Finding]:
    key = "offset.mismatch.strategy"
    if (strategy := config.get(key, "").strip().lower()) in _SKIPPING:
        why = (
            "if the slot is ahead of the offset that Kafka Connect has committed, the changes between them are skipped"
        )
        fix = f'"{key}": "trust_offset"'
        yield Finding("error", "connector-setting", f"{where}: {key}", f"is {strategy}", why, fix)


def _limits(config: Mapping[str, str], where: str, wanted: _Wanted) -> Iterator[Finding]:
    if (acks := config.get("producer.override.acks", "all")) not in ("all", "-1"):
        why = "source offsets would be committed before the records are safe, so the watermark could be false"
        at, fix = f"{where}: producer.override.acks", '"producer.override.acks": "all"'
        yield Finding("error", "connector-setting", at, f"is {acks}", why, fix)
    if _number(config, "producer.override.max.request.size", 1 << 20) < 1 << 24:
        why = "a larger event stops the connector (under REPLICA IDENTITY FULL an event has twice the row's size)"
        at, fix = (
            f"{where}: producer.override.max.request.size",
            '"producer.override.max.request.size": "16777216"',
        )
        yield Finding("warning", "connector-limit", at, "is below 16 MiB", why, fix)
    if (interval := _number(config, "poll.interval.ms", 500)) > 50:
        what, why = f"is {interval} ms", "each change may wait this long before it is sent"
        yield Finding("note", "connector-pace", f"{where}: poll.interval.ms", what, why, '"poll.interval.ms": "10"')
    if not _number(config, "heartbeat.interval.ms", 0):
        why = "while only other tables change, the slot retains more and more WAL"
        fix = '"heartbeat.interval.ms": "10000"'
        yield Finding("warning", "connector-pace", f"{where}: heartbeat.interval.ms", "is not set", why, fix)
    if not _number(config, "max.queue.size.in.bytes", 0):
        why = "large rows could exhaust the worker's memory"
        fix = '"max.queue.size.in.bytes": "67108864"'
        yield Finding("note", "connector-pace", f"{where}: max.queue.size.in.bytes", "is not set", why, fix)
    if config.get("provide.transaction.metadata", "false").lower() == "true":
        why = "the syncer does not read it"
        yield Finding("note", "connector-pace", f"{where}: provide.transaction.metadata", "is on", why)


def _patterns(value: str) -> list[re.Pattern[str]] | None:
    """Parses a list of Debezium: anchored regular expressions in any case, separated by commas.

    Returns None if one cannot be compiled.
    """
    try:
        return [re.compile(p.strip(), re.IGNORECASE) for p in re.split(r"(?<!\\),", value) if p.strip()]
    except re.error:
        return None


def _number(config: Mapping[str, str], key: str, default: int) -> int:
    try:
        return int(config.get(key, default))
    except ValueError:
        return default
