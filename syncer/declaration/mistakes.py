"""Combines the mistakes in a read model into one error, so that its author sees all of them at once."""

from __future__ import annotations

from collections.abc import Iterable

from syncer.errors import Fatal


class Mistakes(Fatal):
    """Several mistakes in one error. `each` contains them one by one."""

    def __init__(self, each: list[Fatal]) -> None:
        super().__init__(f"{len(each)} mistakes\n" + "\n".join(map(str, each)))
        self.each = each


def together(errors: Iterable[Fatal]) -> Fatal:
    """Returns one error for several. It lists each distinct mistake once, in the order of files and lines."""
    each: dict[str, Fatal] = {}
    for error in errors:
        each |= {str(one): one for one in (error.each if isinstance(error, Mistakes) else [error])}
    found = sorted(each.values(), key=_line)
    return found[0] if len(found) == 1 else Mistakes(found)


def _line(error: Fatal) -> tuple[str, int]:
    file, _, line = error.where.rpartition(":")
    return (file, int(line)) if line.isdecimal() else (error.where, 0)
