"""The blocks of `indexes`: sorted sets and sets that have a member for each document. No I/O."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from syncer.declaration import compiled
from syncer.declaration.names import near
from syncer.declaration.sql_types import NUMBERS
from syncer.sinks.problem import Limit, Path, Problem
from syncer.sinks.redis.hash_format import NESTED
from syncer.sinks.redis.patterns import ID, PLACEHOLDER, Pattern, parse_key

MAX_SCORE = 1 << 53
"""A score is a double, which holds every integer up to this."""
EXACT_SCORES = f"scores of Redis are exact up to 2^53, {MAX_SCORE}"


def _key(text: str) -> str:
    parse_key(text)
    return text


def _member(text: str) -> str:
    if Pattern(text).names != [ID]:
        raise ValueError(
            f"a member contains {PLACEHOLDER} exactly once and no field, because it must belong to one document"
        )
    return text


_KEY = "Key pattern over fields of the document: board:{game_id}. No member if a field is null"
_MEMBER = "The member; contains {id} exactly once"


class SetIndex(BaseModel):
    """A set that has each document as a member."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: Annotated[str, AfterValidator(_key)] = Field(description=_KEY)
    member: Annotated[str, AfterValidator(_member)] = Field(PLACEHOLDER, description=_MEMBER)


class SortedSetIndex(BaseModel):
    """A sorted set that has each document as a member, with a field as the score."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: Annotated[str, AfterValidator(_key)] = Field(description=_KEY)
    member: Annotated[str, AfterValidator(_member)] = Field(PLACEHOLDER, description=_MEMBER)
    score: str = Field(description="The field with the score, a number up to 2^53. No member if it is null")


class Index(BaseModel):
    """One index: `set` or `sorted_set`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    set: SetIndex | None = None
    sorted_set: SortedSetIndex | None = None

    @model_validator(mode="after")
    def _one(self) -> Index:
        if (self.set is None) == (self.sorted_set is None):
            raise ValueError("an index is either a set or a sorted_set: - sorted_set: {key: …, score: …}")
        return self

    @property
    def block(self) -> SetIndex | SortedSetIndex:
        found = self.sorted_set or self.set
        assert found
        return found

    @property
    def score(self) -> str:
        """The name of the score's field. Empty for a set."""
        return self.sorted_set.score if self.sorted_set else ""

    @property
    def kind(self) -> Literal["zset", "set"]:
        """TYPE of its keys."""
        return "zset" if self.sorted_set else "set"

    @cached_property
    def key(self) -> Pattern:
        return Pattern(self.block.key)

    @cached_property
    def member(self) -> Pattern:
        return Pattern(self.block.member)

    def id_of(self, member: str) -> str | None:
        """Returns the id whose member this is. None if the syncer writes no such member."""
        prefix, suffix = self.member.prefix, self.member.suffix
        long_enough = len(member) > len(prefix) + len(suffix)
        if not (long_enough and member.startswith(prefix) and member.endswith(suffix)):
            return None
        return member[len(prefix) : len(member) - len(suffix)]


def problems(key: str, indexes: Sequence[Index], fields: Sequence[compiled.Field]) -> Iterator[Problem]:
    """Yields the mistakes of the indexes of a block. key: the key pattern of the documents."""
    earlier = [Pattern(key)]
    for number, index in enumerate(indexes):
        place: Path = ("indexes", number, "sorted_set" if index.score else "set")
        many = 0
        for name in dict.fromkeys(index.key.names):
            if name != ID:
                problem, is_list = _of_field(name, fields)
                many += is_list
                if problem:
                    yield problem._replace(what=f"key: {problem.what}", block=(*place, "key"))
        if many > 1:
            yield Problem("key: more than one of the fields is a list", hint="use only one list", block=(*place, "key"))
        if index.score:
            yield from _of_score(index.score, fields, (*place, "score"))
        for other in earlier:
            if other.overlaps(index.key):
                what = f"key: the patterns {index.key.text} and {other.text} can give the same key"
                yield Problem(what, hint="begin them with different texts", block=(*place, "key"))
        earlier.append(index.key)


def score_limits(indexes: Sequence[Index]) -> list[Limit]:
    """Returns the limit of the score of each sorted set."""
    return [
        Limit(index.score, MAX_SCORE, EXACT_SCORES, ("indexes", number, "sorted_set", "score"))
        for number, index in enumerate(indexes)
        if index.score
    ]


def _of_score(name: str, fields: Sequence[compiled.Field], place: Path) -> Iterator[Problem]:
    problem, is_list = _of_field(name, fields)
    found, _ = _find(name, fields)
    if problem:
        yield problem._replace(what=f"score: {problem.what}", block=place)
    elif found and (is_list or found.type not in (*NUMBERS, "unknown")):
        what = f"score: {name} is {'a list' if is_list else found.type}, but a score must be a number"
        hint = "declare a field with a number, such as: extract(epoch from placed_at)"
        yield Problem(what, hint=hint, block=place)


def _of_field(name: str, fields: Sequence[compiled.Field]) -> tuple[Problem | None, bool]:
    """Returns why a field cannot be a part of a key, and whether it is a list."""
    found, is_list = _find(name, fields)
    if found is None:
        known = [field.name for field in fields]
        meant = near(name, known)
        hint = f"did you mean {meant}?" if meant else f"one of: {', '.join(known)}"
        return Problem(f"the document has no field {name}", hint=f"{hint}; a literal brace is doubled: {{{{"), False
    if found.fields or found.type in NESTED:
        return Problem(
            f"{name} is {found.type}", hint="use a field with a scalar value, or with a list of scalar values"
        ), is_list
    return None, is_list


def _find(name: str, fields: Sequence[compiled.Field]) -> tuple[compiled.Field | None, bool]:
    """Returns the field with this dotted name, and whether it has several values."""
    first, _, rest = name.partition(".")
    for field in fields:
        if field.name == name:
            return field, field.many
        if field.name == first and rest:
            found, is_list = _find(rest, field.fields)
            return found, is_list or field.many
    return None, False


def tag_problem(key: str, indexes: Sequence[Index]) -> str:
    """Returns why the keys of a document and its members are not in one slot of a cluster, or an empty text."""
    patterns = [Pattern(key), *(index.key for index in indexes)]
    tags = {pattern.tag for pattern in patterns}
    if len(tags) > 1 or "" in tags:
        texts = ", ".join(f"{pattern.text} ({pattern.tag or 'none'})" for pattern in patterns)
        return f"their hash tags: {texts}"
    [tag] = tags
    if others := [name for name in Pattern(tag).names if name != ID]:
        return f"the hash tag {tag} changes with the field {others[0]}"
    return ""
