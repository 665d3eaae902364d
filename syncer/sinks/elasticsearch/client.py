"""Sends requests to Elasticsearch, each once, and classifies the errors of whole requests. Returns answers as bytes."""

from __future__ import annotations

import contextlib
from typing import Any

import orjson
from elastic_transport import ConnectionTimeout, JsonSerializer, NdjsonSerializer, TlsError, TransportError
from elasticsearch import ApiError, Elasticsearch, UnsupportedProductError

from syncer import tls
from syncer.errors import Fatal, Retry, SyncerError

Json = dict[str, Any]

CREDENTIALS = "elasticsearch.username and password, or api_key, in the configuration; the user's privileges"
DISK_FULL = "free disk space on the server; Elasticsearch then lifts the block by itself"
_BUSY = frozenset((408, 429, 503, 504))
_CAUSES = 6


class Busy(Retry):
    """The server had too much to do, or took too long for this request. A smaller request may succeed."""


class _Raw(JsonSerializer):
    """Leaves answers as bytes, because most of them need not be parsed."""

    def loads(self, data: bytes) -> Any:
        return data

    def dumps(self, data: Any) -> bytes:
        return data if isinstance(data, bytes) else orjson.dumps(data)


class _RawLines(NdjsonSerializer):
    def dumps(self, data: Any) -> bytes:
        assert isinstance(data, bytes)
        return data


def client(
    url: str,
    *,
    basic_auth: tuple[str, str] | None,
    api_key: str | None,
    ca_file: str | None,
    timeout: float,
) -> Elasticsearch:
    """Returns a client that neither retries nor parses.

    https://www.elastic.co/docs/reference/elasticsearch/clients/python
    """
    json, lines = _Raw(), _RawLines()
    options: Json = {"ca_certs": ca_file} if ca_file else {}
    return Elasticsearch(
        [part.strip().rstrip("/") for part in url.split(",")],
        basic_auth=basic_auth,
        api_key=api_key,
        request_timeout=timeout,
        max_retries=0,
        retry_on_timeout=False,
        retry_on_status=(),
        http_compress=False,
        connections_per_node=16,
        serializers={
            "application/json": json,
            "application/vnd.elasticsearch+json": json,
            "application/x-ndjson": lines,
            "application/vnd.elasticsearch+x-ndjson": lines,
        },
        **options,
    )


