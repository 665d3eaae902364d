"""Traces one document: the changes that reached it, its versions in the sinks, and its content in PostgreSQL now.

Nothing is recorded for a trace. It is made of the records that Kafka still has, the committed offsets, the versions in
the sinks and one snapshot of PostgreSQL. The order of the reads matters:

1. the change topics                                          topics.py, changes.py
2. the committed offsets, work items and dead letters         pipeline.py, pending.py
3. the sinks                                                  sinks.py
4. PostgreSQL                                                 root.py

So a change that is acknowledged in step 2 is in the documents of step 3, or in a work item or dead letter of step 2.
The snapshot of step 4 is later than each snapshot that a document of step 3 was rendered from. If a document differs
and no work is under way, one innocent reason is left: a commit that has not reached Kafka yet. So the caller looks
again.

A server that does not answer is named in `Report.missing`, and the rest of the report is made without it.

`look.py` takes these steps. `report.py` defines the result. `declaration/trace_sql.py` has the statements.
"""
