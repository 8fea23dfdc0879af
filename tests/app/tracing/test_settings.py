"""``[tracing]``: what it takes, what it refuses, and that its secrets are shown to nobody."""

import tomllib
from pathlib import Path

import pytest

from app.config import parse
from app.errors import ConfigError
from app.tracing.settings import Settings, settings_of


def settings(text: str) -> Settings | None:
    return settings_of(parse(tomllib.loads(f"[tracing]\n{text}"), source="x"))


def test_without_an_endpoint_there_is_none() -> None:
    assert settings("sample_ratio = 0.5") is None


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
        ("http://127.0.0.1:4318/", "http://127.0.0.1:4318/v1/traces"),
        ("https://h.example/otlp/", "https://h.example/otlp/v1/traces"),
        ("https://h.example/otlp/v1/traces", "https://h.example/otlp/v1/traces"),
        ("http://[::1]:4318", "http://[::1]:4318/v1/traces"),
    ],
)
def test_a_base_address_gets_the_path_of_the_protocol(endpoint: str, url: str) -> None:
    found = settings(f'endpoint = "{endpoint}"')
    assert found is not None
    assert found.url == url


def test_a_proxy_is_for_what_is_not_near() -> None:
    near, far = settings('endpoint = "http://10.0.0.7:4318"'), settings('endpoint = "http://a.b"')
    assert near is not None
    assert far is not None
    assert (near.through_proxy, far.through_proxy) == (False, True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('endpoint = "ftp://x"', "endpoint"),
        ('endpoint = "http://me:PLANTED@x"', "leave name and password out"),
        ('endpoint = "http://x/?k=PLANTED"', "without what begins with"),
        ('endpoint = "http://x:99999"', "endpoint"),
        ('endpoint = "http://x"\nheaders = { a = "PLANTED" }', "found a literal value"),
        ('endpoint = "http://x"\nheaders = { a = "env:TP_NOT_SET" }', "TP_NOT_SET is not set"),
        ('endpoint = "http://x"\nheaders = { a = "env:TP_LINES" }', "cannot be sent as a header"),
        ('endpoint = "http://x"\nheaders = { Host = "env:TP_GOOD" }', "set by Turnpike"),
        ('endpoint = "http://x"\nheaders = { "a b" = "env:TP_GOOD" }', "headers"),
        ('endpoint = "http://x"\nca_file = "/nowhere/ca.pem"', "ca_file"),
        ("sample_ratio = 1.5", "at most 1"),
        ("queue_spans_max = 1", "at least 256"),
    ],
)
def test_what_cannot_work_is_refused_by_name(
    text: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TP_LINES", "PLANTED\r\nx: y")
    monkeypatch.setenv("TP_GOOD", "PLANTED")
    with pytest.raises(ConfigError) as refused:
        settings(text)
    assert said in str(refused.value)
    assert "PLANTED" not in str(refused.value)


def test_secrets_are_read_and_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TP_TOKEN", " PLANTED \n")
    found = settings('endpoint = "http://x"\nheaders = { Authorization = "env:TP_TOKEN" }')
    assert found is not None
    assert found.headers == {"Authorization": "PLANTED"}
    assert "PLANTED" not in repr(found)
