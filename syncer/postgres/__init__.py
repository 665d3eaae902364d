"""Reads PostgreSQL: the catalog, snapshots, the publication, the replication slot and WAL positions.

* `session`: connects with pinned settings and classifies PostgreSQL's errors.
* `catalog`: reads tables, keys and indexes for the compiler and the checks, `columns` reads columns and types.
* `largest_value` and `trees` read facts about rows for `syncer check`.
* `fingerprint`: detects in every batch that a table was altered.
* `table_state`: reads what an alteration that sends no change event leaves in the system catalogs, with the query of
  `catalog_rows`.
* `validate_sql`: has PostgreSQL parse the statement that was compiled from a declaration.
* `snapshot_reader`: implements `ports.Rows`. It renders documents in one repeatable-read snapshot.
* `chunked_results`: reads a large result in chunks.
* `publication`: reads and changes the publication, and waits for transactions that were open during the change.
* `wal`: measures retained WAL, drops slots and writes logical messages.

This package changes nothing in the database but the publication, the slot (`syncer connectors reset` drops it) and
logical messages in WAL.
"""
