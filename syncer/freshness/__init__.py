"""Reports how fresh documents are, and renders documents on request.

    refused      the errors that a caller gets, each with its HTTP status
    tokens       a caller's token: "at least as fresh as this commit"
    snapshots    maps a token to a PostgreSQL snapshot, and so to a clock

These modules report how fresh all documents of a read model are, and release callers that wait:

    watermark    the snapshot whose transactions are in every sink; pure
    proof        decides whether everything that committed before a snapshot is in Kafka; pure
    evidence     the facts about one read model that decide on its watermark
    switching    whether readers may see another generation: a resync is under way
    advancing    the steps of a candidate, with the facts of one read model
    probe        candidates, followed through Kafka
    waiting      callers that wait
    publishing   watermarks in the sinks, where applications find them
    searchable   refreshes of a sink that callers share
    outlets      `publishing` and `searchable` for one read model
    report       the fields of `/status`
    monitor      the thread that keeps all of this up to date

These modules render documents on request, and write them now:

    refresh_request   what a caller wants to refresh; pure
    rate_limit        how often a client and a document may be refreshed; pure
    refresh_roots     the documents that a request is about
    refresh_queue     the keys that callers wait for, as the source of a lane
    refresh_lanes     the lanes of the pipeline over this queue
    generations       whether applications see the documents, also while a resync runs
    refresh           the steps of a request, in order
"""
