"""Tests the layers, origins, secrets, paths and errors of the configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from psycopg.conninfo import conninfo_to_dict
from pydantic import BaseModel, SecretStr

from syncer import sinks
from syncer.config import layers, schema
from syncer.config.installed_sinks import sink_modules
from syncer.errors import Fatal

REPOSITORY = Path(__file__).parents[3]
MINIMAL = """\
postgres:
  dsn: postgresql://app@db/shop
kafka:
  bootstrap_servers: kafka:9092
  topic_prefix: shop
"""


class Connection(BaseModel, extra="forbid"):
    """Replaces the section of a sink. The real sections are tested with their sinks."""

    url: str | list[str] = "http://localhost"
    hosts: list[str] = []
    password: SecretStr | None = None
    ca_file: str = ""


def load(folder: Path, text: str = MINIMAL, environ: Mapping[str, str] | None = None, **options: Any) -> schema.Config:
    (folder / "syncer.yaml").write_text(text, "utf-8")
    return schema.load(folder / "syncer.yaml", environ=environ or {}, options=options)


def fails(folder: Path, text: str, environ: Mapping[str, str] | None = None) -> str:
    with pytest.raises(Fatal) as caught:
        load(folder, text, environ)
    return str(caught.value)


def test_settings_have_defaults(tmp_path: Path) -> None:
    loaded = load(tmp_path)
    assert loaded.models == tmp_path / "readmodels"
    assert loaded.pipeline == schema.PipelineSettings()
    assert loaded.pipeline.max_bytes == 16 * 1024 * 1024
    assert loaded.http.host == "127.0.0.1"
    assert loaded.sinks == {}


def test_later_layers_win_and_every_value_has_its_origin(tmp_path: Path) -> None:
    text = MINIMAL + "log:\n  level: debug\n  format: json\nhttp: {port: 1}\n"
    environ = {"SYNCER_LOG__LEVEL": "warning", "SYNCER_HTTP__PORT": "2", "SYNCER_MODELS": "elsewhere"}
    loaded = load(tmp_path, text, environ, **{"http.port": 3})
    assert (loaded.log.level, loaded.log.format, loaded.http.port) == ("warning", "json", 3)
    assert loaded.models == Path("elsewhere")
    assert loaded.origin("log", "format") == f"{tmp_path}/syncer.yaml:8"
    assert loaded.origin("log", "level") == "environment variable SYNCER_LOG__LEVEL"
    assert loaded.origin("http", "port") == "command line"
    assert loaded.origin("http", "host") == "default"


@pytest.mark.parametrize(
    ("text", "bytes_"), [("8MiB", 8 << 20), ("500 kB", 500_000), ("1024", 1024), ("0.5GiB", 1 << 29)]
)
def test_sizes_have_units(tmp_path: Path, text: str, bytes_: int) -> None:
    assert load(tmp_path, MINIMAL + f"pipeline: {{max_bytes: {text}}}").pipeline.max_bytes == bytes_


@pytest.mark.parametrize(("text", "seconds"), [("30s", 30), ("250ms", 0.25), ("5m", 300), ("1.5", 1.5)])
def test_durations_have_units(tmp_path: Path, text: str, seconds: float) -> None:
    assert load(tmp_path, MINIMAL + f"pipeline: {{max_age: {text}}}").pipeline.max_age == seconds


def test_unknown_keys_are_reported_with_their_origin_and_the_nearest_name(tmp_path: Path) -> None:
    message = fails(tmp_path, MINIMAL + "pipeline:\n  max_recrods: 5\n")
    assert message == (
        f"{tmp_path}/syncer.yaml:7: there is no setting pipeline.max_recrods\n  → did you mean pipeline.max_records?"
    )
    assert "did you mean kafka?" in fails(tmp_path, MINIMAL + "kafak: {}\n")
    assert "there is no setting sinks" in fails(tmp_path, MINIMAL + "sinks: {}\n")
    message = fails(tmp_path, MINIMAL, {"SYNCER_KAFKA__TOPICPREFIX": "x"})
    assert "environment variable SYNCER_KAFKA__TOPICPREFIX" in message
    assert "did you mean kafka.topic_prefix?" in message


def test_all_errors_are_reported_together(tmp_path: Path) -> None:
    message = fails(tmp_path, "http:\n  port: many\nlog: {level: loud}\n")
    assert "5 errors in the configuration" not in message  # postgres and kafka are missing as a whole
    assert "4 errors in the configuration" in message
    for part in ("syncer.yaml:2: http.port", "syncer.yaml:3: log.level", "postgres is missing"):
        assert part in message


def test_unreadable_files_are_refused_with_the_line(tmp_path: Path) -> None:
    assert "syncer.yaml:3: this is not valid YAML" in fails(tmp_path, "a: b\nc: [\n")
    assert "syncer.yaml:1: the configuration file has to be a mapping" in fails(tmp_path, "- a\n")
    assert "syncer.yaml:6: the key 'kafka' is duplicated\n  → see line 3" in fails(tmp_path, MINIMAL + "kafka: {}\n")
    assert "http is a section" in fails(tmp_path, MINIMAL + "http: 8080\n")
    with pytest.raises(Fatal, match="the configuration file does not exist"):
        schema.load(tmp_path / "absent.yaml", environ={})


def test_the_environment_alone_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    environ = {
        "SYNCER_POSTGRES__DSN": "host=db",
        "SYNCER_KAFKA__BOOTSTRAP_SERVERS": "[::1]:9092",
        "SYNCER_KAFKA__TOPIC_PREFIX": "shop",
        "SYNCER_ELASTICSEARCH__HOSTS": "[a, b]",
        "SYNCER_PORT": "tcp://10.0.0.1:80",  # Kubernetes creates it for a service called syncer
    }
    loaded = schema.load(environ=environ)
    assert loaded.kafka.bootstrap_servers == "[::1]:9092"
    assert loaded.connection("elasticsearch", Connection).hosts == ["a", "b"]
    with pytest.raises(Fatal, match=r"(?s)there is no config/syncer.yaml.*SYNCER_KAFKA__TOPIC_PREFIX"):
        schema.load(environ={k: v for k, v in environ.items() if "PREFIX" not in k})


def test_secrets_can_be_read_from_files(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s3cret\n")
    (tmp_path / "other").write_text("0ther")
    text = MINIMAL + (
        f"  properties: {{sasl.username: me, sasl.password_file: {tmp_path}/secret}}\n"
        f"redis: {{password_file: {tmp_path}/secret, ca_file: /ca.pem}}\n"
    )
    environ = {"SYNCER_POSTGRES__PASSWORD_FILE": f"{tmp_path}/other"}
    loaded = load(tmp_path, text.replace("/shop\n", "/shop\n  password: lower\n"), environ)
    assert loaded.postgres.arguments()["password"] == "0ther"
    assert loaded.kafka.properties == {"sasl.username": "me", "sasl.password": "s3cret"}
    redis = loaded.connection("redis", Connection)
    assert redis.password is not None and redis.password.get_secret_value() == "s3cret"
    assert redis.ca_file == "/ca.pem"
    assert loaded.sinks["redis"] == {"password": "s3cret", "ca_file": "/ca.pem"}
    assert "both" in fails(tmp_path, MINIMAL + "connect: {password: a, password_file: b}\n")
    assert "cannot read password_file" in fails(tmp_path, MINIMAL + "connect: {password_file: /absent}\n")


PATHS = """\
models: models
postgres:
  dsn: host=db sslmode=verify-full sslrootcert=tls/ca.pem sslkey=/key.pem
  password_file: ../secret
