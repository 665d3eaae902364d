"""Findings about the connector's topics, and about how often source offsets are committed."""

from __future__ import annotations

import pytest

from syncer.checks import OffsetTopic, check_flush, check_topics

CLEAN = {"cleanup.policy": "delete", "unclean.leader.election.enable": "false"}
OFFSETS = {"cleanup.policy": "compact", "unclean.leader.election.enable": "false"}


def test_usual_topics_have_no_findings() -> None:
    assert list(check_topics({"shop.public.orders": CLEAN}, OffsetTopic("connect-offsets", False, OFFSETS))) == []
    assert list(check_topics({"shop.public.orders": {}}, None)) == []


@pytest.mark.parametrize("topic", ["shop.public.orders", "connect-offsets"])
def test_an_unclean_leader_election_is_an_error(topic: str) -> None:
    unclean = {"unclean.leader.election.enable": "true"}
    all = {"shop.public.orders": CLEAN, "connect-offsets": OFFSETS}
    all[topic] = all[topic] | unclean
    offsets = OffsetTopic("connect-offsets", False, all.pop("connect-offsets"))
    [found] = check_topics(all, offsets)
    assert (found.severity, found.code, found.where) == ("error", "unclean-election", f"topic {topic}")
    assert topic in found.fix


def test_a_missing_topic_of_offsets_names_the_setting() -> None:
    [found] = check_topics({}, OffsetTopic("connect-offsets", False, None))
    assert (found.severity, found.where) == ("warning", "connect.offset_topic") and "connect-offsets" in found.what
    [found] = check_topics({}, OffsetTopic("own", True, None))
    assert found.where == "connector: offsets.storage.topic"


@pytest.mark.parametrize("policy", ["delete", "compact,delete"])
def test_a_topic_of_offsets_that_is_not_only_compacted_is_an_error(policy: str) -> None:
    [found] = check_topics({}, OffsetTopic("connect-offsets", False, OFFSETS | {"cleanup.policy": policy}))
    assert (found.severity, found.code) == ("error", "offset-topic") and policy in found.what


@pytest.mark.parametrize(
    ("interval", "messages", "warned"),
    [
        (100, range(0, 20_000, 1000), False),
        (1000, range(0, 20_000, 1000), False),
        (5000, range(0, 60_000, 1000), True),
        (60_000, range(0, 300_000, 1000), True),
        (100, range(0, 60_000, 10_000), False),  # rare messages, which are committed at once
        (5000, range(0), False),  # no message: only the heartbeats of the connector
        (60_000, range(0, 100_000, 1000), False),  # too few commits to judge
    ],
)
def test_a_slow_commit_of_offsets_is_a_warning(interval: int, messages: range, warned: bool) -> None:
    last = max(messages, default=300_000)
    commits = sorted({-(-moment // interval) * interval + 7 for moment in messages or range(0, last, 10_000)})
    found = list(check_flush([c for c in commits if c <= last], list(messages)))
    assert [f.severity for f in found] == ["warning"] * warned
