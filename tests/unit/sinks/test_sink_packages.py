"""Sinks are found in the package and by entry points. Broken ones give errors that name their distribution."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from syncer import sinks
from syncer.cli.config import file_schema, markdown
from syncer.config import schema
from syncer.config.installed_sinks import GROUP, SinkOrigin, sink_modules, sink_origins
from syncer.declaration.model import parse
from syncer.errors import Fatal
from syncer.sinks import postgres
from syncer.sinks.redis.calls import SCRIPT
from tests.contracts.sinks import compiled, page_modules
from tests.harness import memory_sink


def install(folder: Path, distribution: str, **entries: str) -> None:
    """Creates the metadata of a distribution with these entry points, as pip does."""
    info = folder / f"{distribution.replace('-', '_')}-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n")
    lines = [f"{kind} = {module}" for kind, module in entries.items()]
    (info / "entry_points.txt").write_text("\n".join([f"[{GROUP}]", *lines, ""]))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path of Python, for distributions and modules."""
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def error_of(kind: str) -> Fatal:
    with pytest.raises(Fatal) as caught:
        sinks.find(kind, where="orders.yaml:7")
    return caught.value


def test_a_sink_of_another_distribution_is_found_by_its_entry_point() -> None:
    assert sink_modules()["memory"] == "tests.harness.memory_sink"
    assert sink_origins()["memory"] == SinkOrigin("tests.harness.memory_sink", "syncer-memory-sink 1.0")
    assert sinks.find("memory").SINK is memory_sink.MemorySink
    assert sink_origins()["redis"] == SinkOrigin("syncer.sinks.redis")


def test_a_sink_of_another_distribution_has_a_section_in_the_configuration() -> None:
    assert "\n## `memory`\n\nThe memory sink connects to nothing.\n" in markdown()
    assert file_schema()["properties"]["memory"] == {"$ref": "#/$defs/memory"}
    loaded = schema.load(
        environ={
            "SYNCER_POSTGRES__DSN": "host=db",
            "SYNCER_KAFKA__BOOTSTRAP_SERVERS": "k:1",
            "SYNCER_KAFKA__TOPIC_PREFIX": "shop",
            "SYNCER_MEMORY__STORE": "mine",
        }
    )
    assert loaded.connection("memory", memory_sink.Connection).store == "mine"


