"""Implements the storage ports with Kafka: change events, work items, dead letters and state.

`backend.py` creates the objects of the other modules. `consumer.py` reads topics for a lane; `membership.py` keeps a
consumer in its group. `producer.py` writes records and waits for their delivery. `admin.py` creates and inspects topics
and consumer groups; `reader.py` reads their records. `change_log.py`, `work_queue.py`, `dead_letters.py` and
`state_store.py` implement one port each:

    change log     change events of all read models, written by Debezium      deleted by age
    work queues    keys and ranges to render, for each model and generation   deleted by age
    dead letters   rejected documents and records, for each read model        compacted
    state          the records of `registry/records/`                         compacted
"""
