"""Checks the project's own files: the content of the wheel, and lock files that fit and do not depend on a machine."""

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_wheel_contains_only_the_package(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "."]
    subprocess.run([*build, "--wheel-dir", tmp_path], cwd=ROOT, check=True)
    (wheel,) = tmp_path.glob("readmodel_syncer-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"syncer", f"readmodel_syncer-{PROJECT['version']}.dist-info"}
    assert {"syncer/sinks/redis/write.lua", "syncer/serving/static/index.html"} <= set(names)
    assert "syncer/serving/static/vendor/uPlot.LICENSE" in names


def locked(lock: str) -> dict[str, Version]:
    """Returns name → version of everything in a lock file."""
    lines = [line for line in (ROOT / lock).read_text().splitlines() if "==" in line and line[0].isalpha()]
    pairs = [line.removesuffix("\\").strip().split("==") for line in lines]
    return {canonicalize_name(name): Version(version) for name, version in pairs}


@pytest.mark.parametrize(
    ("lock", "requirements"),
    [
        ("requirements.txt", PROJECT["dependencies"]),
        ("requirements-dev.txt", PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]),
        ("requirements-delta.txt", PROJECT["dependencies"] + PROJECT["optional-dependencies"]["delta"]),
    ],
)
def test_a_lock_contains_every_requirement_of_the_project(lock: str, requirements: list[str]) -> None:
    versions = locked(lock)
    for requirement in map(Requirement, requirements):
        version = versions.get(canonicalize_name(requirement.name))
        assert version, f"{requirement.name} is not in {lock}; run: make lock"
        assert version in requirement.specifier, f"{requirement} is not what {lock} has; run: make lock"


def test_all_locks_agree() -> None:
    development, delta = locked("requirements-dev.txt"), locked("requirements-delta.txt")
    assert locked("requirements.txt").items() <= delta.items() <= development.items()


@pytest.mark.parametrize("lock", ["requirements.txt", "requirements-dev.txt", "requirements-delta.txt"])
def test_a_lock_names_no_address(lock: str) -> None:
    lines = [line for line in (ROOT / lock).read_text().splitlines() if not line.startswith("#")]
    assert not [line for line in lines if "://" in line or line.startswith("-")]
