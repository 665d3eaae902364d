"""Paths and URLs of tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from syncer.errors import Fatal
from syncer.export.location import check_writable, locate

RENAME = ("AWS_S3_ALLOW_UNSAFE_RENAME", "MOUNT_ALLOW_UNSAFE_RENAME")


def test_a_url_gets_the_options_of_the_environment(tmp_path: Path) -> None:
    environment = {"AWS_REGION": "eu", "GOOGLE_BUCKET": "b", "HOME": "/root"}
    found = locate("s3://lake/orders", environment)
    assert (found.uri, found.folder) == ("s3://lake/orders", None)
    assert found.options == {"AWS_REGION": "eu", "GOOGLE_BUCKET": "b"}
    for text in (f"file://{tmp_path}/a%20b", f"{tmp_path}/a b"):
        found = locate(text, environment)
        assert (found.folder, found.options) == (tmp_path / "a b", {})


def test_a_password_in_a_url_is_refused_and_not_shown() -> None:
    with pytest.raises(Fatal) as caught:
        locate("s3://user:secret@lake/orders", {})
    assert "secret" not in str(caught.value) and "AWS_SECRET_ACCESS_KEY" in caught.value.hint


UNSAFE = [(name, value) for name in RENAME for value in ("true", "1", "on", "Yes", "y", "maybe")]


@pytest.mark.parametrize(("name", "value"), [*UNSAFE, ("AWS_CONDITIONAL_PUT", "disabled")])
def test_options_without_a_fence_are_refused(name: str, value: str) -> None:
    with pytest.raises(Fatal) as caught:
        locate("s3://lake/orders", {name: value})
    assert caught.value.hint.startswith(f"unset {name}")


@pytest.mark.parametrize("value", ["", "0", "False", "no", "off", "n"])
def test_options_that_keep_the_fence_are_accepted(value: str) -> None:
    assert locate("s3://lake/orders", {**dict.fromkeys(RENAME, value), "AWS_CONDITIONAL_PUT": "etag"}).options


def test_a_path_that_is_not_writable_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for folder in (file, file / "below", Path("/proc/nobody/table")):
        with pytest.raises(Fatal, match="is not writable"):
            check_writable(folder)


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    check_writable(tmp_path / "new")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "photo.jpg").write_text("")
    with pytest.raises(Fatal) as caught:
        check_writable(tmp_path)
    assert "photo.jpg" in caught.value.why
    (tmp_path / "_delta_log").mkdir()
    check_writable(tmp_path)
    assert list((tmp_path / "_delta_log").iterdir()) == []
