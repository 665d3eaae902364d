"""The records of the state store: one dataclass for each kind, with its key and its JSON form.

Keys, the dataclass, and the process that writes the record:

    MODEL/N/registration  `Registration`: how generation N began                 registering, resync
    MODEL/N/active     `Activated`: applications read generation N, or did       registering, resync
    MODEL/N/clock      `HighestClock` of generation N                            the daemon
    MODEL/N/backwards  `ClockRanBackwards`: only a resync ends that              the process that detected it
    MODEL/N/sinks      `BuiltSinks`                                              the daemon
    MODEL/N/memory     `DurabilityTokens` of its sinks                           the daemon
    MODEL/N/breaker    `OpenBreakers` of its sinks                               the daemon, backfill
    MODEL/N/shape      `RenderBasis` of its documents                            the daemon
    MODEL/N/tables     `HandledTables`: fingerprint of the tables                the daemon
    MODEL/N/weak       `WeakIdentity`                                            the process that detected it
    MODEL/N/outgrown   `Outgrown`: why a resync is due                           the daemon
    MODEL/N/reader     `SlotReader`: as compared last                            the daemon
    MODEL/N/swap       `SwapAnnounced`: readers are switched to generation N     resync
    MODEL/N/refresh    `Rerender`: all documents were rendered again             the daemon
    MODEL/N/backfill   `BackfillRun`: under way or done last                     backfill
    MODEL/N/building   `BuildReport`: a process builds generation N              resync
    MODEL/N/verified   `Verification`: the last comparison with PostgreSQL       verify
    MODEL/process/ID   `ProcessReport` of one daemon                             that daemon
    ~PREFIX            `Stream` of the connector with this topic.prefix          the daemon, connectors
    ~PREFIX/canary     `CanaryPosition`                                          the daemon

No module outside of this package builds or splits a key.
"""

from syncer.registry.records.daemon import CanaryPosition, Process, ProcessReport, Proved, Stream
from syncer.registry.records.form import (
    Generation,
    GenerationRecord,
    Key,
    StateRecord,
    StateSlot,
    generation_of,
    is_report_of,
)
from syncer.registry.records.generation import (
    Activated,
    BuiltSinks,
    ClockRanBackwards,
    DurabilityTokens,
    HandledTables,
    HighestClock,
    OpenBreakers,
    Outgrown,
    Registration,
    RenderBasis,
    SlotReader,
    WeakIdentity,
)
from syncer.registry.records.operation import BackfillRun, BuildReport, Rerender, SwapAnnounced, Verification

__all__ = [
    "Activated",
    "BackfillRun",
    "BuildReport",
    "BuiltSinks",
    "CanaryPosition",
    "ClockRanBackwards",
    "DurabilityTokens",
    "Generation",
    "GenerationRecord",
    "HandledTables",
    "HighestClock",
    "Key",
    "OpenBreakers",
    "Outgrown",
    "Process",
    "ProcessReport",
    "Proved",
    "Registration",
    "RenderBasis",
    "Rerender",
    "SlotReader",
    "StateRecord",
    "StateSlot",
    "Stream",
    "SwapAnnounced",
    "Verification",
    "WeakIdentity",
    "generation_of",
    "is_report_of",
]
