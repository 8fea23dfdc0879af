"""Bar B12: what a caller writes into a request leads the appliance nowhere. A canary on both
loopbacks must not be connected to, whichever adapter reads the URL and wherever it stands.

The list of URLs and the tests of the reader itself are in ``tests/plugins/http``.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.appliance import RunningAppliance, appliance
from tests.plugins.http.hostile_urls import urls
from tests.upstreams import anthropic, bedrock_rules, gemini
from tests.upstreams.anthropic import PlayedAnthropic
from tests.upstreams.bedrock import PlayedBedrock
from tests.upstreams.gemini import PlayedGemini
from tests.upstreams.provider import PlayedProvider

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 16
PROVIDER = """
[[providers]]
id = "{id}"
plugin = "{plugin}"
base_url = "{url}"
api_key = "env:TP_KEY_{upper}"
{settings}
"""
MODEL = """
[[providers.models]]
id = "{id}"
upstream_id = "{upstream}"
tasks = ["{task}"]
price = {{ input = "1", output = "1" }}
"""
CHAT = "conversational"
SOLD = {
    "anthropic": [("play/anthropic", "claude-sonnet-4-5-20250929", CHAT)],
    "bedrock": [("play/bedrock", "anthropic.claude-3-5-sonnet-20241022-v2:0", CHAT)],
    "gemini": [("play/gemini", "gemini-2.5-flash", CHAT)],
    "vllm": [("play/vllm", "m", CHAT)],
    "openai_compatible": [
        ("play/plain", "m", CHAT),
        ("play/edits", "m", "image-to-image"),
        ("play/films", "m", "text-to-video"),
    ],
}
KEYS = {
    "anthropic": anthropic.KEY,
    "bedrock": bedrock_rules.API_KEY,
    "gemini": gemini.KEY,
    "vllm": "vllm-key",
    "openai_compatible": "plain-key",
}
READERS = ("anthropic", "bedrock", "gemini", "vllm")


@dataclass
class Canary:
    """A server on both loopbacks with a picture. ``knocks`` has a line for each connection."""

    port: int = 0
    knocks: list[str] = field(default_factory=list)

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        at = len(self.knocks)
        self.knocks.append("")
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            self.knocks[at] = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            head = f"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: {len(PNG)}\r\n"
            writer.write(f"{head}\r\n".encode() + PNG)
            await writer.drain()
        writer.close()


@dataclass
class Stage:
    """The appliance between a caller and played providers; the canary stands beside them."""

    running: RunningAppliance
    key: str
    canary: Canary
    played: dict[str, Any]

    def http(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=self.running.base_url,
            headers={"Authorization": f"Bearer {self.key}"},
            timeout=60,
            trust_env=False,
        )


@contextlib.asynccontextmanager
async def open_stage(data_dir: Path, toml: str = "") -> AsyncIterator[Stage]:
    async with AsyncExitStack() as stack:
        canary = Canary()
        server = await asyncio.start_server(canary, "127.0.0.1", 0)
        await stack.enter_async_context(server)
        canary.port = server.sockets[0].getsockname()[1]
        with contextlib.suppress(OSError):  # no IPv6 here, or the port is taken there
            six = await asyncio.start_server(canary, "::1", canary.port)
            await stack.enter_async_context(six)
        plain = await stack.enter_async_context(PlayedProvider())
        played: dict[str, Any] = {
            "anthropic": await stack.enter_async_context(PlayedAnthropic()),
            "bedrock": await stack.enter_async_context(PlayedBedrock()),
            "gemini": await stack.enter_async_context(PlayedGemini()),
            "vllm": plain,
            "openai_compatible": plain,
        }
        parts = ['[routing]\nprobes = false\ndefault_policy = "preferred"\n', toml]
        for name, provider in played.items():
            settings = 'settings = { region = "us-east-1" }' if name == "bedrock" else ""
            id_ = name.replace("_", "-")
            parts.append(
                PROVIDER.format(
                    id=id_,
                    plugin=name,
                    url=provider.base_url,
                    upper=name.upper(),
                    settings=settings,
                )
            )
            for model, upstream, task in SOLD[name]:
                parts.append(MODEL.format(id=model, upstream=upstream, task=task))
        env = {f"TP_KEY_{name.upper()}": key for name, key in KEYS.items()}
        started = appliance(data_dir, "".join(parts), env=env)
        running = await asyncio.to_thread(started.__enter__)
        try:
            key = await asyncio.to_thread(running.user, "ann", "pro")
            yield Stage(running, key, canary, played)
        finally:
            await asyncio.to_thread(started.__exit__, None, None, None)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    async with open_stage(tmp_path_factory.mktemp("ssrf") / "data") as made:
        yield made


def hostile(port: int) -> list[str]:
    """Those of the list that ask no name server and knock at no host of the Internet, should the
    check fail; what names could say is played in ``tests/plugins/http``."""
    found = []
    for url in urls():
        named = re.search(r"//(?:metadata|instance-data|xn--)", url)
        if "93.184" not in url and ".example" not in url and not named:
            found.append(url.replace("{port}", str(port)))
    assert len(found) >= 60
    return found


def picture(url: str) -> list[dict[str, Any]]:
    return [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": url}},
    ]


def document(url: str) -> list[dict[str, Any]]:
    file = {"filename": "a.pdf", "file_data": url}
    return [{"type": "text", "text": "What is this?"}, {"type": "file", "file": file}]


def film(url: str) -> list[dict[str, Any]]:
    return [{"type": "text", "text": "Well?"}, {"type": "video_url", "video_url": {"url": url}}]


def sound(url: str) -> list[dict[str, Any]]:
    audio = {"data": url, "format": "wav"}
    return [{"type": "text", "text": "Well?"}, {"type": "input_audio", "input_audio": audio}]


PARTS = {"picture": picture, "document": document, "film": film, "sound": sound}
FORMS = [
    ("anthropic", "picture"),
    ("anthropic", "document"),
    ("bedrock", "picture"),
    ("bedrock", "document"),
    ("gemini", "picture"),
    ("gemini", "document"),
    ("gemini", "film"),
    ("gemini", "sound"),
    ("vllm", "picture"),
    ("vllm", "film"),
]


def chat(model: str, content: Any, **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": content}]
    return {"model": model, "messages": messages, "max_tokens": 20, **more}


async def post_all(stage: Stage, path: str, bodies: Sequence[dict[str, Any]]) -> list[Any]:
    """All of them, eight at a time."""
    gate = asyncio.Semaphore(8)
    async with stage.http() as http:

        async def one(body: dict[str, Any]) -> httpx.Response:
            async with gate:
                return await http.post(path, json=body)

        return await asyncio.gather(*(one(body) for body in bodies))


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(("provider", "form"), FORMS)
async def test_urls_in_messages(stage: Stage, provider: str, form: str, stream: bool) -> None:
    found = hostile(stage.canary.port)
    bodies = [chat(f"play/{provider}", PARTS[form](url), stream=stream) for url in found]
    answers = await post_all(stage, "/v1/chat/completions", bodies)
    for url, answer in zip(found, answers, strict=True):
        error = answer.json()["error"]
        assert (answer.status_code, error["type"]) == (400, "invalid_request_error"), url
        assert "Errno" not in error["message"]
    assert stage.canary.knocks == []


@pytest.mark.parametrize(
    ("path", "model", "where"),
    [
        ("/v1/images/edits", "play/edits", "images"),
        ("/v1/videos", "play/films", "input_reference"),
    ],
)
async def test_urls_of_pictures_to_work_on(stage: Stage, path: str, model: str, where: str) -> None:
    found = hostile(stage.canary.port)
    named = [{"image_url": url} for url in found]
    bodies = [
        {"model": model, "prompt": "a cat", where: [each] if where == "images" else each}
        for each in named
    ]
    answers = await post_all(stage, path, bodies)
    for url, answer in zip(found, answers, strict=True):
        assert answer.status_code == 400, (url, answer.text)
    assert stage.canary.knocks == []


ELSEWHERE: list[dict[str, Any]] = [
    {"api_base": "{url}"},
    {"base_url": "{url}"},
    {"baseURL": "{url}"},
    {"api_url": "{url}"},
    {"endpoint": "{url}"},
    {"api_key": "sk-mine"},
    {"custom_llm_provider": "openai"},
    {"user_config": {"model_list": [{"litellm_params": {"api_base": "{url}"}}]}},
    {"litellm_params": {"api_base": "{url}"}},
    {"model_list": [{"model_name": "x", "litellm_params": {"api_base": "{url}"}}]},
    {"fallbacks": [{"model": "x", "api_base": "{url}"}]},
    {"extra_body": {"base_url": "{url}"}},
    {"extra_headers": {"Host": "{host}"}},
    {"proxy": "{url}"},
    {"callback_url": "{url}"},
    {"webhook": "{url}"},
    {"provider": {"base_url": "{url}"}},
    {"provider": {"api_base": "{url}"}},
    {"provider": {"order": ["openai-compatible"], "url": "{url}"}},
    {"provider": {"sort": {"by": "price", "base_url": "{url}"}}},
    {"provider": {"hedge": {"after_ms": 1, "url": "{url}"}}},
    {"provider": "{url}"},
    {"provider": ["{url}"]},
    {"models": [{"api_base": "{url}"}]},
    {"stream": True, "stream_options": {"url": "{url}"}},
]


def led_to(canary: Canary, value: Any) -> Any:
    """The same with the canary's address in it."""
    if isinstance(value, dict):
        return {key: led_to(canary, each) for key, each in value.items()}
    if isinstance(value, list):
        return [led_to(canary, each) for each in value]
    if not isinstance(value, str):
        return value
    host = f"127.0.0.1:{canary.port}"
    return value.replace("{url}", f"http://{host}/v1").replace("{host}", host)


