"""Promise: bad input gets a clear 4xx in OpenAI's shape, and the server lives on."""

import json
import random
import socket
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.appliance import RunningAppliance, appliance

CONFIG = """
[server]
port = 0
body_bytes_max = 65536

[[providers]]
id = "echo"
plugin = "echo"
[[providers.models]]
id = "acme/echo"
free = true
"""
GOOD: dict[str, Any] = {"model": "acme/echo", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with appliance(tmp_path_factory.mktemp("bad-input") / "data", CONFIG) as found:
        yield found


@pytest.fixture(scope="module")
def key(running: RunningAppliance) -> str:
    return running.key()


def malformed_bodies() -> list[bytes]:
    """Over 200 bodies that are wrong in one way each."""
    bodies: list[bytes] = [b"", b" ", b"{", b"}", b"null", b"[]", b'"text"', b"1", b"{]", b"\x00"]
    bodies += [b"\xff\xfe\x00", b'{"model":"\xff"}', b"\xef\xbb\xbf{}", b"{'model':'a'}"]
    bodies += [b"[" * n for n in (10, 100, 10_000, 60_000)]
    bodies += [b'{"a":' * n + b"1" + b"}" * n for n in (65, 500, 9_000)]
    good = json.dumps(GOOD).encode()
    bodies += [good[:n] for n in range(1, len(good) - 1, 3)]
    bodies += [good + b"x", good + good, good.replace(b"hi", b"\xc3\x28"), b"// c\n" + good]
    bodies += [good.replace(b"hi", rb"\ud800"), good.replace(b"hi", rb"a\u0000b")]
    values: list[Any] = [None, True, 3, -1, 1.5, "x", [], {}, [[]], {"a": {}}, 10**30, -(10**400)]
    for name in ("model", "messages"):
        bodies += [json.dumps({**GOOD, name: value}).encode() for value in values if value != "x"]
    for name in (
        *("temperature", "n", "max_tokens", "seed", "stop", "tools", "stream", "top_p"),
        *("logprobs", "response_format", "stream_options"),
    ):
        for value in values:
            accepted = any(name == n and value == v for n, v in ACCEPTED) or value is None
            if not accepted and (name, value) != ("stream", True):
                bodies.append(json.dumps({**GOOD, name: value}).encode())
    for value in values:
        bodies.append(json.dumps({"model": "acme/echo", "messages": [value]}).encode())
        if value is not None:
            message = {"role": "user", "content": value}
            if value not in ("x", []):
                bodies.append(json.dumps({"model": "acme/echo", "messages": [message]}).encode())
        bodies.append(json.dumps({**GOOD, f"made_up_{value!r:.9}": value}).encode())
    for name in ("model", "n", "max_tokens", "stream"):
        bodies.append(good[:-1] + f',"{name}":1,"{name}":2}}'.encode())
    bodies += [good.replace(b'"role": "user"', b'"role": "king"'), b"x" * 60_000]
    return bodies


ACCEPTED = [
    ("temperature", 1.5),
    ("n", 3),
    ("max_tokens", 3),
    ("seed", 3),
    ("seed", -1),
    ("stop", "x"),
    ("stop", []),
    ("tools", []),
]


def post(running: RunningAppliance, key: str, body: bytes, **headers: str) -> httpx.Response:
    return httpx.post(
        f"{running.base_url}/v1/chat/completions",
        content=body,
        headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json", **headers},
        timeout=30,
        trust_env=False,
    )


def check_shape(response: httpx.Response) -> dict[str, Any]:
    """OpenAI's error shape, with the request's id."""
    error: dict[str, Any] = response.json()["error"]
    fields = {"message", "type", "param", "code", "request_id", "metadata"}
    assert fields <= set(error) <= fields | {"availability"}
    assert error["metadata"]["error_type"]
    assert isinstance(error["message"], str)
    assert error["message"]
    assert error["request_id"] == response.headers["inference-id"]
    return error


def test_over_200_malformed_bodies(running: RunningAppliance, key: str) -> None:
    bodies = malformed_bodies()
    random.shuffle(bodies)
    assert len(bodies) >= 200
    for body in bodies:
        response = post(running, key, body)
        assert 400 <= response.status_code < 500, (body[:200], response.status_code)
        check_shape(response)
    assert post(running, key, json.dumps(GOOD).encode()).status_code == 200


def test_wrong_content_types(running: RunningAppliance, key: str) -> None:
    body = json.dumps(GOOD).encode()
    for kind in ("text/plain", "application/x-www-form-urlencoded", "", "multipart/form-data"):
        response = post(running, key, body, **{"Content-Type": kind})
        assert response.status_code == 415
        assert check_shape(response)["code"] == "unsupported_media_type"
    response = post(running, key, body, **{"Content-Encoding": "gzip"})
    assert response.status_code == 415
    assert post(
        running, key, body, **{"Content-Type": "Application/JSON; charset=utf-8"}
    ).is_success


def test_over_large_bodies(running: RunningAppliance, key: str) -> None:
    response = post(running, key, b" " * 70_000)
    assert response.status_code == 413
    assert check_shape(response)["code"] == "request_too_large"

    def chunks() -> Any:
        for _ in range(70):
            yield b" " * 1024

    response = httpx.post(
        f"{running.base_url}/v1/chat/completions",
        content=chunks(),
        headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
        trust_env=False,
    )
    assert response.status_code == 413


def test_keys_that_are_not_good(running: RunningAppliance, key: str) -> None:
    body = json.dumps(GOOD).encode()
    wrong = ["x", "Bearer", key[:-1], key + "a", key.upper(), "' OR 1=1 --", "tp_" + "a" * 60]
    for bad in wrong:
        response = post(running, bad, body)
        assert response.status_code == 401
        error = check_shape(response)
        assert error["code"] == "invalid_api_key"
        assert f" {bad} " not in error["message"]
    response = httpx.post(f"{running.base_url}/v1/chat/completions", content=body, trust_env=False)
    assert response.status_code == 401


def test_unknown_models_routes_and_methods(running: RunningAppliance, key: str) -> None:
    response = post(running, key, json.dumps({**GOOD, "model": "acme/none"}).encode())
    assert (response.status_code, check_shape(response)["code"]) == (404, "model_not_found")
    headers = {"Authorization": f"Bearer {key}"}
    for method, path, status in (
        ("GET", "/v1/models/acme/none", 404),
        ("GET", "/v1/nothing", 404),
        ("GET", "/", 404),
        ("GET", "/v1/chat/completions", 405),
        ("DELETE", "/v1/models", 405),
        ("POST", "/healthz", 405),
        ("GET", "/api/users", 200),
        ("PATCH", "/api/users", 405),
    ):
        response = httpx.request(
            method, f"{running.base_url}{path}", headers=headers, trust_env=False
        )
        assert response.status_code == status, (method, path, response.text)
        if status != 200:
            check_shape(response)
        assert response.headers["inference-id"]


def raw(running: RunningAppliance, data: bytes) -> bytes:
    """Send bytes, read until the server closes or is silent."""
    where = urlsplit(running.base_url)
    with socket.create_connection((where.hostname or "", where.port or 0), timeout=10) as sock:
        sock.sendall(data)
        sock.settimeout(3)
        received = b""
        try:
            while piece := sock.recv(65536):
                received += piece
        except TimeoutError:
            pass
    return received


@pytest.mark.parametrize(
    "head",
    [
        b"GET /healthz HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer a\r\n"
        b"Authorization: Bearer b\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n"
        b"Content-Length: 3\r\n\r\n{}",
        b"GET /healthz HTTP/1.1\r\nHost : a\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nX-Big: " + b"a" * 40_000 + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"nonsense\r\n\r\n",
    ],
)
def test_hostile_heads_are_answered_400_once(running: RunningAppliance, head: bytes) -> None:
    received = raw(running, head)
    assert received.startswith(b"HTTP/1.1 400 ")
    assert received.count(b"HTTP/1.1 400 ") == 1
    head_part, _, body = received.partition(b"\r\n\r\n")
    assert b"inference-id: " in head_part.lower()
    assert json.loads(body)["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("header", ["Host: b", "Authorization: Bearer a", f"X-Big: {'a' * 33_000}"])
def test_nothing_is_answered_behind_a_hostile_head(running: RunningAppliance, header: str) -> None:
    """It may be a part of it that another server before this one took for a request."""
    first = f"GET /healthz HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer a\r\n{header}\r\n\r\n"
    received = raw(running, first.encode() + b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
    assert received.startswith(b"HTTP/1.1 400 ")
    assert b"HTTP/1.1 200 " not in received
    assert b"\r\nconnection: close\r\n" in received


def test_the_server_is_well_after_all_this(running: RunningAppliance) -> None:
    assert httpx.get(f"{running.base_url}/readyz", trust_env=False).status_code == 200
    assert running.process.poll() is None
