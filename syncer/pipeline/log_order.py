"""Finds documents that were written to a log in the wrong order. Pure: the entries carry their times.

A log keeps every write. For each id, its readers see the last entry, and compaction removes the entries before it. So
if an older version comes after a newer one, the older one stays, and no reader can correct that.

No document is written much later than its snapshot. So two entries of one id can be in the wrong order only within a
limited time, the *window* of the log (`ports.DocumentLog.window`). `RecentVersions` remembers the versions of one
window. `PartitionOrder` also detects if it cannot know them, because entries were removed before they were checked.
"""

from __future__ import annotations

from syncer.ports import LogEntry


class RecentVersions:
    """Remembers the highest version of each id for at least `window` seconds, and at most twice as long.

    Two dictionaries hold the versions. When the newer one spans the window, the older one is dropped. So nothing has
    to be removed one by one. The time is that of the newest entry, so a log that is read late is not forgotten early.
    """

    def __init__(self, window: float) -> None:
        self._window_ms = int(window * 1000)
        self._now_ms = self._since_ms = 0
        self._new: dict[str, int] = {}
        self._old: dict[str, int] = {}
        self._late: dict[str, None] = {}
        """The ids whose last entry has a lower version than an earlier one."""

    def __len__(self) -> int:
        return len(self._new) + len(self._old)

    def add(self, id: str, version: int, at_ms: int) -> bool:
        """Adds the next entry of the log. Returns whether its version is lower than that of an earlier entry."""
        if at_ms > self._now_ms:
            self._pass_time(at_ms)
        highest = self.highest(id)
        if version < highest:
            self._late[id] = None
            return True
        self._new[id] = version
        if self._late:
            self._late.pop(id, None)
        return False

    def highest(self, id: str) -> int:
        """Returns the highest version of an id; −1 if it is unknown."""
        found = self._new.get(id)
        return self._old.get(id, -1) if found is None else found

    def has(self, id: str, version: int) -> bool:
        """Returns whether another entry of this version would be of no use: the same one is last, or a newer exists.

        The version counts as missing if a lower one follows it. Then it has to be written again.
        """
        highest = self.highest(id)
        return version < highest or (version == highest and id not in self._late)

    def _pass_time(self, now_ms: int) -> bool:
        """Moves the time on. Returns whether versions were forgotten."""
        self._now_ms = now_ms
        if now_ms - self._since_ms < self._window_ms:
            return False
        self._old, self._new, self._since_ms = self._new, {}, now_ms
        self._late = {id: None for id in self._late if id in self._old}
        return True


class PartitionOrder(RecentVersions):
    """Checks the order of the entries of one partition, from a start on.

    start: the first offset to be read. It is at least a window before `checked`.
    checked: the entries before this offset were checked before. They only fill the window.
    """

    def __init__(self, window: float, start: int, checked: int) -> None:
        super().__init__(window)
        self._next, self._checked = start, checked
        self._begin_new = self._begin_old = start
        self._removed_ms: int | None = None
        """Time of the entry after the last ones that were removed. They are not newer."""
        self.missed = False
        """Whether entries were removed that might show a wrong order. Any document may be wrong then."""

    @property
    def begin(self) -> int:
        """The offset from which a successor has to read, so that it knows all versions of the window."""
        return self._begin_old

    def check(self, entry: LogEntry) -> bool:
        """Adds the next entry. Returns whether a newer version of its document has to be written after it."""
        offset = entry.position.offset
        if offset != self._next:
            self._removed_ms = entry.at_ms
        self._next = offset + 1
        late = self.add(entry.id, entry.version, entry.at_ms)
        if offset < self._checked:
            return False
        if self._removed_ms is not None and entry.at_ms - self._removed_ms <= self._window_ms:
            self.missed = True
        return late

    def _pass_time(self, now_ms: int) -> bool:
        forgotten = super()._pass_time(now_ms)
        if forgotten:
            self._begin_old, self._begin_new = self._begin_new, self._next - 1
        return forgotten
