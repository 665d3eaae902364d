"""The life of one batch: from Kafka records to acknowledged documents. Start reading here.

    1 poll      takes the records that are available          ports.Source, implemented by kafka/consumer.py
    2 decode    turns bytes into change events or work items  decode.py, intake.py, shared_topics.py
    3 route     finds the table uses that a change touches    route.py
    4 resolve   finds the dirty roots, or their look-ups      resolve.py, render_cache.py
    5 gate      opens a snapshot that sees the whole batch    visibility.py, clock.py
    6 render    turns dirty roots into documents              render.py, run by postgres/snapshot_reader.py
    7 write     sends the documents to every sink             writer.py, implemented by sinks/
    8 commit    commits the offsets of acknowledged records   offsets.py
    9 lag       measures what is left                         lag.py

The look-ups of stage 4 run after stage 5, in the same snapshot as the render. A batch is written after PostgreSQL has
flushed its WAL up to that snapshot.

`lane.py` runs the stages for one read model over one source. A read model has lanes for changes, for work items
and for backfill ranges. So none of them waits for another. `change_stages.py` and `item_stages.py` combine stages
3 to 6 for the two kinds of records.

A read model can limit how often a root is rendered (`hot_roots.py`). A delayed root waits in a separate topic, which
has its own lane. This lane reads it through `delayed_items.py`.

A sink that is a log cannot refuse a late write. `order_lane.py` reads such a log. If the last entry of a document is an
older version (`log_order.py`), it schedules a render of the document.

Some documents are combined from partials (`combine.py`, `combine_states.py`, `combined_blocks.py`). A lane writes the
partials to a sink, as it writes documents. The combination happens in that sink.

Work that is too large for one batch goes to the work topic, as work items (`work_items.py`). Records and documents that
can never be accepted become dead letters (`rejections.py`). If a sink rejects too many documents in a row, the circuit
breaker stops the read model before all of them become dead letters (`circuit_breaker.py`).

The package does no I/O of its own. It reaches Kafka, PostgreSQL and the sinks through `ports/`, and time through
`pacing.py`. So the simulation in `tests/simulation` runs these modules unchanged.
"""
