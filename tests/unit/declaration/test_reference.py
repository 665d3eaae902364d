"""Checks docs/read-models.md: its generated lists are current, its examples compile, and no setting is missing."""

from __future__ import annotations

import re

import pytest

from syncer import sinks
from syncer.declaration import reference
from syncer.declaration.compile import compile
from syncer.declaration.model import parse
from tests.harness.catalogs import REFERENCES, SHOP, SOCIAL, catalog

PAGE = reference.PAGE.read_text("utf-8")
EXAMPLES = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def test_the_generated_lists_are_current() -> None:
    assert reference.updated(PAGE) == PAGE, "run: python -m syncer.declaration.reference"
    assert reference.names(PAGE) == set(reference.blocks()), "a block without a place in the page"


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_examples_compile(example: str) -> None:
    """A whole read model starts with its name. A document names its root in a comment. The rest is a sink."""
    if root := re.match(r"# root: (\S+)\n", example):
        document = re.sub(r"^", "  ", example, flags=re.MULTILINE)
        example = f"name: example\nroot: {{table: {root[1]}}}\ndocument:\n{document}\nsink: {{memory: {{}}}}\n"
    elif example.startswith("sink:"):
        example = f"name: example\nroot: {{table: orders}}\ndocument: {{id: id}}\n{example}"
    model = parse(example, "docs/read-models.md")
    compiled = compile(model, catalog(*SHOP.tables.values(), *SOCIAL.tables.values(), *REFERENCES.tables.values()))
    assert compiled.fields
    for kind, settings in model.declaration.sink.items():
        if kind != "memory":
            sinks.parse(sinks.find(kind).Settings, settings, where=kind)


@pytest.mark.parametrize("kind", ["elasticsearch", "redis"])
def test_every_setting_of_a_sink_is_explained(kind: str) -> None:
    section = PAGE.partition(f"### `{kind}`")[2].partition("\n#")[0]
    explained = set(re.findall(r"^\* \*\*`(\w+)`\*\*", section, re.MULTILINE))
    assert explained == set(sinks.find(kind).Settings.model_fields)