class Http:
    """Sends requests and raises their errors.

    where: the sink's name. resync: the command to run when the index is missing. Errors contain both.
    """

    def __init__(self, client: Elasticsearch, where: str, resync: str) -> None:
        self._client = client
        self._where = where
        self._resync = resync

    def ask(
        self, method: str, path: str, body: Json | bytes | None = None, kind: str = "application/json"
    ) -> tuple[int, bytes]:
        """Sends one request and returns the status, of any kind, and the answer. kind: the type of the body.

        Raises Retry when the server does not answer, and Fatal when it is not Elasticsearch 8 or 9, or when its
        certificate is not trusted.
        """
        headers = {"accept": "application/json", **({"content-type": kind} if body is not None else {})}
        try:
            response = self._client.perform_request(method, path, headers=headers, body=body)
        except UnsupportedProductError as error:
            raise self._other_product() from error
        except ApiError as error:
            if error.meta.status == 406:  # other servers do not know the media type of Elasticsearch 8
                raise self._other_product() from error
            text = error.body
            return error.meta.status, text if isinstance(text, bytes) else str(text).encode()
        except TlsError as error:
            why = str(error.args[0])
            if tls.is_untrusted(why):
                what, hint = "the server's certificate is not trusted", tls.advice("elasticsearch.ca_file")
                raise Fatal(what, where=self._where, why=why, hint=hint) from error
            hint = "if the server does not use TLS, begin elasticsearch.url with http://"
            raise Retry("cannot open a TLS connection", where=self._where, why=why, hint=hint) from error
        except TransportError as error:
            why = f"{error} ({error.errors[0]})" if error.errors else str(error)
            kind_of, hint = Retry, "check that Elasticsearch is up and elasticsearch.url is correct"
            if isinstance(error, ConnectionTimeout):
                kind_of, hint = (
                    Busy,
                    "Elasticsearch is overloaded or hangs; elasticsearch.timeout limits the wait for an answer",
                )
            raise kind_of("Elasticsearch does not answer", where=self._where, why=why, hint=hint) from error
        raw = response.body
        return response.meta.status, raw if isinstance(raw, bytes) else b""

    def _other_product(self) -> Fatal:
        """Returns the error for a server that is not Elasticsearch, or is older than 8. Asks it for its version."""
        version: Json = {}
        with contextlib.suppress(TransportError, orjson.JSONDecodeError, KeyError, TypeError):
            answer = self._client.transport.perform_request("GET", "/", headers={"accept": "application/json"})
            version = orjson.loads(answer.body)["version"]
        number = version.get("number", "")
        what = f"this is not Elasticsearch 8 or 9: the server reports version {number or 'unknown'}"
        if version.get("distribution") == "opensearch":
            what = f"this is OpenSearch {number}, which is not supported yet"
        return Fatal(what, where=self._where, hint="set elasticsearch.url to a server of Elasticsearch 8 or 9")

    def get(self, path: str) -> Json | None:
        """Returns the parsed answer, or None for status 404. Raises other failures as `failed` returns them."""
        status, raw = self.ask("GET", path)
        return None if status == 404 else self._parsed("GET", path, status, raw)

    def must(self, method: str, path: str, body: Json | None = None) -> Json:
        """Returns the parsed answer. Raises a status other than 200 as `failed` returns it."""
        return self._parsed(method, path, *self.ask(method, path, body))

    def must_raw(
        self, method: str, path: str, body: Json | bytes | None = None, kind: str = "application/json"
    ) -> bytes:
        """Returns the answer as bytes. Raises as `must` does."""
        status, raw = self.ask(method, path, body, kind)
        if status != 200:
            raise self.failed(f"{method} {path.partition('?')[0]}", status, raw)
        return raw

    def _parsed(self, method: str, path: str, status: int, raw: bytes) -> Json:
        if status != 200:
            raise self.failed(f"{method} {path.partition('?')[0]}", status, raw)
        parsed: Json = orjson.loads(raw)
        return parsed

    def failed(self, what: str, status: int, raw: bytes) -> SyncerError:
        """Returns the error for a request that failed as a whole. what: the operation that failed."""
        kind, reason = error_of(raw, f"HTTP {status}")
        why = f"{kind}: {reason}" if reason else kind
        if kind in ("search_context_missing_exception", "index_closed_exception"):
            return Retry(what, where=self._where, why=why)
        if kind == "cluster_block_exception":
            return Retry(what, where=self._where, why=why, hint=DISK_FULL if "read-only" in reason else "")
        if status in (401, 403):
            return Fatal(what, where=self._where, why=why, hint=CREDENTIALS)
        if kind == "index_not_found_exception":
            return Fatal("the index is missing", where=self._where, why=why, hint=self._resync)
        if status in _BUSY:
            return Busy(what, where=self._where, why=why)
        return (Fatal if status < 500 else Retry)(what, where=self._where, why=why)


def reason_of(error: Json) -> str:
    """Returns the reason of an error with those of its causes. Often only the last one names the mistake."""
    found = [error.get("reason") or ""]
    while isinstance(error := error.get("caused_by") or {}, dict) and error and len(found) < _CAUSES:
        text = f"{error.get('type', '')}: {error.get('reason') or ''}".strip(": ")
        if text and (error.get("reason") or text) not in found[-1]:
            found.append(f"caused by {text}")
    return "; ".join(filter(None, found))


def error_of(raw: bytes, default: str = "") -> tuple[str, str]:
    """Returns (type, reason) of an error answer, or (default, its text) if it is not one of Elasticsearch."""
    try:
        error = orjson.loads(raw)["error"]
        if isinstance(error, dict):
            return error["type"], reason_of(error)
        return default, str(error)
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return default, raw[:200].decode(errors="replace")