kafka:
  bootstrap_servers: kafka:9092
  topic_prefix: shop
  properties: {ssl.ca.location: tls/ca.pem, https.ca.location: probe, sasl.password_file: ../secret}
connect: {definitions: ../connectors, password_file: ../secret}
redis: {ca_file: tls/ca.pem, password_file: ../secret}
"""


@pytest.mark.parametrize("absolute", [True, False])
def test_relative_paths_of_the_file_start_at_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, absolute: bool
) -> None:
    here, there = tmp_path / "here", tmp_path / "there" / "config"
    here.mkdir()
    there.mkdir(parents=True)
    (tmp_path / "there" / "secret").write_text("s3cret")
    (there / "syncer.yaml").write_text(PATHS)
    monkeypatch.chdir(here)
    start = there if absolute else Path("../there/config")
    loaded = schema.load(environ={"SYNCER_CONFIG": str(start / "syncer.yaml")})
    redis = loaded.connection("redis", Connection)
    assert loaded.models == start / "models"
    assert loaded.connect.definitions == start.parent / "connectors"
    assert redis.ca_file == loaded.sinks["redis"]["ca_file"] == str(start / "tls/ca.pem")
    assert loaded.kafka.properties == {
        "ssl.ca.location": str(start / "tls/ca.pem"),
        "https.ca.location": "probe",
        "sasl.password": "s3cret",
    }
    dsn = conninfo_to_dict(loaded.postgres.dsn)
    assert (dsn["sslrootcert"], dsn["sslkey"]) == (str(start / "tls/ca.pem"), "/key.pem")
    for password in (loaded.postgres.password, loaded.connect.password, redis.password):
        assert password is not None and password.get_secret_value() == "s3cret"
    assert loaded.explain_folder("models").endswith(f"start at the folder of {start / 'syncer.yaml'}")


def test_relative_paths_of_variables_and_options_start_at_the_current_folder(tmp_path: Path) -> None:
    environ = {
        "SYNCER_CONNECT__DEFINITIONS": "connectors",
        "SYNCER_POSTGRES__DSN": "host=db sslrootcert=ca.pem",
        "SYNCER_KAFKA__PROPERTIES__SSL_CA_LOCATION": "ca.pem",
        "SYNCER_KAFKA__PROPERTIES__SSL_KEY_LOCATION": "key.pem",
        "SYNCER_REDIS__CA_FILE": "ca.pem",
    }
    loaded = load(tmp_path, PATHS.replace("../secret", "syncer.yaml"), environ, models="models")
    assert (loaded.models, loaded.connect.definitions) == (Path("models"), Path("connectors"))
    assert loaded.connection("redis", Connection).ca_file == "ca.pem"
    assert conninfo_to_dict(loaded.postgres.dsn)["sslrootcert"] == "ca.pem"
    assert loaded.kafka.properties["ssl.key.location"] == "key.pem"
    assert loaded.kafka.properties["ssl.ca.location"] == "ca.pem"
    assert loaded.explain_folder("connect", "definitions").endswith("start at the current folder")
    assert load(tmp_path).connect.definitions == tmp_path / "connectors"


def test_every_setting_whose_description_names_a_path_is_resolved_as_one() -> None:
    sections = [schema.Config, *(field.annotation for field in schema.Config.model_fields.values())]
    sections += [sinks.find(kind).Connection for kind in sink_modules()]
    found = set()
    for section in sections:
        if isinstance(section, type) and issubclass(section, BaseModel):
            for name, field in section.model_fields.items():
                if re.search(r"\b(folder|path|file)\b", field.description or "", re.IGNORECASE):
                    assert layers._holds_path(name, field), name
                    found.add(name)
    assert found == {"models", "definitions", "ca_file"}


def test_properties_from_variables_get_their_dots(tmp_path: Path) -> None:
    loaded = load(tmp_path, environ={"SYNCER_KAFKA__PROPERTIES__SECURITY_PROTOCOL": "SSL"})
    assert loaded.kafka.properties == {"security.protocol": "SSL"}
    loaded = load(tmp_path, environ={"SYNCER_KAFKA__PROPERTIES": "{security.protocol: SSL}"})
    assert loaded.kafka.properties == {"security.protocol": "SSL"}


@pytest.mark.parametrize("dsn", ["postgresql://app:hunter2@db/shop", "host=db user=app password=hunter2"])
def test_passwords_are_removed_from_addresses(tmp_path: Path, dsn: str) -> None:
    text = MINIMAL.replace("postgresql://app@db/shop", dsn) + (
        "connect: {url: 'http://me:hunter2@connect:8083'}\n"
        "redis: {url: 'redis://:hunter2@redis/0', password: hunter2}\n"
    )
    loaded = load(tmp_path, text)
    assert loaded.postgres.arguments()["password"] == "hunter2"
    assert loaded.connect.url == "http://connect:8083"
    assert loaded.connect.username == "me"
    assert loaded.sinks["redis"]["url"] == "redis://:hunter2@redis/0"
    for shown in (
        repr(loaded),
        str(loaded),
        str(loaded.masked()),
        repr(loaded.postgres),
        loaded.postgres.dsn,
    ):
        assert "hunter2" not in shown
    assert loaded.masked()["redis"] == {"url": "redis://:***@redis/0", "password": "***"}


def test_errors_do_not_repeat_secrets(tmp_path: Path) -> None:
    for text in (
        "postgres: {dsn: 'postgresql://app:hunter2@[db'}\n",
        "postgres: {dsn: x, password: [hunter2]}\n",
        "redis: {passwrd: hunter2}\n",
    ):
        message = fails(tmp_path, text)
        assert "hunter2" not in message
    with pytest.raises(Fatal, match=r"did you mean redis\.password") as caught:
        load(tmp_path, MINIMAL + "redis: {passwrd: hunter2}\n").connection("redis", Connection)
    assert "syncer.yaml:6" in str(caught.value) and "hunter2" not in str(caught.value)


def test_the_shipped_file_is_valid_and_its_comments_show_the_defaults() -> None:
    path = REPOSITORY / "config" / "syncer.yaml"
    loaded = schema.load(path, environ={})
    assert loaded.kafka.topic_prefix
    # Without the comment signs, these sections are the defaults.
    commented = re.findall(r"^# (pipeline|backfill):.*\n((?:#  .*\n)+)", path.read_text("utf-8"), re.MULTILINE)
    assert [name for name, _ in commented] == ["pipeline", "backfill"]
    for name, body in commented:
        section = yaml.safe_load(re.sub(r"^#", "", body, flags=re.MULTILINE))
        cls: type[BaseModel] = schema.PipelineSettings if name == "pipeline" else schema.BackfillSettings
        assert cls.model_validate(section) == cls()
        assert list(section) == list(cls.model_fields)


def test_every_setting_has_a_description_with_the_unit_of_times_and_sizes() -> None:
    for name, field in schema.Config.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            assert field.annotation.__doc__
            for key, inner in field.annotation.model_fields.items():
                assert inner.description, f"{name}.{key}"
                if "timeout" in key or "age" in key or "interval" in key or "bytes" in key:
                    assert re.search(r"\((seconds|bytes)\)", inner.description), f"{name}.{key}"
        else:
            assert field.description, name