async def test_fields_that_would_lead_elsewhere_are_refused(stage: Stage) -> None:
    before = len(stage.played["vllm"].books)
    bodies = [chat("play/plain", "hi", **led_to(stage.canary, more)) for more in ELSEWHERE]
    for body, answer in zip(
        bodies, await post_all(stage, "/v1/chat/completions", bodies), strict=True
    ):
        assert answer.status_code == 400, body
        assert answer.json()["error"]["type"] == "invalid_request_error"
    assert stage.canary.knocks == []
    assert len(stage.played["vllm"].books) == before, "refused before anybody is asked"


async def test_names_that_are_urls_are_no_models(stage: Stage) -> None:
    where = f"127.0.0.1:{stage.canary.port}"
    names = (
        f"http://{where}/v1",
        f"//{where}/m",
        f"play/plain:http://{where}",
        f"{where}/m",
        where,
    )
    bodies = [chat(name, "hi") for name in names]
    bodies += [chat("play/nobody", "hi", models=[name]) for name in names]
    bodies += [chat("play/plain", "hi", provider={"only": [name]}) for name in names]
    for answer in await post_all(stage, "/v1/chat/completions", bodies):
        assert answer.status_code in (400, 404)
    assert stage.canary.knocks == []


async def test_headers_that_would_lead_elsewhere_lead_nowhere(stage: Stage) -> None:
    where = f"127.0.0.1:{stage.canary.port}"
    names = (
        *(
            "X-Base-Url",
            "X-Api-Base",
            "X-Provider-Url",
            "X-Portkey-Custom-Host",
            "Helicone-Target-Url",
        ),
        *("X-Forwarded-Host", "X-Original-Url", "X-Rewrite-Url", "Forwarded", "OpenAI-Base-Url"),
        *("Proxy", "X-Http-Destinationurl", "X-Inference-Provider"),
    )
    async with stage.http() as http:
        for name in names:
            headers = {name: f"http://{where}/v1"}
            answer = await http.post(
                "/v1/chat/completions", json=chat("play/plain", "hi"), headers=headers
            )
            assert answer.headers["x-inference-provider"] == "openai-compatible", name
    assert stage.canary.knocks == []


