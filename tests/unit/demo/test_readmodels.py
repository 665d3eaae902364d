"""The read models of `readmodels/` are valid declarations, and each example has its folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from demo.examples.__main__ import load, models, names
from syncer import sinks
from syncer.declaration.model import parse

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("file", sorted((ROOT / "readmodels").rglob("*.yaml")), ids=lambda file: file.stem)
def test_a_read_model_is_a_valid_declaration_and_named_like_its_file(file: Path) -> None:
    model = parse(file.read_text("utf-8"), file.name)
    assert model.name == file.stem
    for kind, settings in model.declaration.sink.items():
        sinks.parse(sinks.find(kind).Settings, settings, where=kind)


@pytest.mark.parametrize("name", names())
def test_an_example_has_read_models_and_is_in_the_documents(name: str) -> None:
    assert models(load(name))
    assert f"| `{name}` | [readmodels/{name}](../readmodels/{name}/" in (ROOT / "docs" / "examples.md").read_text(
        "utf-8"
    )
