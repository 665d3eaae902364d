"""Detects problems that the lanes cannot see: lost changes, altered tables, sinks that lost data.

A lane sees only the events that arrive. Each module here monitors one thing that sends no event:

    source_monitor      connector, slot, publication: can changes arrive at all?
    canary              do messages through PostgreSQL's WAL arrive complete and in order? (pure)
    canary_probe        sends and reads these messages
    connector_resumes   did the connector restart, and may it have lost rows?
    table_alterations   were tables altered in a way that no change event shows?
    sink_durability     did a sink lose deletes or documents that it had acknowledged?

The other modules act on the result:

    rerender            re-renders all documents of a read model
    wait_status         records the state and reason of each daemon for `syncer status`
    delivery            checks the connector once, for a command
    background          runs a monitor on a thread
"""
