"""Connector definitions: placeholders, secrets, and invalid files."""

import json
from pathlib import Path

import pytest

from syncer.connect.definition import load_definition, load_definitions
from syncer.errors import Fatal


def test_placeholders_are_filled_in_and_secrets_are_masked(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("from file\n")
    path = tmp_path / "c.json"
    config = {
        "a": "${env:HOST:-localhost}:${env:PORT}",
        "b": f"${{file:{secret}}}",
        "c": "${file:/run/x:key}",
        "d.password": "plain text",
        "e": 5,
        "f": True,
        "g": "${env:EMPTY:-}",
        "h": "${env:DB_TOKEN}",
    }
    path.write_text(json.dumps({"name": "c", "config": config}))
    made = load_definition(path, {"PORT": "5432", "DB_TOKEN": "tok-1"})
    assert made.config == {
        "a": "localhost:5432",
        "b": "from file",
        "c": "${file:/run/x:key}",
        "d.password": "plain text",
        "e": "5",
        "f": "true",
        "g": "",
        "h": "tok-1",
    }
    assert [key for key, value in made.shown().items() if value == "***"] == ["b", "d.password", "h"]
    for value in ("plain text", "from file", "tok-1"):
        assert value not in repr(made)
        assert value not in made.hide(f"cannot use '{value}'")


def test_a_relative_path_starts_at_the_folder_of_the_definition(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("from file\n")
    path = tmp_path / "connectors" / "c.json"
    path.parent.mkdir()
    path.write_text('{"config": {"database.password": "${file:../secret}"}}')
    assert load_definition(path, {}).config == {"database.password": "from file"}


def test_placeholders_in_unused_settings_need_no_secrets(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text('{"config": {"topic.prefix": "${env:PREFIX}", "database.password": "${env:NOT_SET}"}}')
    [made] = load_definitions(tmp_path, {"PREFIX": "shop"}, needed=["topic.prefix"])
    assert made.config == {"topic.prefix": "shop", "database.password": "${env:NOT_SET}"}
    with pytest.raises(Fatal, match=r"c\.json: topic\.prefix: the environment variable PREFIX is not set"):
        load_definition(path, {}, needed=["topic.prefix"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "the file is not a connector's definition"),
        ('{"name": "a", "config": {"p": "${env:NOT_SET}"}}', "NOT_SET is not set"),
        ('{"name": "a", "config": {"p": "${file:/not/there}"}}', "cannot read /not/there"),
    ],
)
def test_errors_in_definitions_name_the_file(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(Fatal, match=message) as caught:
        load_definition(path, {})
    assert caught.value.where.startswith(str(path))


def test_duplicate_connector_names_are_rejected(tmp_path: Path) -> None:
    for name in ("a.json", "b.json"):
        (tmp_path / name).write_text('{"name": "same", "config": {}}')
    with pytest.raises(Fatal, match="two connectors have the name 'same'"):
        load_definitions(tmp_path, {})
    with pytest.raises(Fatal, match="cannot read"):
        load_definition(tmp_path / "none.json", {})
