"""Hints of errors: each has to help in the situation in which it appears. Each test creates one situation."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from confluent_kafka import KafkaError, KafkaException
from redis.exceptions import NoScriptError

from syncer.cli.run_checks import _missing_connector
from syncer.config import schema
from syncer.connect.client import Connect
from syncer.declaration.compile import compile
from syncer.declaration.model import parse
from syncer.errors import Fatal, Retry, SyncerError, split_hint, with_hint
from syncer.kafka.admin import KafkaAdmin
from syncer.kafka.errors import classify_error
from syncer.postgres.session import connect
from syncer.sinks import elasticsearch, redis
from syncer.sinks import postgres as postgres_sink
from syncer.sinks.elasticsearch.client import reason_of
from syncer.sinks.postgres.server import connect as connect_sink
from syncer.sinks.redis import errors as redis_errors
from tests.harness.catalogs import catalog, table

TLS = Path(__file__).parent / "tls"
ELSEWHERE = "/no/such/file.pem"


def tls_server(*, postgres: bool) -> Iterator[int]:
    """Yields the port of a TLS server whose certificate comes from an unknown authority.

    postgres: whether the server expects PostgreSQL's request for TLS first.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / "unknown.pem", TLS / "unknown.key")
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet(client: socket.socket) -> None:
            with suppress(OSError), client:
                if postgres:
                    client.recv(8)
                    client.sendall(b"S")
                with context.wrap_socket(client, server_side=True) as wrapped:
                    wrapped.recv(10)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    threading.Thread(target=greet, args=(listener.accept()[0],), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    yield from tls_server(postgres=False)


@pytest.fixture(scope="module")
def postgres() -> Iterator[int]:
    yield from tls_server(postgres=True)


def raised(ask: Callable[[], object]) -> SyncerError:
    with pytest.raises(SyncerError) as found:
        ask()
    return found.value


def obstacle(sink: Any, url: str) -> SyncerError:
    [error] = sink.preflight(sink.Connection.model_validate({"url": url}), [])
    assert isinstance(error, SyncerError)
    return error


ASK: dict[str, Callable[[int], SyncerError]] = {
    "elasticsearch.ca_file": lambda port: obstacle(elasticsearch, f"https://localhost:{port}"),
    "redis.ca_file": lambda port: obstacle(redis, f"rediss://localhost:{port}/0"),
    "connect.ca_file": lambda port: raised(Connect(f"https://localhost:{port}").names),
    "ssl.ca.location in kafka.properties": lambda port: raised(
        lambda: KafkaAdmin(
            {"bootstrap.servers": f"localhost:{port}", "security.protocol": "ssl", "log_level": 0},
            partitions=1,
            replication_factor=1,
        ).existing(1.0)
    ),
}


@pytest.mark.parametrize("setting", ASK)
def test_an_unknown_authority_names_the_setting_of_its_file(setting: str, port: int) -> None:
    error = ASK[setting](port)
    assert isinstance(error, Fatal)
    assert "certificate verify failed" in error.why and setting in error.hint


def test_the_sink_of_postgresql_names_its_own_setting(postgres: int) -> None:
    dsn = f"host=localhost port={postgres} user=u dbname=d sslmode=verify-full sslrootcert={ELSEWHERE}"
    error = raised(lambda: connect_sink(postgres_sink.Connection(dsn=dsn), "postgres:read.orders"))
    assert isinstance(error, Fatal) and ELSEWHERE in error.why and "sslrootcert in postgres_sink.dsn" in error.hint


def test_postgres_names_the_setting_of_an_unknown_authority_or_a_missing_file(postgres: int, tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    other.write_text("no certificate")
    for file, why in ((ELSEWHERE, ELSEWHERE), (str(other), str(other))):
        dsn = f"host=localhost port={postgres} user=u dbname=d sslmode=verify-full sslrootcert={file}"
        error = raised(lambda dsn=dsn: connect({"conninfo": dsn}))  # type: ignore[misc]
        assert isinstance(error, Fatal) and why in error.why and "sslrootcert in postgres.dsn" in error.hint


@pytest.mark.parametrize("section", ["elasticsearch", "redis", "connect"])
def test_a_missing_or_unreadable_ca_file_is_named_with_its_setting(section: str, tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    other.write_text("no certificate")
    modules: dict[str, Any] = {"elasticsearch": elasticsearch, "redis": redis}

    def read(file: str) -> str:
        environment = {
            "SYNCER_POSTGRES__DSN": "host=db",
            "SYNCER_KAFKA__BOOTSTRAP_SERVERS": "k:1",
            "SYNCER_KAFKA__TOPIC_PREFIX": "shop",
            f"SYNCER_{section.upper()}__CA_FILE": file,
        }

        def load() -> None:
            loaded = schema.load(environ=environment)
            if section in modules:
                loaded.connection(section, modules[section].Connection)

        return str(raised(load))

    (tmp_path / "none").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path / "none")
        variable = f"environment variable SYNCER_{section.upper()}__CA_FILE"
        message = read(ELSEWHERE)
        assert variable in message and f"{section}.ca_file" in message and f"cannot read {ELSEWHERE}" in message
        assert "up?" not in message
        assert f"{other} holds no certificates" in read(str(other))


def test_missing_files_of_kafka_settings_are_named() -> None:
    for name in ("ssl.ca.location", "ssl.certificate.location"):
        settings = {"bootstrap.servers": "k:1", "security.protocol": "ssl", "log_level": 0, name: ELSEWHERE}
        error = raised(lambda s=settings: KafkaAdmin(s, partitions=1, replication_factor=1))  # type: ignore[misc]
        assert isinstance(error, Fatal) and f"{name} {ELSEWHERE}" in error.hint


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        (KafkaError._TRANSPORT, "check that Kafka is up"),
        (KafkaError.INVALID_REPLICATION_FACTOR, "kafka.replication_factor"),
        (KafkaError.INVALID_REQUEST, ""),
    ],
)
def test_the_hint_asks_whether_kafka_is_up_only_if_it_did_not_answer(code: int, hint: str) -> None:
    error = classify_error("cannot create topic x", KafkaException(KafkaError(code)))
    assert isinstance(error, Retry)
    assert hint in error.hint if hint else not error.hint


