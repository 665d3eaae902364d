"""Reads all documents of an index, page by page, as of one point in time.

https://www.elastic.co/docs/reference/elasticsearch/rest-apis/paginate-search-results#search-after
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from syncer.errors import Retry, SyncerError
from syncer.sinks.elasticsearch.client import Http

Json = dict[str, Any]
_FILTER = "pit_id,timed_out,_shards.failed,hits.hits._id,hits.hits.sort,hits.hits._source"


def scan(
    http: Http, where: str, index: str, page: int, query: Json, source: bool | list[str] = False
) -> Iterator[Json]:
    """Yields the hits of a query, also those of documents that were not searchable before.

    where: the sink's name, for errors. page: documents of one request. source: what to read of each document.
    Raises Retry when a page fails.
    """
    http.must("POST", f"/{index}/_refresh")
    pit = http.must("POST", f"/{index}/_pit?keep_alive=2m")["id"]
    body: Json = {"size": page, "_source": source, "track_total_hits": False, "sort": ["_shard_doc"], **query}
    try:
        while True:
            body["pit"] = {"id": pit, "keep_alive": "2m"}
            answer = http.must("POST", f"/_search?filter_path={_FILTER}", body)
            if answer["timed_out"] or answer["_shards"]["failed"]:
                raise Retry("a shard failed while the ids were listed", where=where)
            hits = answer.get("hits", {}).get("hits", [])
            yield from hits
            if len(hits) < page:
                return
            pit, body["search_after"] = answer["pit_id"], hits[-1]["sort"]
    finally:
        with contextlib.suppress(SyncerError):  # it expires after two minutes anyway
            http.ask("DELETE", "/_pit", {"id": pit})
