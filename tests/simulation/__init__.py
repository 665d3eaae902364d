"""Simulates the protocol: the syncer's own pipeline runs in a world in which each accident is a decision.

    choices      the decisions of a schedule: bytes made from its seed
    scheduler    which actor runs next, and the simulated time
    history      the events of a schedule as text, and a count of each kind
    database     PostgreSQL: transactions, snapshots, WAL, crashes
    application  the statements that change the database
    read_models  other read models over the same tables: documents combined from partials, and a grouped root
    divided_groups  a grouped root whose documents are combined from partials
    rows         `ports.Rows` over the database
    stream       Debezium and Kafka: `ports.Source`, `ports.WorkTopic`
    sink         `ports.Sink`: versions, tombstones, bulk requests that fail
    documents_topic  a documents topic instead, and the log of the order lane
    partials     a sink that stores partials, too
    boards       a read model whose documents have members in indexes of Redis
    redis_sink   the Redis sink, unchanged, over the servers of redis_server; redis_client: its client
    refusals     documents that the sink refuses, and their dead letters
    slow_kafka   brokers that acknowledge partitions one after the other, source offsets, transactions
    freshness    a process that computes the watermark, and the check that no document is older
    process      a syncer process: its lanes, and the effect of their errors
    operator     a backfill
    odds         which kinds of accidents a world has
    world        all of these together, and the accidents
    schedule     one schedule: a world, accidents, a calm end, and the comparison of all documents
    shrink       makes a failing schedule short
    weaker       weaker rules, which the schedules must detect: one module for each subject
    activation   a world of its own: a resync that switches the readers of two sinks, and crashes
    targets      the indexes and tables of that world; resyncing: the parts of a resync that are replaced
    rounds       many schedules, in several processes

`syncer.pipeline.lane.Lane` and all modules below it run unchanged. Each lane and each write to the sinks is a
greenlet. It may lose its turn wherever it talks to the world. So one thread can show every interleaving, and a seed
reproduces it.
"""
