"""Whether a connector's settings send every change, in the form that `pipeline/decode.py` and
`pipeline/resolve.py` read."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import NamedTuple

from syncer.checks.finding import Finding, Severity, quote
from syncer.events import TableName

POSTGRES_CONNECTOR = "io.debezium.connector.postgresql.PostgresConnector"
CANARY_PREFIX = "syncer-canary"
"""Prefix of the canary's logical messages. It differs from `syncer.`, whose messages the connector leaves out."""
_SINCE = "3.7"
_SOUND_SINCE = (3, 7)
_JSON = "org.apache.kafka.connect.json.JsonConverter"


class Rule(NamedTuple):
    """A setting that must have one value."""

    key: str
    wanted: str
    default: str | None
    """What it is when it is not given; None: it has to be given."""
    why: str
    severity: Severity = "error"
    tolerated: tuple[str, ...] = ()
    """Other values, which are worth a warning only."""


RULES = (
    Rule("connector.class", POSTGRES_CONNECTOR, None, "it reads PostgreSQL's log"),
    Rule("plugin.name", "pgoutput", "decoderbufs", "the plug-in that PostgreSQL brings along"),
    Rule(
        "snapshot.mode",
        "no_data",
        "initial",
        "rows that are there already need not travel through Kafka: a backfill renders them",
        tolerated=("initial", "always"),
    ),
    Rule(
        "publication.autocreate.mode",
        "disabled",
        "all_tables",
        "a publication made by Debezium can make the application's own UPDATE fail",
    ),
    Rule("slot.drop.on.stop", "false", "false", "without its slot, every change made meanwhile is lost"),
    Rule("decimal.handling.mode", "string", "precise", "a key's digits have to survive"),
    Rule("time.precision.mode", "isostring", "adaptive", "a key's date or time has to be PostgreSQL's"),
    Rule("interval.handling.mode", "string", "numeric", "a number of microseconds loses months and days"),
    Rule("binary.handling.mode", "hex", "bytes", "the form in which binary keys are read"),
    Rule("skipped.operations", "none", "t", "TRUNCATE is among those skipped by default"),
    Rule("tombstones.on.delete", "false", "true", "they would be empty records", "warning"),
    Rule("errors.tolerance", "none", "none", "records that fail would be dropped in silence"),
    Rule("event.processing.failure.handling.mode", "fail", "fail", "changes would be dropped in silence"),
    Rule(
        "unavailable.value.placeholder",
        "__debezium_unavailable_value",
        "__debezium_unavailable_value",
        "the mark by which a value that did not change is known",
    ),
    Rule("flush.lsn.source", "true", "true", "the slot would never advance, and its log fill the disk"),
    Rule("key.converter", _JSON, None, "keys are read as JSON"),
    Rule("key.converter.schemas.enable", "false", "true", "a schema in every record is most of its size"),
    Rule("value.converter", _JSON, None, "events are read as JSON"),
    Rule("value.converter.schemas.enable", "false", "true", "a schema in every record is most of its size"),
    Rule(
        "value.converter.replace.null.with.default",
        "false",
        "true",
        "a NULL would arrive as its column's default",
    ),
    Rule(
        "topic.naming.strategy",
        "io.debezium.schema.SchemaTopicNamingStrategy",
        "io.debezium.schema.SchemaTopicNamingStrategy",
        "topics are known by prefix, schema and table",
    ),
    Rule("topic.delimiter", ".", ".", "topics are known by prefix, schema and table"),
    Rule(
        "include.unknown.datatypes",
        "true",
        "false",
        "columns of types that Debezium does not know would be left out",
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
    """What in these settings would lose changes of the tables, or send them in another form.

    publication: the one that is checked for the tables. needed: columns that events have to tell, by table
    (`needed_columns`); without them, every column counts as needed.
    """
    findings = [found for rule in RULES if (found := _judge(rule, config, where))]
    for check in (_names, _lists, _columns, _forms, _messages, _pace):
        findings += check(config, where, _Wanted(tables, topic_prefix, publication, needed))
    return findings


class _Wanted(NamedTuple):
    tables: Collection[TableName]
    topic_prefix: str
    publication: str
    needed: Mapping[TableName, Collection[str]] | None


def resumes_soundly(version: str) -> bool | None:
    """Whether this version of Debezium loses nothing when it resumes; None if the version cannot be read.

    Before 3.7 (debezium/dbz#1554), it loses rows that have the same position in the log as the last one sent.
    """
    found = re.match(r"(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) >= _SOUND_SINCE if found else None


def check_version(version: str, where: str) -> Iterator[Finding]:
    """version: of the connector's plug-in, as Kafka Connect tells it; empty if it does not."""
    if resumes_soundly(version) is False:
        yield Finding(
            "error",
            "connector-version",
            where,
            f"Debezium {version} is older than {_SINCE}",
            "it loses rows of a COPY when Kafka Connect is killed while they are sent, and reports nothing",
            f"install Debezium's PostgreSQL connector {_SINCE} or later in Kafka Connect, and restart it",
        )


def check_sight(sees_sessions: bool, role: str, version: str, policy: str) -> Iterator[Finding]:
    """Whether it can be detected that the connector resumed, if all is to be rendered again after that.

    policy: `source.repair_after_resume`.
    """
    needed = policy == "always" or (policy == "auto" and resumes_soundly(version) is not True)
    if needed and not sees_sessions:
        yield Finding(
            "warning",
            "hidden-reader",
            f"role {role}",
            "it may not see when the slot's reader began",
            "a connector that resumes under the same process id is not detected; rows that it lost stay lost",
            f"GRANT pg_read_all_stats TO {quote(role)};",
        )


def _judge(rule: Rule, config: Mapping[str, str], where: str) -> Finding | None:
    value = config.get(rule.key, rule.default)
    if value is not None and value.strip().lower() == rule.wanted.lower():
        return None
    what = "is not set" if rule.key not in config else f"is {value}"
    if rule.key not in config and rule.default is not None:
        what += f", so it is {rule.default}"
    at = f"{where}: {rule.key}"
    severity: Severity = "warning" if value in rule.tolerated else rule.severity
    return Finding(severity, "connector-setting", at, what, rule.why, f'"{rule.key}": "{rule.wanted}"')


def _names(config: Mapping[str, str], where: str, wanted: _Wanted) -> Iterator[Finding]:
    for key, value, why in (
        ("topic.prefix", wanted.topic_prefix, "the syncer reads topics of this prefix"),
        ("publication.name", wanted.publication, "the publication that holds the tables"),
        ("slot.name", "", "two connectors with the default name take each other's slot"),
    ):
        given = config.get(key, "")
        if not given:
            fix = f'"{key}": "{value or "…"}"'
            yield Finding("error", "connector-setting", f"{where}: {key}", "is not set", why, fix)
        elif value and given != value:
            fix = f'"{key}": "{value}"'
            yield Finding("error", "connector-setting", f"{where}: {key}", f"is {given}, not {value}", why, fix)


def _lists(config: Mapping[str, str], where: str, wanted: _Wanted) -> Iterator[Finding]:
    for key, text, included in _LISTS:
        if not config.get(key):
            continue
        patterns = _patterns(config[key])
        if patterns is None:
            what = "holds a pattern that cannot be judged here"
            yield Finding("warning", "connector-pattern", f"{where}: {key}", what)
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
            yield Finding("error", "connector-columns", at, "alters or leaves out columns", "keys and links are needed")
            continue
        columns = [f"{table}.{column}" for table, names in wanted.needed.items() for column in sorted(names)]
        hit = [c for c in columns if any(p.fullmatch(c) for p in patterns) != (key == "column.include.list")]
        if hit:
            what = f"alters or leaves out {', '.join(hit)}"
            yield Finding("error", "connector-columns", at, what, "rows are found by these columns")
        else:
            why = "a change of such a column counts as a change of the whole row"
            yield Finding("note", "connector-columns", at, "alters or leaves out columns", why)
    if config.get("message.key.columns"):
        yield Finding(
            "error",
            "connector-setting",
            f"{where}: message.key.columns",
            "is set",
            "rows are known by their primary key, and their events ordered by it",
            "remove it",
        )


def _forms(config: Mapping[str, str], where: str, wanted: _Wanted) -> Iterator[Finding]:
    for alias in filter(None, map(str.strip, config.get("transforms", "").split(","))):
        kind = config.get(f"transforms.{alias}.type", "")
        at = f"{where}: transforms.{alias}"
        if _CHANGES_EVENTS.search(kind):
            why = "events have to arrive as Debezium makes them, all of them"
            yield Finding("error", "connector-transform", at, f"{kind} drops or alters events", why, "remove it")
        elif not _HARMLESS.match(kind):
            yield Finding("warning", "connector-transform", at, f"{kind} may drop or alter events")
    for key in ("converters", "post.processors"):
        if config.get(key):
            yield Finding("warning", "connector-setting", f"{where}: {key}", "may alter the values of keys and links")
    for key, value in config.items():
        if re.fullmatch(r"topic\.creation\..*\.cleanup\.policy", key) and "compact" in value:
            why = "compaction drops events whose before-image is still needed"
            yield Finding("error", "connector-topic", f"{where}: {key}", f"is {value}", why, f'"{key}": "delete"')
    if config.get("lsn.flush.mode") == "manual":
        why = "the slot would never advance, and its log fill the disk"
        yield Finding("error", "connector-setting", f"{where}: lsn.flush.mode", "is manual", why, "remove it")


def _messages(config: Mapping[str, str], where: str, wanted: _Wanted) -> Iterator[Finding]:
    for key, included in (("message.prefix.include.list", True), ("message.prefix.exclude.list", False)):
        patterns = _patterns(config.get(key, ""))
        if config.get(key) and any(p.fullmatch(CANARY_PREFIX) for p in patterns or ()) != included:
            what = f"keeps back messages of prefix {CANARY_PREFIX}"
            why = "these tell the syncer that no change is lost on the way"
            fix = f'"{key}": "{CANARY_PREFIX}"' if included else f'"{key}": "syncer\\\\..*"'
            yield Finding("error", "connector-messages", f"{where}: {key}", what, why, fix)


def _pace(config: Mapping[str, str], where: str, wanted: _Wanted) -> Iterator[Finding]:
    if _number(config, "producer.override.max.request.size", 1 << 20) < 1 << 24:
        why = "a row that is larger (twice its size under REPLICA IDENTITY FULL) stops the connector"
        at, fix = (
            f"{where}: producer.override.max.request.size",
            '"producer.override.max.request.size": "16777216"',
        )
        yield Finding("warning", "connector-limit", at, "is below 16 MiB", why, fix)
    if _number(config, "poll.interval.ms", 500) > 50:
        why = "each change waits up to so long before it is sent"
        yield Finding("note", "connector-pace", f"{where}: poll.interval.ms", "is long", why, '"poll.interval.ms": "5"')
    if not _number(config, "heartbeat.interval.ms", 0):
        why = "while other tables are busy and these are not, the slot holds back ever more log"
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
    """Debezium's lists: anchored regular expressions, any case, separated by commas. None: unreadable."""
    try:
        return [re.compile(p.strip(), re.IGNORECASE) for p in re.split(r"(?<!\\),", value) if p.strip()]
    except re.error:
        return None


def _number(config: Mapping[str, str], key: str, default: int) -> int:
    try:
        return int(config.get(key, default))
    except ValueError:
        return default
