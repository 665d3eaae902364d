"""The life of one batch: from Kafka records to acknowledged documents. Start reading here.

    1 poll      takes the records that are available          ports.Source, implemented by kafka/consumer.py
    2 decode    turns bytes into change events or work items  decode.py
    3 route     finds the table uses that a change touches    route.py
    4 resolve   finds the dirty roots of these table uses     resolve.py, render_cache.py
    5 gate      opens a snapshot that sees the whole batch    visibility.py, clock.py
    6 render    turns dirty roots into documents              render.py, run by postgres/snapshot_reader.py
    7 write     sends the documents to every sink             writer.py, implemented by sinks/
    8 commit    commits the offsets of acknowledged records   offsets.py
    9 lag       measures what is left                         lag.py

`lane.py` runs the stages for one read model over one source. A read model has one lane for changes, one for work
items and one for backfill ranges. `work_items.py` cuts work that is too large for one batch into items for the
other two lanes.

The package does no I/O of its own. It reaches Kafka, PostgreSQL and the sinks through `ports.py`, and time through
`pacing.py`. So the simulation in `tests/simulation` runs these modules unchanged.
"""
