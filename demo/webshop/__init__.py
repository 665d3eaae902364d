"""A small web shop that shows users their own orders at once. An example for docs/freshness.md.

    app        pages and forms
    orders     the write side: places orders in PostgreSQL, and reads them there if the read models are behind
    views      the read side: documents of Elasticsearch, summaries of Redis
    live       the dashboard, which the server updates over server-sent events

It is an application like any other: it uses `syncer.client`, and nothing else of the syncer. `make demo KEEP=1` runs
it. There is no login: a cookie chooses the customer.
"""
