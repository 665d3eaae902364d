"""Product search: full text, facets, sorting by sales, and pages without gaps, in Elasticsearch."""

from __future__ import annotations

from typing import Any

import orjson
import urllib3

from demo import screen
from demo.examples import Example, Servers, expect_equal
from demo.running import use_shop
from demo.screen import Failed

_PAGE = 5
_SEARCH: dict[str, Any] = {
    "size": _PAGE,
    "query": {"match": {"name": {"query": "oak lamp", "operator": "and"}}},
    "sort": [{"revenue": "desc"}, {"sku": "asc"}],
    "_source": ["sku", "name", "price", "sold", "revenue"],
}
_FACETS: dict[str, Any] = {
    "size": 0,
    "query": _SEARCH["query"],
    "aggs": {
        "price_band": {"terms": {"field": "price_band", "order": {"_key": "asc"}}},
        "sold_to_germany": {"sum": {"field": "countries.DE"}},
    },
}
_EXPECTED = """
    SELECT p.sku, p.name, p.price::float8, sum(i.quantity)::bigint AS sold,
           sum(i.quantity * i.unit_price)::float8 AS revenue
      FROM products p LEFT JOIN order_items i ON i.product_id = p.id
     WHERE p.name LIKE 'Oak Lamp%%'
     GROUP BY p.id ORDER BY revenue DESC NULLS LAST, p.sku
"""


def _show(servers: Servers) -> None:
    screen.note("the first page: oak lamps, those that earned most first")
    pages = [_search(servers, _SEARCH)["hits"]["hits"]]
    screen.show([hit["_source"] for hit in pages[0]])
    screen.note("the next page begins after the last hit (search_after), so no new product shifts it")
    while len(pages[-1]) == _PAGE:
        found = _search(servers, _SEARCH | {"search_after": pages[-1][-1]["sort"]}, shown=len(pages) == 1)
        pages.append(found["hits"]["hits"])
    screen.show([hit["_source"] for hit in pages[1]])
    screen.note("the filters next to the results, with counts")
    found = _search(servers, _FACETS)["aggregations"]
    bands = {bucket["key"]: bucket["doc_count"] for bucket in found["price_band"]["buckets"]}
    screen.show({"price_band": bands, "sold_to_germany": found["sold_to_germany"]["value"]})
    expected = servers.rows(_EXPECTED)
    if not expected:
        raise Failed("The shop has no oak lamp.")
    expect_equal(f"all {len(expected)} hits", [hit["_source"] for page in pages for hit in page], expected)


def _search(servers: Servers, query: dict[str, Any], *, shown: bool = True) -> dict[str, Any]:
    url = f"{servers.stack.elasticsearch}/products/_search"
    if shown:
        screen.command(f"curl -H 'content-type: application/json' {url} -d '{screen.json_text(query)}'")
    headers = {"content-type": "application/json"}
    answer = urllib3.request("POST", url, body=orjson.dumps(query), headers=headers, timeout=30)
    if answer.status != 200:
        raise Failed(f"Elasticsearch refused the search: {answer.data.decode()}")
    found: dict[str, Any] = orjson.loads(answer.data)
    return found


EXAMPLE = Example("product_search", "full text, facets, sorting and pages in Elasticsearch", use_shop, _show)