async def test_what_the_operator_allows_is_read_and_sent_as_data(tmp_path: Path) -> None:
    """The control: the same requests do reach the canary where its network is allowed."""
    allowed = '[egress]\nallowed_networks = ["127.0.0.0/8", "::1/128"]\n'
    async with open_stage(tmp_path / "data", allowed) as stage:
        url = f"http://127.0.0.1:{stage.canary.port}/cat.png"
        bodies = [chat(f"play/{provider}", picture(url)) for provider in READERS]
        answers = await post_all(stage, "/v1/chat/completions", bodies)
        assert [answer.status_code for answer in answers] == [200] * len(READERS), [
            answer.text for answer in answers
        ]
        assert len(stage.canary.knocks) == len(READERS)
        assert all(knock.startswith("GET /cat.png HTTP/1.1\r\n") for knock in stage.canary.knocks)
        heard = "".join(stage.canary.knocks).lower()
        assert not [secret for secret in (*KEYS.values(), stage.key) if secret.lower() in heard]
        assert "authorization" not in heard
        for path, model, where in (
            ("/v1/images/edits", "play/edits", "images"),
            ("/v1/videos", "play/films", "input_reference"),
        ):
            named: Any = {"image_url": url}
            body = {"model": model, "prompt": "a cat"}
            await post_all(stage, path, [{**body, where: [named] if where == "images" else named}])
        assert len(stage.canary.knocks) == len(READERS) + 2
