"""Requests to Elasticsearch: one each, never repeated, and what their failures mean. Answers stay bytes.

For `elasticsearch.py`; knows nothing of documents.
"""

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
DISK_FULL = "free disk space on the server; the block is lifted by itself"


_BUSY = frozenset((408, 429, 503, 504))
_CAUSES = 6


class Busy(Retry):
    """It has too much to do, or took too long for this request: ask for less at a time."""


class _Raw(JsonSerializer):
    """Bytes in, bytes out: most answers need not be parsed."""

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
    """A client that neither retries nor parses.

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
    """A client and the words of its errors.

    where: the sink's name. resync: the command to run when the index is gone.
    """

    def __init__(self, client: Elasticsearch, where: str, resync: str) -> None:
        self._client = client
        self._where = where
        self._resync = resync

    def ask(
        self, method: str, path: str, body: Json | bytes | None = None, kind: str = "application/json"
    ) -> tuple[int, bytes]:
        """One request: its status, whatever it is, and its answer. Raises Retry when there is none."""
        headers = {"accept": "application/json", **({"content-type": kind} if body is not None else {})}
        try:
            response = self._client.perform_request(method, path, headers=headers, body=body)
        except UnsupportedProductError as error:
            raise self._other_product() from error
        except ApiError as error:
            if error.meta.status == 406:  # the media type of Elasticsearch 8, which others do not know
                raise self._other_product() from error
            text = error.body
            return error.meta.status, text if isinstance(text, bytes) else str(text).encode()
        except TlsError as error:
            why = str(error.args[0])
            if tls.distrusted(why):
                what, hint = "the server's certificate is not trusted", tls.advice("elasticsearch.ca_file")
                raise Fatal(what, where=self._where, why=why, hint=hint) from error
            hint = "does the server speak TLS? see elasticsearch.url: https:// or http://"
            raise Retry("no secure connection", where=self._where, why=why, hint=hint) from error
        except TransportError as error:
            why = f"{error} ({error.errors[0]})" if error.errors else str(error)
            kind_of, hint = Retry, "is it up? see elasticsearch.url in the configuration"
            if isinstance(error, ConnectionTimeout):
                kind_of, hint = Busy, "it is overloaded or hangs; elasticsearch.timeout says how long to wait"
            raise kind_of("Elasticsearch does not answer", where=self._where, why=why, hint=hint) from error
        raw = response.body
        return response.meta.status, raw if isinstance(raw, bytes) else b""

    def _other_product(self) -> Fatal:
        """The error for a server that is not Elasticsearch, or one before 8. Asks it what it is."""
        version: Json = {}
        with contextlib.suppress(TransportError, orjson.JSONDecodeError, KeyError, TypeError):
            answer = self._client.transport.perform_request("GET", "/", headers={"accept": "application/json"})
            version = orjson.loads(answer.body)["version"]
        number = version.get("number", "")
        what = f"this is not Elasticsearch 8 or 9: it says that it is version {number or 'unknown'}"
        if version.get("distribution") == "opensearch":
            what = f"this is OpenSearch {number}, which is not supported yet"
        return Fatal(what, where=self._where, hint="let elasticsearch.url point to Elasticsearch 8 or 9")

    def get(self, path: str) -> Json | None:
        """The answer; None when there is nothing of this name."""
        status, raw = self.ask("GET", path)
        return None if status == 404 else self._parsed("GET", path, status, raw)

    def must(self, method: str, path: str, body: Json | None = None) -> Json:
        """The answer, parsed. Raises what `failed` makes of any other status than 200."""
        return self._parsed(method, path, *self.ask(method, path, body))

    def must_raw(self, method: str, path: str, body: Json | None = None) -> bytes:
        status, raw = self.ask(method, path, body)
        if status != 200:
            raise self.failed(f"{method} {path.partition('?')[0]}", status, raw)
        return raw

    def _parsed(self, method: str, path: str, status: int, raw: bytes) -> Json:
        if status != 200:
            raise self.failed(f"{method} {path.partition('?')[0]}", status, raw)
        parsed: Json = orjson.loads(raw)
        return parsed

    def failed(self, what: str, status: int, raw: bytes) -> SyncerError:
        """The error for an answer that failed as a whole."""
        kind, reason = error_of(raw, f"HTTP {status}")
        why = f"{kind}: {reason}" if reason else kind
        if kind in ("search_context_missing_exception", "index_closed_exception"):
            return Retry(what, where=self._where, why=why)
        if kind == "cluster_block_exception":
            return Retry(what, where=self._where, why=why, hint=DISK_FULL if "read-only" in reason else "")
        if status in (401, 403):
            return Fatal(what, where=self._where, why=why, hint=CREDENTIALS)
        if kind == "index_not_found_exception":
            return Fatal("the index is gone", where=self._where, why=why, hint=self._resync)
        if status in _BUSY:
            return Busy(what, where=self._where, why=why)
        return (Fatal if status < 500 else Retry)(what, where=self._where, why=why)


def reason_of(error: Json) -> str:
    """The reason of an error, and those of its causes: often only the last one says what is wrong."""
    found = [error.get("reason") or ""]
    while isinstance(error := error.get("caused_by") or {}, dict) and error and len(found) < _CAUSES:
        text = f"{error.get('type', '')}: {error.get('reason') or ''}".strip(": ")
        if text and (error.get("reason") or text) not in found[-1]:
            found.append(f"caused by {text}")
    return "; ".join(filter(None, found))


def error_of(raw: bytes, default: str = "") -> tuple[str, str]:
    """(type, reason) of an error answer; (default, its text) when it is none of Elasticsearch's."""
    try:
        error = orjson.loads(raw)["error"]
        if isinstance(error, dict):
            return error["type"], reason_of(error)
        return default, str(error)
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return default, raw[:200].decode(errors="replace")