def test_a_script_that_redis_lost_twice_is_sent_again() -> None:
    """A server that fails over while the sink loads the script has lost it again."""
    assert isinstance(
        redis_errors.classify_error(NoScriptError("No matching script"), "cannot write", "redis:x"), Retry
    )


class OpenSearch(BaseHTTPRequestHandler):
    """Answers like OpenSearch 2."""

    version: ClassVar = {"distribution": "opensearch", "number": "2.19.0"}

    def do_GET(self) -> None:
        self.do_POST()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        kinds = self.headers.get("Content-Type", ""), self.headers.get("Accept", "")
        body: dict[str, Any] = {"version": self.version}
        foreign = next((kind for kind in kinds if "vnd.elasticsearch" in kind), "")
        if foreign:
            body = {"error": f"Content-Type header [{foreign}] is not supported", "status": 406}
        data = json.dumps(body).encode()
        self.send_response(406 if foreign else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Logs nothing."""


class OldElasticsearch(OpenSearch):
    version: ClassVar = {"number": "7.10.2"}


@pytest.mark.parametrize(
    ("server", "what"),
    [
        (OpenSearch, "this is OpenSearch 2.19.0, which is not supported yet"),
        (OldElasticsearch, "this is not Elasticsearch 8 or 9: the server reports version 7.10.2"),
    ],
)
def test_a_server_of_another_kind_is_named(server: type[BaseHTTPRequestHandler], what: str) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), server) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{listening.server_port}"
        error = obstacle(elasticsearch, url)
        listening.shutdown()
    assert isinstance(error, Fatal)
    assert error.what == what and "elasticsearch.url" in error.hint and "up?" not in error.hint


def declared(entry: str) -> str:
    text = f"name: o\nroot: {{table: t}}\ndocument:\n  x: {entry}\nsink: {{memory: {{}}}}\n"
    with pytest.raises(Fatal) as found:
        parse(text, "m.yaml")
    return str(found.value)


@pytest.mark.parametrize(
    ("entry", "wrong", "meant"),
    [
        ("{mnay: a, on: {a: b}, value: x}", "mnay", "many"),
        ("{oen: a, on: {a: b}, value: x, where: y}", "oen", "one"),
        ("{mnay: a, on: {a: b}, document: {x: x}, limit: 5}", "mnay", "many"),
        ("{value: count(x), group_yb: y}", "group_yb", "group_by"),
        ("{many: a, on: {a: b}, valeu: x}", "valeu", "value"),
        ("{objcet: {a: b}}", "objcet", "object"),
    ],
)
def test_a_misspelt_key_gives_one_error(entry: str, wrong: str, meant: str) -> None:
    assert declared(entry) == f"m.yaml:4: unknown key {wrong!r}\n  → did you mean {meant!r}?"


def test_a_connector_that_never_existed_is_not_reported_as_removed() -> None:
    new = _missing_connector("connector c", [], existed=False)
    assert (new.severity, new.what) == ("warning", "the connector does not exist yet")
    waited_for = _missing_connector("connector c", ["orders"], existed=False)
    assert (waited_for.severity, waited_for.what) == ("error", "the connector does not exist yet")
    assert _missing_connector("connector c", ["orders"], existed=True).what == "the connector was deleted"


def test_programs_get_the_hint_in_its_own_field() -> None:
    error = Fatal("cannot write", where="redis:x", why="no rights", hint="syncer check\n  more")
    assert split_hint(str(error)) == ("redis:x: cannot write: no rights", "syncer check\n  more")
    assert split_hint("all is well") == ("all is well", "")
    two = f"{error}\n{error}"
    assert split_hint(two) == (two, "")
    found = with_hint({"a": 1, "reason": str(error), "last_error": str(error)})
    text = split_hint(str(error))[0]
    assert found == {"a": 1, "reason": text, "last_error": text, "hint": "syncer check\n  more"}
    assert with_hint({"reason": "", "last_error": str(error)})["hint"] == "", "that error is over"
    assert with_hint({"reason": "busy"}) == {"reason": "busy", "hint": ""}


def test_a_reason_includes_the_causes_of_an_elasticsearch_error() -> None:
    error = {
        "type": "document_parsing_exception",
        "reason": "[1:9] failed to parse field [at] of type [date]",
        "caused_by": {
            "type": "illegal_argument_exception",
            "reason": "failed to parse date field [no] with format [x]",
            "caused_by": {"type": "date_time_parse_exception", "reason": "Failed to parse with all enclosed"},
        },
    }
    assert reason_of(error) == (
        "[1:9] failed to parse field [at] of type [date]"
        "; caused by illegal_argument_exception: failed to parse date field [no] with format [x]"
        "; caused by date_time_parse_exception: Failed to parse with all enclosed"
    )
    assert reason_of({"type": "x", "reason": "y"}) == "y" and reason_of({"type": "x"}) == ""


@pytest.mark.parametrize("name", ["similarity", "word_similarity", "unaccent", "total_of"])
def test_functions_of_extensions_get_their_own_hint(name: str) -> None:
    catalog_ = catalog(table("t", "id bigint key, a text"))
    text = f"name: o\nroot: {{table: t}}\ndocument:\n  x: {name}(a)\nsink: {{memory: {{}}}}\n"
    with pytest.raises(Fatal) as found:
        compile(parse(text, "m.yaml"), catalog_)
    message = str(found.value)
    assert "your own functions and those of other extensions are not allowed" in message
    assert "did you mean" not in message
    assert f"GENERATED ALWAYS AS ({name}(…)) STORED" in message