def test_the_sink_of_postgresql_has_another_section_than_the_source(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("hunter2\n")
    loaded = schema.load(
        environ={
            "SYNCER_POSTGRES__DSN": "host=db",
            "SYNCER_KAFKA__BOOTSTRAP_SERVERS": "k:1",
            "SYNCER_KAFKA__TOPIC_PREFIX": "shop",
            "SYNCER_POSTGRES_SINK__DSN": "postgresql://writer:secret@reads/docs?sslrootcert=ca.pem",
            "SYNCER_POSTGRES_SINK__PASSWORD_FILE": str(tmp_path / "password"),
        }
    )
    found = loaded.connection("postgres", postgres.Connection)
    assert "secret" not in found.dsn and "reads" in found.dsn and loaded.postgres.dsn == "host=db"
    assert found.arguments()["password"] == "hunter2" and found.arguments()["application_name"] == "syncer-sink"
    shown = str(loaded.masked())
    assert "secret" not in shown and "hunter2" not in shown and "postgres_sink" in loaded.sinks
    assert "\n## `postgres_sink`\n" in markdown() and "postgres_sink" in file_schema()["properties"]


def test_a_missing_dsn_of_the_sink_names_its_section_and_variable() -> None:
    loaded = schema.load(
        environ={
            "SYNCER_POSTGRES__DSN": "host=db",
            "SYNCER_KAFKA__BOOTSTRAP_SERVERS": "k:1",
            "SYNCER_KAFKA__TOPIC_PREFIX": "shop",
        }
    )
    with pytest.raises(Fatal, match=r"postgres_sink\.dsn is missing") as caught:
        loaded.connection("postgres", postgres.Connection)
    assert "SYNCER_POSTGRES_SINK__DSN" in caught.value.hint


def test_a_sink_of_another_distribution_can_be_declared_and_built() -> None:
    text = "name: o\nroot: {table: t}\ndocument:\n  x: x\nsink: {memory: {}}\n"
    [(kind, settings)] = parse(text, "m.yaml").declaration.sink.items()
    assert sinks.check(kind, settings, compiled("o").fields) == []
    assert sinks.derived(kind, settings, compiled("o").fields) == {}
    sink = sinks.build(kind, settings, model=compiled("o"), connection={})
    assert (sink.name, sink.count()) == ("memory:o", 0)


def test_an_entry_point_without_its_module_names_the_distribution(site: Path) -> None:
    install(site, "acme-sinks", acme="acme_sink_that_is_missing")
    error = error_of("acme")
    assert error.what == "the sink 'acme' of the distribution acme-sinks 1.2 cannot be imported"
    assert error.where == "orders.yaml:7"
    assert error.why == "acme_sink_that_is_missing: No module named 'acme_sink_that_is_missing'"
    assert error.hint == "pip install --force-reinstall acme-sinks, or: pip uninstall acme-sinks"


def test_a_dependency_that_is_missing_is_named(site: Path) -> None:
    install(site, "acme-sinks", acme="acme_sink_with_driver")
    (site / "acme_sink_with_driver.py").write_text("import acme_driver_that_is_missing\n")
    assert "No module named 'acme_driver_that_is_missing'" in error_of("acme").why


def test_an_incomplete_package_names_its_distribution_and_the_missing_attributes(site: Path) -> None:
    install(site, "acme-sinks", acme="acme_sink_that_is_old")
    given = "Settings Connection SINK TARGET_HINT derived validate preflight readers_elsewhere".split()
    (site / "acme_sink_that_is_old.py").write_text("".join(f"{name} = None\n" for name in given))
    error = error_of("acme")
    assert "the sink 'acme' of the distribution acme-sinks 1.2 does not fit this version" in error.what
    assert error.why == "acme_sink_that_is_old lacks target, trial"
    assert "pip install --upgrade acme-sinks" in error.hint and "docs/writing-a-sink.md" in error.hint


def test_a_broken_sink_leaves_the_others_usable(site: Path) -> None:
    install(site, "acme-sinks", acme="acme_sink_that_is_missing")
    assert sink_modules().keys() == {"acme", "elasticsearch", "kafka", "memory", "postgres", "redis"}
    assert [sinks.find(kind).TARGET_HINT for kind in ("redis", "memory")] == ["choose another key", ""]


def test_a_built_in_sink_wins_over_one_of_another_distribution(site: Path) -> None:
    install(site, "acme-sinks", redis="acme_redis")
    assert sink_modules()["redis"] == "syncer.sinks.redis"


def test_two_distributions_with_the_same_kind_are_an_error(site: Path) -> None:
    install(site, "acme-sinks", acme="acme_sink")
    install(site / "other", "other-sinks", acme="other_sink")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site / "other"))
        with pytest.raises(Fatal, match="two distributions provide the sink 'acme'") as caught:
            sink_modules()
    assert "acme-sinks 1.2 has acme_sink" in caught.value.why and "other-sinks 1.2 has other_sink" in caught.value.why
    assert "pip uninstall" in caught.value.hint


def test_an_unknown_kind_names_the_nearest_one() -> None:
    assert error_of("elasticserch").hint == "did you mean elasticsearch?"
    assert error_of("x").hint == "one of: elasticsearch, kafka, memory, postgres, redis"


@pytest.mark.parametrize(
    "package", [memory_sink, page_modules()[0], *map(sinks.find, ("elasticsearch", "kafka", "postgres", "redis"))]
)
def test_packages_have_the_whole_interface(package: Any) -> None:
    assert [name for name in sinks.INTERFACE if not hasattr(package, name)] == []
    assert package.Settings.__doc__ and package.Connection.__doc__


def test_the_interface_is_that_of_the_protocol() -> None:
    declared = sinks.SinkPackage.__annotations__.keys() | {
        name for name in vars(sinks.SinkPackage) if not name.startswith("_")
    }
    assert set(sinks.INTERFACE) == declared


@pytest.mark.parametrize(
    ("kind", "settings", "target"),
    [
        ("elasticsearch", {"index": "orders"}, "orders"),
        ("kafka", {"topic": "documents.orders"}, "documents.orders"),
        ("postgres", {"table": "read.orders"}, "read.orders"),
        ("redis", {"key": "o:{id}"}, "o:{id}"),
        ("memory", {}, ""),
    ],
)
def test_the_target_of_a_block(kind: str, settings: dict[str, str], target: str) -> None:
    assert sinks.target_of(kind, settings) == target


def test_what_elasticsearch_derives_is_the_whole_mapping() -> None:
    block = {"index": "orders", "mapping": {"name": {"type": "keyword"}}}
    found = sinks.derived("elasticsearch", block, compiled("o").fields)["mapping"]
    assert found["dynamic"] is False
    assert found["properties"]["name"] == {"type": "keyword"} and found["properties"]["n"] == {"type": "long"}


def test_the_script_of_redis_is_a_file_of_the_package() -> None:
    assert resources.files("syncer.sinks.redis").joinpath("write.lua").read_text("utf-8") == SCRIPT
