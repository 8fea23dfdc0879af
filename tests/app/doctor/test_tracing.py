"""The collector: asked once, with the headers that it wants, and never a reason for more than a
warning."""

import socket
import tomllib
from pathlib import Path

import pytest

from app.config import Config, parse
from app.config_survey import survey_file
from app.doctor.configuration import check_configuration
from app.doctor.finding import Severity
from app.doctor.tracing import check_tracing
from tests.app.doctor.answering import answering


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCTOR_TOKEN", "PLANTED")


def config(url: str) -> Config:
    headers = 'headers = { X-Token = "env:DOCTOR_TOKEN" }'
    return parse(tomllib.loads(f'[tracing]\nendpoint = "{url}"\n{headers}'), source="x")


def test_it_is_off() -> None:
    (found,) = check_tracing(Config(), offline=False)
    assert (found.code, found.severity) == ("traces.off", Severity.OK)


def test_it_takes_spans() -> None:
    with answering((200, b"")) as (url, heard):
        (found,) = check_tracing(config(url), offline=False)
    assert (found.code, found.severity) == ("traces.ok", Severity.OK)
    (request,) = heard
    assert request.startswith(b"POST /v1/traces HTTP/1.1\r\n")
    assert b"X-Token: PLANTED\r\n" in request
    assert request.endswith(b"\r\n\r\n")  # no span


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (401, "traces.refused"),
        (403, "traces.refused"),
        (404, "traces.not_taken"),
        (307, "traces.not_taken"),
        (503, "traces.unreachable"),
    ],
)
def test_it_does_not(status: int, code: str) -> None:
    with answering((status, b'"SECRET"')) as (url, _):
        (found,) = check_tracing(config(url), offline=False)
    assert (found.code, found.severity) == (code, Severity.WARNING)
    assert str(status) in found.text
    assert found.fix
    assert found.path in {"tracing.endpoint", "tracing.headers"}
    assert "PLANTED" not in str(found)
    assert "SECRET" not in str(found)


def test_it_is_not_there() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        (found,) = check_tracing(config(url), offline=False)
        assert (found.code, found.severity) == ("traces.unreachable", Severity.WARNING)
        (found,) = check_tracing(config(url), offline=True)
        assert (found.code, found.severity) == ("traces.not_asked", Severity.OK)


def test_what_the_configuration_says_wrongly_is_told_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DOCTOR_TOKEN")
    (found,) = check_tracing(config("http://127.0.0.1:1"), offline=False)
    assert found.code == "traces.not_asked"


@pytest.mark.parametrize(
    ("text", "code", "path"),
    [
        ('endpoint = "http://me:PLANTED@x"', "tracing.refused", "tracing.endpoint"),
        ('ca_file = "/nowhere.pem"\nendpoint = "http://x"', "tracing.refused", "tracing.ca_file"),
        ('headers = { A = "PLANTED" }', "secret.literal", "tracing.headers.A"),
        ('headers = { A = "env:TP_NOT_SET" }', "secret.missing", "tracing.headers.A"),
        ("sample_ratio = 2", "config.wrong_value", "tracing.sample_ratio"),
        ("sample_rate = 1", "config.unknown_key", "tracing.sample_rate"),
    ],
)
def test_a_mistake_is_found_before_a_start(tmp_path: Path, text: str, code: str, path: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(f"[tracing]\n{text}\n")
    (found,) = check_configuration(survey_file(file), file)
    assert (found.code, found.path) == (code, path)
    assert found.line
    assert "PLANTED" not in str(found)
