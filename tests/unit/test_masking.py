"""Secrets: one list of names, which all output uses."""

from __future__ import annotations

import io
import json

import pytest
import structlog

from syncer.connect.client import masked
from syncer.connect.definition import Definition
from syncer.errors import Fatal
from syncer.masking import is_secret, mask, mask_text
from syncer.telemetry import logs

SECRET = """
password passwd database.password sslpassword sasl.password ssl.key.password ssl.keystore.password PGPASSWORD
DB_PASS db.pass pwd DB_PWD ssl_passphrase sasl.oauthbearer.assertion.private.key.passphrase
secret client_secret sasl.oauthbearer.client.secret aws.secret.access.key aws_secret_access_key access.key
token auth_token X-Auth-Token refreshToken
credential credentials basic.auth.credentials schema.registry.credential api_key api.key apikey API-KEY
confluent.cloud.api.key sasl.jaas.config producer.override.sasl.jaas.config
private_key ssl.private.key ssl.key.pem ssl.keystore.key basic.auth.user.info Authorization
proxy-authorization
""".split()
PLAIN = """
user username database.user slot.name topic.prefix key.converter message.key.columns key tokenizer passenger
tokenization bypass compass password_file ssl.key.location private_key_file ssl.keystore.location keywords
sasl.oauthbearer.token.endpoint.url authority api.version publication.name ssl.keystore.type
""".split()
TEXTS = {
    "cannot reach postgresql://shop:hunter2@db:5432/shop": "postgresql://shop:***@db:5432/shop",
    "redis://:hunter2@r/0": "redis://:***@r/0",
    "https://u:hunter2@with@signs@es:9200/x": "https://u:***@es:9200/x",
    "host=db user=shop password=hunter2 dbname=shop": "host=db user=shop password=*** dbname=shop",
    "password = 'hunter2 x\\'y' user=a": "password = *** user=a",
    "sslpassword=hunter2;port=5": "sslpassword=***;port=5",
    "credential=hunter2": "credential=***",
    "confluent.cloud.api.key=hunter2, a=b": "confluent.cloud.api.key=***, a=b",
    'Login required username="u" password="hunter2";': 'Login required username="u" password=***;',
    '{"sasl.password": "hunter2", "a": 1}': '{"sasl.password": "***", "a": 1}',
    "{'token': 'hunter2'}": "{'token': '***'}",
    "Authorization: Bearer hunter2hunter2": "Authorization: Bearer ***",
    "jdbc:postgresql://h/d?user=u&password=hunter2&ssl=true": "?user=u&password=***&ssl=true",
}


@pytest.mark.parametrize("name", SECRET)
def test_settings_with_these_names_are_secret(name: str) -> None:
    assert is_secret(name) and is_secret(name.upper())
    assert mask(name, "hunter2") == "***" and mask("x", {name: ["hunter2"]}) == {name: ["***"]}
    assert mask_text(f"bad: {name}=hunter2 there") == f"bad: {name}=*** there"


@pytest.mark.parametrize("name", PLAIN)
def test_settings_with_other_names_are_shown(name: str) -> None:
    assert not is_secret(name)
    assert mask_text(f"bad: {name}=value there") == f"bad: {name}=value there"


@pytest.mark.parametrize("text", TEXTS)
def test_secrets_inside_a_text_are_masked(text: str) -> None:
    assert "hunter2" not in mask_text(text)
    assert TEXTS[text] in mask_text(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "set SYNCER_POSTGRES__PASSWORD or postgres.password_file",
        "export DB_PASSWORD=…",
        "http://es:9200: connection refused",
        "password authentication failed for user x",
        "http://a:9200,http://b:9200",
        "did you mean token?",
    ],
)
def test_a_text_without_secrets_is_unchanged(text: str) -> None:
    assert mask_text(text) == text


def test_no_part_of_an_error_holds_a_secret() -> None:
    secret = "postgresql://u:hunter2@db/x"
    error = Fatal(f"cannot {secret}", where=secret, why="password=hunter2", hint="token=hunter2")
    assert "hunter2" not in f"{error} {error.detail} {error!r} {vars(error)} {error.args}"


def test_connectors_are_shown_without_secrets() -> None:
    config = dict.fromkeys(SECRET, "hunter2") | {"database.url": "jdbc:x://u:hunter2@h/d"}
    definition = Definition("shop", config, frozenset())
    assert "hunter2" not in f"{definition!r} {definition.shown()} {masked(config)}"
    assert definition.hide("Connect says hunter2") == "Connect says ***"


@pytest.mark.parametrize("form", ["json", "console"])
def test_logs_hold_no_secrets(form: str) -> None:
    stream = io.StringIO()
    logs.configure("info", form, stream)  # type: ignore[arg-type]
    try:
        raise ValueError("postgresql://u:hunter2@db/x is wrong, credential=hunter2")
    except ValueError as error:
        structlog.get_logger().exception("failed", error=error, more={"sasl.password": "hunter2"})
    structlog.get_logger().info("api.key=hunter2", credential="hunter2", reason="token=hunter2")
    output = stream.getvalue()
    assert "hunter2" not in output and "ValueError" in output and "Traceback" in output
    if form == "json":
        assert json.loads(output.splitlines()[1])["message"] == "api.key=***"
