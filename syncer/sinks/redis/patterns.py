"""Patterns of keys: literal text with placeholders, such as `board:{game_id}`. No I/O.

A placeholder is `{id}`, the document's id, or the name of a field of the document, dotted for a nested one. A literal
brace is doubled. So `{{league}}:board:{game_id}` gives `{league}:board:7`, whose hash tag is `league`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from string import Formatter

ID = "id"
PLACEHOLDER = "{id}"
_GLOB = re.compile(r"[\\*?\[\]^-]")
_RESERVED = ("syncer:", "version:", "~version:")


class Pattern:
    """A parsed pattern. Raises ValueError, with the mistake, for a text that is none."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.parts: list[str] = [""]
        """The literal texts. A placeholder is between two of them."""
        self.names: list[str] = []
        """The placeholders, in order."""
        try:
            found = list(Formatter().parse(text))
        except ValueError as error:
            raise ValueError(f"{text!r}: {str(error).lower()}; a literal brace is doubled: {{{{ or }}}}") from None
        for literal, name, spec, conversion in found:
            self.parts[-1] += literal
            if name is None:
                continue
            if not name or spec or conversion:
                raise ValueError(f"{text!r}: write {{id}} or the name of a field; a literal brace is doubled: {{{{")
            self.names.append(name)
            self.parts.append("")

    @property
    def prefix(self) -> str:
        return self.parts[0]

    @property
    def suffix(self) -> str:
        return self.parts[-1]

    def fill(self, values: Mapping[str, str]) -> str:
        """Returns the text for these values of all placeholders."""
        filled = (values[name] + part for name, part in zip(self.names, self.parts[1:], strict=True))
        return self.parts[0] + "".join(filled)

    def matches(self, text: str) -> bool:
        """Returns whether some values of the placeholders give this text."""
        return re.fullmatch("(?s:.*)".join(map(re.escape, self.parts)), text) is not None

    def with_placeholder(self, text: str, id: str) -> str | None:
        """Returns a text of this pattern with `{id}` instead of this id. None if the text does not match."""
        groups = [f"({re.escape(id)})" if name == ID else "(.*)" for name in self.names]
        literals = [re.escape(part) for part in self.parts]
        found = re.fullmatch(
            literals[0] + "".join(a + b for a, b in zip(groups, literals[1:], strict=True)), text, re.DOTALL
        )
        if not found:
            return None
        values = [PLACEHOLDER if name == ID else text for name, text in zip(self.names, found.groups(), strict=True)]
        return self.parts[0] + "".join(a + b for a, b in zip(values, self.parts[1:], strict=True))

    def overlaps(self, other: Pattern) -> bool:
        """Returns whether both may give the same text. May be wrong about that, but never about the opposite."""
        if not self.names:
            return other.matches(self.prefix)
        if not other.names:
            return self.matches(other.prefix)
        first, last = (self.prefix, other.prefix), (self.suffix, other.suffix)
        begin = first[0].startswith(first[1]) or first[1].startswith(first[0])
        return begin and (last[0].endswith(last[1]) or last[1].endswith(last[0]))

    @property
    def tag(self) -> str:
        """The hash tag, with placeholders in it as written. Empty if there is none.

        It is the text between the first `{` and the next `}`, as in `keys`."""
        text = self.parts[0] + "".join(
            f"\0{name}\1{part}" for name, part in zip(self.names, self.parts[1:], strict=True)
        )
        _, opened, rest = text.partition("{")
        tag, closed, _ = rest.partition("}")
        return tag.replace("\0", "{").replace("\1", "}") if opened and closed else ""

    @property
    def glob(self) -> str:
        """The pattern for SCAN."""
        return "*".join(_GLOB.sub(r"\\\g<0>", part) for part in self.parts)


def parse_key(text: str) -> Pattern:
    """Returns the pattern of a key. Raises ValueError for keys that the syncer cannot tell from others."""
    pattern = Pattern(text)
    if not pattern.prefix:
        raise ValueError(f"{text!r}: a key pattern must begin with fixed text, such as board:{{game_id}}")
    begins = pattern.prefix.startswith
    if any(begins(one) or (pattern.names and one.startswith(pattern.prefix)) for one in _RESERVED):
        raise ValueError(f"{text!r}: keys that begin with syncer: or version: are reserved for the syncer")
    return pattern
