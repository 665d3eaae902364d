"""Checks that links, anchors, paths and test names in the documents exist, and that nothing in them has drifted."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
import yaml

from syncer.cli import COMMANDS
from syncer.declaration.model import parse

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
ELSEWHERE = {"acme_sqlite_sink/__init__.py", "acme_sqlite_sink/testing.py"}
"""Paths of other projects that the documents use as examples."""
"""Pages that may be linked before they exist. Empty this set once they do."""
STATES = ("new", "starting", "running", "waiting", "stopped", "failed")
FOLDERS = ("syncer", "tests", "config", "docs", "bench", "demo", "devstack", "readmodels", "connectors")


def name_of(page: Path) -> str:
    """Returns the path of a page in the repository."""
    return str(page.relative_to(ROOT))


def prose(page: Path) -> str:
    """Returns the text of a page without its fenced blocks."""
    return re.sub(r"(?ms)^```.*?^```$", "", page.read_text("utf-8"))


def anchors(page: Path) -> set[str]:
    """Returns the anchors that GitHub makes of the headings."""
    found: dict[str, int] = {}
    all_: set[str] = set()
    for heading in re.findall(r"(?m)^#+ (.+)$", prose(page)):
        text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", text.lower()).strip().replace(" ", "-")
        number = found.get(slug, 0)
        found[slug] = number + 1
        all_.add(f"{slug}-{number}" if number else slug)
    return all_


def links(page: Path) -> Iterator[str]:
    """Yields the relative links of a page."""
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if not re.match(r"[a-z]+:", target):
            yield target


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_relative_links_and_anchors_exist(page: Path) -> None:
    for target in links(page):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{target} does not exist"
        assert file.is_relative_to(ROOT), f"{target} is outside of the repository"
        assert not anchor or anchor in anchors(file), f"{target} has no such heading"


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 200


def test_every_page_is_in_the_index() -> None:
    text = (DOCS / "index.md").read_text()
    missing = [page.name for page in DOCS.glob("*.md") if page.name != "index.md" and f"({page.name})" not in text]
    assert not missing
    decisions = (DOCS / "decisions" / "README.md").read_text()
    for record in DOCS.glob("decisions/0*.md"):
        title = record.read_text().splitlines()[0].removeprefix("# ")
        assert f"[{title}]({record.name})" in decisions


@pytest.mark.parametrize("record", sorted(DOCS.glob("decisions/0*.md")), ids=name_of)
def test_a_decision_has_context_decision_and_consequence(record: Path) -> None:
    text = record.read_text()
    assert text.startswith(f"# {int(record.name[:4])}. ")
    parts = [text.find(f"\n**{part}.**") for part in ("Context", "Decision", "Consequence")]
    assert -1 not in parts and parts == sorted(parts)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_paths_in_the_documents_exist(page: Path) -> None:
    if page.name == "CHANGELOG.md":  # it also names files of earlier versions
        return
    for path in re.findall(r"`((?:[\w.-]+/)+[\w.-]*)`", prose(page)):
        known = path.startswith(tuple(f"{folder}/" for folder in FOLDERS))
        if known or path.endswith(".py"):
            there = (ROOT / path).exists() or (ROOT / "syncer" / path).exists()
            assert there or path in ELSEWHERE, f"{path} does not exist"


def names_of_tests() -> tuple[set[str], set[str]]:
    """Returns the names of all test functions, and of all test files."""
    files = list((ROOT / "tests").rglob("*.py"))
    functions = {
        node.name
        for path in files
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }
    return functions, {path.name for path in files}


def test_tests_in_the_documents_exist() -> None:
    functions, files = names_of_tests()
    missing = [
        f"{name_of(page)}: {name}"
        for page in PAGES
        if page.name != "CHANGELOG.md"
        for name in re.findall(r"`(test_[\w*]+(?:\.py)?)`", prose(page))
        if not any(fnmatchcase(one, name) for one in (files if name.endswith(".py") else functions))
    ]
    assert not missing


def test_the_runbook_has_every_state_and_every_alert() -> None:
    text = (DOCS / "operations.md").read_text()
    states, _, alerts = text.partition("## Runbook: states")[2].partition("## Runbook: alerts")
    assert tuple(re.findall(r"(?m)^### (.+)$", states)) == STATES
    groups = yaml.safe_load((ROOT / "config/prometheus/alerts.yml").read_text())["groups"]
    rules = [rule["alert"] for group in groups for rule in group["rules"]]
    described = re.findall(r"(?m)^### (.+)$", alerts.partition("\n## ")[0])
    assert sorted(described) == sorted(rules)


def test_the_page_describes_every_panel_of_the_dashboard() -> None:
    panels = json.loads((ROOT / "config/grafana/dashboards/syncer.json").read_text())["panels"]
    table = (DOCS / "operations.md").read_text().partition("### The dashboard")[2].partition("\n## ")[0]
    assert re.findall(r"(?m)^\| (.+?) \| .+\?", table) == [panel["title"] for panel in panels]


@pytest.mark.parametrize("page", [ROOT / "README.md", DOCS / "tutorial.md"], ids=name_of)
def test_read_models_in_the_documents_are_valid(page: Path) -> None:
    found = re.findall(r"(?ms)^```yaml\n(.*?)^```$", page.read_text("utf-8"))
    models = [text for text in found if "\nroot: " in text]
    assert models
    for text in models:
        parse(text, f"{name_of(page)}.yaml")


def test_commands_in_the_documents_exist() -> None:
    for page in PAGES:
        if page.name == "CHANGELOG.md":
            continue
        for command in re.findall(r"(?m)(?:`|^\$ )syncer ([a-z]+)", page.read_text("utf-8")):
            assert command in COMMANDS, f"{name_of(page)}: syncer {command}"
