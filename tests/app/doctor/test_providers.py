"""Providers that are there, that are not, and that refuse the key: one request each at most."""

import socket
import time
import tomllib

import pytest

from app.config import Config, parse
from app.doctor import providers
from app.doctor.providers import check_providers
from tests.app.doctor.answering import answering
from tests.app.doctor.patients import problems, wrong

LIST = b'{"object": "list", "data": [{"id": "m"}, {"id": "n"}]}'


def config(plugin: str, url: str, key: bool = True) -> Config:
    text = f'[[providers]]\nid = "p"\nplugin = "{plugin}"\nbase_url = "{url}/v1"\n'
    text += 'api_key = "env:DOCTOR_KEY"\n' if key else ""
    return parse(tomllib.loads(text), source="x")


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCTOR_KEY", "sk-PLANTED")


def test_a_provider_that_takes_the_key() -> None:
    with answering((200, LIST)) as (url, heard):
        (found,) = check_providers(config("openai_compatible", url), offline=False)
    assert (found.code, found.text) == ("provider.ok", "p takes the key and lists 2 models")
    assert len(heard) == 1
    assert heard[0].startswith(b"GET /v1/models HTTP/1.1")
    assert b"sk-PLANTED" in heard[0]


@pytest.mark.parametrize("status", [401, 403])
def test_a_provider_that_refuses_it(status: int) -> None:
    with answering((status, b'{"error": {"message": "bad sk-PLANTED"}}')) as (url, _):
        found = check_providers(config("openai_compatible", url), offline=False)
    assert problems(found) == {"provider.key_refused"}
    assert "PLANTED" not in str(found)
    assert found[0].path == "providers[0]"


def test_a_provider_that_is_not_there() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        found = check_providers(config("openai_compatible", url), offline=False)
        assert problems(found) == {"provider.unreachable"}
        # One that is only connected to says so too.
        assert problems(check_providers(config("anthropic", url), offline=False)) == {
            "provider.unreachable"
        }


def test_without_a_way_to_ask_only_a_connection_is_made() -> None:
    with answering((200, LIST)) as (url, heard):
        (found,) = check_providers(config("anthropic", url), offline=False)
    assert found.code == "provider.ok"
    assert heard == [b""]


def test_a_server_without_tls_where_tls_is_asked_for() -> None:
    with answering((200, LIST)) as (url, _):
        secure = config("anthropic", url.replace("http:", "https:"))
        assert problems(check_providers(secure, offline=False)) == {"provider.unreachable"}


def test_a_provider_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers, "SECONDS_MAX", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        found = check_providers(config("openai_compatible", url), offline=False)
        assert time.monotonic() - began < 3
    assert problems(found) == {"provider.unreachable"}


def test_a_provider_that_lists_nothing_is_only_a_warning() -> None:
    with answering((404, b"{}")) as (url, _):
        found = check_providers(config("openai_compatible", url), offline=False)
    assert (wrong(found), problems(found)) == ({"provider.no_list"}, set())
    with answering((429, b"{}")) as (url, _):
        assert wrong(check_providers(config("openai_compatible", url), offline=False)) == set()


def test_all_are_asked_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers, "SECONDS_MAX", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
        text = "".join(
            f'[[providers]]\nid = "p{n}"\nplugin = "openai_compatible"\nbase_url = "{url}"\n'
            for n in range(8)
        )
        began = time.monotonic()
        found = check_providers(parse(tomllib.loads(text), source="x"), offline=False)
        assert time.monotonic() - began < 3
    assert len(found) == 8


def test_nobody_is_asked_offline() -> None:
    with answering() as (url, heard):
        (found,) = check_providers(config("openai_compatible", url), offline=True)
    assert (found.code, heard) == ("providers.not_asked", [])
    assert check_providers(Config(), offline=False)[0].code == "providers.none"


def test_one_that_cannot_be_built_keeps_nobody_back() -> None:
    text = '[[providers]]\nid = "a"\nplugin = "openai_compatible"\n'
    with answering((200, LIST)) as (url, _):
        text += f'[[providers]]\nid = "b"\nplugin = "vllm"\nbase_url = "{url}/v1"\n'
        (found,) = check_providers(parse(tomllib.loads(text), source="x"), offline=False)
    assert found.text == "b lists 2 models"
