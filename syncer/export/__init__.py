"""The export of documents to a Delta table, from the topic of a Kafka sink.

In the order of the flow:

1. `columns`   the fields of a read model as columns, and a document as a row; pure
2. `pending`   the records that were read and are not in the table yet; pure
3. `appender`  appends each record exactly once: reads the table's transaction, appends, and repeats after a conflict
4. `location`  checks the path or URL before anything is read
5. `delta`     the table, with delta-rs; the only module that imports `deltalake` and `pyarrow`
6. `exporter`  the loop over all of these

The base installation has neither `deltalake` nor `pyarrow`. `operations/export.py` imports `delta` when it is needed.
"""
