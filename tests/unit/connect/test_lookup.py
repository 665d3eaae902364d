"""Which settings of a definition are filled in for callers that need only the names."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from syncer.connect.lookup import find_definition


def test_all_names_are_filled_in_and_no_secret_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A watermark needs the topic of the connector's own offsets."""
    for name, value in (("PREFIX", "shop"), ("SLOT", "shop_slot"), ("OFFSETS", "shop-offsets")):
        monkeypatch.setenv(name, value)
    settings = {
        "topic.prefix": "${env:PREFIX}",
        "slot.name": "${env:SLOT}",
        "offsets.storage.topic": "${env:OFFSETS}",
        "database.password": "${env:NOT_SET}",
    }
    (tmp_path / "shop.json").write_text(json.dumps({"name": "shop", "config": settings}))
    config: Any = SimpleNamespace(
        connect=SimpleNamespace(definitions=tmp_path), kafka=SimpleNamespace(topic_prefix="shop")
    )
    found = find_definition(config, names_only=True).config
    assert (found["slot.name"], found["offsets.storage.topic"]) == ("shop_slot", "shop-offsets")
    assert found["database.password"] == "${env:NOT_SET}"
