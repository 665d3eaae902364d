"""Checks docker-compose.yml and the files that it mounts: valid, complete, consistent with devstack and the metrics."""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from psycopg.conninfo import conninfo_to_dict

from devstack import downloads, ports, system
from devstack.servers.base import Site
from devstack.servers.connect import Connect
from devstack.servers.kafka import MAX_MESSAGE_BYTES
from devstack.servers.postgres import PASSWORD, USER
from syncer.config import schema
from syncer.connect.definition import load_definition
from syncer.serving.tokens import Tokens
from syncer.telemetry.table import TABLE

ROOT = Path(__file__).parents[3]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
DASHBOARD = json.loads((ROOT / "config/grafana/dashboards/syncer.json").read_text())
ALERTS = yaml.safe_load((ROOT / "config/prometheus/alerts.yml").read_text())


def test_docker_compose_accepts_the_file() -> None:
    program = system.docker_compose()
    assert program, "docker-compose is missing; install it: make tools"
    done = subprocess.run([program, "config", "--quiet"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def mounts() -> list[tuple[str, str]]:
    """Returns (service, volume) for every folder or file of the repository that is mounted."""
    return [
        (service, volume)
        for service, settings in SERVICES.items()
        for volume in settings.get("volumes", [])
        if volume.startswith("./")
    ]


@pytest.mark.parametrize(("service", "volume"), mounts())
def test_mounted_files_exist_and_are_read_only(service: str, volume: str) -> None:
    source, _, mode = volume.split(":")
    assert (ROOT / source).exists()
    assert mode == "ro"


def test_folders_are_mounted_where_the_mounted_configuration_expects_them() -> None:
    targets = dict(volume.split(":")[:2] for service, volume in mounts() if service == "syncer")
    file = targets["./config/syncer.yaml"]
    settings = yaml.safe_load((ROOT / "config/syncer.yaml").read_text())
    for folder, setting in {
        "./readmodels": settings["models"],
        "./connectors": settings["connect"]["definitions"],
    }.items():
        assert os.path.normpath(f"{os.path.dirname(file)}/{setting}") == targets[folder]  # noqa: PTH120


def test_the_configuration_has_the_addresses_of_make_stack_and_of_the_published_ports() -> None:
    """With the same addresses, `syncer check` works after either command, without any variable."""
    settings = schema.load(ROOT / "config/syncer.yaml", environ={})
    postgres = conninfo_to_dict(settings.postgres.dsn)
    connector = load_definition(ROOT / "connectors/shop.json", {}).config
    configured = {
        "postgres": int(str(postgres["port"])),
        "kafka": int(settings.kafka.bootstrap_servers.partition(":")[2]),
        "connect": urlsplit(settings.connect.url or "").port,
        "elasticsearch": urlsplit(settings.sinks["elasticsearch"]["url"]).port,
        "redis": urlsplit(settings.sinks["redis"]["url"]).port,
    }
    assert configured == {name: ports.FIXED[name] for name in configured}
    published = {name: int(SERVICES[name]["ports"][0].split(":")[1]) for name in configured}
    assert published == configured
    assert f"127.0.0.1:{configured['kafka']}" in SERVICES["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    assert connector["database.port"] == str(configured["postgres"])
    for user, password in (
        (postgres["user"], settings.postgres.arguments()["password"]),
        (connector["database.user"], connector["database.password"]),
    ):
        assert (user, password) == (USER, PASSWORD)


@pytest.mark.parametrize("service", SERVICES)
def test_ports_are_published_on_loopback_only(service: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[service]["ports"])


def test_prometheus_may_read_the_metrics() -> None:
    environment = {name: str(value) for name, value in SERVICES["syncer"]["environment"].items()}
    settings = schema.load(ROOT / "config/syncer.yaml", environ=environment).http
    assert Tokens(settings).allows("read", {}) and not Tokens(settings).allows("write", {})
    scraped = yaml.safe_load((ROOT / "config/prometheus/prometheus.yml").read_text())["scrape_configs"]
    assert scraped[0]["static_configs"][0]["targets"] == [f"{settings.allowed_hosts[0]}:{settings.port}"]


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_has_a_health_check(service: str) -> None:
    built = SERVICES[service].get("build", {}).get("target")
    assert "healthcheck" in SERVICES[service] or (built and "HEALTHCHECK" in stage(built))


def stage(name: str) -> str:
    """Returns the part of the Dockerfile that builds one target."""
    parts = re.split(r"(?m)^(?=FROM )", DOCKERFILE)
    return next(part for part in parts if re.match(rf"FROM \S+ AS {name}\n", part))


def test_the_image_has_the_extra_that_the_export_needs_and_docker_may_read_all_files() -> None:
    copied = [line.split()[1:-1] for line in DOCKERFILE.splitlines() if re.match(r"COPY (?!--from)", line)]
    names = {name for line in copied for name in line}
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert "pip install --no-cache-dir --require-hashes -r requirements-delta.txt" in stage("build")
    assert names == allowed
    assert all((ROOT / name).exists() for name in names)


def test_versions_agree_with_those_of_devstack() -> None:
    pins = downloads.pins()
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{pins['kafka']}"
    assert stage("connect").startswith(f"FROM apache/kafka:{pins['kafka']} ")
    assert SERVICES["elasticsearch"]["image"] == f"elasticsearch:{pins['elasticsearch']}"
    assert "debezium.version" in stage("debezium")  # from devstack/pom.xml, which the build copies
    assert int(SERVICES["kafka"]["environment"]["KAFKA_MESSAGE_MAX_BYTES"]) == MAX_MESSAGE_BYTES


def test_connect_has_the_settings_of_devstack() -> None:
    text = (ROOT / "config/connect/connect.properties").read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    settings = dict(line.split("=", 1) for line in lines)
    account = system.server_account()
    site = Site(account, Path(), {"connect": 1, "kafka": 2}, Path("java"), downloads.Downloads(Path()), {})
    of_devstack = {name: str(value) for name, value in Connect(site).settings().items()}
    site_specific = {"bootstrap.servers", "group.id", "listeners", "rest.advertised.host.name", "plugin.path"}
    common = settings.keys() - site_specific
    assert {name: settings[name] for name in common} == {
        name: value for name, value in of_devstack.items() if name not in site_specific
    }


def expressions() -> list[str]:
    """Returns all PromQL of the dashboard and the alerts."""
    panels = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    variables = [variable["query"] for variable in DASHBOARD["templating"]["list"]]
    rules = [rule["expr"] for group in ALERTS["groups"] for rule in group["rules"]]
    return [*panels, *variables, *rules]


@pytest.mark.parametrize("expression", expressions())
def test_dashboard_and_alerts_use_metrics_that_exist(expression: str) -> None:
    known = {spec.name: set(spec.labels) for spec in TABLE}
    for name, selector in re.findall(r"(syncer_\w+)(\{[^}]*\})?", expression):
        metric = name if name in known else re.sub(r"_(bucket|sum|count)$", "", name)
        assert metric in known
        assert set(re.findall(r"(\w+)=", selector)) <= known[metric]
    for labels in re.findall(r"by \(([^)]*)\)", expression):
        assert {label.strip() for label in labels.split(",")} <= {label for spec in TABLE for label in spec.labels} | {
            "le"
        }


def test_a_stopped_read_model_alerts_at_once_and_a_waiting_one_after_ten_minutes() -> None:
    rules = [rule for group in ALERTS["groups"] for rule in group["rules"]]
    stopped = [r for r in rules if 'state="failed"' in r["expr"]]
    assert stopped and not any("for" in rule for rule in stopped)
    waits = [r for r in rules if re.search('state="waiting"|kind="retry"', r["expr"])]
    assert waits and all(rule["for"] == "10m" for rule in waits)
    for rule in rules:
        assert not re.search(r"syncer_errors_total(?!\{kind=)", rule["expr"]), "an alert has to select a kind of error"


def test_the_dashboard_uses_the_provisioned_data_source() -> None:
    provisioned = yaml.safe_load((ROOT / "config/grafana/provisioning/datasources/prometheus.yml").read_text())
    assert {panel["datasource"]["uid"] for panel in DASHBOARD["panels"]} == {provisioned["datasources"][0]["uid"]}
