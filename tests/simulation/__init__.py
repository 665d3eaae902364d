"""The protocol, simulated: the syncer's own engine in a world whose every accident is a decision.

    choices    the decisions of a schedule: bytes, made from its seed
    scheduler  who goes on next, and what time it is
    history    what happened, for a person; and how often what happened
    database   PostgreSQL: transactions, snapshots, the log, crashes
    application what is written to it
    rows       `ports.Rows` over it
    stream     Debezium, Kafka: `ports.Source`, `ports.WorkTopic`
    sink       `ports.Sink`: versions, tombstones, bulks that fail
    process    a syncer process: lanes, what their errors do
    operator   a backfill
    odds       what kinds of accidents a world has
    world      all of these together, and what can go wrong with them
    schedule   one schedule: a world, accidents, calm, and the comparison
    shrink     a failing schedule, made short
    weaker     rules that are not enough, which the schedules have to find out
    rounds     many schedules, in several processes

`syncer.pipeline.lane.Lane` and all below it run as they are. Each lane and each write to the sinks is a
greenlet, which may lose its turn wherever it talks to the world; so one thread shows every interleaving,
and a seed shows it again.
"""
